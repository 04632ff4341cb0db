"""What a relationship brings along is as fresh as the entity itself, however it is loaded."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, contains_eager, joinedload, selectinload, subqueryload

from tests.support.models import (
    Article,
    Gallery,
    Order,
    OrderLine,
    Picture,
    Stock,
    Tag,
    Team,
    User,
    user_tags,
)
from tests.support.reading import Read, Reader
from tests.support.reads import entities, follow, get, rows, scalar
from tests.support.situations import BY_KEY, Situation, check, situations
from tests.support.writes import add, change, delete, execute, in_session

from .test_joins import new_order

STOCK = entities(lambda: select(Stock).order_by(Stock.warehouse, Stock.sku))
TAGS = entities(lambda: select(Tag).order_by(Tag.id))
TEAMS = entities(lambda: select(Team).order_by(Team.id))


def users_with(*options: Any) -> Read:
    """Users 1 and 2, loaded with ``options``."""
    return entities(lambda: select(User).where(User.id.in_([1, 2])).options(*options).order_by(User.id))


add_line = add(lambda: OrderLine(id=100, order_id=1, product="cap", quantity=1))

LAZY = [
    Situation(
        "lazy_collection_sees_a_new_value", follow(User, 1, "orders"), change(Order, 1, status="sent"), TEAMS
    ),
    Situation("lazy_collection_sees_an_inserted_row", follow(User, 1, "orders"), add(new_order), TEAMS),
    Situation("lazy_collection_sees_a_deleted_row", follow(User, 1, "orders"), delete(Order, 2), TEAMS),
    Situation(
        "lazy_collection_sees_a_row_that_moves_in",
        follow(User, 1, "orders"),
        change(Order, 4, user_id=1),
        TEAMS,
    ),
    Situation(
        "lazy_collection_sees_a_row_that_moves_out",
        follow(User, 1, "orders"),
        change(Order, 1, user_id=2),
        TEAMS,
    ),
    Situation(
        "empty_lazy_collection_sees_an_inserted_row",
        follow(User, 5, "orders"),
        add(lambda: new_order(user_id=5)),
        get(User, 2),
    ),
    Situation(
        "lazy_reference_sees_a_new_value",
        follow(Order, 1, "user"),
        change(User, 1, name="zed"),
        get(User, 2),
        BY_KEY,
    ),
    Situation(
        "lazy_reference_sees_that_it_points_elsewhere",
        follow(Order, 1, "user"),
        change(Order, 1, user_id=2),
        get(Order, 2),
        BY_KEY,
    ),
    Situation(
        "lazy_many_to_many_sees_the_far_row_change",
        follow(User, 1, "tags"),
        change(Tag, 1, name="vap"),
        TEAMS,
    ),
]

EAGER = [
    Situation(
        "joinedload_of_a_collection_sees_a_new_value",
        users_with(joinedload(User.orders)),
        change(Order, 1, status="sent"),
        TEAMS,
    ),
    Situation(
        "joinedload_of_a_collection_sees_an_inserted_row",
        users_with(joinedload(User.orders)),
        add(new_order),
        TEAMS,
    ),
    Situation(
        "joinedload_of_a_reference_sees_it_change",
        users_with(joinedload(User.team)),
        change(Team, 1, name="rot"),
        STOCK,
    ),
    Situation(
        "joinedload_of_a_reference_sees_that_it_points_elsewhere",
        users_with(joinedload(User.team)),
        change(User, 1, team_id=2),
        TEAMS,
    ),
    Situation(
        "get_with_a_joinedload_sees_the_joined_row_change",
        get(User, 1, options=[joinedload(User.team)]),
        change(Team, 1, name="rot"),
        STOCK,
    ),
    Situation(
        "nested_joinedload_sees_the_innermost_table_change",
        users_with(joinedload(User.orders).joinedload(Order.lines)),
        add_line,
        TEAMS,
    ),
    Situation(
        "selectinload_of_a_collection_sees_a_new_value",
        users_with(selectinload(User.orders)),
        change(Order, 1, status="sent"),
        TEAMS,
    ),
    Situation(
        "selectinload_of_a_collection_sees_an_inserted_row",
        users_with(selectinload(User.orders)),
        add(new_order),
        TEAMS,
    ),
    Situation(
        "selectinload_of_a_collection_sees_a_deleted_row",
        users_with(selectinload(User.orders)),
        delete(Order, 2),
        TEAMS,
    ),
    Situation(
        "selectinload_of_a_reference_sees_it_change",
        users_with(selectinload(User.team)),
        change(Team, 1, name="rot"),
        STOCK,
    ),
    Situation(
        "selectinload_sees_the_parent_change",
        users_with(selectinload(User.orders)),
        change(User, 1, name="zed"),
        TEAMS,
    ),
    Situation(
        "nested_selectinload_sees_the_innermost_table_change",
        users_with(selectinload(User.orders).selectinload(Order.lines)),
        add_line,
        TEAMS,
    ),
    Situation(
        "subqueryload_sees_an_inserted_row", users_with(subqueryload(User.orders)), add(new_order), TEAMS
    ),
    Situation(
        "contains_eager_sees_the_joined_table_change",
        entities(
            lambda: (
                select(User)
                .join(User.orders)
                .options(contains_eager(User.orders))
                .order_by(User.id, Order.id)
            )
        ),
        change(Order, 1, status="sent"),
        TEAMS,
    ),
    Situation(
        "join_that_the_mapping_asks_for_sees_the_joined_row_change",
        entities(lambda: select(Article).order_by(Article.id)),
        change(User, 1, name="zed"),
        TEAMS,
    ),
    Situation(
        "get_with_a_join_that_the_mapping_asks_for_sees_the_joined_row_change",
        get(Article, 1),
        change(User, 1, name="zed"),
        TEAMS,
    ),
    Situation(
        "second_select_that_the_mapping_asks_for_sees_an_inserted_row",
        entities(lambda: select(Gallery).order_by(Gallery.id)),
        add(lambda: Picture(id=100, gallery_id=2, caption="frost")),
        TEAMS,
    ),
    Situation(
        "get_with_a_second_select_that_the_mapping_asks_for_sees_a_deleted_row",
        get(Gallery, 1),
        delete(Picture, 2),
        TEAMS,
    ),
]


def append_tag(session: Session) -> None:
    user = session.get(User, 2)
    user.tags.append(session.get(Tag, 2))


def remove_tag(session: Session) -> None:
    user = session.get(User, 1)
    user.tags.remove(session.get(Tag, 2))


def replace_tags(session: Session) -> None:
    user = session.get(User, 1)
    user.tags = [session.get(Tag, 3)]


def append_new_tag(session: Session) -> None:
    user = session.get(User, 1)
    user.tags.append(Tag(id=100, name="fresh"))


def append_from_the_other_side(session: Session) -> None:
    tag = session.get(Tag, 3)
    tag.users.append(session.get(User, 1))


tagged = users_with(selectinload(User.tags))
count_vip = scalar(
    lambda: (
        select(func.count())
        .select_from(user_tags)
        .join(Tag, Tag.id == user_tags.c.tag_id)
        .where(Tag.name == "beta")
    )
)
any_beta = entities(lambda: select(User).where(User.tags.any(Tag.name == "beta")).order_by(User.id))

MANY_TO_MANY = [
    Situation("append_is_seen_by_a_lazy_load", follow(User, 2, "tags"), in_session(append_tag), TEAMS),
    Situation("append_is_seen_by_a_selectinload", tagged, in_session(append_tag), TAGS),
    Situation(
        "append_is_seen_by_a_joinedload", users_with(joinedload(User.tags)), in_session(append_tag), TAGS
    ),
    Situation("append_is_seen_from_the_other_side", follow(Tag, 2, "users"), in_session(append_tag), TEAMS),
    Situation("append_is_seen_by_a_count_over_the_secondary_table", count_vip, in_session(append_tag), TEAMS),
    Situation("append_is_seen_by_a_test_of_any", any_beta, in_session(append_tag), TEAMS),
    Situation("append_of_a_new_row_is_seen", tagged, in_session(append_new_tag), TEAMS),
    Situation(
        "append_on_the_other_side_is_seen",
        follow(User, 1, "tags"),
        in_session(append_from_the_other_side),
        TEAMS,
    ),
    Situation("remove_is_seen_by_a_lazy_load", follow(User, 1, "tags"), in_session(remove_tag), TEAMS),
    Situation("remove_is_seen_by_a_selectinload", tagged, in_session(remove_tag), TAGS),
    Situation("remove_is_seen_by_a_test_of_any", any_beta, in_session(remove_tag), TEAMS),
    Situation(
        "replacing_the_collection_is_seen", users_with(joinedload(User.tags)), in_session(replace_tags), TAGS
    ),
    Situation("deleting_a_tagged_row_is_seen", tagged, delete(Tag, 1), TEAMS),
    Situation(
        "core_insert_into_the_secondary_table_is_seen",
        tagged,
        execute(lambda _: user_tags.insert().values(user_id=2, tag_id=3)),
        TAGS,
    ),
    Situation(
        "core_delete_from_the_secondary_table_is_seen",
        tagged,
        execute(lambda _: user_tags.delete().where(user_tags.c.user_id == 1)),
        TAGS,
    ),
]


@situations(LAZY)
async def test_a_lazy_load(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(EAGER)
async def test_an_eager_load(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(MANY_TO_MANY)
async def test_a_many_to_many_collection(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


async def test_a_secondary_table_read_by_itself_is_bypassed_because_no_model_is_configured_for_it(
    reader: Reader,
) -> None:
    pairs = rows(lambda: select(user_tags.c.user_id, user_tags.c.tag_id).order_by(*user_tags.c))
    await reader.bypass(pairs, "not_configured")
    await in_session(append_tag)(reader.database)
    await reader.bypass(pairs, "not_configured")
