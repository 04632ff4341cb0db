"""Lookups that are made at the same time share one connection, and get what each asked for, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from sqlacache.backend import Sentinel
from sqlacache.errors import TransportError
from sqlacache.store.breaker import Breaker
from sqlacache.store.transport import MAX_CONNECTIONS, Transport
from tests.support.processes import eventually
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.integration

Make = Callable[..., Any]
Open = Callable[..., Transport]
MANY = 200


@pytest_asyncio.fixture
async def open_transport() -> AsyncIterator[Open]:
    """Make a transport to a URL; a call may take a second unless told otherwise."""
    made: list[Transport] = []

    def make(url: str, timeout: float = 1.0, **options: Any) -> Transport:
        made.append(Transport(url, timeout=timeout, options=options, breaker=Breaker()))
        return made[-1]

    yield make
    for transport in made:
        await transport.close()


@pytest.fixture
def numbered(redis_server: RedisServer) -> RedisServer:
    """A server that has a number at each of many keys."""
    redis_server.command("MSET", *(part for number in range(MANY) for part in (f"key{number}", number)))
    return redis_server


async def asks(transport: Transport, number: int) -> bytes | None:
    value: bytes | None = (await transport.call(b"MGET", f"key{number}")).value[0]
    return value


async def ask_all(transport: Transport) -> None:
    answers = await asyncio.gather(*(asks(transport, number) for number in range(MANY)))
    assert answers == [b"%d" % number for number in range(MANY)]


async def test_many_at_once_share_a_connection(
    numbered: RedisServer, make_proxy: Make, open_transport: Open
) -> None:
    proxy: Proxy = make_proxy(numbered)
    transport = open_transport(proxy.url)
    await asks(transport, 0)
    with proxy.counting() as sent:
        await ask_all(transport)
    assert sent == {"MGET": MANY}
    assert proxy.connections == 1
    await transport.call(b"SET", b"other", b"1")
    assert proxy.connections == 2, "what may not be repeated goes by a connection of the pool"


async def test_the_first_ones_wait_for_it_together(numbered: RedisServer, open_transport: Open) -> None:
    transport = open_transport(numbered.url, timeout=30)
    await ask_all(transport)
    assert int(numbered.info()["connected_clients"]) == 2, "the lane, and who asks"


async def test_it_is_none_of_the_connections_that_were_allowed(
    numbered: RedisServer, open_transport: Open
) -> None:
    transport = open_transport(numbered.url, timeout=30, max_connections=1)
    await ask_all(transport)
    assert (await transport.call(b"PING")).value == b"PONG"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sqlacache.store.wire_async.transport_of", lambda connection: None),
        ("sqlacache.store.lane.HAS_HIREDIS", False),
    ],
    ids=["another redis-py", "no hiredis"],
)
async def test_without_one_lookups_go_by_the_pool(
    name: str, value: Any, numbered: RedisServer, open_transport: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name, value)
    transport = open_transport(numbered.url, timeout=30)
    await ask_all(transport)
    assert await transport._pool().lane(5) is None
    assert int(numbered.info()["connected_clients"]) <= MAX_CONNECTIONS + 1


async def test_large_answers_come_whole_and_in_order(redis_server: RedisServer, open_transport: Open) -> None:
    sizes = [3_000_000, 0, 1, 70_000]
    for number, size in enumerate(sizes):
        redis_server.command("SET", f"key{number}", b"\r\n" * size)
    transport = open_transport(redis_server.url, timeout=10)
    await transport.call(b"MGET", b"nothing")
    answers = await asyncio.gather(*(asks(transport, number) for number in range(len(sizes))))
    assert answers == [b"\r\n" * size for size in sizes]


async def test_who_no_longer_waits_leaves_the_answers_of_others_alone(
    numbered: RedisServer, make_proxy: Make, open_transport: Open
) -> None:
    proxy: Proxy = make_proxy(numbered)
    transport = open_transport(proxy.url)
    await asks(transport, 0)
    lane = await transport._pool().lane(1)
    with proxy.hold(lambda command: command[:2] == (b"MGET", b"key1")) as held:
        leaving = asyncio.create_task(asks(transport, 1))
        staying = asyncio.create_task(asks(transport, 2))
        await held.reached()
        leaving.cancel()
        held.pass_on()
        assert await staying == b"2"
    assert await asks(transport, 3) == b"3"
    assert await transport._pool().lane(1) is lane


async def test_what_cannot_be_sent_leaves_the_answers_of_others_alone(
    numbered: RedisServer, open_transport: Open
) -> None:
    transport = open_transport(numbered.url)
    await asks(transport, 0)
    with pytest.raises(UnicodeEncodeError):
        await transport.call(b"MGET", "\udc80")
    await ask_all(transport)


async def test_an_error_is_told_as_by_any_other_connection(
    numbered: RedisServer, open_transport: Open
) -> None:
    numbered.command("ACL SETUSER", "narrow", "on", ">secret", "~key1", "+@all")
    transport = open_transport(numbered.url, username="narrow", password="secret")
    for _ in range(3):
        with pytest.raises(TransportError, match="MGET: NoPermissionError"):
            await asks(transport, 2)
        assert await asks(transport, 1) == b"1"
    assert not transport.breaker.is_open


async def test_it_does_not_go_on_at_a_former_master(make_sentinel: Make) -> None:
    """
    1. The lane asks the sentinels for the master, and connects to it.
    2. Another connection hears of a new one, and closes those that are idle. The lane is not there yet.
    """
    watch = make_sentinel(0)
    sentinel = Sentinel(watch.service, tuple(watch.sentinels))
    transport = Transport("redis://", timeout=1, options={}, breaker=Breaker(), sentinel=sentinel)
    try:
        await asks(transport, 0)
        pool = transport._pool()
        lane = await pool.lane(1)
        pool.master_address = ("127.0.0.1", 1)
        assert await pool.lane(1) is not lane
        assert not lane.is_open
        assert await asks(transport, 0) is None
    finally:
        await transport.close()


async def test_another_run_of_the_server_is_noticed(numbered: RedisServer, open_transport: Open) -> None:
    transport = open_transport(numbered.url)
    before = (await transport.call(b"MGET", b"key1")).run
    assert before.decode() == numbered.info()["run_id"]
    numbered.restart()
    after = await transport.call(b"MGET", b"key1")
    assert after.value == [None]
    assert after.run.decode() == numbered.info()["run_id"] != before.decode()


async def test_a_connection_that_died_in_silence_is_left(
    numbered: RedisServer, make_proxy: Make, open_transport: Open
) -> None:
    proxy: Proxy = make_proxy(numbered)
    transport = open_transport(proxy.url, timeout=0.3)
    await asks(transport, 0)
    proxy.stall()
    with pytest.raises(TransportError, match="MGET: TimeoutError"):
        await asks(transport, 1)
    assert await asks(transport, 1) == b"1"


async def test_who_asked_later_has_as_much_time_as_who_asked_first(
    numbered: RedisServer, make_proxy: Make, open_transport: Open
) -> None:
    """
    1. The server answers late. Whoever asked first has waited long enough; later ones open another connection.
    2. Whoever asked in between gets their answer from the first one all the same.
    """
    proxy: Proxy = make_proxy(numbered)
    transport = open_transport(proxy.url, timeout=0.5)
    await asks(transport, 0)
    lane = await transport._pool().lane(0.5)
    with proxy.hold(lambda command: command[:2] == (b"MGET", b"key1")) as held:
        first = asyncio.create_task(asks(transport, 1))
        await held.reached()
        lane._timeout = 30
        between = asyncio.create_task(asks(transport, 2))
        with pytest.raises(TransportError, match="MGET: TimeoutError"):
            await first
        assert await asks(transport, 3) == b"3"
        assert await transport._pool().lane(0.5) is not lane
        assert not between.done()
        held.pass_on()
        assert await between == b"2"
    assert not lane.is_used


async def test_it_is_left_also_if_nobody_waited_long_enough_to_find_out(
    numbered: RedisServer, make_proxy: Make, open_transport: Open
) -> None:
    proxy: Proxy = make_proxy(numbered)
    transport = open_transport(proxy.url, timeout=0.3)
    await asks(transport, 0)
    lane = await transport._pool().lane(0.3)
    proxy.stall()
    with pytest.raises(TransportError, match="left of what a read may wait"):
        await transport.in_time(0.05, asks(transport, 1))
    await eventually(lambda: not lane.is_open, "the answer to be overdue")
    assert await asks(transport, 1) == b"1"


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 400 Bad Request\r\n", b"+OK\r\n", b"$1\r\na\r\n", b"*x\r\n", b"*1\r\n$x\r\n"],
    ids=["another protocol", "a status", "a string", "no length", "no size"],
)
async def test_what_is_not_understood_ends_it(
    said: bytes, numbered: RedisServer, open_transport: Open
) -> None:
    transport = open_transport(numbered.url)
    await asks(transport, 0)
    lane = await transport._pool().lane(1)
    asking = asyncio.create_task(asks(transport, 1))
    await asyncio.sleep(0)
    lane.data_received(said)
    assert await asking == b"1", "asked again by another connection"
    assert not lane.is_open
