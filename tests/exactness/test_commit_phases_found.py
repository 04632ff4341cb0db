"""What was found wrong with commit phases, each with its cause."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from tests.support.databases import Database, make_sessions
from tests.support.fronts import asynchronous
from tests.support.gates import let_others_run
from tests.support.models import User
from tests.support.reading import Reader
from tests.support.situations import BY_KEY, Situation, check, situations
from tests.support.writes import read_past_the_cache

from .setups import ON_POSTGRESQL, ON_SQLITE, Bind, prepare
from .test_commit_phases import READS, RENAME, SLOW_COMMIT, TEAMS, USER_1, USER_2, _backend, names, users


@pytest.mark.parametrize("release", ["RELEASE mine", "RELEASE SAVEPOINT mine"])
async def test_an_outermost_savepoint_of_text_released_and_then_rolled_back(
    release: str, reader: Reader
) -> None:
    await reader.warm(*READS, USER_2)
    async with reader.database.engine.connect() as connection:
        await connection.exec_driver_sql("SAVEPOINT mine")
        await connection.execute(RENAME)
        await connection.exec_driver_sql(release)
        for read in READS:
            await reader.current(read)
        await connection.rollback()
    for read in READS:
        await reader.current(read)
        await reader.hit(read)
    await reader.hit(USER_2)


@ON_POSTGRESQL
@situations(
    [
        Situation("is_seen_by_a_get", USER_1, lambda database: two_phase(database), TEAMS),
        Situation("is_seen_by_a_list", names, lambda database: two_phase(database), TEAMS),
        Situation(
            "evicts_that_row_and_no_other", USER_1, lambda database: two_phase(database), USER_2, BY_KEY
        ),
    ]
)
async def test_a_commit_in_two_phases(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


async def two_phase(database: Database) -> None:
    async with make_sessions(database.engine, twophase=True)() as session:
        (await read_past_the_cache(session, User, 1)).name = "zed"
        await session.commit()


@asynchronous("a task is cancelled")
@ON_SQLITE
async def test_a_commit_that_lands_after_its_writer_was_cancelled(reader: Reader) -> None:
    """
    1. The writer marks and hands COMMIT to the driver's thread, which is busy.
    2. The writer is cancelled: nobody knows whether COMMIT will land.
    3. A reader reads what was before.
    4. COMMIT lands.
    5. Nothing of what the reader of 3 saw may be served.
    """
    await reader.warm(*READS, USER_2)
    before = [await reader.truth(read) for read in READS]
    busy = threading.Event()
    async with reader.database.sessions() as session:
        (await read_past_the_cache(session, User, 1)).name = "zed"
        await session.flush()
        raw: Any = await (await session.connection()).get_raw_connection()
        driver = raw.driver_connection
        blocking = asyncio.ensure_future(driver._execute(busy.wait))
        await let_others_run()
        writer = asyncio.create_task(session.commit())
        await let_others_run()
        landed = asyncio.ensure_future(driver._execute(lambda: None))
        await let_others_run()
        writer.cancel()
        await let_others_run()
        try:
            for read, was in zip(READS, before):
                during = await reader.current(read)
                assert during.value == was, "the COMMIT landed too early: the test proves nothing"
                assert not during.hits
        finally:
            busy.set()
        await asyncio.wait([blocking, landed, writer], timeout=20)
    for read, was in zip(READS, before):
        after = await reader.current(read)
        assert after.value != was, "the COMMIT did not land: the test proves nothing"
    await reader.hit(USER_2)


@asynchronous("asyncpg can be made to drop a connection while it waits")
@ON_POSTGRESQL
async def test_a_commit_that_lands_after_its_writer_lost_the_connection(
    database: Database, bind: Bind
) -> None:
    """
    1. The writer marks and sends COMMIT; the server waits in it.
    2. The writer's connection breaks. The server does not notice.
    3. A reader reads what was before.
    4. The server finishes COMMIT.
    5. Nothing of what the reader of 3 saw may be served.
    """
    await prepare(database, *SLOW_COMMIT)
    reader = await bind()
    await reader.warm(*READS, USER_2)
    before = [await reader.truth(read) for read in READS]
    async with database.sessions() as holder, database.sessions() as session:
        await holder.execute(text("SELECT pg_advisory_lock(7)"))
        (await read_past_the_cache(session, User, 1)).name = "zed"
        await session.flush()
        raw: Any = await (await session.connection()).get_raw_connection()
        driver, pid = raw.driver_connection, await _backend(session)
        writer = asyncio.create_task(session.commit())
        waiting = text("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = :pid")
        while not (await holder.execute(waiting, {"pid": pid})).scalar():
            await holder.rollback()
        driver.terminate()
        with suppress(DBAPIError, asyncio.CancelledError):
            await writer
        for read, was in zip(READS, before):
            during = await reader.current(read)
            assert during.value == was, "the COMMIT landed too early: the test proves nothing"
            assert not during.hits
        await holder.execute(text("SELECT pg_advisory_unlock(7)"))
        # A lock on the row comes when the writer's transaction has ended.
        await holder.execute(select(users.c.id).where(users.c.id == 1).with_for_update())
        await holder.rollback()
        for read, was in zip(READS, before):
            after = await reader.current(read)
            assert after.value != was, "the COMMIT did not land: the test proves nothing"
        with suppress(DBAPIError):
            await session.rollback()
    await reader.hit(USER_2)
