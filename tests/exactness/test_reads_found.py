"""What was found wrong with reads, each with its cause."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import bindparam, column, exists, insert, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from tests.support.models import Tag, User
from tests.support.reading import Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import Situation, check, check_untouched, situations
from tests.support.writes import add, change, execute_on_connection, new_user

from .support_exact import furnished
from .support_schema import Book, furnish

sqlite_databases, postgresql_databases = furnished(furnish)

TAGS = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))


def _by_parameter() -> Any:
    return select(Book.title).where(Book.shelf_id == bindparam("shelf")).order_by(Book.id)


def _from_statement() -> Any:
    return select(Book).from_statement(select(Book).where(Book.shelf_id == 1).order_by(Book.id))


def _union_of_entities() -> Any:
    both = union_all(select(Book).where(Book.year == 1815), select(Book).where(Book.year == 1965)).order_by(
        "id"
    )
    return select(Book).from_statement(both)


# read/statement.py, _is_get: a FromStatement has no _where_criteria; AttributeError reaches the user.
FROM_STATEMENT = [
    Situation("from_statement", entities(_from_statement), change(Book, 3, shelf_id=1), TAGS),
    Situation("union_of_entities", entities(_union_of_entities), change(Book, 2, year=1965), TAGS),
]


@situations(FROM_STATEMENT)
async def test_from_statement_of_a_select(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


# read/identify.py, _identify: construct_params() raises outside of the try.
async def test_a_parameter_that_is_missing_raises_what_it_raises_uncached(reader: Reader) -> None:
    async def read(session: AsyncSession) -> Any:
        return (await session.execute(_by_parameter())).all()

    async def raised(sessions: Any) -> BaseException:
        async with sessions() as session:
            with pytest.raises(Exception) as caught:
                await read(session)
        return caught.value

    cached, plain = await raised(reader.database.sessions), await raised(reader.database.truth_sessions)
    # Whether SQLAlchemy appends "[parameters: ...]" depends on who compiled the statement first.
    assert (type(cached), str(cached).split("[parameters")[0].split("\n(Background")[0].strip()) == (
        type(plain),
        str(plain).split("[parameters")[0].split("\n(Background")[0].strip(),
    )


# write/path.py, inserted_keys: implicit RETURNING (SQLAlchemy 2 on PostgreSQL) counts as the statement's own.
async def test_a_core_insert_leaves_every_other_get(reader: Reader) -> None:
    write = execute_on_connection(lambda _: insert(Tag.__table__).values(name="made1"))
    await check_untouched([get(Tag, 1), get(Tag, 90)], write, reader)


# read/compiled.py: the text of a custom operator is not looked at.
async def test_an_operator_that_reads_another_table_bypasses(reader: Reader) -> None:
    read = rows(lambda: select(Book.id).where(Book.id.op("= (SELECT count(*) FROM users) - 4 +")(0)))
    await reader.bypass(read, "raw_sql")


# read/identify.py: what the policy says of no table at all is asked before why the statement cannot be cached.
UNNAMED = {
    "text_from": rows(lambda: select(column("id")).select_from(text("odd_books")).order_by(column("id"))),
}
if not sqlalchemy.__version__.startswith("1.4"):  # which cannot load an entity from text with columns
    UNNAMED["text_columns"] = entities(
        lambda: select(Book).from_statement(text("SELECT * FROM odd_books ORDER BY id").columns(Book.id))
    )


@pytest.mark.parametrize("read", UNNAMED.values(), ids=UNNAMED.keys())
async def test_a_statement_of_text_bypasses_as_text(read: Any, reader: Reader) -> None:
    await reader.bypass(read, "raw_sql")


# read/conditions.py: the select inside of EXISTS, when it is the only column, is not narrowed.
async def test_an_exists_is_left_by_a_row_outside_its_condition(reader: Reader) -> None:
    read = scalar(lambda: select(exists().where(User.plan == "max")))
    await check_untouched([read], add(new_user), reader)
