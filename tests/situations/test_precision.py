"""What a write must leave alone: rows, conditions and columns that it did not touch."""

from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import exists, func, insert, select, update

from tests.support.models import Order, Stock, Tag, User
from tests.support.reading import Read, Reader
from tests.support.reads import entities, follow, get, rows, scalar
from tests.support.situations import BY_WRITE, Write
from tests.support.writes import add, change, delete, execute, in_session, new_user

from .test_joins import new_order
from .test_relationships import append_tag

LATER = datetime(2031, 1, 1)


def orders_of(user_id: int) -> Read:
    return entities(lambda: select(Order).where(Order.user_id == user_id).order_by(Order.id))


def orders_with(status: str) -> Read:
    return rows(lambda: select(Order.id).where(Order.status == status).order_by(Order.id))


def users_with(plan: str) -> Read:
    return entities(lambda: select(User).where(User.plan == plan).order_by(User.id))


def count_with(plan: str) -> Read:
    return scalar(lambda: select(func.count()).select_from(User).where(User.plan == plan))


async def leaves(reader: Reader, write: Write, evicted: list[Read], kept: list[Read]) -> None:
    """After ``write`` every read of ``kept`` still hits, and every one of ``evicted`` is loaded anew."""
    await reader.warm(*evicted, *kept)
    await write(reader.database)
    for read in kept:
        await reader.hit(read)
    for read in evicted:
        await reader.miss(read, BY_WRITE)


@pytest.mark.parametrize(
    "write",
    [
        change(User, 1, last_seen=LATER),
        execute(lambda _: update(User).where(User.id == 1).values(last_seen=LATER)),
        execute(lambda _: update(User).values(last_seen=LATER)),
    ],
    ids=["attribute", "by_primary_key", "every_row"],
)
async def test_updating_last_seen_evicts_neither_names_nor_counts(write: Write, reader: Reader) -> None:
    await leaves(
        reader,
        write,
        evicted=[get(User, 1)],
        kept=[
            rows(lambda: select(User.id, User.name).order_by(User.id)),
            scalar(lambda: select(func.count()).select_from(User)),
            scalar(lambda: select(func.count(User.id))),
            count_with("free"),
            scalar(lambda: select(exists().where(User.plan == "pro"))),
        ],
    )


async def test_updating_a_row_leaves_the_get_of_every_other_row(reader: Reader) -> None:
    others = [get(User, key) for key in (2, 3, 4, 5, 100)]
    await leaves(reader, change(User, 1, name="zed"), evicted=[get(User, 1)], kept=others)


async def test_inserting_a_row_leaves_the_get_of_every_other_row(reader: Reader) -> None:
    await leaves(reader, add(new_user), evicted=[get(User, 100)], kept=[get(User, 1), get(User, 101)])


async def test_deleting_a_row_leaves_the_get_of_every_other_row(reader: Reader) -> None:
    await leaves(reader, delete(User, 5), evicted=[get(User, 5)], kept=[get(User, 1), get(User, 100)])


async def test_part_of_a_composite_key_does_not_make_two_rows_one(reader: Reader) -> None:
    kept = [get(Stock, ("north", 2)), get(Stock, ("south", 1))]
    await leaves(
        reader, change(Stock, ("north", 1), quantity=0), evicted=[get(Stock, ("north", 1))], kept=kept
    )


async def test_a_statement_by_primary_key_leaves_the_get_of_every_other_row(reader: Reader) -> None:
    write = execute(lambda _: update(User).where(User.id == 1).values(name="zed"))
    await leaves(reader, write, evicted=[get(User, 1)], kept=[get(User, 2)])


async def test_an_insert_of_values_leaves_the_get_of_every_other_row(reader: Reader) -> None:
    write = execute(lambda _: insert(Tag).values(id=100, name="new"))
    await leaves(reader, write, evicted=[get(Tag, 100)], kept=[get(Tag, 1)])


