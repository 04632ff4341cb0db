"""Single flight: who waits for whom, and what reaches the followers."""

from __future__ import annotations

import asyncio
import time
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import event

from sqlacache import testing
from sqlacache.read.flight import Flights
from sqlacache.store.stamps import Entry
from tests.support import writes
from tests.support.gates import Gate, after_select, failing_select, let_others_run
from tests.support.models import Order, Team, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import get

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")


async def read(reader: Reader, key: int = 1) -> Any:
    async with reader.database.sessions() as session:
        return (await session.get(User, key)).name


async def test_fifty_concurrent_misses_are_one_select(reader: Reader) -> None:
    with testing.record(reader.cache) as seen, reader.database.probe() as traffic:
        assert await asyncio.gather(*(read(reader) for _ in range(50))) == ["ann"] * 50
    assert len(traffic.selects) == 1
    assert [len(seen.misses), len(seen.hits), len(seen.bypasses)] == [1, 49, 0]
    assert {decision.tier for decision in seen.hits} <= {"collapsed", "local"}
    assert "collapsed" in {decision.tier for decision in seen.hits}


async def test_followers_are_told_as_hits_that_collapsed_with_the_rows_and_cost_of_the_leader(
    reader: Reader,
) -> None:
    with testing.record(reader.cache) as seen, after_select(reader.database) as gate:
        leader = await gate.reached_by(read(reader))
        follower = asyncio.create_task(read(reader))
        await let_others_run()
        assert not follower.done()
        gate.open()
        assert [await leader, await follower] == ["ann", "ann"]
    (hit,) = seen.hits
    (miss,) = seen.misses
    assert (hit.tier, hit.key, hit.rows, hit.load_seconds) == ("collapsed", miss.key, 1, miss.load_seconds)


