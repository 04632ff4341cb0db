"""Bulk statements and upserts evict the rows that they wrote, not those that they might have written."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import and_, bindparam, delete, func, not_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sqlacache.write import readback
from tests.support.databases import Database
from tests.support.models import Order, OrderLine, Stock, User, user_tags
from tests.support.reading import UNCACHED, Read, Reader
from tests.support.reads import entities, follow, get, rows, scalar
from tests.support.situations import BY_WRITE, Situation, check, check_untouched, situations
from tests.support.writes import execute, execute_on_connection

from .support_exact import SQLITE_ONLY, bound


def orders_of(user_id: int) -> Read:
    return entities(lambda: select(Order).where(Order.user_id == user_id).order_by(Order.id))


def orders_with(status: str) -> Read:
    return rows(lambda: select(Order.id).where(Order.status == status).order_by(Order.id))


def count_with(status: str) -> Read:
    return scalar(lambda: select(func.count()).select_from(Order).where(Order.status == status))


def with_quantity(quantity: int) -> Read:
    return rows(lambda: select(Stock.warehouse, Stock.sku).where(Stock.quantity == quantity))


def bulk(statement: Any) -> Any:
    return execute(lambda _: statement.execution_options(synchronize_session=False))


sent_to_paid = update(Order).where(Order.status == "sent").values(status="paid")
TABLE = Order.__table__

MATCHED = [
    Situation("row_that_matched", get(Order, 5), bulk(sent_to_paid), get(Order, 1)),
    Situation("list_of_its_user", orders_of(2), bulk(sent_to_paid), orders_of(1)),
    Situation("list_it_was_on", orders_with("sent"), bulk(sent_to_paid), orders_with("new")),
    Situation("list_it_comes_to", orders_with("paid"), bulk(sent_to_paid), orders_with("new")),
    Situation("count_it_comes_to", count_with("paid"), bulk(sent_to_paid), count_with("new")),
    Situation(
        "several_conditions",
        get(Order, 5),
        bulk(update(Order).where(Order.status == "sent", Order.user_id == 2).values(total=7)),
        get(Order, 6),
    ),
    Situation(
        "comparison",
        get(Order, 4),
        bulk(update(Order).where(Order.total > 50).values(status="big")),
        get(Order, 6),
    ),
    Situation(
        "either_of_two",
        get(Order, 4),
        bulk(update(Order).where(or_(Order.total > 50, Order.status == "none")).values(status="big")),
        get(Order, 6),
    ),
    Situation(
        "neither_of_two",
        get(Order, 4),
        bulk(update(Order).where(not_(or_(Order.total < 50, Order.status == "sent"))).values(total=7)),
        get(Order, 6),
    ),
    Situation(
        "list_of_values",
        get(Order, 4),
        bulk(
            update(Order).where(Order.status.in_(["new", "lost"]), Order.user_id.in_([2, 3])).values(total=7)
        ),
        get(Order, 1),
    ),
    Situation(
        "two_columns",
        get(Order, 1),
        bulk(update(Order).where(Order.id == Order.user_id).values(total=7)),
        get(Order, 2),
    ),
    Situation(
        "flag",
        get(User, 1),
        bulk(update(User).where(User.active, User.plan == "free").values(name="zed")),
        get(User, 3),
    ),
    Situation(
        "named_parameters",
        get(Order, 5),
        execute_on_connection(
            lambda _: update(TABLE).where(TABLE.c.status == bindparam("was")).values(status=bindparam("is")),
            {"was": "sent", "is": "paid"},
        ),
        get(Order, 1),
    ),
    Situation(
        "expression",
        get(Stock, ("south", 1)),
        bulk(update(Stock).where(Stock.warehouse == "south").values(quantity=Stock.quantity + 1)),
        get(Stock, ("north", 1)),
    ),
    Situation(
        "delete", get(OrderLine, 1), bulk(delete(OrderLine).where(OrderLine.quantity < 100)), get(Order, 1)
    ),
    Situation(
        "links",
        follow(User, 1, "tags"),
        execute(lambda _: delete(user_tags).where(user_tags.c.user_id == 1)),
        follow(User, 2, "tags"),
    ),
]


@situations(MATCHED)
async def test_a_bulk_statement_evicts_what_it_matched(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@pytest.mark.parametrize(
    "statement",
    [
        sent_to_paid.where(Order.user_id == 1),
        delete(Order).where(Order.status == "nonesuch"),
        update(Order).where(Order.total > 1000).values(status="big"),
        update(Order).where(and_(Order.status == "new", Order.user_id == 3)).values(user_id=1),
    ],
    ids=["one", "delete", "comparison", "two"],
)
async def test_a_bulk_statement_that_matches_nothing_evicts_nothing(statement: Any, reader: Reader) -> None:
    kept = [get(Order, 1), get(Order, 5), orders_of(1), orders_of(3), orders_with("sent"), count_with("paid")]
    await check_untouched(kept, bulk(statement), reader)


async def test_columns_set_to_what_they_are_evict_nothing(reader: Reader) -> None:
    write = bulk(update(Order).where(Order.user_id == 2, Order.id > 4).values(status="sent"))
    await check_untouched([get(Order, 5), orders_with("sent"), orders_of(2)], write, reader)


async def test_of_two_rows_the_one_that_was_so_already_is_left_alone(reader: Reader) -> None:
    await reader.warm(get(Order, 4), get(Order, 5), count_with("sent"), count_with("new"))
    await bulk(update(Order).where(Order.user_id == 2).values(status="sent"))(reader.database)
    await reader.miss(get(Order, 4), BY_WRITE)
    await reader.miss(count_with("sent"), BY_WRITE)
    await reader.miss(count_with("new"), BY_WRITE)
    await reader.hit(get(Order, 5))


WIDE = [
    Situation(
        "function",
        get(Order, 5),
        bulk(update(Order).where(func.length(Order.status) == 4, Order.status != "paid").values(total=7)),
        get(User, 1),
    ),
    Situation(
        "subquery",
        get(Order, 5),
        bulk(update(Order).where(Order.user_id.in_(select(User.id).where(User.id == 2))).values(total=7)),
        get(User, 1),
    ),
    Situation(
        "another_table",
        get(Order, 5),
        bulk(
            update(Order)
            .where(select(User.id).where(User.id == Order.user_id, User.id == 2).exists())
            .values(total=7)
        ),
        get(User, 1),
    ),
]


@situations(WIDE)
async def test_what_looks_at_more_than_the_row_evicts_the_wider(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


async def test_rows_written_before_in_the_same_transaction_are_found_where_they_are(reader: Reader) -> None:
    await reader.warm(*(orders_of(user) for user in (1, 2, 3)), get(Order, 6), get(Order, 1))
    async with reader.database.transaction() as session:
        await session.execute(update(TABLE).where(TABLE.c.user_id == 3).values(user_id=2))
        await session.execute(update(TABLE).where(TABLE.c.user_id == 2).values(status="lost"))
    await reader.miss(orders_of(2), BY_WRITE)
    await reader.miss(orders_of(3), BY_WRITE)
    await reader.miss(get(Order, 6), BY_WRITE)
    await reader.hit(orders_of(1))
    await reader.hit(get(Order, 1))


async def test_a_savepoint_that_is_rolled_back_takes_the_rows_with_it(reader: Reader) -> None:
    await reader.warm(get(Order, 1), get(Order, 5), orders_of(1), orders_of(2))
    async with reader.database.transaction() as session:
        await session.execute(update(TABLE).where(TABLE.c.status == "new").values(total=7))
        savepoint = await session.begin_nested()
        await session.execute(update(TABLE).where(TABLE.c.status == "sent").values(total=7))
        await savepoint.rollback()
    await reader.miss(get(Order, 1), BY_WRITE)
    await reader.miss(orders_of(1), BY_WRITE)
    await reader.hit(get(Order, 5))


async def test_more_rows_than_are_read_evict_the_table_by_condition(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readback, "MOST_MATCHED", 1)
    await reader.warm(get(Order, 5), get(Order, 6), orders_of(2), get(User, 1))
    await bulk(sent_to_paid)(reader.database)
    await reader.miss(get(Order, 5), BY_WRITE)
    await reader.miss(get(Order, 6), BY_WRITE)
    await reader.miss(orders_of(2), BY_WRITE)
    await reader.hit(get(User, 1))


async def test_nothing_is_read_beforehand_where_nobody_reads_the_table(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    with reader.database.probe() as traffic:
        await bulk(sent_to_paid)(reader.database)
    assert [statement.split()[0] for statement in traffic.statements] == ["UPDATE"]
    await reader.hit(get(User, 1))


async def test_nothing_is_read_beforehand_where_that_was_not_asked_for(database: Database) -> None:
    async with bound(database, old_values="widen") as reader:
        await reader.warm(get(Order, 5), get(User, 1))
        with database.probe() as traffic:
            await bulk(sent_to_paid)(database)
        assert [statement.split()[0] for statement in traffic.statements] == ["UPDATE"]
        await reader.miss(get(Order, 5), BY_WRITE)
        await reader.hit(get(User, 1))


# Upserts


def upsert(table: Any, values: Any, key: list[str], *names: str, **sets: Any) -> Any:
    async def write(database: Database) -> None:
        make: Any = postgresql.insert if database.dialect == "postgresql" else sqlite.insert
        statement = make(table).values(values)
        sets_ = {**{name: statement.excluded[name] for name in names}, **sets}
        async with database.transaction() as session:
            await session.execute(statement.on_conflict_do_update(index_elements=key, set_=sets_))

    return write


STOCK = Stock.__table__
KEY = ["warehouse", "sku"]
NORTH_1 = {"warehouse": "north", "sku": 1}
to_30 = upsert(STOCK, {**NORTH_1, "quantity": 30}, KEY, "quantity")
UPSERTS = [
    Situation("row", get(Stock, ("north", 1)), to_30, get(Stock, ("north", 2))),
    Situation("list_it_was_on", with_quantity(10), to_30, with_quantity(20)),
    Situation("list_it_comes_to", with_quantity(30), to_30, with_quantity(20)),
    Situation(
        "expression",
        with_quantity(10),
        upsert(STOCK, {**NORTH_1, "quantity": 1}, KEY, quantity=STOCK.c.quantity + 20),
        scalar(lambda: select(func.count()).select_from(Stock)),
    ),
    Situation(
        "several_rows",
        with_quantity(20),
        upsert(
            STOCK,
            [{**NORTH_1, "quantity": 5}, {"warehouse": "north", "sku": 2, "quantity": 6}],
            KEY,
            "quantity",
        ),
        with_quantity(30),
    ),
    Situation(
        "row_that_was_not_there",
        scalar(lambda: select(func.count()).select_from(Stock)),
        upsert(STOCK, {"warehouse": "west", "sku": 1, "quantity": 5}, KEY, "quantity"),
        get(Stock, ("north", 1)),
    ),
    Situation(
        "one_there_and_one_not",
        with_quantity(5),
        upsert(
            STOCK,
            [{**NORTH_1, "quantity": 5}, {"warehouse": "west", "sku": 9, "quantity": 6}],
            KEY,
            "quantity",
        ),
        get(Stock, ("south", 1)),
    ),
]


@situations(UPSERTS)
async def test_an_upsert_evicts_what_it_overwrote(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


async def test_an_upsert_of_what_is_there_already_evicts_nothing(reader: Reader) -> None:
    count = scalar(lambda: select(func.count()).select_from(Stock))
    write = upsert(STOCK, {**NORTH_1, "quantity": 10}, KEY, "quantity")
    await check_untouched([get(Stock, ("north", 1)), with_quantity(10), count], write, reader)


async def test_columns_that_only_the_insert_would_set_are_not_written(reader: Reader) -> None:
    await reader.warm(rows(lambda: select(User.id, User.plan).where(User.plan == "max")), get(User, 1))
    names = rows(lambda: select(User.id, User.name).order_by(User.id))
    await reader.warm(names)
    values = {
        "id": 1,
        "name": "zed",
        "email": "other@example.com",
        "plan": "max",
        "active": True,
        "balance": 1,
    }
    await upsert(User.__table__, {**values, "role": "MEMBER"}, ["id"], "name")(reader.database)
    await reader.miss(names, BY_WRITE)
    await reader.miss(get(User, 1), BY_WRITE)
    await reader.hit(rows(lambda: select(User.id, User.plan).where(User.plan == "max")))


@SQLITE_ONLY
async def test_a_row_given_twice_ends_up_as_given_last(reader: Reader) -> None:
    await reader.warm(*(with_quantity(quantity) for quantity in (10, 5, 6, 20)))
    twice = [{**NORTH_1, "quantity": 5}, {**NORTH_1, "quantity": 6}]
    await upsert(STOCK, twice, KEY, "quantity")(reader.database)
    for quantity in (10, 6):
        await reader.miss(with_quantity(quantity), BY_WRITE)
    await reader.current(with_quantity(5))
    await reader.hit(with_quantity(20))


async def test_in_a_transaction_begun_by_hand_what_an_update_matched_is_evicted(reader: Reader) -> None:
    """SQLite: nothing is read first, which could make the UPDATE fail where it would have waited."""
    await reader.warm(get(Order, 5), orders_of(2), get(User, 1))
    async with reader.database.engine.connect() as connection:
        if reader.database.dialect == "sqlite":
            await connection.exec_driver_sql("BEGIN")
        with reader.database.probe() as traffic:
            await connection.execute(sent_to_paid)
        await connection.commit()
    if reader.database.dialect == "sqlite" and not UNCACHED:
        assert len(traffic.statements) == 1
    await reader.miss(get(Order, 5), BY_WRITE)
    await reader.miss(orders_of(2), BY_WRITE)
    await reader.hit(get(User, 1))
