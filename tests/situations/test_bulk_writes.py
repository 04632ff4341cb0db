"""Writes of many rows at once: statements of the ORM, upserts, and the session's bulk methods."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from tests.support.databases import Database
from tests.support.models import Order, Stock, Tag, Team, User
from tests.support.reading import Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import Situation, check, situations
from tests.support.writes import execute, execute_on_connection, in_session, new_user

TEAMS = entities(lambda: select(Team).order_by(Team.id))
EMAILS = rows(lambda: select(User.id, User.email).order_by(User.id))
TAG_1 = get(Tag, 1)

free_names = rows(lambda: select(User.name).where(User.plan == "free").order_by(User.id))
names = rows(lambda: select(User.id, User.name).order_by(User.id))
tag_names = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))
count_tags = scalar(lambda: select(func.count()).select_from(Tag))
stock = entities(lambda: select(Stock).order_by(Stock.warehouse, Stock.sku))

_to_pro = update(User).where(User.plan == "free").values(plan="pro")
_rename_1 = update(User).where(User.id == 1).values(name="zed")
_drop_sent = delete(Order).where(Order.status == "sent")
_TWO_TAGS = [{"id": 100, "name": "one"}, {"id": 101, "name": "two"}]


def unsynchronised(statement: Any, how: Any) -> Any:
    return statement.execution_options(synchronize_session=how)


STATEMENTS = [
    Situation("update_by_condition_is_seen_by_a_list", free_names, execute(lambda _: _to_pro), EMAILS),
    Situation("update_by_condition_is_seen_by_a_get", get(User, 1), execute(lambda _: _to_pro), TEAMS),
    Situation(
        "update_by_condition_is_seen_by_a_count",
        scalar(lambda: select(func.count()).select_from(User).where(User.plan == "pro")),
        execute(lambda _: _to_pro),
        EMAILS,
    ),
    Situation("update_by_primary_key_is_seen_by_a_get", get(User, 1), execute(lambda _: _rename_1), TEAMS),
    Situation("update_by_primary_key_is_seen_by_a_list", names, execute(lambda _: _rename_1), EMAILS),
    Situation(
        "update_of_an_expression_is_seen",
        get(Stock, ("north", 1)),
        execute(lambda _: update(Stock).values(quantity=Stock.quantity + 1)),
        TEAMS,
    ),
    *(
        Situation(
            f"update_synchronised_by_{how}_is_seen",
            get(User, 1),
            execute(lambda _, how=how: unsynchronised(_to_pro, how)),
            TEAMS,
        )
        for how in ("evaluate", "fetch", False)
    ),
    Situation(
        "delete_by_condition_is_seen_by_a_list",
        entities(lambda: select(Order).order_by(Order.id)),
        execute(lambda _: _drop_sent),
        EMAILS,
    ),
    Situation(
        "delete_by_condition_is_seen_by_a_get", get(Order, 5), execute(lambda _: _drop_sent), get(User, 1)
    ),
    Situation(
        "delete_synchronised_by_fetch_is_seen",
        get(Order, 5),
        execute(lambda _: unsynchronised(_drop_sent, "fetch")),
        TEAMS,
    ),
    Situation(
        "insert_of_values_is_seen",
        tag_names,
        execute(lambda _: insert(Tag).values(id=100, name="new")),
        TEAMS,
    ),
    Situation(
        "insert_of_values_is_seen_by_a_get",
        get(Tag, 100),
        execute(lambda _: insert(Tag).values(id=100, name="new")),
        TEAMS,
    ),
    Situation(
        "insert_of_many_parameters_is_seen", tag_names, execute(lambda _: insert(Tag), _TWO_TAGS), TEAMS
    ),
    Situation(
        "insert_of_many_parameters_is_seen_by_a_count",
        count_tags,
        execute(lambda _: insert(Tag), _TWO_TAGS),
        TEAMS,
    ),
    Situation(
        "insert_of_many_values_is_seen", tag_names, execute(lambda _: insert(Tag).values(_TWO_TAGS)), TEAMS
    ),
    Situation(
        "insert_from_a_select_is_seen",
        tag_names,
        execute(lambda _: insert(Tag).from_select(["id", "name"], select(Team.id + 100, Team.name))),
        TEAMS,
    ),
    Situation(
        "update_of_many_parameters_is_seen",
        names,
        execute_on_connection(
            lambda _: (
                update(User.__table__).where(User.__table__.c.id == _bind("key")).values(name=_bind("new"))
            ),
            [{"key": 1, "new": "yan"}, {"key": 2, "new": "zed"}],
        ),
        EMAILS,
    ),
]


def _bind(name: str) -> Any:
    from sqlalchemy import bindparam

    return bindparam(name)


def upsert(database: Database, entity: Any, values: Any, **on_conflict: Any) -> Any:
    """``INSERT ... ON CONFLICT DO UPDATE``, or ``ON DUPLICATE KEY UPDATE``, as the database has it."""
    if database.dialect == "mariadb":
        return mysql.insert(entity.__table__).values(values).on_duplicate_key_update(**on_conflict["set_"])
    make = postgresql.insert if database.dialect == "postgresql" else sqlite.insert
    return make(entity.__table__).values(values).on_conflict_do_update(**on_conflict)


def overwrite_tag(database: Database) -> Any:
    return upsert(database, Tag, {"id": 1, "name": "gold"}, index_elements=["id"], set_={"name": "gold"})


def insert_tag(database: Database) -> Any:
    return upsert(database, Tag, {"id": 100, "name": "gold"}, index_elements=["id"], set_={"name": "gold"})


def overwrite_by_a_unique_column(database: Database) -> Any:
    values = {"id": 100, "name": "vip"}
    return upsert(database, Tag, values, index_elements=["name"], set_={"name": "vip+"})


def overwrite_stock(database: Database) -> Any:
    values = [{"warehouse": "north", "sku": 1, "quantity": 5}, {"warehouse": "west", "sku": 9, "quantity": 6}]
    table = Stock.__table__
    return upsert(
        database, Stock, values, index_elements=["warehouse", "sku"], set_={"quantity": table.c.quantity + 1}
    )


def do_nothing(database: Database) -> Any:
    if database.dialect == "mariadb":
        return insert(Tag.__table__).prefix_with("IGNORE").values({"id": 100, "name": "gold"})
    make = postgresql.insert if database.dialect == "postgresql" else sqlite.insert
    return make(Tag.__table__).values({"id": 100, "name": "gold"}).on_conflict_do_nothing()


UPSERTS = [
    Situation("upsert_that_overwrites_is_seen_by_a_get", TAG_1, execute(overwrite_tag), TEAMS),
    Situation("upsert_that_overwrites_is_seen_by_a_list", tag_names, execute(overwrite_tag), TEAMS),
    Situation("upsert_that_inserts_is_seen_by_a_get", get(Tag, 100), execute(insert_tag), TEAMS),
    Situation("upsert_that_inserts_is_seen_by_a_list", tag_names, execute(insert_tag), TEAMS),
    Situation("upsert_that_inserts_is_seen_by_a_count", count_tags, execute(insert_tag), TEAMS),
    Situation(
        "upsert_over_a_unique_column_is_seen_by_a_get_of_the_row_it_overwrites",
        TAG_1,
        execute(overwrite_by_a_unique_column),
        TEAMS,
    ),
    Situation("upsert_of_several_rows_is_seen", stock, execute(overwrite_stock), TEAMS),
    Situation(
        "upsert_of_several_rows_is_seen_by_a_get", get(Stock, ("north", 1)), execute(overwrite_stock), TEAMS
    ),
    Situation("upsert_on_a_connection_is_seen", TAG_1, execute_on_connection(overwrite_tag), TEAMS),
    Situation("insert_that_ignores_conflicts_is_seen", tag_names, execute(do_nothing), TEAMS),
]


def bulk_update(session: Session) -> None:
    session.bulk_update_mappings(User, [{"id": 1, "name": "yan"}, {"id": 2, "name": "zed"}])


def bulk_insert(session: Session) -> None:
    session.bulk_insert_mappings(Tag, _TWO_TAGS)


def bulk_save(session: Session) -> None:
    session.bulk_save_objects([Tag(id=100, name="one"), Tag(id=101, name="two")])


def bulk_save_changed(session: Session) -> None:
    tag = session.get(Tag, 1)
    tag.name = "gold"
    session.bulk_save_objects([tag])
    session.expunge(tag)


def add_many(session: Session) -> None:
    session.add_all([new_user(100 + n) for n in range(20)])


BULK_METHODS = [
    Situation("bulk_update_mappings_is_seen_by_a_list", names, in_session(bulk_update), EMAILS),
    Situation("bulk_update_mappings_is_seen_by_a_get", get(User, 1), in_session(bulk_update), TEAMS),
    Situation("bulk_insert_mappings_is_seen_by_a_list", tag_names, in_session(bulk_insert), TEAMS),
    Situation("bulk_insert_mappings_is_seen_by_a_get", get(Tag, 101), in_session(bulk_insert), TEAMS),
    Situation("bulk_insert_mappings_is_seen_by_a_count", count_tags, in_session(bulk_insert), TEAMS),
    Situation("bulk_save_objects_that_inserts_is_seen", tag_names, in_session(bulk_save), TEAMS),
    Situation("bulk_save_objects_that_inserts_is_seen_by_a_get", get(Tag, 100), in_session(bulk_save), TEAMS),
    Situation("bulk_save_objects_that_updates_is_seen", TAG_1, in_session(bulk_save_changed), TEAMS),
    Situation("many_objects_of_one_flush_are_seen", names, in_session(add_many), get(User, 2)),
]


@situations(STATEMENTS)
async def test_a_statement_of_the_orm(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(UPSERTS)
async def test_an_upsert(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(BULK_METHODS)
async def test_a_bulk_method_of_the_session(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)
