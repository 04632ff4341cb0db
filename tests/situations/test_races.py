"""Reads and writes that cross each other. Gates hold one side at the place in question; nothing waits for a clock."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.support.databases import POOL_SIZE, Database
from tests.support.fronts import asynchronous
from tests.support.gates import after_commit, after_select, before_commit, failing_select, let_others_run
from tests.support.models import Team, User
from tests.support.reading import UNCACHED, Read, Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.writes import add, change, new_user, read_past_the_cache

USER_1, USER_2 = get(User, 1), get(User, 2)
names = rows(lambda: select(User.id, User.name).order_by(User.id))
count_free = scalar(lambda: select(func.count()).select_from(User).where(User.plan == "free"))
free_users = entities(lambda: select(User).where(User.plan == "free").order_by(User.id))

CONTROL = entities(lambda: select(Team).order_by(Team.id))
READS = {"get": USER_1, "list": free_users, "columns": names, "count": count_free}


async def rename(database: Database) -> None:
    """Change user 1; what is changed is read past the cache, so that the writer never waits for a reader's load."""
    async with database.transaction() as session:
        user = await read_past_the_cache(session, User, 1)
        user.name, user.plan = "zed", "pro"


async def read_anew(read: Read, reader: Reader, before: Any) -> None:
    """After the race: the next read is current and from then on served; the control was served all the time."""
    after = await reader.current(read)
    assert after.value != before
    assert not after.hits, f"served from before the write: {after}"
    await reader.hit(read)
    await reader.hit(CONTROL)


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_a_write_between_a_select_and_its_fill(read: Read, reader: Reader) -> None:
    await reader.warm(CONTROL)
    before = await reader.truth(read)
    with after_select(reader.database) as gate:
        slow = await gate.reached_by(reader.ask(read))
        await rename(reader.database)
        gate.open()
        assert (await slow).value == before, "the reader had its answer before the write"
    await read_anew(read, reader, before)


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_a_write_that_was_under_way_when_the_select_began(read: Read, reader: Reader) -> None:
    await reader.warm(CONTROL)
    before = await reader.truth(read)
    async with reader.database.sessions() as writer:
        user = await read_past_the_cache(writer, User, 1)
        user.name, user.plan = "zed", "pro"
        await writer.flush()
        with after_select(reader.database) as gate:
            slow = await gate.reached_by(reader.ask(read))
            await writer.commit()
            gate.open()
            assert (await slow).value == before
    await read_anew(read, reader, before)


async def test_an_insert_between_a_select_of_an_absent_row_and_its_fill(reader: Reader) -> None:
    absent = get(User, 100)
    await reader.warm(CONTROL)
    with after_select(reader.database) as gate:
        slow = await gate.reached_by(reader.ask(absent))
        await add(new_user)(reader.database)
        gate.open()
        assert (await slow).value is None
    await read_anew(absent, reader, None)


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_a_read_while_the_commit_is_being_sent(read: Read, reader: Reader) -> None:
    await reader.warm(read, USER_2, CONTROL)
    before = await reader.truth(read)
    async with before_commit(reader.database) as gate:
        writer = await gate.reached_by(rename(reader.database))
        for _ in range(2):  # nor does the first of them leave anything for the second
            during = await reader.current(read)
            assert during.value == before
            assert not during.hits, f"served although a write of it is being committed: {during}"
        await reader.hit(USER_2)
        gate.open()
        await writer
    await read_anew(read, reader, before)
    await reader.hit(USER_2)


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_a_read_after_the_database_committed_and_before_the_writer_knows(
    read: Read, reader: Reader
) -> None:
    await reader.warm(read, CONTROL)
    before = await reader.truth(read)
    async with after_commit(reader.database) as gate:
        writer = await gate.reached_by(rename(reader.database))
        for _ in range(2):
            during = await reader.current(read)
            assert during.value != before
            assert not during.hits, f"served although a write of it is being committed: {during}"
        gate.open()
        await writer
    await read_anew(read, reader, before)


