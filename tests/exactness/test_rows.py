"""Rows whose key is written, made or named in unusual ways, and columns that nobody asked to be written."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from tests.support.databases import Database
from tests.support.models import Order, Tag, User
from tests.support.reading import Read, Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import (
    BY_CONDITION,
    BY_KEY,
    BY_WRITE,
    Situation,
    check,
    check_untouched,
    situations,
)
from tests.support.writes import add, change, delete, execute, execute_on_connection, in_session

from .support_exact import bound, furnished
from .support_schema import SEATS, Account, Book, Item, Seat, Sensor, Shelf, furnish

sqlite_databases, postgresql_databases = furnished(furnish)

accounts = Account.__table__
names = rows(lambda: select(User.id, User.name).order_by(User.id))


def office(branch: str) -> Read:
    return entities(lambda: select(Account).where(Account.office == branch).order_by(Account.number))


def move_account(session: Session) -> None:
    session.get(Account, 1).number = 10


def move_seat(session: Session) -> None:
    session.get(Seat, ("a", "b,c")).place = "z"


KEYS_CHANGED = [
    Situation(
        "get_of_the_old_key_finds_nothing", get(Account, 1), in_session(move_account), get(Account, 2), BY_KEY
    ),
    Situation(
        "get_of_the_new_key_finds_the_row",
        get(Account, 10),
        in_session(move_account),
        get(Account, 2),
        BY_KEY,
    ),
    Situation(
        "list_sees_the_new_key", office("north"), in_session(move_account), office("south"), BY_CONDITION
    ),
    Situation(
        "get_of_the_old_composite_key_finds_nothing",
        get(Seat, ("a", "b,c")),
        in_session(move_seat),
        get(Seat, ("a,b", "c")),
        BY_KEY,
    ),
    Situation(
        "get_of_the_new_composite_key_finds_the_row",
        get(Seat, ("a", "z")),
        in_session(move_seat),
        get(Seat, ("a,b", "c")),
        BY_KEY,
    ),
    Situation(
        "statement_that_changes_a_key_is_seen_by_the_old_one",
        get(Account, 1),
        execute(lambda _: update(Account).where(Account.number == 1).values(number=10)),
        get(Account, 2),
        BY_KEY,
    ),
    Situation(
        "core_statement_that_changes_a_key_is_seen_by_the_new_one",
        get(Account, 10),
        execute_on_connection(lambda _: update(accounts).where(accounts.c.no == 1).values(no=10)),
        get(Account, 2),
        BY_KEY,
    ),
    Situation(
        "count_by_key_sees_the_row_leave",
        scalar(lambda: select(func.count()).select_from(Seat).where(Seat.hall == "a")),
        execute(lambda _: update(Seat).where(Seat.hall == "a", Seat.place == "b,c").values(hall="q")),
        get(Seat, ("a,b", "c")),
    ),
    Situation(
        "key_computed_by_the_database_is_seen_by_any_get",
        get(Account, 11),
        execute(lambda _: update(Account).where(Account.number == 1).values(number=Account.number + 10)),
        names,
        BY_WRITE,
    ),
]

NAMES = [
    Situation(
        "get_sees_an_update", get(Account, 1), change(Account, 1, owner="zed"), get(Account, 2), BY_KEY
    ),
    Situation(
        "list_sees_a_row_that_comes", office("south"), change(Account, 1, office="south"), office("west")
    ),
    Situation(
        "list_sees_a_row_that_goes", office("north"), change(Account, 1, office="south"), office("west")
    ),
    Situation(
        "column_sees_an_update",
        rows(lambda: select(Account.owner).where(Account.office == "north").order_by(Account.number)),
        change(Account, 1, owner="zed"),
        rows(lambda: select(Account.number).where(Account.office == "north").order_by(Account.number)),
    ),
    Situation(
        "get_of_an_absent_row_sees_it_inserted",
        get(Account, 100),
        add(lambda: Account(number=100, owner="new", office="west")),
        get(Account, 2),
        BY_KEY,
    ),
    Situation(
        "list_sees_a_row_inserted_by_key_of_the_column",
        office("west"),
        execute_on_connection(lambda _: insert(accounts).values(no=100, holder="new", branch="west")),
        office("north"),
    ),
    Situation(
        "list_sees_rows_inserted_by_parameters",
        office("west"),
        execute_on_connection(
            lambda _: insert(accounts),
            [{"no": 100, "holder": "new", "branch": "west"}, {"no": 101, "holder": "more", "branch": "west"}],
        ),
        office("north"),
    ),
    Situation(
        "list_sees_a_statement_by_attribute_names",
        office("north"),
        execute(lambda _: update(Account).where(Account.number == 1).values(owner="zed")),
        office("south"),
    ),
    Situation(
        "list_sees_a_core_statement_by_condition",
        office("north"),
        execute_on_connection(
            lambda _: update(accounts).where(accounts.c.branch == "north").values(holder="x")
        ),
        office("south"),
    ),
    Situation("list_sees_a_delete", office("north"), delete(Account, 2), office("south")),
    Situation(
        "core_get_sees_an_update",
        rows(lambda: select(accounts).where(accounts.c.no == 1)),
        change(Account, 1, owner="zed"),
        rows(lambda: select(accounts).where(accounts.c.no == 2)),
        BY_KEY,
    ),
]

status_new = rows(lambda: select(Item.id, Item.status).where(Item.status == "new").order_by(Item.id))
status_old = rows(lambda: select(Item.id, Item.status).where(Item.status == "old").order_by(Item.id))
by_python = rows(lambda: select(Item.id).where(Item.changed_by == "python").order_by(Item.id))
by_database = rows(lambda: select(Item.id).where(Item.changed_in == "database").order_by(Item.id))
doubled_two = rows(lambda: select(Item.id).where(Item.doubled == 2).order_by(Item.id))
doubled_ten = rows(lambda: select(Item.id).where(Item.doubled == 10).order_by(Item.id))
item_names = rows(lambda: select(Item.id, Item.name).order_by(Item.id))


def mark_favourite(session: Session) -> None:
    session.get(Shelf, 1).favourite = session.get(Book, 2)


def add_shelf(session: Session) -> None:
    book = Book(id=100, title="new", year=2000, pages=1)
    session.add(Shelf(id=100, label="new", books=[book], favourite=book))


UNASKED = [
    Situation(
        "server_default_of_an_inserted_row_is_seen",
        status_new,
        add(lambda: Item(id=100, name="new")),
        get(Item, 2),
    ),
    Situation(
        "server_default_of_a_core_insert_is_seen",
        status_new,
        execute_on_connection(lambda _: insert(Item.__table__).values(id=100, name="new")),
        get(Item, 2),
    ),
    Situation("computed_column_sees_a_row_leave", doubled_two, change(Item, 1, quantity=5), item_names),
    Situation("computed_column_sees_a_row_come", doubled_ten, change(Item, 1, quantity=5), item_names),
    Situation(
        "computed_column_of_an_inserted_row_is_seen",
        doubled_ten,
        add(lambda: Item(id=100, name="new", quantity=5)),
        get(Item, 2),
    ),
    Situation(
        "computed_column_sees_a_statement",
        doubled_ten,
        execute(lambda _: update(Item).where(Item.id == 1).values(quantity=5)),
        item_names,
    ),
    Situation(
        "computed_column_is_read_by_itself",
        rows(lambda: select(Item.id, Item.doubled).order_by(Item.id)),
        change(Item, 1, quantity=5),
        item_names,
    ),
    Situation("onupdate_in_python_is_seen_by_a_condition", by_python, change(Item, 1, name="x"), status_old),
    Situation(
        "onupdate_in_python_is_seen_by_a_column",
        rows(lambda: select(Item.id, Item.changed_by).order_by(Item.id)),
        change(Item, 1, quantity=7),
        item_names,
    ),
    Situation(
        "onupdate_in_python_of_a_statement_is_seen",
        by_python,
        execute(lambda _: update(Item).where(Item.id == 1).values(name="x")),
        status_old,
    ),
    Situation("onupdate_in_sql_is_seen_by_a_condition", by_database, change(Item, 1, name="x"), status_old),
    Situation(
        "onupdate_in_sql_of_a_core_statement_is_seen",
        rows(lambda: select(Item.id, Item.changed_in).order_by(Item.id)),
        execute_on_connection(lambda _: update(Item.__table__).where(Item.id == 1).values(quantity=7)),
        item_names,
    ),
    Situation(
        "post_update_is_seen_by_get",
        get(Shelf, 1),
        in_session(mark_favourite),
        rows(lambda: select(Shelf.label).order_by(Shelf.id)),
    ),
    Situation(
        "post_update_is_seen_by_a_condition",
        rows(lambda: select(Shelf.label).where(Shelf.favourite_id == 2)),
        in_session(mark_favourite),
        rows(lambda: select(Shelf.label).where(Shelf.favourite_id == 1)),
    ),
    Situation(
        "post_update_of_an_inserted_row_is_seen_by_a_condition",
        rows(lambda: select(Shelf.label).where(Shelf.favourite_id == 100)),
        in_session(add_shelf),
        rows(lambda: select(Shelf.label).where(Shelf.favourite_id == 1)),
    ),
    Situation(
        "post_update_of_an_inserted_row_is_seen_by_get", get(Shelf, 100), in_session(add_shelf), get(Book, 1)
    ),
]


# What the trigger writes elsewhere must be declared on PostgreSQL, or all is evicted.
BY_THE_DATABASE = [
    Situation(
        "server_onupdate_is_seen_by_a_column",
        rows(lambda: select(Sensor.id, Sensor.noted).order_by(Sensor.id)),
        change(Sensor, 1, reading=11),
        names,
    ),
    Situation(
        "server_onupdate_is_seen_by_a_condition",
        rows(lambda: select(Sensor.id).where(Sensor.noted == 1)),
        change(Sensor, 1, reading=11),
        names,
    ),
    Situation("server_onupdate_is_seen_by_get", get(Sensor, 1), change(Sensor, 1, reading=11), names),
]


def add_all(session: Session) -> None:
    session.add_all([Tag(name="made1"), Tag(name="made2"), Tag(name="made3")])


def insert_many(session: Session) -> None:
    session.execute(insert(Tag), [{"name": "made1"}, {"name": "made2"}])


def bulk_save(session: Session) -> None:
    session.bulk_save_objects([Tag(name="made1"), Tag(name="made2")])


def add_flushed_one_by_one(session: Session) -> None:
    for name in ("made1", "made2"):
        session.add(Tag(name=name))
        session.flush()


def add_in_savepoint(session: Session) -> None:
    with session.begin_nested():
        session.add(Tag(name="made1"))
    session.add(Tag(name="made2"))


MADE: dict[str, Any] = {
    "added": add(lambda: Tag(name="made1")),
    "added_together": in_session(add_all),
    "added_one_by_one": in_session(add_flushed_one_by_one),
    "added_in_a_savepoint": in_session(add_in_savepoint),
    "inserted": execute(lambda _: insert(Tag).values(name="made1")),
    "inserted_as_many": in_session(insert_many),
    "saved_in_bulk": in_session(bulk_save),
    "inserted_on_a_connection": execute_on_connection(lambda _: insert(Tag.__table__).values(name="made1")),
    "inserted_as_many_on_a_connection": execute_on_connection(
        lambda _: insert(Tag.__table__), [{"name": "made1"}, {"name": "made2"}]
    ),
    "inserted_as_several_values": execute_on_connection(
        lambda _: insert(Tag.__table__).values([{"name": "made1"}, {"name": "made2"}])
    ),
}


@situations(KEYS_CHANGED)
async def test_a_key_that_is_written(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(NAMES)
async def test_columns_named_unlike_their_attributes(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(UNASKED)
async def test_a_column_that_is_written_unasked(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(BY_THE_DATABASE)
async def test_a_column_that_the_database_writes(situation: Situation, database: Database) -> None:
    async with bound(database, writes_also={"odd_sensors": ["odd_sensors"]}) as reader:
        await check(situation, reader)


@pytest.mark.parametrize("write", MADE.values(), ids=MADE.keys())
async def test_a_get_cached_as_absent_sees_the_key_that_the_database_makes(
    write: Any, reader: Reader
) -> None:
    first = 50 if reader.database.dialect == "postgresql" else 4
    tag = get(Tag, first)
    lists = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))
    named = scalar(lambda: select(Tag.id).where(Tag.name == "made1"))
    await reader.warm(tag, lists, named, names)
    assert (await reader.hit(tag)).value is None
    await write(reader.database)
    assert (await reader.miss(tag, BY_WRITE)).value is not None
    await reader.miss(lists, BY_CONDITION)
    await reader.miss(named, BY_CONDITION)
    await reader.hit(names)


@pytest.mark.parametrize("how", ["added", "added_together", "added_one_by_one"])
async def test_a_key_that_the_database_makes_leaves_every_other_get(how: str, reader: Reader) -> None:
    kept = [get(Tag, 1), get(Tag, 90), scalar(lambda: select(Tag.id).where(Tag.name == "vip"))]
    await check_untouched(kept, MADE[how], reader)


@pytest.mark.parametrize("key", SEATS, ids=[repr(key) for key in SEATS])
async def test_keys_that_contain_separators_are_kept_apart(key: tuple[str, str], reader: Reader) -> None:
    others = [get(Seat, other) for other in SEATS if other != key]
    await reader.warm(get(Seat, key), *others)
    await change(Seat, key, guest="someone")(reader.database)
    for other in others:
        await reader.hit(other)
    await reader.miss(get(Seat, key), BY_KEY)


@pytest.mark.parametrize("key", SEATS, ids=[repr(key) for key in SEATS])
async def test_conditions_on_text_with_separators_are_kept_apart(
    key: tuple[str, str], reader: Reader
) -> None:
    def guests(hall: str, place: str) -> Read:
        return rows(
            lambda: select(Seat.guest).where(Seat.place == place, Seat.hall == hall, Seat.guest != "q")
        )

    others = [guests(*other) for other in SEATS if other != key]
    await reader.warm(guests(*key), *others)
    await change(Seat, key, guest="someone")(reader.database)
    for other in others:
        await reader.hit(other)
    await reader.miss(guests(*key), BY_WRITE)


async def test_a_composite_key_half_of_which_is_a_list(reader: Reader) -> None:
    def places(*halls: str) -> Read:
        query = select(Seat).where(Seat.hall.in_(halls), Seat.place == "c").order_by(Seat.hall)
        return entities(lambda: query)

    await reader.warm(places("a,b", "a:b"), places("a:b", "x"))
    await change(Seat, ("a,b", "c"), guest="someone")(reader.database)
    await reader.miss(places("a,b", "a:b"), BY_WRITE)
    await reader.hit(places("a:b", "x"))


async def test_an_order_given_to_another_user_by_its_relationship_is_seen_by_both(reader: Reader) -> None:
    def orders(user_id: int) -> Read:
        return rows(lambda: select(Order.id).where(Order.user_id == user_id).order_by(Order.id))

    def give(session: Session) -> None:
        session.get(Order, 1).user = session.get(User, 2)

    await reader.warm(orders(1), orders(2), orders(3))
    await in_session(give)(reader.database)
    await reader.miss(orders(1), BY_WRITE)
    await reader.miss(orders(2), BY_WRITE)
    await reader.hit(orders(3))
