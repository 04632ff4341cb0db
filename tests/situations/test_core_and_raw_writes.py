"""Writes that pass the ORM by: Core statements, and SQL as text, in a session and on a connection."""

from __future__ import annotations

from sqlalchemy import func, select, text

from tests.support.databases import Database
from tests.support.models import Tag, Team, User
from tests.support.reading import Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import Situation, check, check_untouched, situations
from tests.support.writes import execute, execute_on_connection, raw_in_session, raw_on_driver

users, tags = User.__table__, Tag.__table__

TEAMS = entities(lambda: select(Team).order_by(Team.id))
EMAILS = rows(lambda: select(User.id, User.email).order_by(User.id))
USER_1 = get(User, 1)

names = rows(lambda: select(User.id, User.name).order_by(User.id))
tag_names = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))
count_tags = scalar(lambda: select(func.count()).select_from(Tag))


def rename(_: Database) -> object:
    return users.update().where(users.c.id == 1).values(name="zed")


def rename_returning(database: Database) -> object:
    dialect = database.engine.dialect
    if not getattr(dialect, "update_returning", dialect.name == "postgresql"):
        return rename(database)  # SQLAlchemy 1.4 knows no RETURNING on SQLite
    return users.update().where(users.c.id == 1).values(name="zed").returning(users.c.id)


def rename_many(_: Database) -> object:
    return users.update().where(users.c.plan == "free").values(name="zed")


def insert_tag(_: Database) -> object:
    return tags.insert().values(id=100, name="new")


def delete_tag(_: Database) -> object:
    return tags.delete().where(tags.c.name == "unused")


CORE = [
    Situation("update_in_a_session_is_seen_by_a_get", USER_1, execute(rename), TEAMS),
    Situation("update_in_a_session_is_seen_by_a_list", names, execute(rename_many), EMAILS),
    Situation("insert_in_a_session_is_seen_by_a_list", tag_names, execute(insert_tag), TEAMS),
    Situation("insert_in_a_session_is_seen_by_a_get", get(Tag, 100), execute(insert_tag), TEAMS),
    Situation("delete_in_a_session_is_seen_by_a_list", tag_names, execute(delete_tag), TEAMS),
    Situation("delete_in_a_session_is_seen_by_a_get", get(Tag, 3), execute(delete_tag), TEAMS),
    Situation("update_on_a_connection_is_seen_by_a_get", USER_1, execute_on_connection(rename), TEAMS),
    Situation("update_on_a_connection_is_seen_by_a_list", names, execute_on_connection(rename_many), EMAILS),
    Situation(
        "insert_on_a_connection_is_seen_by_a_count", count_tags, execute_on_connection(insert_tag), TEAMS
    ),
    Situation(
        "delete_on_a_connection_is_seen_by_a_count", count_tags, execute_on_connection(delete_tag), TEAMS
    ),
    Situation(
        "many_inserts_on_a_connection_are_seen",
        tag_names,
        execute_on_connection(
            lambda _: tags.insert(), [{"id": 100, "name": "one"}, {"id": 101, "name": "two"}]
        ),
        TEAMS,
    ),
    Situation("update_that_returns_rows_is_seen", USER_1, execute_on_connection(rename_returning), TEAMS),
]


async def _through_an_engine_with_options(database: Database) -> None:
    engine = database.engine.execution_options(logging_token="writer")
    async with engine.begin() as connection:
        await connection.execute(rename(database))


async def _autocommit(database: Database) -> None:
    async with database.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(rename(database))


async def _commit_as_you_go(database: Database) -> None:
    async with database.engine.connect() as connection:
        await connection.execute(insert_tag(database))
        await connection.commit()
        await connection.execute(rename(database))
        await connection.commit()


async def _session_on_a_connection(database: Database) -> None:
    async with database.engine.connect() as connection:
        async with connection.begin():
            async with database.sessions(bind=connection) as session:
                (await session.get(User, 1)).name = "zed"
                await session.commit()