@asynchronous("a task is cancelled")
@pytest.mark.parametrize("gate_at", [before_commit, after_commit], ids=["before", "after"])
async def test_a_writer_that_is_cancelled_around_its_commit(gate_at: Any, reader: Reader) -> None:
    await reader.warm(USER_1, names, USER_2)
    async with gate_at(reader.database) as gate:
        writer = await gate.reached_by(rename(reader.database))
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writer
    for read in (USER_1, names):
        await reader.current(read)
        await reader.current(read)
    await reader.hit(USER_2)


@asynchronous("a task is cancelled")
async def test_a_reader_that_is_cancelled_between_its_select_and_its_fill_leaves_no_trace(
    reader: Reader,
) -> None:
    with after_select(reader.database) as gate:
        slow = await gate.reached_by(reader.ask(names))
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
    await reader.warm(names)


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_fifty_concurrent_misses_are_one_select(read: Read, reader: Reader) -> None:
    expected = await reader.truth(read)

    with reader.database.probe() as traffic:
        answers = await asyncio.gather(*(_through_own_session(reader, read) for _ in range(50)))
    assert answers == [expected] * 50
    if not UNCACHED:
        assert len(traffic.selects) == 1
        assert traffic.checkouts == 1
    await reader.hit(read)


async def _through_own_session(reader: Reader, read: Read) -> Any:
    return (await reader.ask(read)).value


async def test_concurrent_misses_of_different_rows_do_not_wait_for_each_other(reader: Reader) -> None:
    with after_select(reader.database) as gate:
        slow = await gate.reached_by(reader.ask(USER_1))
        await reader.warm(USER_2)
        gate.open()
        await slow
    await reader.hit(USER_1)


@asynchronous("a task is cancelled")
async def test_followers_of_a_reader_that_is_cancelled_get_their_answer(reader: Reader) -> None:
    expected = await reader.truth(names)
    with after_select(reader.database) as gate:
        leader = await gate.reached_by(reader.ask(names))
        followers = [asyncio.create_task(reader.ask(names)) for _ in range(10)]
        await let_others_run()
        leader.cancel()
        assert [(await follower).value for follower in followers] == [expected] * 10
    with pytest.raises(asyncio.CancelledError):
        await leader
    await reader.hit(names)


async def test_an_error_of_one_reader_reaches_no_other(reader: Reader) -> None:
    expected = await reader.truth(names)
    with failing_select(reader.database):
        tasks = [asyncio.create_task(reader.ask(names)) for _ in range(10)]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [str(error) for error in failed] == ["no answer"]
    assert [answer.value for answer in answers if not isinstance(answer, BaseException)] == [expected] * 9
    await reader.hit(names)


async def test_a_reader_that_starts_after_a_commit_does_not_join_one_that_began_before_it(
    reader: Reader,
) -> None:
    await reader.warm(CONTROL)
    before = await reader.truth(names)
    with after_select(reader.database) as gate:
        slow = await gate.reached_by(reader.ask(names))
        await rename(reader.database)
        late = await reader.current(names)
        assert late.value != before
        gate.open()
        assert (await slow).value == before
    await reader.hit(names)
    await reader.hit(CONTROL)


async def test_readers_that_hold_every_connection_do_not_wait_for_one_that_has_none(reader: Reader) -> None:
    """The one without leads the load and waits for a connection: if the others waited for it, nobody would go on."""
    expected = await reader.truth(names)
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(reader.database.sessions()) for _ in range(POOL_SIZE)]
        for session in sessions:
            await session.connection()
        leader = asyncio.create_task(reader.ask(names))
        await let_others_run()
        answers = await asyncio.gather(*(reader.ask(names, session) for session in sessions))
    assert [answer.value for answer in answers] == [expected] * POOL_SIZE
    assert (await leader).value == expected


async def test_readers_and_writers_at_once_leave_nothing_stale_behind(reader: Reader) -> None:
    reads = [USER_1, USER_2, names, count_free, free_users]

    async def write(number: int) -> None:
        plan = ("free", "pro")[number % 2]
        await change(User, 1 + number % 2, name=f"name{number}", plan=plan)(reader.database)

    async def read(number: int) -> None:
        for _ in range(4):
            await reader.ask(reads[number % len(reads)])

    for start in range(0, 20, 4):
        await asyncio.gather(*(read(n) for n in range(10)), *(write(n) for n in range(start, start + 4)))
        for each in reads:
            await reader.current(each)
            await reader.hit(each)
