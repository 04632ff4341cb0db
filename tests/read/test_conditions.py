"""The rules by which a read is narrowed, one by one: the tags that the analysis of a statement gives.

That each is right is tried with random statements in ``test_soundness.py``; what follows for a user of the cache is
shown in ``tests/exactness``. Here it is said what narrows, and that nothing else does.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from sqlalchemy import (
    CHAR,
    Column,
    Date,
    DateTime,
    Float,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    TypeDecorator,
    and_,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.orm import aliased, defer, load_only

from sqlacache.read.statement import MAX_TAGS
from tests.support.models import Order, OrderLine, Stock, User

from .plans import POSTGRESQL, SQLITE, on_both, reads

odd = Table(
    "odd",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("small", SmallInteger),
    Column("padded", CHAR(3)),
    Column("price", Numeric(10, 2)),
    Column("ratio", Float),
    Column("at", DateTime(timezone=True)),
    Column("day", Date),
    Column("short", String(5)),
    Column("long", String(9)),
    Column("folded", String(5, collation="NOCASE")),
    Column("german", String(5, collation="de-x-icu")),
    Column("bytewise", String(5, collation="C")),
).c

NOON = dt.datetime(2024, 2, 29, 12)


class Lowered(TypeDecorator):
    """Sends strings in lower case."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value.lower()


def only(*criteria: Any) -> set[str]:
    """What a select of users' keys and names under these criteria depends on."""
    return on_both(select(User.id, User.name).where(*criteria))


# -- what narrows ------------------------------------------------------------------------------------------------------


def test_an_equality_narrows_from_either_side() -> None:
    assert only(User.id == 5) == {"users(id,name):5"}
    assert only(literal(5) == User.id) == {"users(id,name):5"}
    assert only(User.plan == "pro") == {"users(id,name,plan)?plan=pro"}


def test_equalities_of_an_and_narrow_together() -> None:
    assert only(and_(User.plan == "pro", User.team_id == 1), User.id > 3) == {
        "users(id,name,plan,team_id)?plan=pro&team_id=1"
    }


def test_a_whole_composite_key_is_one_tag_and_a_part_of_it_is_a_condition() -> None:
    assert on_both(select(Stock).where(Stock.warehouse == "a,b", Stock.sku == 1)) == {"stock:1,a%2Cb"}
    assert on_both(select(Stock).where(Stock.warehouse == "north")) == {"stock?warehouse=north"}


def test_an_in_narrows_to_each_of_its_values() -> None:
    assert only(User.id.in_([1, 2])) == {"users(id,name):1", "users(id,name):2"}


def test_an_in_narrows_up_to_a_cap_on_its_values() -> None:
    assert len(only(User.id.in_(range(MAX_TAGS)))) == MAX_TAGS
    assert only(User.id.in_(range(MAX_TAGS + 1))) == {"users(id,name):*"}


def test_the_cap_is_on_the_product_of_all_ins_of_a_table() -> None:
    plans = [str(number) for number in range(11)]
    assert len(only(User.team_id.in_([1, 2]), User.plan.in_(plans))) == 22
    assert only(User.team_id.in_(range(12)), User.plan.in_(plans)) == {"users(id,name,plan,team_id):*"}


def test_each_table_has_its_own_cap() -> None:
    both = select(User.name, Order.status).join(Order, Order.total > User.balance)
    found = on_both(both.where(User.id.in_(range(100)), Order.user_id.in_(range(100))))
    assert len(found) == 200


def test_an_in_of_nothing_does_not_narrow() -> None:
    assert only(User.id.in_([])) == {"users(id,name):*"}


def test_is_null_narrows() -> None:
    assert only(User.team_id.is_(None)) == {"users(id,name,team_id)?team_id=null"}
    assert only(User.team_id == None) == {"users(id,name,team_id)?team_id=null"}


def test_an_equality_with_a_parameter_that_is_null_does_not_narrow() -> None:
    statement = select(User.name).where(User.team_id == bindparam("team"))
    assert on_both(statement, given={"team": 1}) == {"users(name,team_id)?team_id=1"}
    assert on_both(statement, given={"team": None}) == {"users(name,team_id):*"}


@pytest.mark.parametrize(
    "criterion", [User.active, User.active.is_(True), User.active == True], ids=["alone", "is", "equals"]
)
def test_a_truth_narrows_in_every_spelling(criterion: Any) -> None:
    assert only(criterion) == {"users(active,id,name)?active=true"}


def test_a_negated_truth_narrows() -> None:
    assert only(~User.active) == {"users(active,id,name)?active=false"}


def test_each_select_of_a_union_narrows_for_itself() -> None:
    both = select(User.id).where(User.plan == "a").union(select(User.id).where(User.plan == "b"))
    assert on_both(both) == {"users(id,plan)?plan=a", "users(id,plan)?plan=b"}


# -- what does not -----------------------------------------------------------------------------------------------------


