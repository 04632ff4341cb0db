"""Statements that write: RETURNING, many parameters, INSERT from SELECT, REPLACE, upserts, writing functions."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import bindparam, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from tests.support.databases import Database
from tests.support.models import Order, Stock, Tag, Team, User
from tests.support.reading import Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import BY_KEY, BY_WRITE, Situation, check, situations
from tests.support.writes import execute, execute_on_connection, in_session, new_user

from .setups import ON_POSTGRESQL, ON_SQLITE, Bind, prepare

TEAMS = entities(lambda: select(Team).order_by(Team.id))
EMAILS = rows(lambda: select(User.id, User.email).order_by(User.id))
names = rows(lambda: select(User.id, User.name).order_by(User.id))
tag_names = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))
count_tags = scalar(lambda: select(func.count()).select_from(Tag))
tags, users, stock = Tag.__table__, User.__table__, Stock.__table__


def in_stock(warehouse: str) -> Any:
    return rows(
        lambda: select(Stock.sku, Stock.quantity).where(Stock.warehouse == warehouse).order_by(Stock.sku)
    )


def returns(database: Database, statement: Any) -> Any:
    """``statement`` with RETURNING, where this SQLAlchemy has it for the dialect."""
    dialect = database.engine.dialect
    kind = type(statement).__name__.lower()
    has = getattr(dialect, f"{kind}_returning", dialect.name == "postgresql")
    return statement.returning(statement.table.c.id) if has else statement


RETURNING = [
    Situation(
        "update_by_key_that_returns_rows",
        get(User, 1),
        execute(lambda db: returns(db, users.update().where(users.c.id == 1).values(name="zed"))),
        get(User, 2),
        BY_KEY,
    ),
    Situation(
        "update_by_condition_that_returns_rows",
        names,
        execute(lambda db: returns(db, users.update().where(users.c.plan == "free").values(name="zed"))),
        EMAILS,
    ),
    Situation(
        "insert_that_returns_rows",
        tag_names,
        execute(lambda db: returns(db, tags.insert().values(name="new"))),
        TEAMS,
    ),
    Situation(
        "insert_of_a_known_key_that_returns_rows",
        tag_names,
        execute(lambda db: returns(db, tags.insert().values(id=100, name="new"))),
        get(Tag, 1),
    ),
    Situation(
        "delete_that_returns_rows",
        get(Tag, 3),
        execute(lambda db: returns(db, tags.delete().where(tags.c.name == "unused"))),
        TEAMS,
    ),
]

_MANY = [{"key": 1, "new": "yan"}, {"key": 2, "new": "zed"}]
_BY_KEY = users.update().where(users.c.id == bindparam("key")).values(name=bindparam("new"))
_BY_PLAN = users.update().where(users.c.plan == bindparam("key")).values(name=bindparam("new"))
_TAGS = [{"id": 100 + n, "name": f"tag{n}"} for n in range(3)]

MANY = [
    Situation("many_updates_by_key", names, execute_on_connection(lambda _: _BY_KEY, _MANY), EMAILS),
    Situation(
        "many_updates_by_key_are_of_those_rows",
        get(User, 2),
        execute_on_connection(lambda _: _BY_KEY, _MANY),
        get(User, 3),
        BY_KEY,
    ),
    Situation(
        "many_updates_by_condition",
        get(User, 1),
        execute_on_connection(lambda _: _BY_PLAN, [{"key": "free", "new": "x"}, {"key": "none", "new": "y"}]),
        TEAMS,
    ),
    Situation(
        "many_deletes_by_key",
        tag_names,
        execute_on_connection(
            lambda _: tags.delete().where(tags.c.id == bindparam("key")), [{"key": 3}, {"key": 9}]
        ),
        get(Tag, 1),
    ),
    Situation(
        "many_inserts", get(Tag, 101), execute_on_connection(lambda _: tags.insert(), _TAGS), get(Tag, 1)
    ),
    Situation(
        "many_inserts_whose_keys_the_database_makes",
        tag_names,
        execute_on_connection(lambda _: tags.insert(), [{"name": "p"}, {"name": "q"}]),
        TEAMS,
    ),
    Situation(
        "many_updates_through_the_driver",
        names,
        lambda database: _many_on_driver(database),
        TEAMS,
        raw=True,
    ),
]


async def _many_on_driver(database: Database) -> None:
    marks = {"qmark": ("?", "?"), "format": ("%s", "%s")}  # the second is asyncpg's of SQLAlchemy 1.4
    mark = marks.get(database.engine.dialect.paramstyle, ("$1", "$2"))
    sql = f"UPDATE users SET name = {mark[0]} WHERE id = {mark[1]}"
    async with database.connection() as connection:
        await connection.exec_driver_sql(sql, [("yan", 1), ("zed", 2)])


FROM_SELECT = [
    Situation(
        "insert_from_a_select",
        tag_names,
        execute(lambda _: insert(Tag).from_select(["id", "name"], select(Team.id + 100, Team.name))),
        TEAMS,
    ),
    Situation(
        "insert_from_a_select_is_seen_by_a_get_of_an_absent_row",
        get(Tag, 101),
        execute(lambda _: insert(Tag).from_select(["id", "name"], select(Team.id + 100, Team.name))),
        TEAMS,
    ),
    Situation(
        "update_by_a_scalar_subquery",
        names,
        execute(
            lambda _: (
                update(User)
                .where(User.id.in_(select(Order.user_id).where(Order.status == "sent")))
                .values(name=select(Team.name).where(Team.id == 3).scalar_subquery())
                .execution_options(synchronize_session=False)
            )
        ),
        entities(lambda: select(Order).order_by(Order.id)),
    ),
]
if not sqlalchemy.__version__.startswith("1.4"):  # which has no UPDATE .. FROM for SQLite
    FROM_SELECT.append(
        Situation(
            "update_from_another_table",
            names,
            execute(
                lambda _: (
                    update(User)
                    .where(User.team_id == Team.id, Team.name == "red")
                    .values(name=Team.name)
                    .execution_options(synchronize_session=False)
                )
            ),
            TEAMS,
        )
    )


def make_insert(database: Database) -> Any:
    return (postgresql if database.dialect == "postgresql" else sqlite).insert


def update_excluded(database: Database) -> Any:
    made = make_insert(database)(stock).values(
        [{"warehouse": "north", "sku": 1, "quantity": 5}, {"warehouse": "west", "sku": 9, "quantity": 6}]
    )
    return made.on_conflict_do_update(
        index_elements=["warehouse", "sku"], set_={"quantity": made.excluded.quantity}
    )


def update_where(database: Database) -> Any:
    made = make_insert(database)(tags).values(id=1, name="gold")
    return made.on_conflict_do_update(
        index_elements=["id"], set_={"name": "gold"}, where=tags.c.name == "vip"
    )


def moves_the_key(database: Database) -> Any:
    made = make_insert(database)(tags).values(id=100, name="unused")
    return made.on_conflict_do_update(index_elements=["name"], set_={"id": made.excluded.id})


def many_upserts(database: Database) -> Any:
    made = make_insert(database)(tags)
    return made.on_conflict_do_update(index_elements=["id"], set_={"name": made.excluded.name})


UPSERTS = [
    Situation(
        "upsert_sets_what_was_excluded", in_stock("north"), execute(update_excluded), in_stock("south")
    ),
    Situation(
        "upsert_inserts_what_was_not_there", in_stock("west"), execute(update_excluded), in_stock("south")
    ),
    Situation("upsert_with_a_condition", get(Tag, 1), execute(update_where), get(Tag, 2), BY_KEY),
    Situation(
        "upsert_that_moves_the_primary_key_is_seen_of_the_old", get(Tag, 3), execute(moves_the_key), TEAMS
    ),
    Situation(
        "upsert_that_moves_the_primary_key_is_seen_of_the_new", get(Tag, 100), execute(moves_the_key), TEAMS
    ),
    Situation(
        "upserts_of_many_parameters",
        get(Tag, 1),
        execute_on_connection(many_upserts, [{"id": 1, "name": "gold"}, {"id": 100, "name": "new"}]),
        get(Tag, 2),
        BY_KEY,
    ),
    Situation(
        "upserts_of_many_parameters_are_seen_by_a_count",
        count_tags,
        execute_on_connection(many_upserts, [{"id": 1, "name": "gold"}, {"id": 100, "name": "new"}]),
        TEAMS,
    ),
]


def merged(session: Session) -> None:
    session.merge(Tag(id=1, name="gold"))


def merged_new(session: Session) -> None:
    session.merge(Tag(id=100, name="gold"))


MERGES = [
    Situation("merge_of_a_row_that_is_there", get(Tag, 1), in_session(merged), get(Tag, 2), BY_KEY),
    Situation("merge_of_a_row_that_is_not", tag_names, in_session(merged_new), get(Tag, 2)),
]


@situations(RETURNING)
async def test_a_statement_that_returns_rows(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(MANY)
async def test_a_statement_of_many_parameters(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(FROM_SELECT)
async def test_a_statement_that_takes_values_from_a_select(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(UPSERTS)
async def test_an_upsert(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(MERGES)
async def test_a_merge(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


async def test_an_upsert_that_overwrites_a_row_by_another_unique_column_is_seen_of_that_row(
    reader: Reader,
) -> None:
    """The row written is not the one that the parameters name."""

    def by_name(database: Database) -> Any:
        made = make_insert(database)(users).values(
            id=100, name="n", email="bob@example.com", active=True, plan="free", balance=0, role="MEMBER"
        )
        return made.on_conflict_do_update(index_elements=["email"], set_={"name": "robert"})

    situation = Situation("by_email", get(User, 2), execute(by_name), TEAMS)
    await check(situation, reader)


REPLACE = [
    Situation(
        "replace_of_a_row_with_the_same_key",
        get(Tag, 1),
        execute(lambda _: tags.insert().prefix_with("OR REPLACE").values(id=1, name="gold")),
        TEAMS,
    ),
    Situation(
        "replace_that_deletes_another_row_by_a_unique_column",
        get(Tag, 1),
        execute(lambda _: tags.insert().prefix_with("OR REPLACE").values(id=100, name="vip")),
        TEAMS,
    ),
    Situation(
        "replace_that_deletes_another_row_is_seen_by_a_list",
        tag_names,
        execute(lambda _: tags.insert().prefix_with("OR REPLACE").values(id=100, name="vip")),
        TEAMS,
    ),
    Situation(
        "update_or_replace_deletes_another_row",
        get(Tag, 1),
        execute(lambda _: tags.update().prefix_with("OR REPLACE").where(tags.c.id == 3).values(name="vip")),
        TEAMS,
    ),
    Situation(
        "replace_in_text",
        get(Tag, 1),
        execute(lambda _: text("REPLACE INTO tags (id, name) VALUES (1, 'gold')")),
        TEAMS,
        raw=True,
    ),
]


@ON_SQLITE
@situations(REPLACE)
async def test_replace(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@ON_SQLITE
async def test_a_plain_insert_into_a_table_that_replaces_on_conflict(database: Database, bind: Bind) -> None:
    """The table's own definition says REPLACE: no statement shows it."""
    await prepare(
        database,
        "CREATE TABLE tags2 (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(20) NOT NULL UNIQUE ON CONFLICT REPLACE)",
        "INSERT INTO tags2 SELECT id, name FROM tags",
        "DROP TABLE tags",
        "ALTER TABLE tags2 RENAME TO tags",
    )
    reader = await bind()
    situation = Situation(
        "insert", get(Tag, 1), execute(lambda _: tags.insert().values(id=100, name="vip")), TEAMS
    )
    await check(situation, reader)


