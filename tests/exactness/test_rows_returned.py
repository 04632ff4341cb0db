"""What a flush's UPDATE or DELETE returns of its row takes the place of reading the row beforehand, on asyncpg."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.exc import IntegrityError

from tests.support.databases import Database
from tests.support.fronts import asynchronous
from tests.support.models import Order, OrderLine, Role, User
from tests.support.reading import UNCACHED, Read, Reader
from tests.support.reads import entities, get, rows
from tests.support.situations import BY_WRITE
from tests.support.writes import read_past_the_cache

from .support_exact import POSTGRESQL_ONLY, bound

pytestmark = [
    POSTGRESQL_ONLY,
    asynchronous("of asyncpg"),
    pytest.mark.skipif(UNCACHED, reason="nothing is read beforehand without a cache"),
]


def orders_of(user_id: int) -> Read:
    return entities(lambda: select(Order).where(Order.user_id == user_id).order_by(Order.id))


def lines_of(order_id: int) -> Read:
    return entities(lambda: select(OrderLine).where(OrderLine.order_id == order_id).order_by(OrderLine.id))


async def flushed(database: Database, entity: Any, key: int, **values: Any) -> list[str]:
    """Load an entity past the cache and set attributes, or delete it; return the verbs of the statements since.

    A statement is seen before what is read for it.
    """
    async with database.transaction() as session:
        found = await read_past_the_cache(session, entity, key)
        for name, value in values.items():
            setattr(found, name, value)
        if not values:
            await session.delete(found)
        with database.probe() as traffic:
            await session.flush()
    return [statement.split()[0] for statement in traffic.statements]


async def test_an_update_that_leaves_the_condition_alone_is_all_that_is_sent(reader: Reader) -> None:
    await reader.warm(orders_of(1), orders_of(2), get(Order, 1), get(Order, 2))
    assert await flushed(reader.database, Order, 1, status="lost") == ["UPDATE"]
    await reader.miss(orders_of(1), BY_WRITE)
    await reader.miss(get(Order, 1), BY_WRITE)
    await reader.hit(orders_of(2))
    await reader.hit(get(Order, 2))


async def test_a_delete_is_all_that_is_sent(reader: Reader) -> None:
    await reader.warm(lines_of(1), lines_of(2), get(OrderLine, 1))
    assert await flushed(reader.database, OrderLine, 1) == ["DELETE"]
    await reader.miss(lines_of(1), BY_WRITE)
    await reader.miss(get(OrderLine, 1), BY_WRITE)
    await reader.hit(lines_of(2))


async def test_of_a_condition_that_is_set_the_row_is_read_beforehand(reader: Reader) -> None:
    await reader.warm(orders_of(1), orders_of(2), orders_of(3))
    assert await flushed(reader.database, Order, 1, user_id=2) == ["UPDATE", "SELECT"]
    await reader.miss(orders_of(1), BY_WRITE)
    await reader.miss(orders_of(2), BY_WRITE)
    await reader.hit(orders_of(3))


async def test_a_core_update_reads_beforehand_and_evicts_nothing_where_it_changes_nothing(
    reader: Reader,
) -> None:
    await reader.warm(orders_of(1), get(Order, 1))
    async with reader.database.transaction() as session:
        status = (await read_past_the_cache(session, Order, 1)).status
        with reader.database.probe() as traffic:
            await session.execute(update(Order.__table__).where(Order.id == 1).values(status=status))
    assert [statement.split()[0] for statement in traffic.statements] == ["UPDATE", "SELECT"]
    await reader.hit(orders_of(1))
    await reader.hit(get(Order, 1))


@pytest.mark.parametrize(
    ("column", "of_row_1", "of_others"),
    [
        (User.active, True, False),
        (User.plan, "free", "pro"),
        (User.role, Role.MEMBER, Role.ADMIN),
        (User.team_id, 1, 2),
    ],
    ids=["boolean", "text", "enum", "number"],
)
async def test_values_are_those_that_conditions_have(
    column: Any, of_row_1: Any, of_others: Any, reader: Reader
) -> None:
    def named(value: Any) -> Read:
        return rows(lambda: select(User.id, User.name).where(column == value).order_by(User.id))

    async with reader.database.transaction() as session:
        await session.execute(
            update(User).where(User.id == 1).values({column: of_row_1}),
            execution_options={"synchronize_session": False},
        )
    await reader.warm(named(of_row_1), named(of_others))
    assert await flushed(reader.database, User, 1, name="anew") == ["UPDATE"]
    await reader.miss(named(of_row_1), BY_WRITE)
    await reader.hit(named(of_others))


async def test_sqlalchemy_sees_the_result_of_the_statement_that_it_sent(reader: Reader) -> None:
    await reader.warm(orders_of(1))
    seen: list[Any] = []

    def look(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.startswith("UPDATE"):
            seen.append(
                (statement == context.statement, cursor.description, cursor.rowcount, cursor.fetchall())
            )

    with _listening(reader.database, "after_cursor_execute", look):
        assert await flushed(reader.database, Order, 1, status="lost") == ["UPDATE"]
    assert [(same, description, count, list(found)) for same, description, count, found in seen] == [
        (True, None, 1, [])
    ]


@pytest.mark.parametrize("end", [" -- from the shop", ";"], ids=["comment", "semicolon"])
async def test_a_statement_that_a_listener_has_changed_is_sent_as_it_is(end: str, reader: Reader) -> None:
    """Such as by a comment for the database's log, behind which nothing of ours would be understood."""
    await reader.warm(orders_of(1), orders_of(2))

    def change(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> tuple[str, Any]:
        return f"{statement}{end}", parameters

    with _listening(reader.database, "before_cursor_execute", change, retval=True):
        assert await flushed(reader.database, Order, 1, status="lost") == ["UPDATE", "SELECT"]
    await reader.miss(orders_of(1), BY_WRITE)
    await reader.hit(orders_of(2))


async def test_an_update_that_fails_and_is_undone_evicts_nothing(reader: Reader) -> None:
    named = rows(lambda: select(User.id, User.name, User.email).where(User.plan == "free").order_by(User.id))
    await reader.warm(named, get(User, 1))
    async with reader.database.transaction() as session:
        other = (await read_past_the_cache(session, User, 2)).email
        user = await read_past_the_cache(session, User, 1)
        savepoint = await session.begin_nested()
        user.email = other
        with pytest.raises(IntegrityError):
            await session.flush()
        await savepoint.rollback()
    await reader.hit(named)
    await reader.hit(get(User, 1))


async def test_nothing_is_asked_for_where_that_was_not_wanted(database: Database) -> None:
    async with bound(database, old_values="widen") as reader:
        await reader.warm(orders_of(1), orders_of(2))
        assert await flushed(database, Order, 1, status="lost") == ["UPDATE"]
        await reader.miss(orders_of(1), BY_WRITE)
        await reader.miss(orders_of(2), BY_WRITE)


@contextmanager
def _listening(database: Database, name: str, listener: Any, **options: Any) -> Iterator[None]:
    engine = database.engine.sync_engine
    event.listen(engine, name, listener, **options)
    try:
        yield
    finally:
        event.remove(engine, name, listener)
