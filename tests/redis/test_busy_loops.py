"""An event loop that is busy: its own lateness is not held against Redis, and what is being opened is opened once."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from sqlacache.errors import TransportError
from sqlacache.store.breaker import Breaker
from sqlacache.store.subscription import Subscription
from sqlacache.store.transport import Transport
from tests.support.databases import SQLiteDatabases
from tests.support.fleet import READS, reading
from tests.support.models import User
from tests.support.processes import eventually
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.writes import change

pytestmark = pytest.mark.integration

Make = Callable[..., Any]
TIMEOUT = 0.06
SHORT = 0.02
"""Seconds, of a limit and of a turn of the loop; opening a connection takes ten."""
SCRIPT = (b"EVAL", b"return 1", 0)


@asynccontextmanager
async def busy(turn: float = SHORT) -> AsyncIterator[None]:
    """Let every turn of the loop take ``turn`` seconds of work."""
    is_over = False

    async def work() -> None:
        while not is_over:
            until = time.perf_counter() + turn
            while time.perf_counter() < until:
                pass
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        is_over = True
        await task


class Watched:
    """A transport, and what it told of failures."""

    def __init__(self, url: str, timeout: float) -> None:
        self.failures: list[str] = []
        breaker = Breaker()
        breaker.on_failure = lambda operation, error: self.failures.append(operation)
        self.breaker = breaker
        self.transport = Transport(url, timeout=timeout, options={}, breaker=breaker)

    async def look_up(self, seconds: float | None = None) -> Any:
        call = self.transport.call(b"MGET", b"nothing")
        if seconds is not None:
            return await self.transport.in_time(seconds, call)
        return (await call).value


@pytest_asyncio.fixture
async def watch() -> AsyncIterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(url: str, timeout: float = 5.0) -> Watched:
        made.append(Watched(url, timeout))
        return made[-1]

    yield make
    for one in made:
        await one.transport.close()


@pytest.fixture
def silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing may be left to asyncio, which says what was never retrieved or is still pending."""
    yield
    gc.collect()
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]


def opened(server: RedisServer) -> int:
    """Return how many connections the server ever had, this question's included."""
    count: int = server.info()["total_connections_received"]
    return count


def openings() -> list[Any]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "sqlacache connecting"]


# -- the loop is late, and Redis is well -------------------------------------------------------------------------------


async def test_a_cold_process_becomes_warm_while_its_loop_is_busy(
    sqlite_databases: SQLiteDatabases, redis_server: RedisServer, prefix: str
) -> None:
    async with sqlite_databases.fresh() as url:
        backend = {"url": redis_server.url, "timeout": SHORT}
        async with reading(url, backend, prefix=prefix) as reader:
            await reader.cache.backend.transport.close()  # which bind() opened

            async def all_hit() -> bool:
                found = [await reader.ask(read) for read in READS[1:3]]
                return all(answer.hits for answer in found)

            async with busy():
                await eventually(all_hit, "nothing but hits")
                await change(User, 2, name="busy")(reader.database)
                assert not reader.cache.bindings[0].owed
            (decision,) = (await reader.current(READS[1])).decisions
            assert decision.reason == "row_invalidated"


@pytest.mark.parametrize("command", [(b"MGET", b"a"), SCRIPT], ids=["lookup", "script"])
async def test_an_answer_that_came_while_the_loop_stood_still_is_read(
    command: Any, redis_server: RedisServer, watch: Make
) -> None:
    """
    1. The loop stands still for longer than the limit, at any point of a call.
    2. The answer has arrived, or the command has not been sent yet, when the time is up.
    """
    for turns in range(6):
        seen: Watched = watch(redis_server.url, TIMEOUT)
        await eventually(lambda seen=seen: answers(seen, command), "the connection")
        before = opened(redis_server)
        call = asyncio.create_task(seen.transport.call(*command))
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(2 * TIMEOUT)  # noqa: ASYNC251  # the loop is to stand still
        await call
        assert not seen.breaker.is_open
        assert opened(redis_server) == before + 1, "over the connection that was there"


async def answers(seen: Watched, command: Any) -> bool:
    try:
        await seen.transport.call(*command)
    except TransportError:
        seen.breaker.reset()
        return False
    return True


async def test_connections_open_while_turns_of_the_loop_take_long(
    redis_server: RedisServer, watch: Make
) -> None:
    """Each read waits for its own time only, and goes on where the one before it left off."""
    seen: Watched = watch(redis_server.url, SHORT)
    async with busy():
        for command in ((b"MGET", b"a"), SCRIPT):
            await eventually(lambda command=command: answers(seen, command), "an answer")


async def test_a_subscription_goes_on_while_turns_take_as_long_as_its_beat(
    redis_server: RedisServer, make_proxy: Make, watch: Make
) -> None:
    proxy: Proxy = make_proxy(redis_server)
    told: list[str] = []

    class Listener:
        def announced(self, announcement: Any) -> None:
            told.append("announced")

        def lost(self, why: str) -> None:
            told.append(why)

        def proved(self, sent_at: float) -> None:
            told.append("proved")

    seen: Watched = watch(proxy.url, TIMEOUT)
    subscription = Subscription(seen.transport, beat=TIMEOUT)
    subscription.add("channel", Listener())
    subscription.start()
    try:
        await eventually(lambda: "proved" in told, "the first PONG")
        told.clear()
        with proxy.delayed(TIMEOUT / 4):  # so that answers come in the middle of a turn
            async with busy(1.2 * TIMEOUT):
                await eventually(lambda: told.count("proved") >= 4, "further ones")
        assert set(told) == {"proved"}
    finally:
        await subscription.stop()


