"""What statements of Core are about to change, upserts included."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import (
    Boolean,
    Column,
    Integer,
    String,
    Table,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
    table,
    text,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.expression import Insert

from sqlacache.write.dml import EVERYTHING
from tests.write.announced import (
    POSTGRESQL,
    Status,
    Tag,
    Watch,
    announced,
    core,
    orders,
    seats,
    update_from,
    users,
)

# Core


def test_core_values_of_several_rows(session: Session, watch: Watch) -> None:
    rows = [{"id": 10, "name": "a", "email": "a"}, {"id": 11, "name": "b", "email": func.lower("B")}]
    core(users.insert().values(rows))(session)
    change = watch.one()
    assert [row.new for row in change.rows or ()] == [
        {"id": "10", "name": "a", "email": "a", "active": "true", "revision": "7"},
        {"id": "11", "name": "b", "active": "true", "revision": "7"},
    ]
    core(users.insert().values([(20, "t", "t"), (21, "u", "u")]))(session)
    assert [(row.new or {})["id"] for row in watch.one().rows or ()] == ["20", "21"]


def test_core_executemany_is_one_row_per_parameter_set(session: Session, watch: Watch) -> None:
    core(users.insert(), [{"id": 10, "name": "a"}, {"id": 11, "name": "b"}])(session)
    assert [(row.new or {})["id"] for row in watch.one().rows or ()] == ["10", "11"]
    by_key = users.update().where(users.c.id == bindparam("key")).values(name=bindparam("called"))
    core(by_key, [{"key": 10, "called": "x"}, {"key": 11, "called": "y"}])(session)
    assert [row.new for row in watch.one().rows or ()] == [
        {"id": "10", "name": "x", "revision": "8"},
        {"id": "11", "name": "y", "revision": "8"},
    ]


def test_core_executemany_by_a_condition_says_what_held_each_time(session: Session, watch: Watch) -> None:
    paid = orders.update().where(orders.c.owner == bindparam("who")).values(status=Status.PAID)
    core(paid, [{"who": 1}, {"who": 2}])(session)
    assert [change.where for change in watch.take()] == [{"user_id": "1"}, {"user_id": "2"}]


def test_parameters_given_at_execution_override_those_of_the_statement(
    session: Session, watch: Watch
) -> None:
    core(users.update().where(users.c.id == 1).values(name="a"), {"name": "b"})(session)
    (row,) = watch.one().rows or ()
    assert row.new is not None
    assert row.new["name"] == "b"


def test_the_same_compiled_statement_reads_new_parameters(session: Session, watch: Watch) -> None:
    for key in (1, 2):
        core(users.update().where(users.c.id == key).values(name=f"x{key}"))(session)
    changes = watch.take()
    assert [[(row.old, row.new) for row in change.rows or ()] for change in changes] == [
        [({"id": n}, {"id": n, "name": f"x{n}", "revision": "8"})] for n in "12"
    ]
    assert watch.contexts[-1].compiled is watch.contexts[-2].compiled


def test_insert_from_select_is_of_any_row(session: Session, watch: Watch) -> None:
    copied = select(users.c.name, users.c.active).where(users.c.id == 1)
    core(users.insert().from_select(["name", "active"], copied))(session)
    change = watch.one()
    assert (change.op, change.rows, change.columns, change.cause) == ("insert", None, None, "bulk_write")


def test_insert_of_nothing_but_defaults(session: Session, watch: Watch) -> None:
    core(Tag.__table__.insert())(session)
    change = watch.one()
    assert change.unkeyed == 1
    assert [row.new for row in change.rows or ()] == [{}]


def test_a_null_key_is_made_by_the_database(session: Session, watch: Watch) -> None:
    core(users.insert().values(id=None, name="x"))(session)
    assert watch.one().unkeyed == 1


def test_ordered_values_and_columns_as_keys(session: Session, watch: Watch) -> None:
    core(users.update().where(users.c.id == 1).ordered_values((users.c.name, "a"), (users.c.email, "b")))(
        session
    )
    (row,) = watch.one().rows or ()
    assert row.new == {"id": "1", "name": "a", "email": "b", "revision": "8"}


def test_a_case_expression_among_the_values_is_not_known(session: Session, watch: Watch) -> None:
    core(users.update().where(users.c.id == 1).values(name=case((users.c.active, "y"), else_="n")))(session)
    assert [row.new for row in watch.one().rows or ()] == [{"id": "1", "revision": "8"}]


def test_a_key_of_another_type_than_the_columns_is_not_a_key(session: Session, watch: Watch) -> None:
    for key in ("1", 1.0, True):
        core(users.update().where(users.c.id == cast(key, Integer)).values(name="x"))(session)
        assert watch.one().rows is None
    core(users.update().where(users.c.id == "1").values(name="x"))(session)
    assert watch.one().rows is None
    core(users.update().where(users.c.id == bindparam("key", type_=Integer)).values(name="y"), {"key": "1"})(
        session
    )
    assert watch.one().rows is None


def test_half_a_composite_key_is_a_condition(session: Session, watch: Watch) -> None:
    core(seats.update().where(seats.c.row == 1).values(taken=True))(session)
    change = watch.one()
    assert (change.rows, change.where, change.after) == (None, {"row": "1"}, {"row": "1", "taken": "true"})
    core(seats.delete().where(seats.c.row == 1, seats.c.place.in_([1, 2])))(session)
    assert [row.old for row in watch.one().rows or ()] == [
        {"row": "1", "place": "1"},
        {"row": "1", "place": "2"},
    ]


def test_a_list_on_another_column_is_one_change_per_value(session: Session, watch: Watch) -> None:
    core(orders.delete().where(orders.c.owner.in_([1, 2])))(session)
    assert [change.where for change in watch.take()] == [{"user_id": "1"}, {"user_id": "2"}]


def test_a_very_long_list_is_any_row(session: Session, watch: Watch) -> None:
    core(users.update().where(users.c.id.in_(range(1, 2000))).values(name="x"))(session)
    change = watch.one()
    assert (change.rows, change.where) == (None, None)


def test_an_empty_list_is_taken_as_any_row(session: Session, watch: Watch) -> None:
    core(users.update().where(users.c.id.in_([])).values(name="x"))(session)
    assert watch.one().rows is None


def test_null_is_known_by_is_null(session: Session, watch: Watch) -> None:
    core(users.update().where(users.c.email.is_(None)).values(name="x"))(session)
    assert watch.one().where == {"email": "null"}


def test_text_in_the_condition_is_any_row(session: Session, watch: Watch) -> None:
    # AND binds tighter than the OR that the text brings: more rows than users.id = 1 are written.
    core(users.update().where(users.c.id == 1, text("1 = 1 OR 1 = 1")).values(name="x"))(session)
    assert watch.one().rows is None
    core(users.delete().where(users.c.id == 1, literal_column("1 OR 1") == 1))(session)
    assert watch.one().rows is None


def test_text_among_the_values_is_any_column_of_any_row(session: Session, watch: Watch) -> None:
    core(users.update().where(users.c.id == 1).values(name=text("'a', email = 'b'")))(session)
    change = watch.one()
    assert (change.rows, change.columns) == (None, None)
    core(users.insert().values(id=50, name=text("'a'")))(session)
    assert watch.one().rows is None


def test_an_element_compiled_by_the_user_is_any_row() -> None:
    class Anything(sqlalchemy.sql.expression.ColumnElement):  # type: ignore[type-arg]  # generic only since 2.0
        inherit_cache = True
        type = Boolean()

    @compiles(Anything)
    def _anything(element: Any, compiler: Any, **kw: Any) -> str:
        return "1 = 1 OR 1 = 1"

    (change,) = announced(users.update().where(users.c.id == 1, Anything()).values(name="x"), POSTGRESQL)
    assert change.rows is None


def test_a_statement_compiled_by_the_user_is_everything() -> None:
    class Odd(Insert):
        inherit_cache = False

    @compiles(Odd)
    def _odd(element: Any, compiler: Any, **kw: Any) -> str:
        return "REPLACE INTO anything SELECT 1"

    changes = announced(Odd(users).values(name="x"), sqlite.dialect())
    assert [change.table for change in changes] == [EVERYTHING]


def test_or_replace_may_delete_other_rows(session: Session, watch: Watch) -> None:
    core(users.insert().prefix_with("OR REPLACE").values(id=9, email="1@x"))(session)
    change = watch.one()
    assert (change.rows, change.columns) == (None, None)
    core(users.update().prefix_with("OR REPLACE").where(users.c.id == 2).values(email="3@x"))(session)
    change = watch.one()
    assert (change.rows, change.columns) == (None, None)
    core(users.insert().prefix_with("OR IGNORE").values(id=9, email="1@x"))(session)
    assert watch.one().rows is not None


def test_a_prefix_of_another_database_does_not_count() -> None:
    statement = users.insert().prefix_with("IGNORE", dialect="mysql").values(id=9)
    assert announced(statement, POSTGRESQL)[0].rows is not None
    assert announced(statement, mysql.dialect())[0].rows is None


def test_a_table_without_metadata_is_any_row(session: Session, watch: Watch) -> None:
    light = table("users", column("id", Integer), column("name", String))
    core(light.update().where(light.c.id == 1).values(name="x"))(session)
    change = watch.one()
    # not even the columns are known: `loud` is computed from the name
    assert (change.table, change.columns, change.rows) == ("users", None, None)
    core(light.delete().where(light.c.id == 1))(session)
    assert watch.one().table == "users"


@update_from
def test_an_aliased_target_is_the_table(session: Session, watch: Watch) -> None:
    (change,) = announced(update(users.alias("u")).values(name="x"), POSTGRESQL)
    assert (change.table, change.columns) == ("users", {"name", "loud", "revision", "stamped"})


# Upserts


@pytest.mark.parametrize("make", [sqlite.insert, postgresql.insert], ids=["sqlite", "postgresql"])
def test_do_nothing_is_a_plain_insert(make: Any) -> None:
    dialect = sqlite.dialect() if make is sqlite.insert else POSTGRESQL
    (change,) = announced(make(users).values(id=1, name="x").on_conflict_do_nothing(), dialect)
    assert [(row.old, (row.new or {})["id"]) for row in change.rows or ()] == [(None, "1")]
    assert change.overwrites is None


@pytest.mark.parametrize("make", [sqlite.insert, postgresql.insert], ids=["sqlite", "postgresql"])
@pytest.mark.parametrize("target", [["id"], [users.c.id]], ids=["name", "column"])
def test_an_upsert_on_the_primary_key_is_by_row(make: Any, target: Any) -> None:
    dialect = sqlite.dialect() if make is sqlite.insert else POSTGRESQL
    statement = make(users).values(id=1, name="x", email="e")
    statement = statement.on_conflict_do_update(
        index_elements=target, set_={"name": statement.excluded.name, "email": "other"}
    )
    (change,) = announced(statement, dialect)
    assert change.columns is None
    (row,) = change.rows or ()
    assert row.old == {"id": "1"}
    # The name is 'x' whether inserted or updated; the email is one or the other.
    assert row.new is not None
    assert row.new["id"] == "1"
    assert row.new["name"] == "x"
    assert "email" not in row.new
    # Of a row that is there, it writes these and what is computed from them, and no onupdate.
    assert change.overwrites == {"name", "email", "loud"}


def test_an_upsert_on_another_key_is_any_row(session: Session, watch: Watch) -> None:
    statement = sqlite.insert(users).values(id=77, email="1@x", name="x")
    core(statement.on_conflict_do_update(index_elements=["email"], set_={"name": "y"}))(session)
    change = watch.one()
    assert (change.rows, change.columns, change.cause) == (None, None, "bulk_write")


def test_an_upsert_that_changes_the_key_is_any_row() -> None:
    statement = postgresql.insert(users).values(id=1, name="x")
    (change,) = announced(
        statement.on_conflict_do_update(index_elements=["id"], set_={"id": 5, "name": "x"}), POSTGRESQL
    )
    assert change.rows is None


def test_an_upsert_by_a_constraints_name_is_by_row_if_that_is_the_primary_key() -> None:
    named = Table(
        "named",
        sqlalchemy.MetaData(),
        Column("id", Integer),
        Column("name", String),
        sqlalchemy.PrimaryKeyConstraint("id", name="named_pk"),
    )
    statement = postgresql.insert(named).values(id=1, name="x")
    for constraint, keyed in [("named_pk", True), ("named_email", False), (named.primary_key, True)]:
        upsert = statement.on_conflict_do_update(constraint=constraint, set_={"name": "y"})
        (change,) = announced(upsert, POSTGRESQL)
        assert (change.rows is not None) is keyed


def test_on_duplicate_key_update_is_any_row() -> None:
    statement = mysql.insert(users).values(id=1, name="x").on_duplicate_key_update(name="y")
    (change,) = announced(statement, mysql.dialect())
    assert (change.rows, change.columns) == (None, None)


def test_an_upsert_really_executed_stays_within_what_was_announced(session: Session, watch: Watch) -> None:
    statement = sqlite.insert(users)
    statement = statement.on_conflict_do_update(
        index_elements=["id"], set_={"name": statement.excluded.name, "email": statement.excluded.email}
    )
    rows = [{"id": n, "name": f"up{n}", "email": f"up{n}"} for n in (1, 2, 90)]
    core(statement, rows)(session)
    assert [row.old for row in watch.one().rows or ()] == [{"id": "1"}, {"id": "2"}, {"id": "90"}]
    core(statement.values(rows))(session)
    assert len(watch.one().rows or ()) == 3