NO_EQUALITY = {
    "or": or_(User.plan == "a", User.id == 5),
    "or of one column": or_(User.id == 1, User.id == 2),
    "not equal": User.id != 5,
    "not of an and": ~and_(User.id == 5, User.plan == "a"),
    "greater": User.id > 5,
    "between": User.id.between(5, 5),
    "not in": User.id.notin_([5]),
    "expression": User.id + 0 == 5,
    "function of the column": func.abs(User.id) == 5,
    "function as the value": User.id == func.abs(5),
    "like": User.plan.like("a"),
}


@pytest.mark.parametrize("criterion", NO_EQUALITY.values(), ids=NO_EQUALITY)
def test_what_is_no_equality_of_a_column_and_values_does_not_narrow(criterion: Any) -> None:
    (tag,) = only(criterion)
    assert tag.endswith(":*")


def test_a_having_does_not_narrow() -> None:
    assert on_both(select(User.plan, func.count()).group_by(User.plan).having(User.plan == "a")) == {
        "users(plan):*"
    }


NOT_OURS = {
    "char": odd.padded == "a",
    "decimal": odd.price == 1,
    "float": odd.ratio == 1.0,
    "zone": odd.at == NOON,
    "case ignored by the column": odd.folded == "a",
    "collation of a language": odd.german == "a",
    "case ignored in the statement": odd.short.collate("NOCASE") == "a",
    "lower": func.lower(odd.short) == "a",
    "string for an integer": odd.id == "5",
    "float for an integer": odd.id == 5.0,
    "boolean for an integer": odd.id == literal(True),
    "parameter of a type that sends another string": odd.short == literal("A", Lowered()),
}


@pytest.mark.parametrize("criterion", NOT_OURS.values(), ids=NOT_OURS)
def test_an_equality_that_the_database_sees_otherwise_does_not_narrow(criterion: Any) -> None:
    (tag,) = on_both(select(odd.id).where(criterion))
    assert tag.endswith(":*")


def test_dates_and_strings_compared_byte_by_byte_narrow() -> None:
    assert on_both(select(odd.id).where(odd.day == NOON.date())) == {"odd(day,id)?day=2024-02-29"}
    assert on_both(select(odd.id).where(odd.bytewise == "a")) == {"odd(bytewise,id)?bytewise=a"}


def test_a_string_that_postgresql_may_cut_narrows_only_where_it_is_not_cut() -> None:
    statement = select(odd.id).where(odd.short == "longer")
    assert reads(statement, SQLITE) == {"odd(id,short)?short=longer"}
    assert reads(statement, POSTGRESQL) == {"odd(id,short):*"}


# -- through joins -----------------------------------------------------------------------------------------------------


def test_a_value_spreads_through_join_equalities() -> None:
    joined = select(User.name, Order.status, OrderLine.quantity).join(Order, Order.user_id == User.id)
    joined = joined.join(OrderLine, OrderLine.order_id == Order.id)
    assert on_both(joined.where(User.id == 5, Order.id == 7)) == {
        "users(id,name):5",
        "orders(id,status,user_id):7",
        "order_lines(order_id,quantity)?order_id=7",
    }


def test_a_value_spreads_through_an_equality_in_the_where_and_between_aliases() -> None:
    other = aliased(Order)
    statement = select(Order.status, other.total).where(Order.user_id == other.user_id, other.user_id == 5)
    assert on_both(statement) == {"orders(status,total,user_id)?user_id=5"}


def test_a_value_spreads_between_integers_of_any_size_but_not_between_other_types() -> None:
    assert on_both(select(odd.id).where(odd.small == 4, odd.small == odd.id)) == {"odd(id,small):4"}
    assert on_both(select(odd.id).where(odd.short == "a", odd.short == odd.long)) == {
        "odd(id,long,short)?short=a"
    }


def test_an_is_null_does_not_spread() -> None:
    joined = select(User.name, Order.status).join(Order, Order.user_id == User.team_id)
    assert on_both(joined.where(User.team_id.is_(None))) == {
        "users(name,team_id)?team_id=null",
        "orders(status,user_id):*",
    }


def _outer(onclause: Any, **how: Any) -> Any:
    return select(User.name, Order.status).outerjoin(Order, and_(Order.user_id == User.id, onclause), **how)


def test_an_outer_joins_on_narrows_the_optional_side_only() -> None:
    statement = _outer(and_(Order.status == "new", User.plan == "pro"))
    assert on_both(statement) == {"orders(status,user_id)?status=new", "users(id,name,plan):*"}


def test_an_outer_joins_on_carries_values_to_the_optional_side_only() -> None:
    statement = _outer(Order.status == "new")
    assert on_both(statement.where(User.id == 5)) == {
        "orders(status,user_id)?status=new&user_id=5",
        "users(id,name):5",
    }
    assert on_both(statement.where(Order.user_id == 5)) == {
        "orders(status,user_id)?status=new&user_id=5",
        "users(id,name):*",
    }