async def test_an_error_of_the_leader_is_its_own_and_a_follower_leads(reader: Reader) -> None:
    gate = Gate()
    failures = [RuntimeError("no answer")]

    def refuse(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if failures:
            gate.stop_here()
            raise failures.pop()

    engine = reader.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", refuse)
    with testing.record(reader.cache) as seen:
        leader = await gate.reached_by(read(reader))
        followers = [asyncio.create_task(read(reader)) for _ in range(3)]
        await let_others_run()
        gate.open()
        with pytest.raises(RuntimeError, match="no answer"):
            await leader
        assert await asyncio.gather(*followers) == ["ann"] * 3
    event.remove(engine, "before_cursor_execute", refuse)
    assert len(seen.misses) == 2
    assert len(seen.hits) == 2


async def test_a_cancelled_leader_cancels_nobody_else(reader: Reader) -> None:
    with after_select(reader.database) as gate:
        leader = await gate.reached_by(read(reader))
        followers = [asyncio.create_task(read(reader)) for _ in range(3)]
        await let_others_run()
        leader.cancel()
        assert await asyncio.gather(*followers) == ["ann"] * 3
        with pytest.raises(asyncio.CancelledError):
            await leader
    assert reader.cache.bindings[0].reads._flights._flights == {}


async def test_a_cancelled_follower_leaves_the_leader_alone(reader: Reader) -> None:
    with after_select(reader.database) as gate:
        leader = await gate.reached_by(read(reader))
        follower = asyncio.create_task(read(reader))
        await let_others_run()
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower
        gate.open()
        assert await leader == "ann"
    await reader.hit(get(User, 1))


async def test_a_session_that_holds_a_connection_does_not_wait(reader: Reader) -> None:
    async with reader.database.sessions() as session:
        await session.get(Order, 1)  # a miss: from now on it holds a connection
        with after_select(reader.database, "users") as gate, testing.record(reader.cache) as seen:
            leader = await gate.reached_by(read(reader))
            assert (await session.get(User, 1)).name == "ann"
            assert not leader.done()
            assert [decision.decision for decision in seen.decisions] == ["miss"]
            gate.open()
            await leader


async def test_two_followers_with_connections_do_not_starve_a_leader_without(reader: Reader) -> None:
    """Every connection of the pool is held by sessions that miss the same entry at once."""
    sessions = [reader.database.sessions() for _ in range(5)]
    try:
        for session in sessions:
            await session.get(Order, 1, populate_existing=True)
        found = await asyncio.gather(*(session.get(User, 1) for session in sessions))
        assert [user.name for user in found] == ["ann"] * 5
    finally:
        for session in sessions:
            await session.close()


async def test_a_read_that_begins_after_a_commit_does_not_join_one_from_before(reader: Reader) -> None:
    await reader.warm(get(Team, 1))
    with after_select(reader.database, "users") as gate, testing.record(reader.cache) as seen:
        early = await gate.reached_by(read(reader))
        await writes.execute_on_connection(
            lambda _: User.__table__.update().where(User.__table__.c.id == 1).values(name="new")
        )(reader.database)
        assert await read(reader) == "new"
        gate.open()
        assert await early == "ann"
    assert {decision.tier for decision in seen.hits} <= {"local"}
    assert await read(reader) == "new"


async def test_reads_of_different_entries_do_not_wait_for_each_other(reader: Reader) -> None:
    with after_select(reader.database) as gate:
        first = await gate.reached_by(read(reader, 1))
        assert await read(reader, 2) == "bob"
        gate.open()
        await first


async def test_a_failed_read_is_told_once_and_leaves_no_flight(reader: Reader) -> None:
    with failing_select(reader.database), testing.record(reader.cache) as seen:
        with pytest.raises(RuntimeError, match="no answer"):
            await read(reader)
    (decision,) = seen.decisions
    assert (decision.decision, decision.reason, decision.fill) == ("miss", "absent", None)
    assert reader.cache.bindings[0].reads._flights._flights == {}
    await reader.warm(get(User, 1))


# -- the parts by themselves -------------------------------------------------------------------------------------------


async def test_only_those_who_sampled_the_same_stamps_join() -> None:
    flights = Flights(asynchronous=True)
    flight, leads = flights.enter("k", [1, 2], may_wait=True)
    assert flight is not None
    assert leads

    async def others() -> None:
        assert flights.enter("k", [1, 2], may_wait=True) == (flight, False)
        assert flights.enter("k", [1, 3], may_wait=True) == (None, False)
        assert flights.enter("k", [1, 2], may_wait=False) == (None, False)

    await asyncio.create_task(others())
    assert flights.enter("k", [1, 2], may_wait=True) == (None, False), "it would wait for itself"
    other, leads = flights.enter("other", [1, 2], may_wait=False)
    assert leads
    assert other is not flight
    flights.finish(flight, None)
    again, leads = flights.enter("k", [1, 2], may_wait=True)
    assert leads
    assert again is not flight


def test_two_event_loops_do_not_wait_for_each_other() -> None:
    flights = Flights(asynchronous=True)

    async def enter() -> Any:
        return flights.enter("k", [1], may_wait=True)

    first = asyncio.new_event_loop()
    second = asyncio.new_event_loop()
    try:
        assert first.run_until_complete(enter())[1] is True
        assert second.run_until_complete(enter())[1] is True
    finally:
        first.close()
        second.close()


def test_threads_wait_for_a_leader_in_another_thread() -> None:
    flights = Flights(asynchronous=False)
    flight, _ = flights.enter("k", [1], may_wait=True)
    assert flight is not None
    joined, found = Event(), []

    def follow() -> None:
        follower, leads = flights.enter("k", [1], may_wait=True)
        assert follower is flight
        assert not leads
        joined.set()
        found.append(follower.wait())

    thread = Thread(target=follow)
    thread.start()
    joined.wait()
    rows: Any = object()
    flights.finish(flight, rows)
    thread.join()
    assert found == [rows]


# -- what a leader loaded, for those who were looking up meanwhile -----------------------------------------------------


def loaded(seconds: float = 3600) -> Entry:
    """An entry that was just loaded and is good for so many seconds."""
    now = time.time()
    return Entry(
        stamps=(), description=(), rows=((1,),), data=None, stored_at=now, expires_at=now + seconds, load_seconds=0.1,
        size=1, count=1,
    )  # fmt: skip


def landed(entry: Entry | None, waiting: int = 1) -> Flights:
    """Flights of threads: somebody led a load of ``k`` under stamps 1 and 2 while ``waiting`` others looked up."""
    flights = Flights(asynchronous=False)
    for _ in range(1 + waiting):
        flights.approach("k")
    flight, leads = flights.enter("k", [1, 2], may_wait=True)
    assert flight is not None
    assert leads
    flights.finish(flight, entry)
    flights.depart("k")
    return flights


def test_one_who_looked_up_while_a_leader_loaded_is_served_without_another_load() -> None:
    entry = loaded()
    flights = landed(entry, waiting=2)
    for _ in range(2):
        for may_wait in (True, False):  # nobody waits: also one whose session holds a connection may have it
            flight, leads = flights.enter("k", [1, 2], may_wait=may_wait)
            assert flight is not None
            assert not leads
            assert flight.wait() is entry
        flights.depart("k")


def test_what_was_loaded_leaves_with_the_last_who_was_looking_up() -> None:
    flights = landed(loaded())
    flights.approach("k")  # one more comes while another is there
    flights.depart("k")
    assert flights.enter("k", [1, 2], may_wait=True)[1] is False
    flights.depart("k")
    flights.approach("k")
    assert flights.enter("k", [1, 2], may_wait=True)[1] is True
    assert flights._landed == {}


def test_what_was_loaded_is_not_kept_where_nobody_was_looking_up() -> None:
    flights = landed(loaded(), waiting=0)
    assert flights._landed == {}
    assert flights._approaching == {}
    assert flights.enter("k", [1, 2], may_wait=True)[1] is True


def test_what_was_loaded_does_not_serve_one_who_looked_up_another_entry() -> None:
    flights = landed(loaded())
    flights.approach("other")
    assert flights.enter("other", [1, 2], may_wait=True)[1] is True


def test_what_was_loaded_does_not_serve_one_who_sampled_other_stamps() -> None:
    flights = landed(loaded())
    assert flights.enter("k", [1, 3], may_wait=True)[1] is True


def test_what_was_loaded_does_not_serve_one_who_wants_it_loaded_anew() -> None:
    flights = landed(loaded())
    fresh, leads = flights.enter("k", [1, 2], may_wait=True, anew=True)
    assert leads
    newer = loaded()
    assert fresh is not None
    flights.finish(fresh, newer)
    found, leads = flights.enter("k", [1, 2], may_wait=True)
    assert found is not None
    assert not leads
    assert found.wait() is newer


def test_what_was_loaded_does_not_serve_once_it_has_expired() -> None:
    flights = landed(loaded(seconds=-1))
    assert flights.enter("k", [1, 2], may_wait=True)[1] is True


def test_a_leader_that_failed_leaves_nothing_behind() -> None:
    flights = landed(None)
    assert flights.enter("k", [1, 2], may_wait=True)[1] is True


def test_what_was_loaded_in_one_event_loop_is_not_kept_for_another() -> None:
    flights = Flights(asynchronous=True)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def look_up() -> None:
        flights.approach("k")

    async def load() -> None:
        flight, leads = flights.enter("k", [1], may_wait=True)
        assert flight is not None
        assert leads
        flights.finish(flight, loaded())

    try:
        first.run_until_complete(look_up())
        second.run_until_complete(load())
        second.run_until_complete(load())  # leads again
        first.run_until_complete(load())
    finally:
        first.close()
        second.close()
