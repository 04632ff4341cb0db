"""Redis that is cut off, paused, slow, emptied or full: reads are right, commits succeed, and everything comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from sqlacache import TransportError
from tests.support.fleet import READS, Load, count, listed, reading, settled, user
from tests.support.models import Order, User
from tests.support.processes import eventually
from tests.support.proxy import Proxy
from tests.support.reading import Reader
from tests.support.reads import get
from tests.support.redis_server import RedisServer
from tests.support.writes import change

pytestmark = pytest.mark.integration

Make = Callable[..., Any]
TIMEOUT = 0.25


class Two(NamedTuple):
    """Two caches on one Redis: ``near`` asks through a proxy, ``far`` directly."""

    near: Reader
    far: Reader
    proxy: Proxy
    server: RedisServer


@pytest_asyncio.fixture
async def two(file: str, redis_server: RedisServer, make_proxy: Make, prefix: str) -> AsyncIterator[Two]:
    proxy = make_proxy(redis_server)
    near = reading(file, {"url": proxy.url, "timeout": TIMEOUT}, prefix=prefix, name="near", lease=2)
    far = reading(file, {"url": redis_server.url, "timeout": 2}, prefix=prefix, name="far", lease=2)
    async with near as one, far as other:
        yield Two(one, other, proxy, redis_server)
        proxy.heal()


async def status(reader: Reader) -> str:
    found: str = (await reader.cache.health()).status
    return found


async def is_well(reader: Reader) -> None:
    async def ok() -> bool:
        return await status(reader) == "ok"

    await eventually(ok, "the cache to be well again", 10)


async def breaks(reader: Reader) -> None:
    """Read until nobody waits for the server any more."""

    async def is_open() -> bool:
        await reader.bypass(user(2), "backend_unavailable")
        return bool(reader.cache.backend.breaker.is_open)

    await eventually(is_open, "the breaker to open")


@pytest.mark.parametrize("how", ["refuse", "blackhole"])
async def test_cut_off_and_healed_with_writes_on_both_sides(two: Two, how: Any) -> None:
    near, far, proxy, _ = two
    for reader in (near, far):
        await settled(reader, *READS)
    assert await status(near) == "ok"
    proxy.cut(how)

    await change(User, 1, name="near", plan="pro")(near.database)  # succeeds
    await change(User, 2, name="far")(far.database)
    assert await status(near) == "owed"
    assert await status(far) == "ok"
    health = await near.cache.health()
    assert health.ready
    assert not (await near.cache.health(strict=True)).ready
    assert any("users" in reason for reason in health.reasons)
    for read in READS:
        await near.bypass(read, "backend_unavailable")
    # Only what is owed may be stale, and only while it is.
    await far.current(user(2))

    proxy.heal()
    await is_well(near)
    for reader in (near, far):
        for read in READS:
            await reader.current(read)
        await settled(reader, *READS)
    decision = (await far.ask(user(1))).decisions[0]
    assert decision.decision == "hit"


async def test_what_was_delivered_late_names_the_write(two: Two) -> None:
    near, far, proxy, _ = two
    await settled(near, user(1))
    await settled(far, user(1))
    proxy.cut()
    await change(User, 1, name="near")(near.database)
    proxy.heal()
    await is_well(near)
    (missed,) = (await far.miss(user(1), {"row_invalidated"})).misses
    assert missed.cause is not None
    assert missed.cause.keys == ("users:1",)


async def test_a_shape_registered_elsewhere_while_cut_off_is_touched_by_what_is_owed(two: Two) -> None:
    """
    1. The writer is cut off. Another process registers a shape that the writer has never heard of, and fills.
    2. The writer commits, and owes.
    3. What is owed is delivered under the registry as it is by then.
    """
    near, far, proxy, _ = two
    await settled(near, user(1))
    proxy.cut()
    await settled(far, count("free"), listed("pro"))
    await change(User, 1, name="near", plan="pro")(near.database)
    proxy.heal()
    await is_well(near)
    for read in (count("free"), listed("pro"), user(1)):
        await far.current(read)


async def test_tables_that_nothing_is_owed_of_are_served_meanwhile(two: Two) -> None:
    """One lost command does not keep the rest of the cache from working: only the table owed is bypassed."""
    near, _, proxy, _ = two
    await settled(near, user(1))
    proxy.cut("blackhole")
    await change(User, 1, name="near")(near.database)
    assert near.cache.bindings[0].owed.tables == {"users"}
    assert near.cache.bindings[0].owed.meets(["users", "teams"])
    assert not near.cache.bindings[0].owed.meets(["teams"])
    proxy.heal()
    await is_well(near)
    assert near.cache.bindings[0].owed.tables == frozenset()


async def test_a_commit_is_refused_before_it_happens_if_that_is_asked_for(
    file: str, redis_server: RedisServer, make_proxy: Make, prefix: str
) -> None:
    proxy = make_proxy(redis_server)
    backend = {"url": proxy.url, "timeout": TIMEOUT}
    async with reading(file, backend, prefix=prefix, on_error="raise") as reader:
        await settled(reader, user(1))
        proxy.cut()
        with pytest.raises(TransportError):
            await change(User, 1, name="never")(reader.database)
        row = (await reader.ask(user(1))).value
        assert row == await reader.truth(user(1))
        assert await status(reader) == "degraded"
        assert not reader.cache.bindings[0].owed
        proxy.heal()
        await is_well(reader)
        await settled(reader, user(1))
        await change(User, 1, name="now")(reader.database)
        await reader.current(user(1))


async def test_very_many_commits_while_cut_off_become_one_invalidation(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlacache.write.owed.MAX_OWED", 3)
    near, far, proxy, _ = two
    for reader in (near, far):
        await settled(reader, *READS)
    owed = near.cache.bindings[0].owed
    proxy.cut()
    for number in range(6):
        await change(User, 1, name=f"name {number}")(near.database)
        assert len(owed) <= 3
    assert owed.meets(["teams"])
    proxy.heal()
    await is_well(near)
    assert owed.tables == frozenset()
    for reader in (near, far):
        for read in READS:
            await reader.current(read)
        await settled(reader, *READS)


async def test_a_rollback_while_cut_off_owes_nothing(two: Two) -> None:
    near, _, proxy, _ = two
    await settled(near, user(1))
    proxy.cut()
    async with near.database.sessions() as session:
        (await session.get(User, 1)).name = "never"
        await session.flush()
        await session.rollback()
    assert not near.cache.bindings[0].owed
    assert near.cache.bindings[0].owed.tables == frozenset()


async def test_disconnect_says_what_it_could_not_deliver(
    two: Two, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlacache.core.OWED_WAIT", 0.3)
    near, _, proxy, _ = two
    await settled(near, user(1))
    proxy.cut()
    await change(User, 1, name="near")(near.database)
    with caplog.at_level(logging.ERROR, "sqlacache"):
        await near.cache.disconnect()
    (said,) = [record.getMessage() for record in caplog.records if "not delivered" in record.getMessage()]
    assert "users" in said


async def test_disconnect_waits_for_what_is_owed(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    near, far, proxy, _ = two
    await settled(far, user(1))
    proxy.cut()
    await change(User, 1, name="near")(near.database)
    disconnecting = asyncio.create_task(near.cache.disconnect())
    await asyncio.sleep(0)
    assert not disconnecting.done()
    proxy.heal()
    await disconnecting
    assert "not delivered" not in caplog.text
    await far.current(user(1))


async def test_a_paused_server_is_asked_a_few_times_and_then_not_at_all(two: Two) -> None:
    near, _, proxy, server = two
    await settled(near, *READS)
    with server.paused():
        with proxy.counting() as asked:
            await breaks(near)
        assert asked.get("MGET", 0) <= 2
        assert asked.trips <= 2
        with proxy.counting() as asked:  # but for the probe's PING
            for read in READS * 4:
                await near.bypass(read, "backend_unavailable")
            await change(User, 1, name="new", plan="pro")(near.database)
            assert asked == {}
        assert await status(near) == "owed"
    await is_well(near)
    for read in READS:
        await near.current(read)
    await settled(near, *READS)


async def test_many_readers_at_once_do_not_wait_one_after_another(two: Two) -> None:
    """Whoever is under way when the server stops has asked once, or twice; nobody else asks.

    1. Forty readers ask at once, and the machine is busy: their time was up long ago when the loop looks at them.
    2. Such a failure says nothing of the server, so none of the forty may count; whoever reads next finds it gone.
    """
    near, _, proxy, server = two
    await settled(near, *READS)
    with server.paused():
        with proxy.counting() as asked:
            await asyncio.gather(*(near.ask(user(1 + n % 5)) for n in range(40)))
        assert asked.trips <= 80
        await breaks(near)
    await is_well(near)


async def test_connections_that_died_in_silence_are_not_tried_one_by_one(two: Two) -> None:
    """
    1. Many connections are open, and a firewall forgets all of them: nobody is told, and new ones work.
    2. Whoever takes one of them times out, closes it and reads from the database; the next one opens a new one.
    3. The rest are not tried one after another while everybody stays away.
    """
    near, _, proxy, _ = two
    await settled(near, *READS)

    async def many_are_open() -> bool:
        # Lookups share a connection; what is no lookup takes one of the pool.
        call = near.cache.backend.transport.call
        with proxy.delayed(TIMEOUT / 4):
            await asyncio.gather(*(call(b"GET", b"nothing") for _ in range(30)), return_exceptions=True)
        # On a busy machine calls time out, which closes their connections.
        return proxy.connections >= 5 and await status(near) == "ok"

    await eventually(many_are_open, "many connections to be open")
    proxy.stall()
    with proxy.counting(ignoring=set()) as asked:
        await asyncio.gather(*(near.ask(user(1 + n % 5)) for n in range(10)))
        await is_well(near)
        assert asked.get("PING", 0) <= 4
    await settled(near, *READS)


async def test_answering_slowly_is_not_an_outage_until_it_takes_too_long(two: Two) -> None:
    near, _, proxy, _ = two
    await settled(near, *READS)
    with proxy.delayed(TIMEOUT / 10):
        for read in READS:
            await near.hit(read)
        await change(User, 1, name="slow")(near.database)
        await near.current(user(1))
        assert await status(near) == "ok"
    with proxy.delayed(TIMEOUT * 3):
        await breaks(near)
        await change(User, 1, name="slower", plan="pro")(near.database)
        for read in READS:
            await near.current(read)
    await is_well(near)
    await settled(near, *READS)


async def test_the_calls_of_one_read_share_its_time(two: Two) -> None:
    """A lookup that took most of it leaves a seed what is left, and a fill nothing: the read goes to the database."""
    near, _, proxy, _ = two
    await settled(near, *READS)
    with proxy.delayed(TIMEOUT * 0.7):
        with proxy.counting() as sent:
            await near.bypass(user(5), "backend_unavailable")
        assert sent.get("MGET") == 1
        assert sent.get("EVALSHA", 0) <= 1
    await is_well(near)
    await settled(near, user(5))


async def test_a_commit_whose_answers_are_lost_is_settled_all_the_same(two: Two) -> None:
    near, far, proxy, _ = two
    for nth in range(2):
        for reader in (near, far):
            await settled(reader, *READS)
        seen = 0

        def is_nth(command: Any, nth: int = nth) -> bool:
            nonlocal seen
            seen += command[0] in (b"EVALSHA", b"EVAL")
            return seen == nth + 1

        with proxy.losing_reply(is_nth):
            await change(User, 1, name=f"lost{nth}", plan=("pro", "free")[nth])(near.database)
        for read in READS:
            await near.current(read)
            await far.current(read)
    await is_well(near)


async def test_flushall_under_load_takes_nobody_back_in_time(two: Two) -> None:
    near, far, _, server = two
    async with Load(near, near, far) as load:
        for _ in range(5):
            await load.goes_on()
            server.command("FLUSHALL")
        await load.goes_on()
    for reader in (near, far):
        await settled(reader, *READS)


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random"])
async def test_a_server_that_makes_room_at_random_makes_nobody_read_what_is_stale(
    file: str, make_redis: Make, prefix: str, policy: str
) -> None:
    """Stamps, entries, registries and the set of writers leave as the server likes."""
    server = make_redis(maxmemory="3mb", maxmemory_policy=policy)
    backend = {"url": server.url, "timeout": 2}
    near = reading(file, backend, prefix=prefix, name="near")
    far = reading(file, backend, prefix=prefix, name="far", local=None)
    async with near as one, far as other:
        with server.client() as filler:
            async with Load(one, one, other) as load:
                for turn in range(12):
                    with filler.pipeline(transaction=False) as pipeline:
                        for number in range(300):
                            pipeline.set(f"filler:{turn}:{number}", "x" * 2000)
                        pipeline.execute()
                    await load.goes_on(3)
        assert server.info()["evicted_keys"] > 0
        server.command("CONFIG SET", "maxmemory", "0")
        for reader in (one, other):
            await settled(reader, *READS)


async def test_a_server_that_is_full_and_evicts_nothing(file: str, make_redis: Make, prefix: str) -> None:
    """Fills fail; hits go on, and commits still invalidate."""
    server = make_redis(maxmemory="4mb", maxmemory_policy="noeviction")
    backend = {"url": server.url, "timeout": 2}
    near = reading(file, backend, prefix=prefix, name="near")
    far = reading(file, backend, prefix=prefix, name="far", local=None)
    async with near as one, far as other:
        for reader in (one, other):
            await settled(reader, *READS)
        server.command("CONFIG SET", "maxmemory", server.info()["used_memory"] // 2)  # less than it has
        for reader in (one, other):
            for read in READS:
                await reader.hit(read)
        for turn in range(3):
            await change(User, 1, name=f"full{turn}", plan=("pro", "free")[turn % 2])(one.database)
            for reader in (one, other):
                for read in READS:
                    await reader.current(read)
                assert await status(reader) == "ok"
        answer = await other.ask(user(1))
        assert answer.misses[0].fill == "backend_error"
        # A server that answers is not one that is down, however many fills fail in a row.
        answers = await asyncio.gather(*(other.ask(get(Order, key)) for key in range(1, 7)))
        assert {answer.decisions[0].decision for answer in answers} == {"miss"}
        assert not other.cache.backend.breaker.is_open
        await other.hit(user(2))
        server.command("CONFIG SET", "maxmemory", "0")
        for reader in (one, other):
            await settled(reader, *READS)


@pytest.mark.parametrize("held", [False, True], ids=["", "while-a-connection-is-out"])
async def test_bind_without_the_server_succeeds_degraded_and_recovers(
    file: str, redis_server: RedisServer, prefix: str, held: bool
) -> None:
    redis_server.kill()
    backend = {"url": redis_server.url, "timeout": TIMEOUT}
    async with reading(file, backend, prefix=prefix, bind=False) as reader:
        async with reader.database.engine.connect() as connection:
            if not held:
                await connection.close()
            await reader.cache.bind(reader.database.engine)
        assert await status(reader) in ("degraded", "owed")
        await reader.bypass(user(1), "backend_unavailable")
        await change(User, 1, name="meanwhile")(reader.database)
        await reader.bypass(user(1), "backend_unavailable")
        redis_server.start()
        await is_well(reader)
        await settled(reader, *READS)


async def test_bind_without_the_server_fails_if_that_is_asked_for(
    file: str, redis_server: RedisServer, prefix: str
) -> None:
    redis_server.kill()
    backend = {"url": redis_server.url, "timeout": TIMEOUT}
    async with reading(file, backend, prefix=prefix, bind=False, on_error="raise") as reader:
        with pytest.raises(TransportError):
            await reader.cache.bind(reader.database.engine)
        assert reader.cache.bindings == []
        redis_server.start()
        await eventually(lambda: not reader.cache.backend.breaker.is_open, "the breaker to close")
        await reader.cache.bind(reader.database.engine)
        await settled(reader, user(1))