def test_a_full_joins_on_narrows_neither_side() -> None:
    statement = _outer(and_(Order.status == "new", User.plan == "pro"), full=True)
    assert on_both(statement) == {"orders(status,user_id):*", "users(id,name,plan):*"}
    assert on_both(statement.where(User.id == 5)) == {"orders(status,user_id):*", "users(id,name,plan):5"}


def test_a_where_narrows_the_optional_side_except_by_is_null_which_its_missing_rows_satisfy() -> None:
    statement = select(User.name, Order.status).outerjoin(Order, Order.user_id == User.id)
    assert on_both(statement.where(Order.status == "new")) == {
        "orders(status,user_id)?status=new",
        "users(id,name):*",
    }
    assert on_both(statement.where(Order.status.is_(None))) == {
        "orders(status,user_id):*",
        "users(id,name):*",
    }


# -- into and out of subqueries ----------------------------------------------------------------------------------------

NUMBERED = func.row_number().over(order_by=Order.user_id).label("number")
DERIVED = {
    "limit": select(Order.user_id).limit(3),
    "distinct": select(Order.user_id).distinct(),
    "window": select(Order.user_id, NUMBERED),
    "aggregate": select(Order.user_id, func.count().label("number")).group_by(Order.user_id),
    "union": select(Order.user_id).union(select(Order.user_id)),
}


@pytest.mark.parametrize("derived", DERIVED.values(), ids=DERIVED)
def test_nothing_is_carried_into_a_derived_table(derived: Any) -> None:
    inner = derived.subquery()
    assert on_both(select(inner).where(inner.c.user_id == 5)) == {"orders(user_id):*"}
    joined = select(User.name, inner).join(inner, inner.c.user_id == User.id).where(User.id == 5)
    assert on_both(joined) == {"orders(user_id):*", "users(id,name):5"}


def test_nothing_is_carried_out_of_a_derived_table() -> None:
    inner = select(Order.user_id).where(Order.user_id == 5).subquery()
    joined = select(User.name).join(inner, inner.c.user_id == User.id)
    assert on_both(joined) == {"orders(user_id)?user_id=5", "users(id,name):*"}


@pytest.mark.parametrize("name", ["limit", "distinct", "window", "aggregate"])
def test_a_derived_tables_own_where_narrows_it(name: str) -> None:
    """Rows that fail it are gone before anything is counted, numbered or cut off."""
    inner = DERIVED[name].where(Order.status == "new").subquery()
    assert on_both(select(inner)) == {"orders(status,user_id)?status=new"}


def test_a_correlated_inner_equality_does_not_narrow_the_outer_table() -> None:
    statement = select(User.name).where(exists().where(Order.user_id == User.id, Order.user_id == 5))
    assert on_both(statement) == {"orders(user_id)?user_id=5", "users(id,name):*"}


def test_an_equality_of_the_outer_table_inside_a_subquery_does_not_narrow_it() -> None:
    statement = select(User.name).where(~exists().where(Order.user_id == User.id, User.plan == "pro"))
    assert on_both(statement) == {"orders(user_id):*", "users(id,name,plan):*"}


def test_an_outer_equality_is_carried_into_a_correlated_subquery() -> None:
    statement = select(User.name).where(User.id == 5, ~exists().where(Order.user_id == User.id))
    assert on_both(statement) == {"orders(user_id)?user_id=5", "users(id,name):5"}


def test_an_in_of_a_select_narrows_inside_it_only() -> None:
    chosen = select(Order.user_id).where(Order.status == "new")
    assert only(User.id.in_(chosen)) == {"orders(status,user_id)?status=new", "users(id,name):*"}


# -- footprints --------------------------------------------------------------------------------------------------------


def test_a_whole_entity_uses_all_columns_and_its_tag_names_none() -> None:
    assert on_both(select(User).where(User.id == 5)) == {"users:5"}
    assert on_both(select(User)) == {"users:*"}


def test_columns_use_what_is_selected_compared_ordered_and_grouped_by() -> None:
    assert on_both(select(User.name).order_by(User.plan)) == {"users(name,plan):*"}
    assert on_both(select(func.max(User.id)).group_by(User.plan).having(func.min(User.team_id) > 1)) == {
        "users(id,plan,team_id):*"
    }


def test_a_count_uses_the_columns_of_its_conditions_only() -> None:
    assert on_both(select(func.count()).select_from(User)) == {"users():*"}
    assert on_both(select(func.count()).select_from(User).where(User.plan == "a")) == {"users(plan)?plan=a"}


def test_an_entity_of_some_columns_uses_those() -> None:
    assert on_both(select(User).options(load_only(User.name))) == {"users(id,name):*"}
    (tag,) = on_both(select(User).options(defer(User.profile)))
    assert "profile" not in tag
    assert "avatar" in tag


def test_two_occurrences_of_a_table_share_the_footprint_of_both() -> None:
    other = aliased(User)
    joined = select(User.name, other.plan).join(other, other.team_id == User.team_id)
    assert on_both(joined.where(User.team_id == 1)) == {"users(name,plan,team_id)?team_id=1"}
    assert on_both(joined.where(User.id == 5)) == {"users(id,name,plan,team_id):*"}