# -- Redis is not well, and the loop is busy ---------------------------------------------------------------------------


async def test_many_who_wait_for_a_paused_server_open_one_connection_and_count_once(
    redis_server: RedisServer, watch: Make
) -> None:
    seen: Watched = watch(redis_server.url, TIMEOUT)
    before = opened(redis_server)
    with redis_server.paused():
        found = await asyncio.gather(*(seen.look_up() for _ in range(50)), return_exceptions=True)
        assert {type(error) for error in found} == {TransportError}
        await eventually(lambda: not openings(), "the opening to be given up")
    assert len(seen.failures) == 1
    assert not seen.breaker.is_open
    assert opened(redis_server) == before + 2, "theirs, and the one that asks"


async def test_a_server_that_is_gone_opens_the_breaker_also_of_a_busy_loop(
    redis_server: RedisServer, watch: Make
) -> None:
    seen: Watched = watch(redis_server.url, TIMEOUT)

    async def is_open() -> bool:
        with pytest.raises(TransportError):
            await seen.look_up()
        return seen.breaker.is_open

    with redis_server.paused():
        async with busy():
            await eventually(is_open, "the breaker to open")
    assert len(seen.failures) == 2


# -- those who wait come and go ----------------------------------------------------------------------------------------


@pytest.fixture
def proxy(redis_server: RedisServer, make_proxy: Make, silence: None) -> Proxy:
    made: Proxy = make_proxy(redis_server)
    return made


@pytest.fixture
def seen(proxy: Proxy, watch: Make) -> Watched:
    made: Watched = watch(proxy.url)
    return made


@pytest.mark.parametrize("command", [(b"MGET", b"a"), SCRIPT], ids=["lane", "pool"])
async def test_who_no_longer_waits_does_not_end_what_is_being_opened(
    command: Any, proxy: Proxy, seen: Watched
) -> None:
    with proxy.hold("INFO") as held:
        first = asyncio.create_task(seen.transport.call(*command))
        await held.reached()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(TransportError, match="left of what a read may wait"):
            await seen.transport.in_time(0.02, seen.transport.call(*command))
        last = asyncio.create_task(seen.transport.call(*command))
        await asyncio.sleep(0)
        assert len(openings()) == 1
        held.pass_on()
        await last
    assert [request.name for request in proxy.requests].count("INFO") == 1
    assert not seen.failures


@pytest.mark.parametrize("command", [(b"MGET", b"a"), SCRIPT], ids=["lane", "pool"])
async def test_what_nobody_waits_for_is_opened_and_used_by_who_comes_later(
    command: Any, proxy: Proxy, seen: Watched
) -> None:
    with proxy.hold("INFO") as held:
        with pytest.raises(TransportError, match="left of what a read may wait"):
            await seen.transport.in_time(0.02, seen.transport.call(*command))
        await held.reached()
        held.pass_on()
        await eventually(lambda: not openings(), "it to be open")
    await seen.transport.call(*command)
    assert [request.name for request in proxy.requests].count("INFO") == 1
    assert proxy.connections == 1


async def test_what_failed_while_nobody_waited_counts_once(proxy: Proxy, seen: Watched) -> None:
    for command in ((b"MGET", b"a"), SCRIPT):
        seen.failures.clear()
        seen.breaker.reset()
        with proxy.hold("INFO") as held:
            with pytest.raises(TransportError, match="left of what a read may wait"):
                await seen.transport.in_time(0.02, seen.transport.call(*command))
            await held.reached()
            held.drop()
            await eventually(lambda: not openings(), "it to fail")
        assert seen.failures == ["CONNECT"]
        assert await answers(seen, command)


async def test_disconnecting_ends_what_is_being_opened(proxy: Proxy, seen: Watched) -> None:
    for command in ((b"MGET", b"a"), SCRIPT):
        with proxy.hold("INFO") as held:
            call = asyncio.create_task(seen.transport.call(*command))
            await held.reached()
            await seen.transport.close()
            assert not openings()
            with pytest.raises(TransportError, match="closed while it was being opened"):
                await call
        await eventually(lambda: not proxy.connections, "the connection to be closed")
    assert not seen.failures


async def test_disconnecting_before_the_first_step_of_it(
    redis_server: RedisServer, watch: Make, silence: None
) -> None:
    seen: Watched = watch(redis_server.url)
    call = asyncio.create_task(seen.look_up())
    await asyncio.sleep(0)
    assert len(openings()) == 1
    await seen.transport.close()
    with pytest.raises(TransportError, match="closed while it was being opened"):
        await call
    assert await seen.look_up() == [None]


def test_a_loop_that_ends_ends_what_is_being_opened(
    redis_server: RedisServer, make_proxy: Make, caplog: pytest.LogCaptureFixture, silence: None
) -> None:
    proxy: Proxy = make_proxy(redis_server)
    seen = Watched(proxy.url, 5.0)

    async def leave() -> None:
        with proxy.hold("INFO") as held:
            with pytest.raises(TransportError):
                await seen.look_up(0.02)
            await held.reached()
            assert len(openings()) == 1

    async def come() -> Any:
        await eventually(lambda: not proxy.connections, "the former connection to be closed")
        found = await seen.look_up()
        assert not openings()
        await seen.transport.close()
        return found

    for _ in range(2):
        asyncio.run(leave())
        assert asyncio.run(come()) == [None]
    assert not seen.failures
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
