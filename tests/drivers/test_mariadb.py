"""What MariaDB does otherwise: it commits by itself, writes several tables at once, and takes ``Bob`` for ``bob ``."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Column, Integer, MetaData, String, Table, delete, func, insert, select, text, update
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import declarative_base

from tests.drivers.tables import Book, Counted, Shelf
from tests.support.databases import Database, make_sessions
from tests.support.fronts import configure, open_engine
from tests.support.models import User
from tests.support.reading import Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import BY_WRITE, Situation, check, situations
from tests.support.writes import add, change, execute, raw_in_session, raw_on_driver

DIALECTS = ("mariadb",)
OF_THE_DATABASE = {
    "test_that",
    "test_a_name_is_seen_however_it_is_spelled",
    "test_names_that_are_not_equal_are_left_alone",
    "test_every_collation_is_seen_as_the_database_compares",
    "test_a_value_that_the_database_cuts_is_seen_as_it_was_stored",
    "test_a_table_without_transactions_is_not_cached",
    "test_a_file_that_is_loaded_is_seen",
}

SHELF_1, SHELF_2, USER_1 = get(Shelf, 1), get(Shelf, 2), get(User, 1)
labels = rows(lambda: select(Shelf.id, Shelf.label).order_by(Shelf.id))
titles = rows(lambda: select(Book.id, Book.title).order_by(Book.id))
users = entities(lambda: select(User).order_by(User.id))

RELABEL = update(Shelf).where(Shelf.id == 1).values(label="written")

Base = declarative_base()


class Name(Base):
    """Names as MariaDB compares them by default, without regard to case, accents and blanks at the end."""

    __tablename__ = "dr_names"

    name = Column(String(20), primary_key=True)
    alias = Column(String(20))
    exact = Column(String(20, collation="utf8mb4_bin"))
    danish = Column(String(20, collation="utf8mb4_danish_ci"))
    plan = Column(String(3))
    number = Column(mysql.INTEGER(unsigned=True))


NAMES = [
    {"name": "Bob", "alias": "Bob", "exact": "Bob", "danish": "aa", "plan": "abc", "number": 1},
    {"name": "ann", "alias": "ann", "exact": "ann", "danish": "b", "plan": "d", "number": 2},
]


async def prepare(database: Database, *statements: str) -> None:
    """Execute SQL on an engine that the cache does not know."""
    async with database.truth_engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


@pytest_asyncio.fixture
async def database(database: Database) -> Database:
    async with database.truth_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Name.__table__), NAMES)
        for statement in MADE:
            await connection.exec_driver_sql(statement)
    return database


MADE = [
    "CREATE VIEW dr_red AS SELECT id, label FROM dr_shelves WHERE id = 1",
    "CREATE TABLE dr_plain (id INT PRIMARY KEY, n INT) ENGINE=MyISAM",
    "INSERT INTO dr_plain VALUES (1, 1)",
    "CREATE PROCEDURE dr_relabel_all() UPDATE dr_shelves SET label = 'called'",
    "CREATE PROCEDURE dr_commit() BEGIN UPDATE dr_shelves SET label = 'called'; COMMIT; END",
]

red = Table("dr_red", MetaData(), Column("id", Integer, primary_key=True), Column("label", String(20)))
PlainBase = declarative_base()


class Plain(PlainBase):
    """Of an engine without transactions."""

    __tablename__ = "dr_plain"

    id = Column(Integer, primary_key=True)
    n = Column(Integer)


# What is written


def several_tables(_: Database) -> Any:
    return (
        update(Shelf)
        .where(Shelf.id == Book.shelf_id, Book.id == 1)
        .values({Shelf.label: "both", Book.title: "both"})
        .execution_options(synchronize_session=False)
    )


def delete_joined(_: Database) -> Any:
    return (
        delete(Book.__table__)
        .where(Book.__table__.c.shelf_id == Shelf.__table__.c.id)
        .where(Shelf.__table__.c.label == "red")
    )


def ignoring(_: Database) -> Any:
    return (
        insert(Shelf.__table__)
        .prefix_with("IGNORE")
        .values([{"id": 1, "label": "no"}, {"id": 9, "label": "new"}])
    )


def replacing(_: Database) -> Any:
    return text("REPLACE INTO dr_shelves (id, label, width) VALUES (1, 'replaced', 1)")


def upserting_a_unique_column(_: Database) -> Any:
    values = {"id": 100, "name": "n", "email": "ann@example.com"}
    return mysql.insert(User.__table__).values(**values).on_duplicate_key_update(name="found by e-mail")


SITUATIONS = [
    Situation("an_update_of_two_tables_is_seen_in_the_first", SHELF_1, execute(several_tables), users),
    Situation("an_update_of_two_tables_is_seen_in_the_second", titles, execute(several_tables), users),
    Situation("a_delete_by_a_join_is_seen", titles, execute(delete_joined), labels),
    Situation("an_insert_that_ignores_is_seen", labels, execute(ignoring), users),
    Situation("an_upsert_by_a_unique_column_is_seen", USER_1, execute(upserting_a_unique_column), labels),
    Situation("a_replace_is_seen", SHELF_1, execute(replacing), users, raw=True),
    Situation("a_replace_is_seen_where_it_deletes", titles, execute(replacing), users, raw=True),
    Situation("a_procedure_is_seen", labels, raw_on_driver("CALL dr_relabel_all()"), users, raw=True),
    Situation("a_procedure_that_commits_is_seen", labels, raw_on_driver("CALL dr_commit()"), users, raw=True),
    Situation(
        "a_function_that_writes_is_seen",
        SHELF_1,
        execute(lambda _: select(func.dr_relabel(1))),
        users,
        raw=True,
    ),
    Situation(
        "a_raw_function_that_writes_is_seen", SHELF_1, raw_in_session("SELECT dr_relabel(1)"), users, raw=True
    ),
    Situation(
        "a_function_in_a_setting_is_seen", SHELF_1, raw_in_session("SET @a = dr_relabel(1)"), users, raw=True
    ),
    Situation(
        "a_statement_with_settings_is_seen",
        SHELF_1,
        raw_in_session(
            "SET STATEMENT lock_wait_timeout=9 FOR UPDATE dr_shelves SET label = 'set' WHERE id = 1"
        ),
        users,
        raw=True,
    ),
    Situation(
        "a_prepared_statement_is_seen",
        SHELF_1,
        raw_in_session("EXECUTE IMMEDIATE 'UPDATE dr_shelves SET label = 1'"),
        users,
        raw=True,
    ),
    Situation(
        "a_write_to_a_view_is_seen", SHELF_1, execute(lambda _: update(red).values(label="view")), users
    ),
    Situation("a_truncated_table_is_seen", titles, raw_in_session("TRUNCATE dr_books"), users, raw=True),
    Situation(
        "a_cascade_is_seen",
        titles,
        execute(lambda _: delete(Shelf.__table__).where(Shelf.__table__.c.id == 1)),
        users,
    ),
]


@situations(SITUATIONS)
async def test_that(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


async def test_a_function_that_writes_nothing_evicts_nothing(reader: Reader) -> None:
    await reader.warm(SHELF_1, users)
    await execute(lambda _: select(func.dr_doubled(1)))(reader.database)
    await reader.bypass(rows(lambda: select(func.dr_doubled(Shelf.id))), "nondeterministic")
    await reader.hit(SHELF_1)
    await reader.hit(users)


async def test_a_file_that_is_loaded_is_seen(reader: Reader, tmp_path: Any, front: Any) -> None:
    file = tmp_path / "rows.txt"
    file.write_text("7\tloaded\t1\n")
    engine = open_engine(f"{reader.database.url}&local_infile=1", front=front)
    await reader.warm(labels, USER_1)
    await reader.cache.bind(engine)
    async with engine.begin() as connection:
        await connection.exec_driver_sql(
            f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE dr_shelves (id, label, width)"
        )
    await engine.dispose()
    await reader.current(labels)


# What commits by itself


COMMITTING = [
    "CREATE TABLE dr_new (id INT)",
    "ALTER TABLE dr_counted ADD extra INT",
    "TRUNCATE dr_books",
    "START TRANSACTION",
    "BEGIN",
    "LOCK TABLES dr_counted READ",
    "SET autocommit = 1",
    "CALL dr_commit()",
    "ANALYZE TABLE dr_counted",
    "BEGIN NOT ATOMIC COMMIT; END",
    "/*! CREATE TABLE dr_new (id INT) */",
    "CREATE OR REPLACE VIEW dr_red AS SELECT id, label FROM dr_shelves",
]


@pytest.mark.parametrize("statement", COMMITTING)
async def test_what_a_statement_commits_by_itself_is_seen_although_the_transaction_is_rolled_back(
    statement: str, reader: Reader
) -> None:
    """1. A row is changed. 2. The statement commits it. 3. A rollback takes nothing back."""
    await reader.warm(SHELF_1, SHELF_2)
    async with reader.database.engine.connect() as connection:
        await connection.execute(RELABEL)
        await connection.execute(text(statement))
        before = await reader.current(SHELF_1)
        await connection.rollback()
        await connection.invalidate()  # with its locks and settings
    after = await reader.current(SHELF_1)
    assert before.value == after.value, "not committed: the test proves nothing"
    await reader.current(SHELF_2)


async def test_what_ddl_constructs_commit_is_seen(reader: Reader) -> None:
    made = Table("dr_made", MetaData(), Column("id", Integer))
    await reader.warm(SHELF_1)
    async with reader.database.engine.connect() as connection:
        await connection.execute(RELABEL)
        await connection.run_sync(made.create)
        await reader.miss(SHELF_1, BY_WRITE)
        await connection.rollback()
    await reader.hit(SHELF_1)


async def test_a_statement_that_fails_before_it_commits_leaves_the_transaction_as_it_was(
    reader: Reader,
) -> None:
    """1. A row is changed. 2. A CREATE that cannot be parsed commits nothing. 3. The session commits."""
    await reader.warm(SHELF_1)
    async with reader.database.sessions() as session:
        await session.execute(RELABEL)
        with pytest.raises(Exception, match="syntax"):
            await session.execute(text("CREATE TABEL dr_new (id INT)"))
        await reader.current(SHELF_1)
        await reader.current(SHELF_1)
        await session.commit()
    await reader.miss(SHELF_1, BY_WRITE)


@pytest.mark.parametrize(
    "statement", ["CREATE TEMPORARY TABLE dr_mine (id INT)", "DO SLEEP(0)", "SHOW TABLES", "SET @a = 1"]
)
async def test_a_statement_that_leaves_the_transaction_open_evicts_at_commit_only(
    statement: str, reader: Reader
) -> None:
    await reader.warm(SHELF_1)
    async with reader.database.sessions() as session:
        await session.execute(RELABEL)
        await session.execute(text(statement))
        await reader.hit(SHELF_1)
        await session.commit()
    await reader.miss(SHELF_1, BY_WRITE)


async def test_what_a_driver_that_commits_at_once_writes_is_seen(reader: Reader, front: Any) -> None:
    engine = open_engine(reader.database.url, front=front, connect_args={"autocommit": True})
    await reader.cache.bind(engine)
    await reader.warm(SHELF_1, SHELF_2)
    async with engine.connect() as connection:
        await connection.execute(RELABEL)
        await reader.miss(SHELF_1, BY_WRITE)
        await reader.hit(SHELF_2)
        await connection.exec_driver_sql("START TRANSACTION")
        await connection.execute(update(Shelf).where(Shelf.id == 1).values(label="later"))
        await reader.current(SHELF_1)
        await reader.current(SHELF_1)
        await connection.exec_driver_sql("COMMIT")
    await reader.miss(SHELF_1, BY_WRITE)
    await engine.dispose()


async def test_a_transaction_in_xa_statements_is_seen(reader: Reader) -> None:
    await reader.warm(SHELF_1)
    async with reader.database.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in (
            "XA START 'a'",
            "UPDATE dr_shelves SET label = 'xa' WHERE id = 1",
            "XA END 'a'",
            "XA PREPARE 'a'",
        ):
            await connection.exec_driver_sql(statement)
        await reader.current(SHELF_1)
        await reader.current(SHELF_1)
        await connection.exec_driver_sql("XA COMMIT 'a'")
    await reader.current(SHELF_1)


async def test_a_commit_in_two_phases_evicts_its_rows_and_nothing_else(reader: Reader) -> None:
    await reader.warm(SHELF_1, SHELF_2, users)
    async with make_sessions(reader.database.engine, twophase=True)() as session:
        (await session.get(Shelf, 1)).label = "prepared"
        await session.run_sync(lambda sync: sync.prepare())
        await reader.hit(SHELF_2)
        await session.commit()
    await reader.miss(SHELF_1, BY_WRITE)
    await reader.hit(SHELF_2)
    await reader.hit(users)


async def test_two_phases_that_are_rolled_back_leave_no_trace(reader: Reader) -> None:
    await reader.warm(SHELF_1, users)
    async with make_sessions(reader.database.engine, twophase=True)() as session:
        (await session.get(Shelf, 1)).label = "prepared"
        await session.run_sync(lambda sync: sync.prepare())
        await session.rollback()
    await reader.hit(SHELF_1)
    await reader.hit(users)


# What is equal


def named(column: Any, value: str) -> Any:
    return rows(lambda: select(Name.name, Name.number).where(column == value).order_by(Name.name))


WRITTEN_AS = ["Bob", "BOB", "bob ", "BoB  ", "Böb", "bób "]


@pytest.mark.parametrize("spelled", WRITTEN_AS)
async def test_a_name_is_seen_however_it_is_spelled(spelled: str, reader: Reader) -> None:
    """The row of ``Bob`` is what reads of all these names depend on, and writes by all of them write."""
    reads = [named(Name.alias, name) for name in WRITTEN_AS] + [named(Name.name, name) for name in WRITTEN_AS]
    for read in reads:
        await reader.current(read)
    await execute(lambda _: update(Name).where(Name.name == spelled).values(number=7))(reader.database)
    for read in reads:
        assert (await reader.current(read)).value == ("list", ("tuple", "Bob", ("int", 7)))
    await execute(lambda _: update(Name).where(Name.alias == spelled).values(number=8))(reader.database)
    for read in reads:
        assert (await reader.current(read)).value == ("list", ("tuple", "Bob", ("int", 8)))
    await add(lambda: Name(name="carl", alias=spelled, number=9))(reader.database)
    for read in reads:
        await reader.current(read)
    await change(Name, "carl", alias="ann")(reader.database)
    for read in reads:
        await reader.current(read)


async def test_names_that_are_not_equal_are_left_alone(reader: Reader) -> None:
    ann, exact_ann = named(Name.alias, "Ann "), named(Name.exact, "ann")
    await reader.warm(ann, exact_ann, named(Name.alias, "bob"), named(Name.exact, "Bob"))
    await change(Name, "bob", number=7)(reader.database)
    await reader.hit(ann)
    await reader.hit(exact_ann)
    await reader.miss(named(Name.alias, "bob"), BY_WRITE)
    await reader.miss(named(Name.exact, "Bob"), BY_WRITE)


@pytest.mark.parametrize("column", [Name.exact, Name.danish], ids=["bin", "danish"])
async def test_every_collation_is_seen_as_the_database_compares(column: Any, reader: Reader) -> None:
    reads = [named(column, value) for value in ("Bob", "bob", "Bob ", "aa", "å", "AA", "b", "B")]
    for value in ("Bob", "bob", "å", "AA ", "aa", "b"):
        for read in reads:
            await reader.current(read)
        await change(Name, "ann", **{column.key: value})(reader.database)
        for read in reads:
            await reader.current(read)


async def test_a_value_that_the_database_cuts_is_seen_as_it_was_stored(reader: Reader) -> None:
    reads = [
        rows(lambda: select(Name.name).where(Name.plan == "abc").order_by(Name.name)),
        rows(lambda: select(Name.name).where(Name.number == 0).order_by(Name.name)),
        rows(lambda: select(Name.name).where(Name.number == 4294967295).order_by(Name.name)),
    ]
    for read in reads:
        await reader.current(read)
    async with reader.database.transaction() as session:
        await session.execute(text("SET SESSION sql_mode = ''"))
        session.add(Name(name="long", plan="abcdef", number=-5))
        await session.flush()
        session.add(Name(name="large", plan="d", number=2**40))
    for read in reads:
        await reader.current(read)


# What rows mean


@pytest.mark.parametrize(
    "setting", ["SET NAMES latin1", "SET sql_mode = 'ANSI_QUOTES'", "SET time_zone = '+05:00'", "SET @a = 1"]
)
async def test_a_setting_of_the_session_keeps_its_connection_from_the_cache(
    setting: str, reader: Reader
) -> None:
    await reader.warm(SHELF_1)
    async with reader.database.sessions() as session:
        await session.execute(text(setting))
        await reader.bypass(SHELF_1, "connection_state", session)
    await reader.hit(SHELF_1)


async def test_a_table_without_transactions_is_not_cached(reader: Reader) -> None:
    await reader.bypass(get(Plain, 1), "untracked_source")


async def test_the_isolation_that_mariadb_begins_with_has_no_hits(database: Database, front: Any) -> None:
    cautious, relaxed = (Database(database.url, front) for _ in range(2))
    for one, isolation in ((cautious, "strict"), (relaxed, "relaxed")):
        await one.engine.dispose()
        one.engine = open_engine(one.url, front=front)
        one.sessions = make_sessions(one.engine)
        cache = configure(front=front, models={"*": {"timeout": 60}}, telemetry=None, isolation=isolation)
        await cache.bind(one.engine)
        reader = Reader(one, cache)
        if isolation == "strict":
            await reader.bypass(SHELF_1, "isolation")
        else:
            await reader.warm(SHELF_1)
            await change(Shelf, 1, label="changed")(one)
            await reader.miss(SHELF_1, BY_WRITE)
        await cache.disconnect()
        await one.dispose()


async def test_a_locking_read_is_sent_to_the_database(reader: Reader) -> None:
    locking = entities(lambda: select(Shelf).where(Shelf.id == 1).with_for_update(read=True))
    await reader.bypass(locking, "locking_read")
    await reader.warm(scalar(lambda: select(Counted.times)))
