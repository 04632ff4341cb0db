"""Statements over several tables: a change of any one of them is seen, wherever in the statement the table stands."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import and_, exists, func, select
from sqlalchemy.orm import aliased

from tests.support.models import Order, OrderLine, Tag, Team, User, user_tags
from tests.support.reading import Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.seed import DAY
from tests.support.situations import Situation, check, situations
from tests.support.writes import add, change, delete, execute, new_user

TAGS = entities(lambda: select(Tag).order_by(Tag.id))
LINES = entities(lambda: select(OrderLine).order_by(OrderLine.id))


def new_order(**values: object) -> Order:
    return Order(
        **{"id": 100, "user_id": 1, "status": "new", "total": Decimal("7.00"), "created": DAY, **values}
    )


members = rows(
    lambda: select(User.id, User.name, Team.name).join(Team, User.team_id == Team.id).order_by(User.id)
)
red_members = entities(lambda: select(User).join(User.team).where(Team.name == "red").order_by(User.id))
users_and_teams = rows(lambda: select(User.id, Team.name).outerjoin(User.team).order_by(User.id))
count_joined = scalar(
    lambda: (
        select(func.count())
        .select_from(User)
        .join(Order, Order.user_id == User.id)
        .where(Order.status == "new")
    )
)
spent = rows(
    lambda: select(User.id, func.sum(Order.total)).join(User.orders).group_by(User.id).order_by(User.id)
)

JOINS = [
    Situation("join_sees_a_new_value_in_the_joined_table", members, change(Team, 1, name="rot"), TAGS),
    Situation("join_sees_a_new_value_in_the_first_table", members, change(User, 1, name="zed"), TAGS),
    Situation("join_sees_a_row_that_moves_to_another_partner", members, change(User, 1, team_id=2), TAGS),
    Situation(
        "entities_see_that_the_joined_table_ceases_to_match", red_members, change(Team, 1, name="rot"), TAGS
    ),
    Situation(
        "entities_see_that_the_joined_table_begins_to_match", red_members, change(Team, 2, name="red"), TAGS
    ),
    Situation("outer_join_sees_a_partner_that_appears", users_and_teams, change(User, 4, team_id=3), TAGS),
    Situation("outer_join_sees_a_partner_that_disappears", users_and_teams, delete(Team, 2), TAGS),
    Situation(
        "count_over_a_join_sees_the_joined_table_change", count_joined, change(Order, 2, status="new"), TAGS
    ),
    Situation("count_over_a_join_sees_an_inserted_row", count_joined, add(new_order), LINES),
    Situation(
        "sum_over_a_join_sees_the_joined_table_change", spent, change(Order, 1, total=Decimal("1.50")), LINES
    ),
    Situation("sum_over_a_join_sees_a_deleted_row", spent, delete(Order, 5), TAGS),
    Situation(
        "join_through_a_secondary_table_sees_it_change",
        entities(lambda: select(User).join(User.tags).where(Tag.name == "vip").order_by(User.id)),
        execute(lambda _: user_tags.insert().values(user_id=3, tag_id=1)),
        LINES,
    ),
    Situation(
        "join_through_a_secondary_table_sees_the_far_table_change",
        entities(lambda: select(User).join(User.tags).where(Tag.name == "vip").order_by(User.id)),
        change(Tag, 1, name="vap"),
        LINES,
    ),
    Situation(
        "join_in_where_sees_the_other_table_change",
        rows(
            lambda: select(User.id, Order.id).where(User.id == Order.user_id, User.id == 1).order_by(Order.id)
        ),
        change(Order, 1, user_id=2),
        TAGS,
    ),
    Situation(
        "condition_carried_over_a_join_sees_a_row_that_moves_in",
        rows(
            lambda: (
                select(Order.id).join(User, User.id == Order.user_id).where(User.id == 2).order_by(Order.id)
            )
        ),
        change(Order, 1, user_id=2),
        TAGS,
    ),
]


def _self_join() -> object:
    one, other = aliased(User), aliased(User)
    return (
        select(one.id, other.id)
        .join(other, and_(one.team_id == other.team_id, one.id < other.id))
        .order_by(one.id, other.id)
    )


def _union() -> object:
    return select(User.name).where(User.id == 1).union_all(select(Team.name).where(Team.id == 1))


def _cte() -> object:
    busy = select(Order.user_id).where(Order.status == "new").cte("busy")
    return select(User.id, User.name).where(User.id.in_(select(busy.c.user_id))).order_by(User.id)


def _from_subquery() -> object:
    inner = select(Order.user_id, func.count().label("n")).group_by(Order.user_id).subquery()
    return select(User.name, inner.c.n).join(inner, inner.c.user_id == User.id).order_by(User.id)


def _scalar_subquery() -> object:
    newest = select(func.max(Order.id)).where(Order.user_id == User.id).scalar_subquery()
    return select(User.id, newest).order_by(User.id)


def _correlated_exists() -> object:
    return (
        select(User.id)
        .where(exists().where(Order.user_id == User.id, Order.status == "new"))
        .order_by(User.id)
    )


def _not_in() -> object:
    return select(User).where(User.id.notin_(select(Order.user_id))).order_by(User.id)


def _newest_first() -> object:
    first = select(Order).where(Order.status == "paid").order_by(Order.id.desc()).limit(1).subquery()
    return select(User.name, first.c.id).join(first, first.c.user_id == User.id)


move = change(Order, 1, status="sent")

SUBQUERIES = [
    Situation("in_subquery_sees_the_inner_table_change", rows(_cte), move, TAGS),
    Situation("in_subquery_sees_the_outer_table_change", rows(_cte), change(User, 1, name="zed"), LINES),
    Situation("in_subquery_sees_an_inserted_row", rows(_cte), add(lambda: new_order(user_id=3)), LINES),
    Situation("aggregate_in_from_sees_an_inserted_row", rows(_from_subquery), add(new_order), LINES),
    Situation(
        "aggregate_in_from_sees_a_row_that_moves", rows(_from_subquery), change(Order, 1, user_id=2), LINES
    ),
    Situation("scalar_subquery_sees_an_inserted_row", rows(_scalar_subquery), add(new_order), LINES),
    Situation("scalar_subquery_sees_a_deleted_row", rows(_scalar_subquery), delete(Order, 5), TAGS),
    Situation("correlated_exists_sees_the_inner_table_change", rows(_correlated_exists), move, TAGS),
    Situation(
        "correlated_exists_sees_an_inserted_row",
        rows(_correlated_exists),
        add(lambda: new_order(user_id=3)),
        LINES,
    ),
    Situation(
        "negated_subquery_sees_a_row_that_ends_the_match",
        entities(_not_in),
        add(lambda: new_order(user_id=5)),
        LINES,
    ),
    Situation("negated_subquery_sees_a_row_that_lets_it_match", entities(_not_in), delete(Order, 6), TAGS),
    Situation(
        "limited_subquery_sees_a_row_that_comes_first",
        rows(_newest_first),
        change(Order, 4, status="paid"),
        TAGS,
    ),
    Situation(
        "self_join_sees_a_row_that_begins_to_match", rows(_self_join), change(User, 4, team_id=1), TAGS
    ),
    Situation("self_join_sees_an_inserted_row", rows(_self_join), add(lambda: new_user(team_id=2)), TAGS),
    Situation("union_sees_its_first_table_change", rows(_union), change(User, 1, name="zed"), TAGS),
    Situation("union_sees_its_second_table_change", rows(_union), change(Team, 1, name="rot"), TAGS),
    Situation(
        "exists_over_two_tables_sees_the_second_change",
        scalar(lambda: select(exists().where(User.id == Order.user_id, Order.status == "lost"))),
        change(Order, 1, status="lost"),
        get(User, 2),
    ),
]


@situations(JOINS)
async def test_a_join(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)


@situations(SUBQUERIES)
async def test_a_subquery(situation: Situation, reader: Reader) -> None:
    await check(situation, reader)
