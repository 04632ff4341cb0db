"""Where a write takes effect: autocommit, COMMIT in text, savepoints, two-phase, and everything that ends it early."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import event, func, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from tests.support.databases import Database, make_sessions
from tests.support.fronts import asynchronous
from tests.support.gates import Gate, after_commit, before_commit
from tests.support.models import Order, Tag, Team, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import BY_KEY, BY_WRITE, Situation, check, check_untouched, situations
from tests.support.writes import read_past_the_cache

from .setups import ON_POSTGRESQL, ON_SQLITE, Bind, prepare, with_engine

TEAMS = entities(lambda: select(Team).order_by(Team.id))
USER_1, USER_2 = get(User, 1), get(User, 2)
names = rows(lambda: select(User.id, User.name).order_by(User.id))
emails = rows(lambda: select(User.id, User.email).order_by(User.id))
count_tags = scalar(lambda: select(func.count()).select_from(Tag))
users, tags, orders = User.__table__, Tag.__table__, Order.__table__
RENAME = users.update().where(users.c.id == 1).values(name="zed")
RENAME_TEXT = "UPDATE users SET name = 'zed' WHERE id = 1"
READS = (USER_1, names)


async def rename(database: Database) -> None:
    """Change user 1, reading it past the cache: the writer waits for no reader."""
    async with database.transaction() as session:
        (await read_past_the_cache(session, User, 1)).name = "zed"


async def seen(reader: Reader, before: Any, read: Any = USER_1) -> None:
    """The next read is current and not ``before``; from then on it is served."""
    after = await reader.current(read)
    assert after.value != before
    assert not after.hits
    await reader.current(read)
    await reader.hit(read)


# -- autocommit --------------------------------------------------------------------------------------------------------


async def by_connection_option(database: Database) -> None:
    async with database.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(RENAME)
        await autocommit.rollback()


async def by_session_connection_option(database: Database) -> None:
    async with database.sessions() as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        await session.execute(RENAME)
        await session.rollback()


async def by_options_of_an_engine(database: Database) -> None:
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with make_sessions(engine)() as session:
        (await read_past_the_cache(session, User, 1)).name = "zed"
        await session.flush()
        await session.rollback()


AUTOCOMMIT = [
    Situation("connection_option", USER_1, by_connection_option, USER_2, BY_KEY),
    Situation("connection_option_is_seen_by_a_list", names, by_connection_option, emails),
    Situation("option_of_a_session's_connection", USER_1, by_session_connection_option, USER_2, BY_KEY),
    Situation("options_of_an_engine", USER_1, by_options_of_an_engine, USER_2, BY_KEY),
]


@situations(AUTOCOMMIT)
async def test_autocommit_by(situation: Situation, reader: Reader) -> None:
    """A rollback undoes nothing of it."""
    await check(situation, reader)


async def test_autocommit_by_an_argument_of_the_engine(database: Database, bind: Bind) -> None:
    async with with_engine(database, isolation_level="AUTOCOMMIT") as other:
        reader = await bind(other)
        await reader.warm(USER_1, names, USER_2, emails)
        async with other.sessions() as session:
            await session.execute(RENAME)
            for read in READS:
                await reader.miss(read, BY_WRITE)
                await reader.hit(read)
            await session.rollback()
        for read in (*READS, USER_2, emails):
            await reader.hit(read)


async def test_an_autocommit_statement_that_fails_evicts_nothing_for_good(reader: Reader) -> None:
    await reader.warm(USER_1, names)
    async with reader.database.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(IntegrityError):
            await autocommit.execute(users.update().where(users.c.id == 1).values(email="bob@example.com"))
    for read in READS:
        await reader.current(read)
        await reader.hit(read)


async def test_raw_sql_on_an_autocommit_connection_is_seen_at_once(reader: Reader) -> None:
    await reader.warm(*READS)
    async with reader.database.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.exec_driver_sql(RENAME_TEXT)
        for read in READS:
            await reader.miss(read, BY_WRITE)
            await reader.hit(read)


# -- SQL that ends transactions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sql", ["COMMIT", "commit;", "END", "/* done */ COMMIT"])
async def test_a_commit_in_text_is_seen_even_if_the_session_then_rolls_back(sql: str, reader: Reader) -> None:
    await reader.warm(*READS, USER_2)
    async with reader.database.sessions() as session:
        await session.execute(RENAME)
        await session.execute(text(sql))
        for read in READS:
            await reader.miss(read, BY_WRITE)
            await reader.hit(read)
        await session.rollback()
    for read in (*READS, USER_2):
        await reader.hit(read)


async def test_a_commit_handed_to_the_driver(reader: Reader) -> None:
    await reader.warm(*READS, USER_2)
    async with reader.database.engine.connect() as connection:
        await connection.execute(RENAME)
        await connection.exec_driver_sql("COMMIT")
        for read in READS:
            await reader.miss(read, BY_WRITE)
        with suppress(DBAPIError):
            await connection.rollback()
    for read in (*READS, USER_2):
        await reader.hit(read)


async def test_a_write_after_a_begin_in_text(reader: Reader) -> None:
    await reader.warm(*READS, USER_2)
    async with reader.database.engine.connect() as connection:
        await connection.exec_driver_sql("BEGIN")
        await connection.execute(RENAME)
        for read in READS:
            await reader.hit(read)
        await connection.exec_driver_sql("COMMIT")
        for read in READS:
            await reader.miss(read, BY_WRITE)
        with suppress(DBAPIError):
            await connection.rollback()
    await reader.hit(USER_2)


@pytest.mark.parametrize("sql", ["ROLLBACK", "rollback;"])
async def test_a_rollback_in_text_leaves_no_trace(sql: str, reader: Reader) -> None:
    await reader.warm(*READS)
    async with reader.database.sessions() as session:
        await session.execute(RENAME)
        await session.execute(text(sql))
        for read in READS:
            await reader.hit(read)
        with suppress(DBAPIError):
            await session.commit()
    for read in READS:
        await reader.hit(read)


# -- savepoints --------------------------------------------------------------------------------------------------------


async def nested_twice_before_any_write(database: Database) -> None:
    async with database.sessions() as session:
        async with session.begin_nested(), session.begin_nested():
            await session.execute(RENAME)
        await session.commit()


async def outermost_rolled_back_and_written_again(database: Database) -> None:
    async with database.sessions() as session:
        savepoint = await session.begin_nested()
        await session.execute(users.update().where(users.c.id == 2).values(name="undone"))
        await savepoint.rollback()
        async with session.begin_nested():
            await session.execute(RENAME)
        await session.commit()


async def one_after_another(database: Database) -> None:
    async with database.sessions() as session:
        async with session.begin_nested():
            await session.execute(tags.insert().values(id=100, name="first"))
        async with session.begin_nested():
            await session.execute(RENAME)
        await session.commit()


async def on_a_connection(database: Database) -> None:
    async with database.engine.connect() as connection:
        async with connection.begin_nested():
            await connection.execute(RENAME)
        await connection.commit()


async def in_text(database: Database) -> None:
    async with database.engine.connect() as connection:
        await connection.exec_driver_sql("SAVEPOINT mine")
        await connection.execute(RENAME)
        await connection.exec_driver_sql("RELEASE SAVEPOINT mine")
        await connection.commit()


NESTED = [
    Situation("nested_twice_before_any_write", USER_1, nested_twice_before_any_write, USER_2, BY_KEY),
    Situation(
        "outermost_rolled_back_and_written_again",
        USER_1,
        outermost_rolled_back_and_written_again,
        USER_2,
        BY_KEY,
    ),
    Situation("one_after_another", USER_1, one_after_another, USER_2, BY_KEY),
    Situation("on_a_connection", USER_1, on_a_connection, USER_2, BY_KEY),
    Situation("in_text", USER_1, in_text, USER_2, BY_KEY),
]


@situations(NESTED)
async def test_savepoints(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


async def test_an_outermost_savepoint_released_and_then_rolled_back(reader: Reader) -> None:
    """SQLite has committed by then, PostgreSQL has not."""
    await reader.warm(*READS, USER_2)
    async with reader.database.sessions() as session:
        async with session.begin_nested(), session.begin_nested():
            await session.execute(RENAME)
        for read in READS:
            await reader.current(read)
        await session.rollback()
    for read in READS:
        answer = await reader.current(read)
        if reader.database.dialect == "postgresql" and not UNCACHED:
            assert answer.hits == answer.decisions
        await reader.hit(read)
    await reader.hit(USER_2)


# -- two-phase ---------------------------------------------------------------------------------------------------------


@ON_POSTGRESQL
async def test_a_prepared_transaction_is_seen_when_it_is_committed_and_not_before(reader: Reader) -> None:
    await reader.warm(*READS)
    async with make_sessions(reader.database.engine, twophase=True)() as session:
        (await read_past_the_cache(session, User, 1)).name = "zed"
        await session.run_sync(lambda sync: sync.prepare())
        for read in READS:
            await reader.current(read)
        await session.commit()
    for read in READS:
        await reader.current(read)
        await reader.hit(read)


@ON_POSTGRESQL
async def test_a_prepared_transaction_that_is_rolled_back_leaves_no_stale_read(reader: Reader) -> None:
    await reader.warm(*READS)
    async with make_sessions(reader.database.engine, twophase=True)() as session:
        (await read_past_the_cache(session, User, 1)).name = "zed"
        await session.run_sync(lambda sync: sync.prepare())
        await session.rollback()
    for read in READS:
        await reader.current(read)
        await reader.hit(read)


@ON_POSTGRESQL
async def test_a_transaction_prepared_elsewhere_is_seen_when_it_is_recovered(reader: Reader) -> None:
    """Nobody here knows what it wrote: everything is evicted."""
    await prepare(reader.database, RENAME_TEXT, "PREPARE TRANSACTION 'lost'")
    await reader.warm(*READS, TEAMS)

    def recover(connection: Any) -> None:
        assert connection.recover_twophase() == ["lost"]
        connection.commit_prepared("lost", recover=True)

    async with reader.database.engine.connect() as connection:
        await connection.run_sync(recover)
    for read in (*READS, TEAMS):
        await reader.miss(read, BY_WRITE)
        await reader.hit(read)


@ON_POSTGRESQL
async def test_a_commit_prepared_in_text(reader: Reader) -> None:
    await prepare(reader.database, RENAME_TEXT, "PREPARE TRANSACTION 'lost'")
    await reader.warm(*READS)
    async with reader.database.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.exec_driver_sql("COMMIT PREPARED 'lost'")
    for read in READS:
        await reader.miss(read, BY_WRITE)
        await reader.hit(read)


# -- cancellation ------------------------------------------------------------------------------------------------------


@contextmanager
def before_phase_one(database: Database) -> Iterator[Gate]:
    """Stop the first writer in its own ``commit`` listener, which comes before anything of the cache."""
    gate = Gate()

    def committing(connection: Any) -> None:
        gate.stop_here()

    event.listen(database.engine.sync_engine, "commit", committing)
    try:
        yield gate
    finally:
        gate.open()
        event.remove(database.engine.sync_engine, "commit", committing)


@asynchronous("a task is cancelled")
async def test_a_writer_cancelled_before_phase_one_leaves_no_trace(reader: Reader) -> None:
    await reader.warm(*READS)
    with before_phase_one(reader.database) as gate:
        writer = await gate.reached_by(rename(reader.database))
        for read in READS:
            await reader.hit(read)
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writer
    for read in READS:
        await reader.hit(read)


@asynchronous("a task is cancelled")
@pytest.mark.parametrize("place", [before_commit, after_commit], ids=["before", "after"])
async def test_a_writer_cancelled_around_its_commit_leaves_nothing_stale(place: Any, reader: Reader) -> None:
    await reader.warm(*READS, USER_2)
    async with place(reader.database) as gate:
        writer = await gate.reached_by(rename(reader.database))
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writer
        for read in READS:
            await reader.current(read)
            await reader.current(read)
    await reader.hit(USER_2)


# -- a COMMIT that fails -----------------------------------------------------------------------------------------------

DEFERRED = {
    "sqlite": [
        "PRAGMA foreign_keys = OFF",
        "DROP TABLE order_lines",
        "CREATE TABLE order_lines (id INTEGER NOT NULL PRIMARY KEY, order_id INTEGER NOT NULL"
        " REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED, product VARCHAR(40) NOT NULL,"
        " quantity INTEGER NOT NULL)",
    ],
    "postgresql": [
        "ALTER TABLE order_lines ALTER CONSTRAINT order_lines_order_id_fkey DEFERRABLE INITIALLY DEFERRED"
    ],
}


async def test_a_commit_that_the_database_refuses(database: Database, bind: Bind) -> None:
    await prepare(database, *DEFERRED[database.dialect])
    reader = await bind()
    await reader.warm(*READS, USER_2)
    async with database.sessions() as session:
        if database.dialect == "sqlite":
            await (await session.connection()).exec_driver_sql("PRAGMA foreign_keys = ON")
        await session.execute(RENAME)
        await session.execute(
            text("INSERT INTO order_lines (id, order_id, product, quantity) VALUES (100, 999, 'x', 1)")
        )
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.rollback()
    for read in READS:
        await reader.current(read)
        await reader.hit(read)


@ON_SQLITE
async def test_a_commit_that_is_refused_and_then_repeated(database: Database, bind: Bind) -> None:
    """SQLite leaves the transaction open when COMMIT fails: the writer may mend it and commit again."""
    await prepare(database, *DEFERRED["sqlite"])
    reader = await bind()
    await reader.warm(*READS, USER_2)
    async with database.engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        await connection.execute(RENAME)
        await connection.exec_driver_sql("INSERT INTO order_lines VALUES (100, 999, 'x', 1)")
        with pytest.raises(IntegrityError):
            await connection.exec_driver_sql("COMMIT")
        for read in READS:
            await reader.current(read)  # filled again before the COMMIT that succeeds
            await reader.hit(read)
        await connection.exec_driver_sql("DELETE FROM order_lines WHERE id = 100")
        await connection.commit()
    for read in READS:
        await reader.current(read)
        await reader.hit(read)


# -- a connection that is lost -----------------------------------------------------------------------------------------


async def _backend(session: Any) -> int:
    return int((await session.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def _terminate(database: Database, pid: int) -> None:
    async with database.truth_engine.begin() as connection:
        await connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


@ON_POSTGRESQL
@pytest.mark.parametrize("place", [before_commit, after_commit], ids=["before", "after"])
async def test_a_connection_terminated_around_commit_leaves_nothing_stale(place: Any, reader: Reader) -> None:
    await reader.warm(*READS, USER_2)
    pids: list[int] = []

    async def write() -> None:
        async with reader.database.sessions() as session:
            (await read_past_the_cache(session, User, 1)).name = "zed"
            await session.flush()
            pids.append(await _backend(session))
            await session.commit()

    async with place(reader.database) as gate:
        writer = await gate.reached_by(write())
        await _terminate(reader.database, pids[0])
        gate.open()
        with suppress(DBAPIError):
            await writer
    await reader.database.engine.dispose()  # the terminated connection went back to the pool
    for read in READS:
        await reader.current(read)
        await reader.current(read)
    await reader.hit(USER_2)


SLOW_COMMIT = [
    """CREATE FUNCTION wait_for_lock() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$""",
    "CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION wait_for_lock()",
]


async def test_an_update_of_nothing_leaves_the_gets_of_other_rows(reader: Reader) -> None:
    await check_untouched(
        [USER_2, TEAMS],
        lambda database: _execute(database, update(User).where(User.id == 999).values(name="x")),
        reader,
    )


async def _execute(database: Database, statement: Any) -> None:
    async with database.transaction() as session:
        await session.execute(statement)
