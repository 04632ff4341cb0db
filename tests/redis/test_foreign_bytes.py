"""Foreign types and damaged bytes under every kind of our keys: reads are right, commits succeed, hits come back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any
from zlib import crc32

import msgpack
import pytest
import pytest_asyncio
import redis

from sqlacache.decisions import Cause
from sqlacache.store.records import _ENTRY, _MAGIC, encode_cause
from tests.support.databases import SQLiteDatabases
from tests.support.fleet import LOCAL, READS, caught_up, reading, settled, user
from tests.support.models import User
from tests.support.reading import Reader
from tests.support.redis_server import RedisServer
from tests.support.writes import change

pytestmark = pytest.mark.integration

KINDS = {
    "entry": "*:e:*",
    "stamp": "*:s:*",
    "registry": "*:r:*",
    "writers": "*:w:*",
    "generation": "*:generation",
    "fence": "*:fence",
    "mode": "*:mode",
    "sequence": "*:commits:sequence",
}
TYPES: dict[str, Callable[[redis.Redis, bytes], Any]] = {
    "string": lambda server, key: server.set(key, b"\xff\x00 no such thing |:,"),
    "empty": lambda server, key: server.set(key, b""),
    "list": lambda server, key: server.rpush(key, b"\xff", b"1"),
    "set": lambda server, key: server.sadd(key, b"\xff"),
    "hash": lambda server, key: server.hset(key, mapping={b"": b"\xff", b"\xfe": b"\xff"}),
    "zset": lambda server, key: server.zadd(key, {b"\xff": float("inf")}),
    "stream": lambda server, key: server.xadd(key, {b"\xff": b"\xff"}),
}


def _header(*header: Any) -> bytes:
    data = msgpack.packb(header)
    return b"".join((_ENTRY.pack(_MAGIC, crc32(data), len(data)), data))


def _entries(generation: bytes) -> list[bytes]:
    """Entries whose checksum fits and whose header does not."""
    return [
        b"sqle",
        _header(),
        _header(generation, 1, 2, 3, 4, 5),
        _header(generation, [1, 2, 3, 4], 0.0, 0.0, 0.0, 0),
        _header(generation, [["users#table", "x", None]] * 4, "now", None, [], {}),
        _header(generation, [["users#table", "x", None]] * 4, 1.0, 2.0, 3.0, 4),
        _header(generation, [["*", 1]] * 4, 1.0, 2.0, 3.0, 4),
        _header(None, {"a": 1}, 1, 1, 1, 1),
        _header(generation, [], float("nan"), float("inf"), 0.0, -1),
    ]


NONCE = b"0123456789abcdef"
LOOK_LIKE_OURS: dict[str, list[bytes]] = {
    "stamp": [
        b"abc|1|1000||",
        NONCE + b"|1|1000||",
        NONCE + b"|1|99999999999999999999||",
        NONCE + b"|9999999999999999999999999|1000||",
        NONCE + b"|1|1000|token:99999999999999|",
        NONCE + b"|1|1000|token:9999999999999999999999|",
        NONCE + b"|1|1000|no token|",
        NONCE + b"|1|1000|:,,:|",
        NONCE + b"|1|1000||" + b"[" * 100_000,
        NONCE + b'|1|1000||["row_update","t",[],null,"",1,Infinity,"h",null]',
        NONCE + b'|1|1000||["row_update","t",1,2,3,NaN,4,5,6]',
        b"-abc| 1|1000||",
    ],
    "fence": [b"1", b"2", b"-1", "²".encode()],
    "mode": [b"banana", b"ON", b"\xff"],
    "generation": [b"1|", b"|||", b"9" * 50, b"1|wrong|0"],
    "sequence": [b"9223372036854775807", b"-9223372036854775808", b"-5"],
}


@pytest_asyncio.fixture
async def readers(
    sqlite_databases: SQLiteDatabases, redis_server: RedisServer, prefix: str
) -> AsyncIterator[list[Reader]]:
    backend = {"url": redis_server.url, "timeout": 2, "bound": 0.4}
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(sqlite_databases.fresh())
        yield [
            await stack.enter_async_context(
                reading(url, backend, prefix=prefix, local=local, name=str(local), lease=1)
            )
            for local in LOCAL
        ]


async def keys_of(kind: str, server: redis.Redis, readers: list[Reader]) -> list[bytes]:
    layout = readers[0].cache.bindings[0].store.layout
    named = {
        "fence": [layout.fence("users")],
        "mode": [layout.mode],
        "writers": [layout.writers("users"), layout.writers("*")],
    }
    if kind in named:
        return [name.encode() for name in named[kind]]
    found: list[bytes] = list(server.scan_iter(KINDS[kind]))
    assert found, f"no key of kind {kind}"
    return found


async def works(readers: list[Reader], round: int) -> None:
    """Reads are right, a commit succeeds and is seen by everybody, and hits come back."""
    writer = readers[0]
    for reader in readers:
        for read in READS:
            await reader.current(read)
    name, plan = f"round{round}", ("pro", "free")[round % 2]
    await change(User, 1, name=name, plan=plan)(writer.database)
    for reader in readers:
        await caught_up(reader)
        for read in READS:
            await reader.current(read)
        await settled(reader, *READS)
        assert not reader.cache.backend.breaker.is_open


@pytest.mark.parametrize("kind", KINDS)
async def test_another_type_or_noise_under_a_key(
    readers: list[Reader], redis_server: RedisServer, kind: str
) -> None:
    with redis_server.client() as server:
        await works(readers, 0)
        for round, (name, plant) in enumerate(TYPES.items(), start=1):
            for key in await keys_of(kind, server, readers):
                server.delete(key)
                plant(server, key)
            try:
                await works(readers, round)
            except BaseException as error:
                raise AssertionError(f"{kind} as {name}") from error
        for reader in readers:
            assert (await reader.cache.health()).status == "ok"


@pytest.mark.parametrize("kind", ["entry", *LOOK_LIKE_OURS])
async def test_bytes_that_look_like_ours_under_a_key(
    readers: list[Reader], redis_server: RedisServer, kind: str
) -> None:
    with redis_server.client() as server:
        await works(readers, 0)
        generation = server.get(readers[0].cache.bindings[0].store.layout.generation("users"))
        assert isinstance(generation, bytes)
        forged = _entries(generation) if kind == "entry" else LOOK_LIKE_OURS[kind]
        for round, data in enumerate(forged, start=1):
            for key in await keys_of(kind, server, readers):
                server.set(key, data)
            try:
                await works(readers, round)
            except BaseException as error:
                raise AssertionError(f"{kind} as {data[:60]!r}") from error


@pytest.mark.parametrize("kind", ["entry", "stamp", "registry"])
async def test_damaged_bytes_under_a_key(readers: list[Reader], redis_server: RedisServer, kind: str) -> None:
    """Each byte of the beginning changed, and cut short; the hash of shapes has each of its values changed."""
    reader = readers[0]
    with redis_server.client() as server:
        await works(readers, 0)
        (key, *_) = [
            key for key in await keys_of(kind, server, readers) if b"users:get" in key or b"users:1" in key
        ] or [key for key in await keys_of(kind, server, readers) if key.endswith(b"users")]
        for position in range(0, 120, 5):
            if kind == "registry":
                for name, value in server.hgetall(key).items():
                    server.hset(
                        key,
                        name,
                        value[: position % len(value)] + b"\xc1" + value[1 + position % len(value) :],
                    )
            else:
                value = server.get(key) or b"gone"
                assert isinstance(value, bytes)
                cut = value[:position] if position % 2 else value[:position] + b"\xc1" + value[position + 1 :]
                server.set(key, cut, keepttl=True)
            await reader.current(user(1))
            if position % 3 == 0:
                await change(User, 1, name=f"round{position}")(reader.database)
            await reader.current(user(1))
        for one in readers:
            await settled(one, *READS)


async def test_noise_on_the_channels_is_survived(readers: list[Reader], redis_server: RedisServer) -> None:
    layout = readers[0].cache.bindings[0].store.layout
    cause = encode_cause(Cause("row_update", "users", (), None, "", 0.0, 1, "host", None)).decode()
    noise = [
        b"",
        b"\xff",
        b"1|",
        b"x|[]",
        b"1|[1,2,3]",
        b"1|" + b"[" * 100_000,
        b'1|[1,"o",Infinity,1.0,[]]',
        b'1|[1,"o",2,1e999,[["users",null,null]]]',
        b'Infinity|[1,"o",2,1.0,[]]',
        b'1|[1,"o",2,1.0,[["users",5,null]]]',
        b"1|" + json.dumps([1, "o", 2, "now", [["users", ["\ud800"], cause]]]).encode(),
        b"1|" + json.dumps([99, "o", 2, 1.0, []]).encode(),
        b"-7|" + json.dumps([1, "o", 2, 1.0, [["users", [], "[[["]]]).encode(),
    ]
    await works(readers, len(noise) + 1)  # and so the tier is subscribed
    with redis_server.client() as server:
        for round, data in enumerate(noise):
            assert server.publish(layout.channel, data) == 1, "the pushed tier listens"
            server.publish(layout.generation("users"), data)
            if round % 4 == 0:
                await works(readers, round)
        assert server.publish(layout.channel, b"") == 1, "it still does"
    await works(readers, len(noise))