CONNECTIONS = [
    Situation("engine_made_by_execution_options_is_seen", USER_1, _through_an_engine_with_options, TEAMS),
    Situation("connection_in_autocommit_is_seen", USER_1, _autocommit, TEAMS),
    Situation("connection_that_commits_as_it_goes_is_seen", USER_1, _commit_as_you_go, TEAMS),
    Situation("session_bound_to_a_connection_is_seen", USER_1, _session_on_a_connection, TEAMS),
]

RENAME = "UPDATE users SET name = 'zed' WHERE id = 1"

RAW = [
    Situation("update_in_a_session_is_seen_by_a_get", USER_1, raw_in_session(RENAME), TEAMS, raw=True),
    Situation(
        "update_with_parameters_is_seen",
        names,
        raw_in_session("UPDATE users SET name = :name WHERE id = :id", name="zed", id=1),
        TEAMS,
        raw=True,
    ),
    Situation(
        "insert_in_a_session_is_seen",
        count_tags,
        raw_in_session("INSERT INTO tags (id, name) VALUES (100, 'new')"),
        TEAMS,
        raw=True,
    ),
    Situation(
        "delete_in_a_session_is_seen",
        get(Tag, 3),
        raw_in_session("delete from tags where id = 3"),
        TEAMS,
        raw=True,
    ),
    Situation(
        "text_on_a_connection_is_seen", USER_1, execute_on_connection(lambda _: text(RENAME)), TEAMS, raw=True
    ),
    Situation("statement_handed_to_the_driver_is_seen", USER_1, raw_on_driver(RENAME), TEAMS, raw=True),
    Situation(
        "statement_behind_a_comment_and_blanks_is_seen",
        USER_1,
        raw_on_driver(f"/* a job */ -- of ours\n   {RENAME}"),
        TEAMS,
        raw=True,
    ),
    Situation(
        "statement_behind_a_with_clause_is_seen",
        names,
        raw_on_driver(
            f"WITH chosen AS (SELECT 1 AS id) {RENAME.replace('id = 1', 'id IN (SELECT id FROM chosen)')}",
            mariadb=RENAME.replace("id = 1", "id IN (WITH chosen AS (SELECT 1 AS id) SELECT id FROM chosen)"),
        ),
        TEAMS,
        raw=True,
    ),
    Situation(
        "insert_from_a_raw_select_is_seen",
        tag_names,
        raw_on_driver("INSERT INTO tags (id, name) SELECT id + 100, name FROM teams"),
        TEAMS,
        raw=True,
    ),
    Situation(
        "raw_upsert_is_seen",
        get(Tag, 1),
        raw_on_driver(
            "INSERT INTO tags (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = 'gold'",
            mariadb="INSERT INTO tags (id, name) VALUES (1, 'x') ON DUPLICATE KEY UPDATE name = 'gold'",
        ),
        TEAMS,
        raw=True,
    ),
]


@situations(CORE)
async def test_a_core_statement(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(CONNECTIONS)
async def test_a_write_through_a(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(RAW)
async def test_raw_sql(situation: Situation, reader: Reader, other_reader: Reader) -> None:
    """Without a parser nobody knows what raw SQL writes: everything of its database goes, and nothing of another's."""
    await other_reader.warm(situation.read, situation.control)
    await check(situation, reader)
    await other_reader.hit(situation.read)
    await other_reader.hit(situation.control)


async def test_a_raw_select_touches_nothing(reader: Reader) -> None:
    await check_untouched([names], raw_in_session("SELECT name FROM users WHERE id = 1"), reader)
    await check_untouched([tag_names], raw_on_driver("SELECT name FROM tags"), reader)


async def test_raw_sql_that_is_rolled_back_touches_nothing(reader: Reader) -> None:
    async def write(database: Database) -> None:
        async with database.engine.connect() as connection:
            await connection.exec_driver_sql(RENAME)
            await connection.rollback()

    await check_untouched([USER_1], write, reader)
