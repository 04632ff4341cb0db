"""What mappings add to statements, and every way to execute one: parameters, results, the query of before 2.0."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from sqlalchemy import (
    bindparam,
    func,
    insert,
    lambda_stmt,
    literal,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, subqueryload, with_polymorphic

from tests.support.models import CardPayment, Order, Payment, Tag, Team, User
from tests.support.reading import Reader
from tests.support.reads import entities, get, rows
from tests.support.situations import BY_WRITE, Situation, check, situations
from tests.support.writes import add, change

from .support_exact import POSTGRESQL_ONLY, furnished, in_sync
from .support_schema import Book, Shelf, furnish

sqlite_databases, postgresql_databases = furnished(furnish)

TAGS = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))

write_book = add(lambda: Book(id=100, shelf_id=1, title="new", year=1900, pages=500))
move_book = change(Book, 1, shelf_id=2)


MAPPED = [
    Situation(
        "column_property_sees_its_own_column", get(Book, 1), change(Book, 1, title="persuasion"), get(Book, 2)
    ),
    Situation("column_property_with_a_subquery_sees_the_other_table", get(Shelf, 1), write_book, TAGS),
    Situation(
        "column_property_with_a_subquery_sees_a_row_that_moves",
        entities(lambda: select(Shelf).order_by(Shelf.id)),
        move_book,
        TAGS,
    ),
    Situation(
        "column_property_in_a_condition_sees_the_other_table",
        rows(lambda: select(Shelf.label).where(Shelf.book_count == 2)),
        write_book,
        TAGS,
    ),
    Situation(
        "subqueryload_sees_the_collection",
        entities(lambda: select(Shelf).options(subqueryload(Shelf.books)).order_by(Shelf.id)),
        write_book,
        TAGS,
    ),
    Situation(
        "subqueryload_sees_its_parent",
        entities(lambda: select(Shelf).where(Shelf.label == "high").options(subqueryload(Shelf.books))),
        change(Shelf, 2, label="high"),
        TAGS,
    ),
    Situation(
        "single_inheritance_sees_a_row_of_its_kind",
        rows(lambda: select(CardPayment.card).order_by(CardPayment.id)),
        change(CardPayment, 2, card="9"),
        TAGS,
    ),
    Situation(
        "single_inheritance_through_the_base_sees_a_kind",
        entities(lambda: select(with_polymorphic(Payment, "*")).order_by(Payment.id)),
        change(CardPayment, 2, card="9"),
        TAGS,
    ),
    Situation(
        "single_inheritance_under_a_condition_sees_a_row_begin_to_match",
        rows(lambda: select(CardPayment.id).where(CardPayment.amount == 70)),
        change(Payment, 2, amount=70),
        rows(lambda: select(CardPayment.id).where(CardPayment.amount == 71)),
    ),
]


def _legacy_filter(session: Session) -> Any:
    return session.query(Book).filter(Book.shelf_id == 1).order_by(Book.id).all()


def _legacy_first(session: Session) -> Any:
    return session.query(Book).filter_by(shelf_id=1).order_by(Book.id.desc()).first()


def _legacy_count(session: Session) -> Any:
    return session.query(Book).filter_by(shelf_id=1).count()


def _legacy_exists(session: Session) -> Any:
    return session.query(session.query(Book).filter(Book.shelf_id == 1, Book.year == 1965).exists()).scalar()


def _legacy_columns(session: Session) -> Any:
    return [tuple(row) for row in session.query(Book.title, Shelf.label).join(Book.shelf).order_by(Book.id)]


def _legacy_get(session: Session) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return session.query(Book).get(3)


def _legacy_values(session: Session) -> Any:
    return session.query(func.max(Book.pages)).filter(Book.shelf_id == 1).one()[0]


def _legacy_params(session: Session) -> Any:
    query = session.query(Book.title).filter(Book.shelf_id == bindparam("shelf")).order_by(Book.id)
    return [tuple(row) for row in query.params(shelf=1)]


LEGACY = [
    _legacy_filter,
    _legacy_first,
    _legacy_count,
    _legacy_exists,
    _legacy_columns,
    _legacy_get,
    _legacy_values,
    _legacy_params,
]


def _by_parameter() -> Any:
    return select(Book.title).where(Book.shelf_id == bindparam("shelf")).order_by(Book.id)


async def _parameters(session: AsyncSession) -> Any:
    return [tuple(row) for row in await session.execute(_by_parameter(), {"shelf": 1})]


async def _params(session: AsyncSession) -> Any:
    return [tuple(row) for row in await session.execute(_by_parameter().params(shelf=1))]


async def _expanding(session: AsyncSession) -> Any:
    statement = (
        select(Book.title).where(Book.shelf_id.in_(bindparam("shelves", expanding=True))).order_by(Book.id)
    )
    return [tuple(row) for row in await session.execute(statement, {"shelves": [1, 3]})]


async def _callable(session: AsyncSession) -> Any:
    statement = (
        select(Book.title).where(Book.shelf_id == bindparam("shelf", callable_=lambda: 1)).order_by(Book.id)
    )
    return [tuple(row) for row in await session.execute(statement)]


async def _scalars(session: AsyncSession) -> Any:
    return list(await session.scalars(select(Book).where(Book.shelf_id == 1).order_by(Book.id)))


async def _scalar(session: AsyncSession) -> Any:
    return await session.scalar(select(func.count(Book.id)).where(Book.shelf_id == 1))


async def _mappings(session: AsyncSession) -> Any:
    statement = select(Book.title, Book.year).where(Book.shelf_id == 1).order_by(Book.id)
    return [dict(row) for row in (await session.execute(statement)).mappings()]


async def _partitions(session: AsyncSession) -> Any:
    result = await session.execute(select(Book.title).where(Book.shelf_id == 1).order_by(Book.id))
    return [[tuple(row) for row in part] for part in result.partitions(1)]


async def _fetch_in_steps(session: AsyncSession) -> Any:
    result = await session.execute(select(Book.title).where(Book.shelf_id == 1).order_by(Book.id))
    return [
        tuple(result.fetchone()),
        [tuple(row) for row in result.fetchmany(1)],
        [tuple(row) for row in result],
    ]


CALLS = [
    _parameters,
    _params,
    _expanding,
    _callable,
    _scalars,
    _scalar,
    _mappings,
    _partitions,
    _fetch_in_steps,
]


def _in_empty() -> Any:
    return select(Book.title).where(Book.id.in_([])).order_by(Book.id)


@situations(MAPPED)
async def test_what_the_mapping_adds(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@pytest.mark.parametrize("work", LEGACY, ids=[work.__name__.strip("_") for work in LEGACY])
async def test_the_query_of_before_2(work: Any, reader: Reader) -> None:
    write = change(Book, 3, shelf_id=1, pages=2000)
    await check(Situation(work.__name__, in_sync(work), write, TAGS), reader)


@pytest.mark.parametrize("read", CALLS, ids=[read.__name__.strip("_") for read in CALLS])
async def test_a_way_to_give_parameters_and_to_take_results(read: Any, reader: Reader) -> None:
    await check(Situation(read.__name__, read, change(Book, 3, shelf_id=1), TAGS), reader)


async def test_parameters_given_with_the_execution_are_kept_apart(reader: Reader) -> None:
    def titles(shelf: Any) -> Any:
        async def read(session: AsyncSession) -> Any:
            return [tuple(row) for row in await session.execute(_by_parameter(), {"shelf": shelf})]

        return read

    await reader.warm(titles(1), titles(2), titles(None))
    await change(Book, 3, title="messiah")(reader.database)
    await reader.miss(titles(2), BY_WRITE)
    await reader.hit(titles(1))


async def test_in_an_empty_list_is_right_after_a_write(reader: Reader) -> None:
    await reader.warm(rows(_in_empty), TAGS)
    await write_book(reader.database)
    await reader.current(rows(_in_empty))
    await reader.hit(TAGS)


async def test_lambda_statements_with_other_closures_are_kept_apart(reader: Reader) -> None:
    def titles(shelf: int) -> Any:
        return rows(
            lambda: lambda_stmt(lambda: select(Book.title).where(Book.shelf_id == shelf).order_by(Book.id))
        )

    await reader.warm(titles(1), titles(2))
    await change(Book, 3, title="messiah")(reader.database)
    await reader.miss(titles(2), BY_WRITE)
    await reader.hit(titles(1))


async def test_a_list_of_one_length_does_not_answer_for_another(reader: Reader) -> None:
    def titles(*keys: int) -> Any:
        return rows(lambda: select(Book.title).where(Book.id.in_(keys)).order_by(Book.id))

    await reader.warm(titles(1), titles(1, 2), titles(2, 1), titles(1, 2, 3), titles())
    await change(Book, 3, title="messiah")(reader.database)
    await reader.miss(titles(1, 2, 3), BY_WRITE)
    for kept in (titles(1), titles(1, 2), titles(2, 1)):
        await reader.hit(kept)


@POSTGRESQL_ONLY
async def test_distinct_on_sees_a_row_that_comes_first(reader: Reader) -> None:
    def read() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SQLAlchemy 2.1 spells it otherwise
            return select(Book.title).distinct(Book.shelf_id).order_by(Book.shelf_id, Book.year)

    await check(Situation("distinct_on", rows(read), change(Book, 2, year=1800), TAGS), reader)


@POSTGRESQL_ONLY
async def test_a_lateral_subquery_sees_its_table(reader: Reader) -> None:
    def read() -> Any:
        first = select(Book.title).where(Book.shelf_id == Shelf.id).order_by(Book.year).limit(1).lateral()
        return select(Shelf.label, first.c.title).join(first, literal(True)).order_by(Shelf.id)

    await check(Situation("lateral", rows(read), change(Book, 2, year=1800), TAGS), reader)


async def test_a_write_in_the_middle_of_a_read_is_seen(reader: Reader) -> None:
    """The session wrote: what it reads of that table is its own, and nobody else's."""
    books = rows(lambda: select(Book.id, Book.title).order_by(Book.id))
    await reader.warm(books)
    async with reader.database.transaction() as session:
        await session.execute(insert(Book).values(id=100, title="new", year=1, pages=1))
        await session.execute(update(Book).where(Book.id == 1).values(title="x"))
        assert len((await session.execute(select(Book.id))).all()) == 5
        await reader.hit(books)
    assert len((await reader.miss(books, BY_WRITE)).value) == 6


async def test_a_join_of_three_tables_sees_the_farthest(reader: Reader) -> None:
    def read() -> Any:
        return (
            select(Team.name, Order.status)
            .join(Team.members)
            .join(User.orders)
            .where(Team.id == 2)
            .order_by(Order.id)
        )

    await check(Situation("three", rows(read), change(Order, 6, status="lost"), TAGS), reader)
