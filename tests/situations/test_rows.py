"""One row is inserted, updated or deleted: what was read of it is loaded anew, whatever way it was read."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import exists, func, select

from tests.support.models import AuditLog, Order, OrderLine, Stock, Tag, Team, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import BY_CONDITION, BY_KEY, Situation, causes, check, situations
from tests.support.writes import add, change, delete, new_user

TEAMS = entities(lambda: select(Team).order_by(Team.id))
EMAILS = rows(lambda: select(User.id, User.email).order_by(User.id))
USER_2 = get(User, 2)

free_users = entities(lambda: select(User).where(User.plan == "free").order_by(User.id))
count_free = scalar(lambda: select(func.count()).select_from(User).where(User.plan == "free"))
count_active = scalar(lambda: select(func.count()).select_from(User).where(User.active == True))
names = rows(lambda: select(User.id, User.name).order_by(User.id))
total_balance = scalar(lambda: select(func.sum(User.balance)))
zed_exists = scalar(lambda: select(exists().where(User.name == "zed")))
eve_exists = scalar(lambda: select(exists().where(User.name == "eve")))

UPDATES = [
    Situation("get_sees_an_update_of_its_row", get(User, 1), change(User, 1, name="zed"), USER_2, BY_KEY),
    Situation(
        "select_by_primary_key_sees_an_update_of_its_row",
        entities(lambda: select(User).where(User.id == 1)),
        change(User, 1, name="zed"),
        entities(lambda: select(User).where(User.id == 2)),
        BY_KEY,
    ),
    Situation("list_sees_a_new_value", free_users, change(User, 1, name="zed"), TEAMS, BY_CONDITION),
    Situation(
        "list_sees_a_row_that_begins_to_match", free_users, change(User, 2, plan="free"), TEAMS, BY_CONDITION
    ),
    Situation(
        "list_sees_a_row_that_ceases_to_match", free_users, change(User, 1, plan="pro"), TEAMS, BY_CONDITION
    ),
    Situation(
        "list_without_condition_sees_a_new_value", names, change(User, 1, name="zed"), EMAILS, BY_CONDITION
    ),
    Situation(
        "list_sees_a_row_that_a_comparison_begins_to_admit",
        entities(lambda: select(User).where(User.balance > Decimal("45")).order_by(User.id)),
        change(User, 1, balance=Decimal("99.50")),
        TEAMS,
        BY_CONDITION,
    ),
    Situation(
        "list_in_an_order_sees_a_row_that_moves",
        rows(lambda: select(User.id).order_by(User.last_seen.desc(), User.id).limit(2)),
        change(User, 1, last_seen=datetime(2030, 1, 1)),
        EMAILS,
        BY_CONDITION,
    ),
    Situation(
        "list_of_unset_values_sees_one_that_is_set",
        rows(lambda: select(User.id).where(User.last_seen.is_(None)).order_by(User.id)),
        change(User, 4, last_seen=datetime(2030, 1, 1)),
        EMAILS,
        BY_CONDITION,
    ),
    Situation(
        "list_by_several_values_sees_a_row_that_takes_one",
        rows(lambda: select(User.id).where(User.plan.in_(["pro", "max"])).order_by(User.id)),
        change(User, 1, plan="max"),
        EMAILS,
        BY_CONDITION,
    ),
    Situation(
        "count_sees_a_row_that_begins_to_match", count_free, change(User, 2, plan="free"), count_active
    ),
    Situation("count_sees_a_row_that_ceases_to_match", count_free, change(User, 1, plan="pro"), count_active),
    Situation("exists_sees_a_row_that_begins_to_match", zed_exists, change(User, 1, name="zed"), EMAILS),
    Situation("exists_sees_a_row_that_ceases_to_match", eve_exists, change(User, 5, name="zed"), EMAILS),
    Situation("sum_sees_a_new_value", total_balance, change(User, 1, balance=Decimal("0.75")), EMAILS),
    Situation(
        "greatest_value_sees_a_greater_one",
        scalar(lambda: select(func.max(User.balance))),
        change(User, 1, balance=Decimal("500.00")),
        EMAILS,
    ),
    Situation(
        "grouped_counts_see_a_row_that_changes_its_group",
        rows(lambda: select(User.plan, func.count()).group_by(User.plan).order_by(User.plan)),
        change(User, 1, plan="pro"),
        count_active,
    ),
    Situation(
        "distinct_values_see_a_new_one",
        rows(lambda: select(User.plan).distinct().order_by(User.plan)),
        change(User, 1, plan="max"),
        EMAILS,
    ),
    Situation(
        "column_of_one_row_sees_its_new_value",
        scalar(lambda: select(User.name).where(User.id == 1)),
        change(User, 1, name="zed"),
        scalar(lambda: select(User.name).where(User.id == 2)),
    ),
    Situation(
        "get_by_a_composite_key_sees_an_update",
        get(Stock, ("north", 1)),
        change(Stock, ("north", 1), quantity=0),
        get(Stock, ("north", 2)),
        BY_KEY,
    ),
]

INSERTS = [
    Situation("get_of_an_absent_row_sees_it_inserted", get(User, 100), add(new_user), USER_2, BY_KEY),
    Situation(
        "get_of_an_absent_composite_key_sees_it_inserted",
        get(Stock, ("south", 2)),
        add(lambda: Stock(warehouse="south", sku=2, quantity=1)),
        get(Stock, ("south", 1)),
        BY_KEY,
    ),
    Situation("list_sees_an_inserted_row", free_users, add(new_user), USER_2),
    Situation(
        "list_of_nothing_sees_an_inserted_row",
        entities(lambda: select(User).where(User.plan == "max")),
        add(lambda: new_user(plan="max")),
        TEAMS,
    ),
    Situation("column_select_sees_an_inserted_row", names, add(new_user), USER_2),
    Situation("count_sees_an_inserted_row", count_free, add(new_user), USER_2),
    Situation(
        "count_of_a_column_sees_an_inserted_row",
        scalar(lambda: select(func.count(User.last_seen))),
        add(new_user),
        TEAMS,
    ),
    Situation(
        "count_of_a_subquery_sees_an_inserted_row",
        scalar(lambda: select(func.count()).select_from(select(User).where(User.active == True).subquery())),
        add(new_user),
        TEAMS,
    ),
    Situation("exists_sees_an_inserted_row", zed_exists, add(lambda: new_user(name="zed")), TEAMS),
    Situation(
        "exists_of_a_select_sees_an_inserted_row",
        scalar(lambda: select(select(User.id).where(User.name == "zed").exists())),
        add(lambda: new_user(name="zed")),
        TEAMS,
    ),
    Situation(
        "sum_sees_an_inserted_row", total_balance, add(lambda: new_user(balance=Decimal("3.25"))), TEAMS
    ),
    Situation(
        "list_sees_a_row_whose_key_the_database_makes",
        rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id)),
        add(lambda: Tag(name="made")),
        get(Tag, 1),
    ),
    Situation(
        "list_sees_several_rows_inserted_together",
        names,
        add(lambda: [new_user(100), new_user(101), new_user(102)]),
        USER_2,
    ),
]

DELETES = [
    Situation("get_sees_its_row_deleted", get(User, 5), delete(User, 5), USER_2, BY_KEY),
    Situation(
        "get_by_a_composite_key_sees_its_row_deleted",
        get(Stock, ("north", 1)),
        delete(Stock, ("north", 1)),
        get(Stock, ("south", 1)),
        BY_KEY,
    ),
    Situation("list_sees_a_deleted_row", free_users, delete(User, 5), USER_2),
    Situation("column_select_sees_a_deleted_row", names, delete(User, 5), USER_2),
    Situation("count_sees_a_deleted_row", count_free, delete(User, 5), USER_2),
    Situation("exists_sees_a_deleted_row", eve_exists, delete(User, 5), USER_2),
    Situation("sum_sees_a_deleted_row", total_balance, delete(User, 5), TEAMS),
    Situation(
        "rows_deleted_by_a_cascade_of_the_session_are_gone",
        entities(lambda: select(OrderLine).where(OrderLine.order_id == 1)),
        delete(Order, 1),
        TEAMS,
    ),
    Situation(
        "get_of_a_row_deleted_by_a_cascade_of_the_session",
        get(OrderLine, 1),
        delete(Order, 1),
        get(OrderLine, 3),
    ),
    Situation(
        "row_is_loaded_anew_when_the_session_unsets_its_foreign_key",
        get(User, 3),
        delete(Team, 2),
        get(User, 1),
        BY_KEY,
    ),
]


@situations(UPDATES)
async def test_after_an_update(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(INSERTS)
async def test_after_an_insert(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(DELETES)
async def test_after_a_delete(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


async def test_a_row_updated_twice_is_loaded_anew_twice(reader: Reader) -> None:
    await reader.warm(get(User, 1), USER_2)
    for name in ("yan", "zed"):
        await change(User, 1, name=name)(reader.database)
        answer = await reader.miss(get(User, 1), BY_KEY)
        assert answer.value[1]["name"] == name
        await reader.hit(get(User, 1))
    await reader.hit(USER_2)


async def test_a_row_deleted_and_inserted_again_is_never_served_from_its_earlier_life(reader: Reader) -> None:
    await reader.warm(get(User, 5), USER_2)
    await delete(User, 5)(reader.database)
    await reader.miss(get(User, 5), BY_KEY)
    await reader.hit(get(User, 5))
    await add(lambda: new_user(5, name="eva"))(reader.database)
    await reader.miss(get(User, 5), BY_KEY)
    await reader.hit(USER_2)


async def test_a_row_that_is_absent_is_cached_as_absent(reader: Reader) -> None:
    await reader.warm(get(User, 100), entities(lambda: select(User).where(User.plan == "max")), zed_exists)


async def test_a_miss_names_the_write_that_caused_it(reader: Reader) -> None:
    writes = [
        (get(User, 1), change(User, 1, name="zed"), "row_update", ("name",)),
        (get(User, 5), delete(User, 5), "row_delete", None),
        (get(User, 100), add(new_user), "row_insert", None),
    ]
    for read, write, cause, columns in writes:
        await reader.warm(read)
        await write(reader.database)
        answer = await reader.miss(read, BY_KEY)
        if not UNCACHED:
            assert causes(answer.misses) == {cause}
            (named,) = [decision.cause for decision in answer.misses]
            assert named.table == "users"
            assert named.columns == columns


async def test_a_model_that_is_opted_out_is_bypassed_and_right(reader: Reader) -> None:
    read = entities(lambda: select(AuditLog).order_by(AuditLog.id))
    await reader.bypass(read, "opted_out")
    await add(lambda: AuditLog(id=100, message="stopped"))(reader.database)
    await reader.bypass(read, "opted_out")
    await reader.bypass(get(AuditLog, 1), "opted_out")
    await reader.bypass(
        rows(lambda: select(User.id, AuditLog.id).join(AuditLog, AuditLog.id == User.id)), "opted_out"
    )