_BUMP = """
    CREATE FUNCTION rename_user(given integer) RETURNS integer LANGUAGE plpgsql AS $$
    BEGIN UPDATE users SET name = 'zed' WHERE id = given; RETURN given; END $$
"""
CALLS = {
    "text": lambda: text("SELECT rename_user(1)"),
    "text_with_a_parameter": lambda: text("SELECT rename_user(:key)").bindparams(key=1),
    "construct": lambda: select(func.rename_user(1)),
    "qualified": lambda: select(func.public.rename_user(1)),
    "in_a_condition": lambda: select(Team.id).where(func.rename_user(Team.id) == 1),
    "of_rows_read": lambda: select(func.rename_user(Team.id)).where(Team.id == 1),
    "as_a_table": lambda: select(text("*")).select_from(func.rename_user(1)),
    "inside_a_cte": lambda: (lambda cte: select(cte.c.n))(select(func.rename_user(1).label("n")).cte("c")),
}


@ON_POSTGRESQL
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("how", ["session", "connection"])
async def test_a_select_of_a_writing_function(call: Any, how: str, database: Database, bind: Bind) -> None:
    await prepare(database, _BUMP)
    reader = await bind()
    await reader.warm(get(User, 1), names)
    if how == "session":
        async with database.transaction() as session:
            await session.execute(call())
    else:
        async with database.connection() as connection:
            await connection.execute(call())
    for read in (get(User, 1), names):
        await reader.miss(read, BY_WRITE)
        await reader.hit(read)


