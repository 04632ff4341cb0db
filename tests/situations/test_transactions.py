"""Only what is committed touches the cache: rollbacks of every kind leave no trace, partial ones only their part."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.support.databases import Database
from tests.support.models import Tag, Team, User
from tests.support.reading import Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import BY_KEY, BY_WRITE, Situation, Write, check, check_untouched, situations
from tests.support.writes import change, new_user, one_after_another

TEAMS = entities(lambda: select(Team).order_by(Team.id))
USER_1, USER_2 = get(User, 1), get(User, 2)
names = rows(lambda: select(User.id, User.name).order_by(User.id))
count_users = scalar(lambda: select(func.count()).select_from(User))


async def rename(session: AsyncSession, key: int = 1, name: str = "zed") -> None:
    (await session.get(User, key)).name = name
    await session.flush()


async def savepoint_released(database: Database) -> None:
    async with database.transaction() as session:
        session.add(Tag(id=100, name="outer"))
        await session.flush()
        async with session.begin_nested():
            await rename(session)


async def savepoint_first(database: Database) -> None:
    async with database.transaction() as session, session.begin_nested():
        await rename(session)


async def savepoints_in_savepoints(database: Database) -> None:
    async with database.transaction() as session:
        session.add(Tag(id=100, name="outer"))
        async with session.begin_nested(), session.begin_nested():
            await rename(session)


async def savepoint_rolled_back_inside_one_released(database: Database) -> None:
    async with database.transaction() as session:
        session.add(Tag(id=100, name="outer"))
        async with session.begin_nested():
            await rename(session)
            inner = await session.begin_nested()
            session.add(Tag(id=101, name="inner"))
            await session.flush()
            await inner.rollback()


async def write_after_a_savepoint_rolled_back(database: Database) -> None:
    async with database.transaction() as session:
        session.add(Tag(id=100, name="outer"))
        savepoint = await session.begin_nested()
        await rename(session, 2)
        await savepoint.rollback()
        await rename(session)


async def rollback_then_commit(database: Database) -> None:
    async with database.sessions() as session:
        await rename(session, 2)
        await session.rollback()
        await rename(session)
        await session.commit()


async def commit_in_steps(database: Database) -> None:
    async with database.sessions() as session:
        session.add(Tag(id=100, name="first"))
        await session.commit()
        await rename(session)
        await session.commit()


async def several_flushes(database: Database) -> None:
    async with database.transaction() as session:
        await rename(session, name="yan")
        await rename(session, name="zed")


async def commit_flushes(database: Database) -> None:
    async with database.sessions() as session:
        (await session.get(User, 1)).name = "zed"
        await session.commit()


async def savepoint_on_a_connection(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(Tag.__table__.insert().values(id=100, name="outer"))
        async with connection.begin_nested():
            await connection.execute(
                User.__table__.update().where(User.__table__.c.id == 1).values(name="zed")
            )


COMMITTED = [
    Situation("savepoint_that_is_released", USER_1, savepoint_released, USER_2, BY_KEY),
    Situation("savepoint_that_is_released_is_seen_by_a_list", names, savepoint_released, TEAMS),
    Situation("savepoint_without_a_write_before_it", USER_1, savepoint_first, USER_2, BY_KEY),
    Situation("savepoint_inside_a_savepoint", USER_1, savepoints_in_savepoints, USER_2, BY_KEY),
    Situation(
        "savepoint_released_around_one_rolled_back",
        USER_1,
        savepoint_rolled_back_inside_one_released,
        USER_2,
        BY_KEY,
    ),
    Situation(
        "write_after_a_savepoint_rolled_back", USER_1, write_after_a_savepoint_rolled_back, USER_2, BY_KEY
    ),
    Situation("commit_after_a_rollback_in_the_same_session", USER_1, rollback_then_commit, USER_2, BY_KEY),
    Situation("second_commit_of_a_session", USER_1, commit_in_steps, USER_2, BY_KEY),
    Situation("first_commit_of_a_session", get(Tag, 100), commit_in_steps, get(Tag, 1), BY_KEY),
    Situation("several_flushes_of_one_transaction", USER_1, several_flushes, USER_2, BY_KEY),
    Situation("commit_that_flushes_by_itself", USER_1, commit_flushes, USER_2, BY_KEY),
    Situation("savepoint_on_a_connection", USER_1, savepoint_on_a_connection, TEAMS),
    Situation(
        "several_transactions",
        USER_1,
        one_after_another([change(User, 1, name="yan"), change(User, 1, name="zed")]),
        USER_2,
        BY_KEY,
    ),
]


async def rolled_back(database: Database) -> None:
    async with database.sessions() as session:
        await rename(session)
        await session.rollback()


async def closed_without_commit(database: Database) -> None:
    async with database.sessions() as session:
        await rename(session)


async def never_flushed(database: Database) -> None:
    async with database.sessions() as session:
        (await session.get(User, 1)).name = "zed"


async def raised(database: Database) -> None:
    with suppress(ZeroDivisionError):
        async with database.transaction() as session:
            await rename(session)
            raise ZeroDivisionError


async def refused_by_the_database(database: Database) -> None:
    with suppress(IntegrityError):
        async with database.transaction() as session:
            await rename(session)
            session.add(new_user(100, email="bob@example.com"))
            await session.flush()


async def cancelled(database: Database) -> None:
    flushed = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as session:
            await rename(session)
            flushed.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await flushed.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def savepoint_rolled_back(database: Database) -> None:
    async with database.transaction() as session:
        session.add(Tag(id=100, name="kept"))
        await session.flush()
        savepoint = await session.begin_nested()
        await rename(session)
        await savepoint.rollback()


async def savepoint_left_by_an_exception(database: Database) -> None:
    async with database.transaction() as session:
        session.add(Tag(id=100, name="kept"))
        with suppress(ZeroDivisionError):
            async with session.begin_nested():
                await rename(session)
                raise ZeroDivisionError


async def released_inside_one_rolled_back(database: Database) -> None:
    async with database.transaction() as session:
        session.add(Tag(id=100, name="kept"))
        outer = await session.begin_nested()
        async with session.begin_nested():
            await rename(session)
        await outer.rollback()


async def connection_rolled_back(database: Database) -> None:
    async with database.engine.connect() as connection:
        await connection.execute(User.__table__.update().values(name="zed"))
        await connection.rollback()


async def connection_closed_without_commit(database: Database) -> None:
    async with database.engine.connect() as connection:
        await connection.execute(User.__table__.update().values(name="zed"))


async def connection_invalidated(database: Database) -> None:
    async with database.engine.connect() as connection:
        await connection.execute(User.__table__.update().values(name="zed"))
        await connection.invalidate()
        await connection.rollback()


async def only_read(database: Database) -> None:
    async with database.transaction() as session:
        await session.get(User, 2)
        await session.execute(text("SELECT 1"))


CAME_TO_NOTHING: list[Write] = [
    rolled_back,
    closed_without_commit,
    never_flushed,
    raised,
    refused_by_the_database,
    cancelled,
    savepoint_rolled_back,
    savepoint_left_by_an_exception,
    released_inside_one_rolled_back,
    connection_rolled_back,
    connection_closed_without_commit,
    connection_invalidated,
    only_read,
]


@situations(COMMITTED)
async def test_a_commit_is_seen_of_a(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@pytest.mark.parametrize("write", CAME_TO_NOTHING, ids=lambda write: write.__name__)
async def test_nothing_is_evicted_by_a_transaction(write: Write, reader: Reader) -> None:
    await check_untouched([USER_1, names, count_users], write, reader)


async def test_what_a_savepoint_rolled_back_leaves_is_evicted_and_what_it_undid_is_not(
    reader: Reader,
) -> None:
    tags = entities(lambda: select(Tag).order_by(Tag.id))
    await reader.warm(USER_1, tags)
    await savepoint_rolled_back(reader.database)
    await reader.miss(tags, BY_WRITE)
    await reader.hit(USER_1)


async def test_a_savepoint_that_commits_by_itself_is_seen_even_if_the_session_then_rolls_back(
    reader: Reader,
) -> None:
    """On SQLite a savepoint before the first write is the transaction, and releasing it commits."""
    await reader.warm(USER_1, names, USER_2)
    async with reader.database.sessions() as session:
        async with session.begin_nested():
            await rename(session)
        for read in (USER_1, names):
            during = await reader.current(read)
            if reader.database.dialect != "sqlite":
                assert during.hits == during.decisions
        await session.rollback()
    for read in (USER_1, names):
        await reader.current(read)
        await reader.hit(read)
    await reader.hit(USER_2)


async def test_a_session_reads_on_after_its_commit(reader: Reader) -> None:
    await reader.warm(USER_1, names, USER_2)
    async with reader.database.sessions() as session:
        await rename(session)
        await session.commit()
        session.expire_all()
        assert (await session.get(User, 1)).name == "zed"
        assert (1, "zed") in (await session.execute(select(User.id, User.name))).all()
    await reader.current(USER_1)
    await reader.current(names)
    await reader.hit(USER_2)


async def test_a_session_reads_on_after_its_rollback(reader: Reader) -> None:
    await reader.warm(USER_1, names)
    async with reader.database.sessions() as session:
        await rename(session)
        await session.rollback()
        assert (await session.get(User, 1)).name == "ann"
        assert (1, "ann") in (await session.execute(select(User.id, User.name))).all()
    await reader.hit(USER_1)
    await reader.hit(names)