async def test_updating_an_order_leaves_the_orders_of_other_users(reader: Reader) -> None:
    await leaves(
        reader, change(Order, 1, status="sent"), evicted=[orders_of(1)], kept=[orders_of(2), orders_of(3)]
    )


async def test_moving_an_order_evicts_both_users_orders_and_no_others(reader: Reader) -> None:
    await leaves(
        reader, change(Order, 1, user_id=2), evicted=[orders_of(1), orders_of(2)], kept=[orders_of(3)]
    )


async def test_inserting_an_order_leaves_the_orders_of_other_users(reader: Reader) -> None:
    await leaves(reader, add(new_order), evicted=[orders_of(1)], kept=[orders_of(2), orders_of(5)])


async def test_deleting_an_order_leaves_the_orders_of_other_users(reader: Reader) -> None:
    await leaves(reader, delete(Order, 5), evicted=[orders_of(2)], kept=[orders_of(1), orders_of(3)])


async def test_a_status_change_evicts_the_old_and_the_new_status_and_no_other(reader: Reader) -> None:
    write = change(Order, 1, status="sent")
    await leaves(reader, write, evicted=[orders_with("new"), orders_with("sent")], kept=[orders_with("paid")])


async def test_inserting_outside_a_condition_evicts_nothing_under_it(reader: Reader) -> None:
    write = add(lambda: new_user(plan="max"))
    kept = [users_with("free"), users_with("pro"), count_with("free"), get(User, 1)]
    await leaves(reader, write, evicted=[users_with("max"), count_with("max")], kept=kept)


async def test_deleting_outside_a_condition_evicts_nothing_under_it(reader: Reader) -> None:
    await leaves(
        reader, delete(User, 5), evicted=[users_with("free")], kept=[users_with("pro"), count_with("pro")]
    )


async def test_updating_outside_a_condition_evicts_nothing_under_it(reader: Reader) -> None:
    write = change(User, 2, name="zed")
    await leaves(reader, write, evicted=[users_with("pro")], kept=[users_with("free"), count_with("pro")])


async def test_several_equalities_narrow_together(reader: Reader) -> None:
    def orders(user_id: int, status: str) -> Read:
        query = select(Order).where(Order.user_id == user_id, Order.status == status).order_by(Order.id)
        return entities(lambda: query)

    kept = [orders(1, "paid"), orders(2, "new"), orders(2, "sent")]
    await leaves(reader, change(Order, 1, total=3), evicted=[orders(1, "new")], kept=kept)


async def test_a_list_of_values_is_evicted_by_its_own_and_no_other(reader: Reader) -> None:
    def orders(*user_ids: int) -> Read:
        return entities(lambda: select(Order).where(Order.user_id.in_(user_ids)).order_by(Order.id))

    await leaves(reader, change(Order, 1, total=3), evicted=[orders(1, 2), orders(3, 1)], kept=[orders(2, 3)])


async def test_lazy_collections_of_other_rows_are_left(reader: Reader) -> None:
    kept = [follow(User, 2, "orders"), follow(User, 3, "orders")]
    await leaves(reader, add(new_order), evicted=[follow(User, 1, "orders")], kept=kept)


async def test_many_to_many_collections_of_other_rows_are_left(reader: Reader) -> None:
    kept = [follow(User, 1, "tags"), follow(User, 3, "tags")]
    await leaves(reader, in_session(append_tag), evicted=[follow(User, 2, "tags")], kept=kept)


async def test_a_condition_carried_over_a_join_narrows_the_joined_table(reader: Reader) -> None:
    def order_ids(user_id: int) -> Read:
        return rows(lambda: select(Order.id).join(User, User.id == Order.user_id).where(User.id == user_id))

    await leaves(reader, add(new_order), evicted=[order_ids(1)], kept=[order_ids(3)])


async def test_columns_of_a_join_that_are_not_read_do_not_count(reader: Reader) -> None:
    kept = [rows(lambda: select(Order.id, User.name).join(User.orders).order_by(Order.id))]
    await leaves(reader, change(User, 1, last_seen=LATER), evicted=[get(User, 1)], kept=kept)