@ON_POSTGRESQL
async def test_a_function_that_is_declared_to_write_nothing_evicts_nothing(
    database: Database, bind: Bind
) -> None:
    await prepare(
        database,
        "CREATE FUNCTION twice(given integer) RETURNS integer LANGUAGE sql AS 'SELECT given * 2'",
        "CREATE FUNCTION thrice(given integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT given * 3'",
    )
    reader = await bind(functions={"twice"})
    doubled = rows(lambda: select(func.twice(Team.id)).order_by(Team.id))
    tripled = rows(lambda: select(func.thrice(Team.id)).order_by(Team.id))
    await reader.warm(get(User, 1), doubled, tripled)
    async with database.transaction() as session:
        await session.execute(select(func.twice(3)))
        await session.execute(select(func.thrice(3)))
    for read in (get(User, 1), doubled, tripled):
        await reader.hit(read)


@ON_POSTGRESQL
async def test_a_procedure_and_an_anonymous_block(database: Database, bind: Bind) -> None:
    await prepare(database, "CREATE PROCEDURE rename_all() LANGUAGE sql AS 'UPDATE users SET name = ''zed'''")
    reader = await bind()
    for sql in ("CALL rename_all()", "DO $$ BEGIN UPDATE users SET name = 'yan'; END $$"):
        await reader.current(names)
        before = await reader.hit(names)
        async with database.transaction() as session:
            await session.execute(text(sql))
        assert (await reader.miss(names, BY_WRITE)).value != before.value


