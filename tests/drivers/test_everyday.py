"""What every driver must do: hit, evict what a commit wrote, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, event, func, insert, select, text, update
from sqlalchemy.dialects import mysql, postgresql, sqlite

from tests.drivers.tables import Book, Counted, Shelf
from tests.support.databases import Database, make_sessions
from tests.support.models import Role, User
from tests.support.reading import Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import BY_KEY, BY_WRITE, Situation, Write, check, check_untouched, situations
from tests.support.writes import (
    add,
    change,
    execute,
    execute_on_connection,
    raw_in_session,
    raw_on_driver,
)

SHELF_1, SHELF_2 = get(Shelf, 1), get(Shelf, 2)
shelves = entities(lambda: select(Shelf).order_by(Shelf.id))
labels = rows(lambda: select(Shelf.id, Shelf.label).order_by(Shelf.id))
areas = rows(lambda: select(Shelf.id, Shelf.area).order_by(Shelf.id))
widths = rows(lambda: select(Shelf.id, Shelf.width).order_by(Shelf.id))
red = rows(lambda: select(Shelf.id).where(Shelf.label == "red"))
books = entities(lambda: select(Book).order_by(Book.id))
books_of_1 = entities(lambda: select(Book).where(Book.shelf_id == 1).order_by(Book.id))
books_of_2 = entities(lambda: select(Book).where(Book.shelf_id == 2).order_by(Book.id))
count_books = scalar(lambda: select(func.count()).select_from(Book))
counted = get(Counted, 1)
users = entities(lambda: select(User).order_by(User.id))

relabelled = change(Shelf, 1, label="green")


def upsert(database: Database) -> Any:
    values = {"id": 1, "label": "upserted", "width": 1}
    if database.dialect == "mariadb":
        return mysql.insert(Shelf.__table__).values(values).on_duplicate_key_update(label="upserted")
    make = postgresql.insert if database.dialect == "postgresql" else sqlite.insert
    return (
        make(Shelf.__table__)
        .values(values)
        .on_conflict_do_update(index_elements=["id"], set_={"label": "upserted"})
    )


async def without_the_orm_knowing(database: Database) -> None:
    """Delete a shelf; its books are deleted by the database."""
    async with database.transaction() as session:
        if database.dialect == "sqlite":
            await session.execute(text("PRAGMA foreign_keys = ON"))
        await session.execute(delete(Shelf).where(Shelf.id == 1))


async def returning(database: Database) -> None:
    statement = insert(Book.__table__).values(shelf_id=1, title="new")

    def run(sync: Any) -> Any:
        if database.dialect == "postgresql":
            return sync.execute(statement.returning(Book.__table__.c.id)).scalar()
        return sync.execute(statement).inserted_primary_key[0]

    async with database.transaction() as session:
        assert await session.run_sync(run) > 3


async def savepoint_kept(database: Database) -> None:
    async with database.transaction() as session:
        async with session.begin_nested():
            (await session.get(Shelf, 1)).label = "kept"


async def savepoint_undone(database: Database) -> None:
    async with database.transaction() as session:
        nested = await session.begin_nested()
        await session.execute(update(Shelf).where(Shelf.id == 1).values(label="undone"))
        await nested.rollback()
        await session.execute(update(Book).where(Book.id == 3).values(title="kept"))


async def rolled_back(database: Database) -> None:
    async with database.sessions() as session:
        await session.execute(update(Shelf).where(Shelf.id == 1).values(label="undone"))
        session.add(Book(id=100, shelf_id=1, title="undone"))
        await session.flush()
        await session.rollback()


async def in_autocommit(database: Database) -> None:
    async with database.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(update(Shelf).where(Shelf.id == 1).values(label="at once"))


async def two_phases(database: Database) -> None:
    async with make_sessions(database.engine, twophase=True)() as session:
        (await session.get(Shelf, 1)).label = "prepared"
        await session.run_sync(lambda sync: sync.prepare())
        await session.commit()


SITUATIONS = [
    Situation("a_commit_is_seen_by_a_get", SHELF_1, relabelled, SHELF_2, BY_KEY),
    Situation("a_commit_is_seen_by_a_list", labels, relabelled, widths),
    Situation("a_commit_is_seen_by_a_condition", red, relabelled, SHELF_2),
    Situation(
        "an_added_row_is_seen_by_a_count", count_books, add(lambda: Book(shelf_id=1, title="n")), books_of_2
    ),
    Situation(
        "an_added_row_is_seen_by_a_list", books_of_1, add(lambda: Book(shelf_id=1, title="n")), books_of_2
    ),
    Situation("a_key_that_the_database_made_is_seen", books, returning, books_of_2),
    Situation("a_bulk_update_is_seen", SHELF_2, execute(lambda _: update(Shelf).values(label="all")), widths),
    Situation(
        "a_bulk_delete_is_seen", books, execute(lambda _: delete(Book).where(Book.title == "two")), SHELF_1
    ),
    Situation("an_upsert_is_seen", SHELF_1, execute(upsert), users),
    Situation("an_upsert_on_a_connection_is_seen", labels, execute_on_connection(upsert), users),
    Situation("a_cascade_in_the_database_is_seen", books_of_1, without_the_orm_knowing, counted),
    Situation("a_generated_column_is_seen", areas, change(Shelf, 1, width=9), labels),
    Situation("a_trigger_is_seen", counted, change(Book, 1, title="changed"), SHELF_1),
    Situation("a_savepoint_that_is_kept_is_seen", SHELF_1, savepoint_kept, SHELF_2),
    Situation("a_savepoint_that_is_undone_is_not", books, savepoint_undone, SHELF_1),
    Situation("a_statement_in_autocommit_is_seen", SHELF_1, in_autocommit, SHELF_2),
    Situation(
        "raw_sql_is_seen",
        SHELF_1,
        raw_in_session("UPDATE dr_shelves SET label = :label WHERE id = 1", label="raw"),
        widths,
        raw=True,
    ),
    Situation(
        "sql_handed_to_the_driver_is_seen",
        labels,
        raw_on_driver("UPDATE dr_shelves SET label = 'raw' WHERE id = 1"),
        widths,
        raw=True,
    ),
]


@situations(SITUATIONS)
async def test_that(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


async def test_every_type_of_the_everyday_model_is_served_as_the_database_has_it(reader: Reader) -> None:
    found = await reader.current(users)
    assert [decision.fill for decision in found.decisions] == ["stored"]
    await reader.hit(users)
    await change(User, 1, avatar=b"\x00\xff", role=Role.MEMBER, profile={"n": [1, None]})(reader.database)
    await reader.miss(users, BY_WRITE)
    await reader.hit(users)


@pytest.mark.parametrize("write", [rolled_back], ids=lambda write: write.__name__)
async def test_a_rollback_leaves_no_trace(write: Write, reader: Reader) -> None:
    await check_untouched([SHELF_1, labels, books, count_books], write, reader)


async def test_nobody_sees_what_is_not_committed(reader: Reader) -> None:
    await reader.warm(SHELF_1, count_books)
    async with reader.database.sessions() as session:
        (await session.get(Shelf, 1)).label = "uncommitted"
        await session.flush()
        await reader.bypass(labels, "dirty_transaction", session)
        assert (await session.execute(select(Shelf.label).where(Shelf.id == 1))).scalar() == "uncommitted"
        await reader.hit(SHELF_1)
        await session.commit()
    await reader.miss(SHELF_1, BY_WRITE)


async def test_a_locking_read_is_sent_to_the_database(reader: Reader) -> None:
    locking = entities(lambda: select(Shelf).where(Shelf.id == 1).with_for_update())
    await reader.bypass(locking, "locking_read")


async def test_keys_that_the_database_makes_are_known_at_commit(reader: Reader) -> None:
    keys: list[int] = []

    @event.listens_for(reader.database.engine.sync_engine, "commit")
    def note(connection: Any) -> None:
        keys.append(1)

    async with reader.database.transaction() as session:
        made = Book(shelf_id=2, title="made")
        session.add(made)
        await session.flush()
        key = made.id
    assert key is not None and keys
    await reader.miss(get(Book, key), {"absent"})
    await reader.hit(get(Book, key))


@situations(
    [
        Situation("is_seen_by_a_get", SHELF_1, two_phases, SHELF_2, BY_KEY),
        Situation("is_seen_by_a_list", labels, two_phases, count_books),
    ]
)
async def test_a_commit_in_two_phases(situation: Situation, reader: Reader, driver: str) -> None:
    if driver in ("sqlite+aiosqlite", "sqlite+pysqlite", "postgresql+asyncpg"):
        pytest.skip("SQLAlchemy has no two-phase commit for this driver")
    await check(situation, reader)


async def test_a_temporary_table_that_hides_another_keeps_its_connection_from_the_cache(
    reader: Reader,
) -> None:
    """1. A connection makes a temporary table of a cached table's name. 2. What it reads there is nobody else's."""
    await reader.warm(labels, users)
    async with reader.database.sessions() as session:
        await session.execute(
            text("CREATE TEMPORARY TABLE dr_shelves (id INT, label VARCHAR(20), width INT, area INT)")
        )
        await session.commit()
        await session.connection()
        assert (await reader.bypass(labels, "connection_state", session)).value == ("list",)
        await session.execute(
            text(f"DROP {'TEMPORARY ' * (reader.database.dialect == 'mariadb')}TABLE dr_shelves")
        )
        await session.commit()
    await reader.current(labels)


async def test_a_temporary_table_of_another_name_changes_nothing(reader: Reader) -> None:
    await reader.warm(labels)
    async with reader.database.sessions() as session:
        await session.execute(text("CREATE TEMPORARY TABLE dr_own (id INT)"))
        await session.commit()
        await session.connection()
        await reader.ask(labels, session)
        assert (await reader.ask(labels, session)).hits
