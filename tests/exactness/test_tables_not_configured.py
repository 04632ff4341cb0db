"""Writes of tables that no model configures are noted as a whole; ``execute()`` may cache reads of them at any time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import event, select

from sqlacache.decisions import TableChange
from sqlacache.tags import Shape, table_stamp
from tests.support.databases import Database, make_sessions
from tests.support.gates import after_commit, after_select, before_commit
from tests.support.models import Order, Tag, Team, User
from tests.support.reading import Reader
from tests.support.reads import entities, rows
from tests.support.situations import BY_KEY, BY_WRITE
from tests.support.writes import add, in_session, new_user, read_past_the_cache

from .schema import City, create_places
from .setups import ON_POSTGRESQL, ON_SQLITE, Bind, prepare, with_engine
from .test_writes_by_the_database import cities_of, delete_region

FORCED = {"sqlacache_force": True}
users = User.__table__
names = rows(lambda: select(User.id, User.name).order_by(User.id).execution_options(**FORCED))
user_1, user_2 = (
    entities(lambda key=key: select(User).where(User.id == key).execution_options(**FORCED)) for key in (1, 2)
)
TEAMS = entities(lambda: select(Team).order_by(Team.id))
RENAME = users.update().where(users.c.id == 1).values(name="zed")
READS = pytest.mark.parametrize("read", [names, user_1], ids=["list", "row"])

pytestmark = pytest.mark.usefixtures("cached")


@pytest_asyncio.fixture
async def reader(bind: Bind) -> AsyncIterator[Reader]:
    """Only teams are configured; they are the control of every test."""
    made = await bind(models={Team: {"timeout": 3600}})
    await made.warm(TEAMS)
    yield made
    await made.hit(TEAMS)


@pytest.fixture
def unknowing(reader: Reader) -> Iterator[None]:
    """The store cannot tell what was never read, as one that processes share."""
    store = reader.cache.bindings[0].store
    store.begin_unread = lambda token, tables: False
    yield
    del store.begin_unread


async def rename(database: Database, name: str = "zed") -> None:
    async with database.transaction() as session:
        (await read_past_the_cache(session, User, 1)).name = name


@asynccontextmanager
async def having_renamed(database: Database) -> AsyncIterator[Any]:
    """A session that has changed user 1 and not committed yet."""
    async with database.sessions() as session:
        (await read_past_the_cache(session, User, 1)).name = "zed"
        await session.flush()
        yield session


async def is_read_anew(reader: Reader, *reads: Any) -> None:
    for read in reads:
        assert not (await reader.current(read)).hits
        await reader.current(read)
        await reader.hit(read)


async def only_change(reader: Reader, write: Any) -> TableChange:
    with reader.watch() as seen:
        await write(reader.database)
    (invalidation,) = seen.invalidations
    (change,) = invalidation.changes
    return change


# -- what is noted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [rename, add(new_user)], ids=["update", "insert"])
async def test_nothing_is_invalidated_where_nobody_reads(write: Any, reader: Reader) -> None:
    with reader.watch() as seen:
        await write(reader.database)
    assert not seen.invalidations


async def test_on_a_store_that_has_to_be_asked_no_row_is_looked_at_where_nobody_reads(
    reader: Reader, unknowing: None
) -> None:
    change = await only_change(reader, rename)
    assert (change.table, change.cause, change.rows, change.evicted) == ("users", "row_update", 0, 0)
    assert not change.bumped, "nothing was replaced"


async def test_rows_matter_as_soon_as_somebody_reads(reader: Reader) -> None:
    await rename(reader.database, "zoe")
    await reader.warm(user_1, user_2)
    change = await only_change(reader, rename)
    assert (change.scope, change.rows, change.tags, change.evicted) == ("rows", 1, ("users:1",), 1)
    await reader.miss(user_1, BY_KEY)
    await reader.hit(user_2)


async def test_the_tables_of_a_model_that_is_configured_are_written_row_by_row_from_the_first(
    bind: Bind,
) -> None:
    reader = await bind(models={User: {"timeout": 3600}})
    change = await only_change(reader, rename)
    assert (change.scope, change.rows) == ("rows", 1)


async def test_a_model_with_no_operations_is_none_that_is_configured(bind: Bind) -> None:
    reader = await bind(models={User: {"ops": ()}})
    with reader.watch() as seen:
        await rename(reader.database)
    assert not seen.invalidations
    await reader.warm(user_1, user_2)
    assert (await only_change(reader, lambda database: rename(database, "zoe"))).rows == 1


# -- reads that come in between ----------------------------------------------------------------------------------------


@READS
async def test_a_read_that_comes_between_a_statement_and_its_commit(read: Any, reader: Reader) -> None:
    """
    1. A writer changes user 1. Nobody has read users: the table is noted.
    2. A reader, who sees what was before, registers a shape and stores what it read.
    3. The writer commits: the table goes, since the rows were not noted.
    """
    async with having_renamed(reader.database) as writer:
        await reader.warm(read, user_2)
        with reader.watch() as seen:
            await writer.commit()
    (change,) = seen.invalidations[-1].changes
    assert change.evicted > 0
    assert change.bumped
    await is_read_anew(reader, read)


@READS
async def test_a_statement_that_follows_such_a_read_is_noted_row_by_row_and_the_table_all_the_same(
    read: Any, reader: Reader
) -> None:
    async with having_renamed(reader.database) as writer:
        await reader.warm(read, user_2)
        (await read_past_the_cache(writer, User, 3)).name = "yan"
        await writer.commit()
    await is_read_anew(reader, read, user_2)


async def test_a_shape_that_comes_between_the_look_at_the_registry_and_the_mark(
    reader: Reader, unknowing: None
) -> None:
    """
    1. A writer at COMMIT looks at the registry: there is nothing.
    2. A reader registers a shape and samples its stamps.
    3. The writer's mark is refused; it looks again, and replaces what the reader sampled.
    4. What the reader read before COMMIT is stored under stamps that are gone.
    """
    store = reader.cache.bindings[0].store
    shape = Shape("users", (), None)
    stamps = [table_stamp("users"), shape.name]
    sampled: list[Any] = []
    mark = store.mark

    def overtaken(*arguments: Any) -> Any:
        if not sampled:
            sample, registered = store.sample(stamps, ["users"], [shape], 60)
            assert registered
            sampled.extend(stamp.nonce for stamp in sample.stamps)
        return mark(*arguments)

    store.mark = overtaken
    try:
        await rename(reader.database)
    finally:
        del store.mark
    now = [stamp.nonce for stamp in store.lookup("none", stamps).stamps]
    assert now[0] != sampled[0] or now[1] != sampled[1]


@pytest.mark.parametrize("place", [before_commit, after_commit], ids=["before", "after"])
@READS
async def test_a_first_read_while_the_writer_is_at_commit_is_not_stored(
    place: Any, read: Any, reader: Reader
) -> None:
    """
    1. The writer is marked on a table of which there is no stamp.
    2. A reader may register nothing while it is: what it reads is not stored.
    3. The writer settles. From now on reads are stored.
    """
    async with place(reader.database) as gate:
        writing = await gate.reached_by(rename(reader.database))
        await reader.bypass(read, "writer_under_way")
        gate.open()
        await writing
    await reader.warm(read)


@READS
async def test_a_first_read_while_a_writer_whose_lease_has_ended_is_at_commit_goes_with_it(
    read: Any, reader: Reader
) -> None:
    """
    1. A writer is under way on a table that nobody has read. Its COMMIT takes longer than the lease.
    2. A reader registers a shape, reads what was before, and stores it.
    3. COMMIT lands. The writer finds the shape: what was stored under it goes.
    """
    async with before_commit(reader.database) as gate:
        writing = await gate.reached_by(rename(reader.database))
        await reader.bypass(read, "writer_under_way")
        reader.cache.bindings[0].store.end_leases()
        await reader.warm(read)
        gate.open()
        await writing
    await is_read_anew(reader, read)


@READS
async def test_a_read_whose_select_is_answered_before_the_commit_and_stored_after_it(
    read: Any, reader: Reader
) -> None:
    with after_select(reader.database) as gate:
        slow = await gate.reached_by(reader.ask(read))
        await rename(reader.database)
        gate.open()
        await slow
    await is_read_anew(reader, read)


async def by_connection(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(RENAME)


# -- transactions ------------------------------------------------------------------------------------------------------


@READS
async def test_a_session_sees_its_own_write_and_nobody_else_does(read: Any, reader: Reader) -> None:
    async with having_renamed(reader.database) as writer:
        await reader.warm(read)
        answer = await reader.bypass(read, "dirty_transaction", writer)
        assert answer.value != (await reader.hit(read)).value
        await writer.rollback()
    await reader.hit(read)


async def test_what_a_savepoint_took_back_evicts_nothing(reader: Reader) -> None:
    async with reader.database.sessions() as writer:
        (await read_past_the_cache(writer, Team, 2)).name = "away"
        savepoint = await writer.begin_nested()
        (await read_past_the_cache(writer, User, 1)).name = "zed"
        await writer.flush()
        await reader.warm(user_1)
        await savepoint.rollback()
        await writer.commit()
    await reader.hit(user_1)
    await reader.current(TEAMS)


async def test_a_write_before_a_savepoint_outlives_the_same_write_after_it(reader: Reader) -> None:
    """
    1. A statement writes users, and so does the same statement after a savepoint: the table is noted once.
    2. The savepoint is rolled back. What came before it is committed.
    """
    async with reader.database.engine.connect() as connection:
        transaction = await connection.begin()
        await connection.execute(RENAME)
        savepoint = await connection.begin_nested()
        await connection.execute(RENAME)
        await reader.warm(user_1)
        await savepoint.rollback()
        await transaction.commit()
    await is_read_anew(reader, user_1)


@READS
async def test_every_such_table_that_a_transaction_writes(read: Any, reader: Reader) -> None:
    tags = entities(lambda: select(Tag).order_by(Tag.id).execution_options(**FORCED))
    async with reader.database.sessions() as writer:
        for entity, column, value in (
            (Tag, "name", "new"),
            (User, "email", "zed@example.com"),
            (User, "name", "zed"),
        ):
            setattr(await read_past_the_cache(writer, entity, 1), column, value)
            await writer.flush()
        await reader.warm(tags, read)
        await writer.commit()
    await is_read_anew(reader, tags, read)


@READS
async def test_statements_that_commit_by_themselves(read: Any, database: Database, bind: Bind) -> None:
    async with with_engine(database, isolation_level="AUTOCOMMIT") as other:
        reader = await bind(other, models={Team: {"timeout": 3600}})
        await reader.warm(TEAMS)
        await by_connection(other)
        await reader.warm(read, user_2)
        async with other.engine.connect() as connection:
            await connection.execute(RENAME.values(name="yan"))
            await is_read_anew(reader, read)
        await reader.hit(user_2)
        await reader.hit(TEAMS)


@ON_POSTGRESQL
@READS
async def test_a_commit_in_two_phases(read: Any, reader: Reader) -> None:
    async with make_sessions(reader.database.engine, twophase=True)() as session:
        (await read_past_the_cache(session, User, 1)).name = "zed"
        await session.flush()
        await reader.warm(read)
        await session.commit()
    await is_read_anew(reader, read)


# -- what else is written in consequence -----------------------------------------------------------------------------


async def test_what_the_database_deletes_with_rows_of_such_a_table(database: Database, bind: Bind) -> None:
    await create_places(database)
    reader = await bind(models={City: {"timeout": 3600}})
    await reader.warm(cities_of("n"), cities_of("s"))
    await in_session(delete_region)(database)
    await reader.miss(cities_of("n"), BY_WRITE)
    await reader.hit(cities_of("s"))


@ON_SQLITE
async def test_what_a_trigger_on_such_a_table_writes(database: Database, bind: Bind) -> None:
    await prepare(
        database,
        "CREATE TRIGGER renames AFTER INSERT ON tags BEGIN UPDATE teams SET name = new.name WHERE id = 1; END",
    )
    reader = await bind(models={Team: {"timeout": 3600}, Order: {"timeout": 3600}})
    orders = entities(lambda: select(Order).order_by(Order.id))
    await reader.warm(TEAMS, orders)
    async with database.transaction() as session:
        session.add(Tag(name="new"))
    await reader.miss(TEAMS, BY_WRITE)
    await reader.hit(orders)


# -- a statement that a listener runs by itself -----------------------------------------------------------------------


async def test_old_values_are_not_read_when_the_statement_has_run_already(
    database: Database, bind: Bind
) -> None:
    """
    1. An UPDATE is noted; a listener executes it and keeps it from the dialect.
    2. The next statement runs. It is not the one whose old values are to be read: they are gone.
    """
    reader = await bind()
    before, after = (
        entities(lambda team=team: select(User).where(User.team_id == team).order_by(User.id))
        for team in (1, 2)
    )
    await reader.warm(before, after, TEAMS)

    def run(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        if not statement.startswith("UPDATE"):
            return False
        cursor.execute(statement, parameters)
        return True

    event.listen(database.engine.sync_engine, "do_execute", run)
    try:
        async with database.connection() as connection:
            await connection.execute(users.update().where(users.c.id == 1).values(team_id=2))
            await connection.execute(select(users.c.id).where(users.c.id == 1))
    finally:
        event.remove(database.engine.sync_engine, "do_execute", run)
    await reader.miss(before, BY_WRITE)
    await reader.miss(after, BY_WRITE)
    await reader.hit(TEAMS)