@ON_POSTGRESQL
async def test_merge_into_in_text(reader: Reader) -> None:
    await reader.warm(tag_names)
    async with reader.database.transaction() as session:
        await session.execute(
            text(
                "MERGE INTO tags USING teams ON tags.id = teams.id "
                "WHEN MATCHED THEN UPDATE SET name = teams.name"
            )
        )
    await reader.miss(tag_names, BY_WRITE)


@ON_POSTGRESQL
async def test_rows_written_inside_a_select_by_a_cte(reader: Reader) -> None:
    await reader.warm(tag_names, get(Tag, 3), TEAMS)
    changed = tags.update().where(tags.c.id == 3).values(name="used").returning(tags.c.id).cte("changed")
    async with reader.database.transaction() as session:
        assert (await session.execute(select(changed.c.id))).scalars().all() == [3]
    await reader.miss(tag_names, BY_WRITE)
    await reader.miss(get(Tag, 3), BY_WRITE)
    await reader.hit(TEAMS)


async def test_thousands_of_rows_in_one_commit_are_one_bump_of_the_table(
    reader: Reader, cached: None
) -> None:
    await reader.warm(names, get(User, 1), EMAILS, TEAMS, get(Tag, 1))
    with reader.watch() as seen:
        async with reader.database.transaction() as session:
            session.add_all([new_user(1000 + n, name="many") for n in range(2500)])
    (record,) = seen.invalidations
    (change,) = record.changes
    assert (change.table, change.scope, change.bumped) == ("users", "table", True)
    assert change.tags_total == 1
    for read in (names, get(User, 1), EMAILS):
        await reader.miss(read, BY_WRITE)
        await reader.hit(read)
    await reader.hit(TEAMS)
    await reader.hit(get(Tag, 1))
