"""A cache on a master that sentinels watch: it goes on with whichever server they promote, and serves nothing stale."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from sqlacache.errors import TransportError
from sqlacache.store.breaker import Breaker
from sqlacache.store.transport import Transport
from tests.support.cached import cached
from tests.support.models import User
from tests.support.processes import eventually
from tests.support.reading import Reader
from tests.support.redis_sentinel import RedisSentinel
from tests.support.redis_server import Binary, RedisServer

pytestmark = pytest.mark.integration

Make = Callable[..., Any]
ANY: dict[str, Any] = {"max_bytes": 1, "lease": 1, "on_drop": print}
"""What is not looked at when a store is open already."""
FULL_SERVICE = 10.0
"""Seconds within which every read is a hit again."""


def backend(watch: RedisSentinel, **options: Any) -> dict[str, Any]:
    sentinel = {"service": watch.service, "nodes": watch.sentinels}
    return {"url": "redis://", "sentinel": sentinel, "timeout": 0.2, **options}


async def user(session: AsyncSession) -> Any:
    return await session.get(User, 1)


async def other_user(session: AsyncSession) -> Any:
    return await session.get(User, 2)


async def rename(reader: Reader, name: str, key: int = 1) -> None:
    async with reader.database.transaction() as session:
        (await session.get(User, key)).name = name


async def recovers(*readers: Reader) -> None:
    """Wait until both users are hits again for everybody; whatever is read meanwhile is current."""

    async def hits(reader: Reader) -> bool:
        answers = [await reader.current(read) for read in (user, other_user)]
        return all(answer.hits and answer.hits == answer.decisions for answer in answers)

    for reader in readers:
        await eventually(lambda reader=reader: hits(reader), "full service", patience=FULL_SERVICE)
        assert not reader.cache.backend.breaker.is_open


async def test_the_master_is_found_through_any_sentinel(make_sentinel: Make, file: str, prefix: str) -> None:
    watch = make_sentinel(0)
    sentinel = {"service": watch.service, "nodes": [("127.0.0.1", 1), *watch.sentinels]}
    async with cached(file, backend(watch, sentinel=sentinel), prefix) as reader:
        await reader.warm(user)
        assert watch.master.command("KEYS", f"{prefix}*")


async def test_who_finds_every_connection_taken_waits(make_sentinel: Make, file: str, prefix: str) -> None:
    watch = make_sentinel(0)
    async with cached(file, backend(watch, max_connections=2, timeout=5), prefix, local=None) as reader:
        await reader.warm(user)
        transport = reader.cache.backend.transport
        answers = await asyncio.gather(*(transport.call(b"PING") for _ in range(50)))
        assert {answer.value for answer in answers} == {b"PONG"}
        assert int(watch.master.info()["connected_clients"]) < 10


@pytest.mark.parametrize("planned", [False, True], ids=["killed", "planned"])
async def test_a_promoted_replica_serves_nothing_of_the_old_master(
    make_sentinel: Make, file: str, prefix: str, planned: bool
) -> None:
    watch = make_sentinel()
    async with cached(file, backend(watch), prefix) as one, cached(file, backend(watch), prefix) as other:
        await one.warm(user, other_user)
        await other.hit(user)
        watch.await_replicated()
        run = watch.master.info()["run_id"]
        promoted = watch.failover(kill=not planned)
        assert promoted.info()["run_id"] != run
        assert promoted.command("KEYS", f"{prefix}*"), "it has everything that the old master had"
        assert not (await one.current(user)).hits
        await recovers(other, one)
        await rename(other, "after")
        await one.miss(user, {"row_invalidated"})
        generation = promoted.command("GET", f"{prefix}:generation")
        assert generation.split(b"|")[1].decode() == promoted.info()["run_id"]


async def test_processes_agree_on_the_master_while_the_old_one_still_takes_itself_for_it(
    make_sentinel: Make, file: str, prefix: str
) -> None:
    watch = make_sentinel()
    async with cached(file, backend(watch), prefix) as one, cached(file, backend(watch), prefix) as other:
        await one.warm(user, other_user)
        await other.hit(user)
        watch.await_replicated()
        old = watch.master
        old.pause()
        watch.await_failover(old)
        old.resume()
        async with cached(file, backend(watch), prefix) as newcomer:
            await rename(newcomer, "at the new master")
            await one.current(user)
            await recovers(one, other, newcomer)


async def test_the_pushed_tier_proves_nothing_by_the_old_master(
    make_sentinel: Make, file: str, prefix: str
) -> None:
    watch = make_sentinel()
    async with cached(file, backend(watch), prefix, local="pushed") as one:
        await one.warm(user)
        await eventually(lambda: one.cache.backend.open("main", **ANY).pushed.is_live, "the tier to be live")
        watch.await_replicated()
        old = watch.master
        old.pause()
        watch.await_failover(old)
        old.resume()
        async with cached(file, backend(watch), prefix) as newcomer:
            await rename(newcomer, "at the new master")

            async def is_current() -> bool:
                return bool((await one.ask(user)).value == await one.truth(user))

            await eventually(is_current, "the bound to be kept", patience=4)


async def test_a_lagging_replica_brings_back_old_entries_with_their_old_stamps(
    make_sentinel: Make, file: str, prefix: str
) -> None:
    watch = make_sentinel()
    async with cached(file, backend(watch), prefix) as one, cached(file, backend(watch), prefix) as other:
        await one.warm(user, other_user)
        watch.await_replicated()
        watch.cut_replication()
        await rename(one, "the replica does not hear of this")
        promoted = watch.failover()
        stamp = promoted.command("GET", f"{prefix}:1:main:s:users:1")
        assert stamp is not None and b"|1|" in stamp, "as if nothing had been written"
        assert not (await other.current(user)).hits
        await one.current(user)
        await recovers(one, other)


async def test_a_commit_during_a_failover_is_owed_and_delivered(
    make_sentinel: Make, file: str, prefix: str
) -> None:
    watch = make_sentinel()
    async with cached(file, backend(watch), prefix) as one, cached(file, backend(watch), prefix) as other:
        await one.warm(user, other_user)
        watch.await_replicated()
        old = watch.kill_master()
        await rename(one, "meanwhile")
        assert (await one.cache.health()).status == "owed"
        await one.bypass(user, "backend_unavailable")
        watch.await_failover(old)
        await recovers(one, other)
        assert (await one.cache.health()).status == "ok"


# -- errors that tell of a server's state ------------------------------------------------------------------------------


async def test_a_master_that_became_a_replica_is_let_go(
    every_binary: Binary | None, make_redis: Make, file: str, prefix: str
) -> None:
    server: RedisServer = make_redis(every_binary)
    new: RedisServer = make_redis(every_binary)
    transport = Transport(server.url, timeout=1, options={}, breaker=Breaker())
    script = (b"EVAL", b"return redis.call('SET', KEYS[1], 1)", 1, prefix)
    await asyncio.gather(*(transport.call(b"PING") for _ in range(5)))
    before = int(server.info()["connected_clients"])
    server.command("REPLICAOF", new.host, new.port)
    for command in ((b"SET", prefix, b"1"), script):
        transport.breaker.reset()
        for _ in range(2):
            assert not transport.breaker.is_open
            with pytest.raises(TransportError, match=r"(?i)read only replica"):
                await transport.call(*command)
        assert transport.breaker.is_open
        with pytest.raises(TransportError, match="not asked"):
            await transport.call(b"PING")
    await eventually(lambda: int(server.info()["connected_clients"]) < before, "its connections to be closed")
    server.command("REPLICAOF", "NO", "ONE")
    transport.breaker.reset()
    await transport.call(*script)
    await transport.close()


async def test_a_server_without_memory_is_not_given_up(
    every_binary: Binary | None, make_redis: Make, prefix: str
) -> None:
    server: RedisServer = make_redis(every_binary, maxmemory="1", maxmemory_policy="noeviction")
    failures: list[str] = []
    breaker = Breaker()
    breaker.on_failure = lambda operation, error: failures.append(operation)
    transport = Transport(server.url, timeout=1, options={}, breaker=breaker)
    for _ in range(5):
        with pytest.raises(TransportError, match="maxmemory"):
            await transport.call(b"SET", prefix, b"1")
    assert not breaker.is_open
    assert failures == ["SET"] * 5
    assert (await transport.call(b"GET", prefix)).value is None
    await transport.close()


async def test_a_replica_without_its_master_counts_as_gone(make_redis: Make, prefix: str) -> None:
    replica: RedisServer = make_redis(replica_serve_stale_data="no", replicaof="127.0.0.1 1")
    transport = Transport(replica.url, timeout=1, options={}, breaker=Breaker())
    for _ in range(2):
        with pytest.raises(TransportError, match="MASTER"):
            await transport.call(b"GET", prefix)
    assert transport.breaker.is_open
    await transport.close()
