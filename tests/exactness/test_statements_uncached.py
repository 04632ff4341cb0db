"""Statements that the cache cannot answer for: they bypass it, with the reason, and are right each time."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest
from sqlalchemy import (
    bindparam,
    column,
    exists,
    func,
    insert,
    literal_column,
    select,
    table,
    text,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.expression import Select

from tests.support.databases import Database
from tests.support.models import Tag, User
from tests.support.reading import UNCACHED, Read, Reader
from tests.support.reads import rows, scalar
from tests.support.situations import BY_WRITE, Situation, check
from tests.support.writes import change, raw_in_session

from .support_exact import POSTGRESQL_ONLY, SQLITE_ONLY, bound, furnished
from .support_schema import Book, Shelf, furnish, old_books

sqlite_databases, postgresql_databases = furnished(furnish)

TAGS = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))


async def stream(session: AsyncSession) -> Any:
    return [tuple(row) async for row in await session.stream(select(Book.id, Book.title).order_by(Book.id))]


def _raw_values() -> Any:
    return select(Book.id).where(text("title = 'emma'"))


BYPASSED: dict[str, tuple[Read, str]] = {
    "random": (rows(lambda: select(Book.id).where(func.random() == -5)), "nondeterministic"),
    "now": (rows(lambda: select(Book.id).where(func.now() < datetime(1900, 1, 1))), "nondeterministic"),
    "current_date": (
        scalar(lambda: select(func.count(Book.id)).where(func.current_date() < date(1900, 1, 1))),
        "nondeterministic",
    ),
    "function_in_a_subquery": (
        rows(lambda: select(Shelf.id).where(exists(select(Tag.id).where(func.random() == -5)))),
        "nondeterministic",
    ),
    "text_as_a_condition": (rows(_raw_values), "raw_sql"),
    "text_as_an_order": (rows(lambda: select(Book.id).order_by(text("title"))), "raw_sql"),
    "text_as_a_column": (rows(lambda: select(Book.id, text("title")).order_by(Book.id)), "raw_sql"),
    "literal_column": (rows(lambda: select(Book.id, literal_column("title")).order_by(Book.id)), "raw_sql"),
    "literal_column_in_a_subquery": (
        rows(
            lambda: (
                select(Shelf.id)
                .where(Shelf.id.in_(select(literal_column("shelf_id")).select_from(Book)))
                .order_by(Shelf.id)
            )
        ),
        "raw_sql",
    ),
    "prefix": (rows(lambda: select(Book.id).prefix_with("/* hint */").order_by(Book.id)), "raw_sql"),
    "suffix": (rows(lambda: select(Book.id).order_by(Book.id).suffix_with("/* hint */")), "raw_sql"),
    "unknown_table": (
        rows(lambda: select(table("odd_books", column("id")).c.id).order_by("id")),
        "untracked_source",
    ),
    "stream": (stream, "streaming"),
}


@pytest.mark.parametrize(("read", "reason"), BYPASSED.values(), ids=BYPASSED.keys())
async def test_a_statement_that_bypasses(read: Read, reason: str, reader: Reader) -> None:
    for _ in range(2):
        await reader.bypass(read, reason)
    await change(Book, 1, title="persuasion")(reader.database)
    await reader.bypass(read, reason)


def _inserting() -> Select:  # type: ignore[type-arg]  # generic from SQLAlchemy 2 on
    made = (
        insert(Book)
        .values(title="made", year=2000, pages=1, shelf_id=1)
        .returning(Book.id, Book.title)
        .cte("made")
    )
    return select(made.c.title)


@POSTGRESQL_ONLY
async def test_a_select_over_an_insert_is_a_write(reader: Reader) -> None:
    books = rows(lambda: select(Book.id, Book.title).order_by(Book.id))
    count = scalar(lambda: select(func.count()).select_from(Book))
    absent = rows(lambda: select(Book).where(Book.id == 50))
    await reader.warm(books, count, absent, TAGS)
    async with reader.database.transaction() as session:
        with reader.watch() as seen:
            assert [tuple(row) for row in await session.execute(_inserting())] == [("made",)]
            assert (await session.execute(select(func.count()).select_from(Book))).scalar() == 5
        if not UNCACHED:
            assert {decision.decision for decision in seen.decisions} == {"bypass"}
        await reader.hit(books)
    for read in (books, count, absent):
        await reader.miss(read, BY_WRITE)
    await reader.hit(TAGS)


@POSTGRESQL_ONLY
async def test_a_select_over_an_insert_that_is_rolled_back_leaves_no_trace(reader: Reader) -> None:
    books = rows(lambda: select(Book.id, Book.title).order_by(Book.id))
    await reader.warm(books)
    async with reader.database.sessions() as session:
        await session.execute(_inserting())
        await session.rollback()
    await reader.hit(books)


def _view_joined() -> Any:
    return (
        select(Shelf.label, old_books.c.title)
        .join_from(Shelf, old_books, old_books.c.id == Shelf.id)
        .order_by(Shelf.id)
    )


def _declared(build: Any, *tables: str) -> Read:
    async def read(session: AsyncSession) -> Any:
        options = {"sqlacache_depends_on": tables}
        return [tuple(row) for row in (await session.execute(build(), execution_options=options)).all()]

    return read


async def test_a_view_is_read_past_the_cache(reader: Reader) -> None:
    await reader.bypass(rows(_view_joined), "untracked_source")
    await change(Book, 1, title="persuasion")(reader.database)
    await reader.bypass(rows(_view_joined), "untracked_source")


async def test_a_view_whose_tables_are_named_is_cached(reader: Reader) -> None:
    read = _declared(_view_joined, "odd_books")
    await check(Situation("row", read, change(Book, 1, title="persuasion"), TAGS), reader)
    await check_again(reader, read, change(Shelf, 1, label="top"))
    await check_again(reader, read, change(Book, 1, year=1990))


async def check_again(reader: Reader, read: Read, write: Any) -> None:
    """What is cached is evicted by ``write``; the control stays."""
    await reader.hit(read)
    await write(reader.database)
    await reader.miss(read, BY_WRITE)
    await reader.hit(TAGS)


async def test_text_whose_tables_are_named_is_cached(reader: Reader) -> None:
    read = _declared(_raw_values, "odd_books")
    await check(Situation("row", read, change(Book, 2, title="emma"), TAGS), reader)


async def test_a_literal_column_whose_tables_are_named_is_cached(reader: Reader) -> None:
    def build() -> Any:
        return select(Shelf.id, literal_column("(SELECT max(pages) FROM odd_books)")).order_by(Shelf.id)

    await check(Situation("row", _declared(build, "odd_books"), change(Book, 1, pages=9000), TAGS), reader)


def _doubled() -> Any:
    return select(Book.id, func.twice(Book.pages)).order_by(Book.id)


TWICE = {
    "immutable": "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2'",
    "stable": "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n * 2'",
    "volatile": "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT n * 2'",
}


@POSTGRESQL_ONLY
@pytest.mark.parametrize("volatility", TWICE)
async def test_a_function_of_the_users_is_cached_when_the_catalog_calls_it_immutable(
    volatility: str, database: Database
) -> None:
    async with database.truth_engine.begin() as connection:
        await connection.execute(text(TWICE[volatility]))
    async with bound(database) as reader:
        if volatility == "immutable":
            await check(Situation("f", rows(_doubled), change(Book, 1, pages=1), TAGS), reader)
        else:
            await reader.bypass(rows(_doubled), "nondeterministic")


@POSTGRESQL_ONLY
@pytest.mark.parametrize("volatility", ["stable", "volatile"])
async def test_a_function_that_is_declared_pure_is_cached(volatility: str, database: Database) -> None:
    async with database.truth_engine.begin() as connection:
        await connection.execute(text(TWICE[volatility]))
    async with bound(database, functions={"twice"}) as reader:
        await check(Situation("f", rows(_doubled), change(Book, 1, pages=1), TAGS), reader)


@POSTGRESQL_ONLY
async def test_reading_by_a_function_that_writes_is_a_write(database: Database) -> None:
    async with database.truth_engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION rename(n int) RETURNS int LANGUAGE sql VOLATILE AS "
                "$$ UPDATE odd_books SET title = 'renamed' WHERE id = n RETURNING id $$"
            )
        )
    async with bound(database) as reader:
        books = rows(lambda: select(Book.id, Book.title).order_by(Book.id))
        await reader.warm(books)
        async with reader.database.transaction() as session:
            await session.execute(select(func.rename(1)))
        await reader.miss(books, BY_WRITE)


@SQLITE_ONLY
async def test_a_function_that_the_driver_has_is_not_cached(reader: Reader) -> None:
    await reader.bypass(
        rows(lambda: select(Book.id, func.sqlite_version()).order_by(Book.id)), "nondeterministic"
    )


async def test_a_type_coerced_column_is_not_narrowed_wrongly(reader: Reader) -> None:
    read = rows(
        lambda: select(Book.title).where(type_coerce(Book.shelf_id, Shelf.id.type) == bindparam("n", 1))
    )
    await check(Situation("coerced", read, change(Book, 3, shelf_id=1), TAGS), reader)


async def test_raw_sql_in_a_session_evicts_what_it_wrote(reader: Reader) -> None:
    users = rows(lambda: select(User.id, User.name).order_by(User.id))
    await reader.warm(users)
    await raw_in_session("UPDATE users SET name = :name WHERE id = 1", name="zed")(reader.database)
    await reader.miss(users, BY_WRITE)
