"""Writes that look like reads, other databases' forms, the cursor event, and whatever hypothesis thinks of."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    Integer,
    Sequence,
    String,
    Table,
    column,
    delete,
    event,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from sqlacache.canonical import Canonical
from sqlacache.write import dml
from sqlacache.write.dml import EVERYTHING, DmlPlan, analyse, is_ready
from tests.write.announced import (
    POSTGRESQL,
    Order,
    Status,
    User,
    Watch,
    announced,
    orders,
    seats,
    users,
)

# Statements that only look like reads, and the rest


def test_a_read_changes_nothing(session: Session, watch: Watch) -> None:
    session.execute(select(User).where(User.id == 1).with_for_update())
    session.execute(select(func.count()).select_from(User))
    session.execute(text("SELECT 1"))
    session.execute(select(literal_column("'delete from users; insert into x'")))
    assert watch.take() == []


def test_a_select_from_an_insert_is_a_write() -> None:
    written = users.insert().values(id=1, name="x").returning(users.c.id).cte("written")
    (change,) = announced(select(written.c.id), POSTGRESQL)
    assert (change.table, change.op, change.rows, change.columns) == ("users", "insert", None, None)


def test_an_orm_select_from_a_dml_cte_is_a_write() -> None:
    gone = delete(Order).where(Order.user == 1).returning(Order.number).cte("gone")
    changes = announced(select(User).where(User.id.in_(select(*gone.c))), POSTGRESQL)
    assert [(change.table, change.op) for change in changes] == [("orders", "delete")]


def test_every_dml_of_a_chain_of_ctes_is_found() -> None:
    one = users.delete().where(users.c.id == 1).returning(users.c.id).cte("one")
    two = orders.update().values(status=Status.PAID).returning(orders.c.id).cte("two")
    statement = seats.insert().from_select(["row", "place"], select(one.c.id, two.c.id))
    assert {change.table for change in announced(statement, POSTGRESQL)} == {"users", "orders", "seats"}
    with_side_effect = select(users.c.id).add_cte(two) if hasattr(select(1), "add_cte") else select(two.c.id)
    assert {change.table for change in announced(with_side_effect, POSTGRESQL)} == {"orders"}


def test_a_text_that_writes_inside_a_select_is_everything() -> None:
    hidden = text("DELETE FROM users RETURNING id").columns(column("id", Integer)).cte("hidden")
    changes = announced(select(hidden.c.id), POSTGRESQL)
    assert [change.table for change in changes] == [EVERYTHING]


def test_text_and_ddl_are_everything_unless_they_only_read() -> None:
    assert [change.table for change in announced(text("DELETE FROM users"), POSTGRESQL)] == [EVERYTHING]
    assert announced(text("SELECT 1"), POSTGRESQL) == []
    plan = analyse(sqlalchemy.schema.CreateTable(users).compile(dialect=POSTGRESQL))
    assert plan is not None
    assert plan.everything


def test_update_from_and_delete_using_only_read_the_other_table() -> None:
    joined = orders.update().where(orders.c.owner == users.c.id, users.c.name == "x", orders.c.id == 5)
    (change,) = announced(joined.values(status=Status.PAID), POSTGRESQL)
    assert change.table == "orders"
    assert [row.old for row in change.rows or ()] == [{"id": "5"}]
    (change,) = announced(orders.delete().where(orders.c.owner == users.c.id), POSTGRESQL)
    assert (change.table, change.rows) == ("orders", None)


def test_mysql_may_set_columns_of_several_tables() -> None:
    statement = (
        users.update()
        .where(users.c.id == orders.c.owner)
        .values({users.c.name: "x", orders.c.status: "PAID"})
    )
    changes = announced(statement, mysql.dialect())
    assert {(change.table, change.rows) for change in changes} == {("users", None), ("orders", None)}


def test_a_part_of_a_column_is_written_but_not_known() -> None:
    lists = Table(
        "lists",
        sqlalchemy.MetaData(),
        Column("id", Integer, primary_key=True),
        Column("n", postgresql.ARRAY(Integer)),
    )
    (change,) = announced(lists.update().where(lists.c.id == 1).values({lists.c.n[2]: 5}), POSTGRESQL)
    assert change.columns == {"n"}
    assert [row.new for row in change.rows or ()] == [{"id": "1"}]


def test_a_schema_is_translated_as_the_execution_says() -> None:
    elsewhere = Table("t", sqlalchemy.MetaData(schema="tenant"), Column("id", Integer, primary_key=True))
    compiled = elsewhere.delete().where(elsewhere.c.id == 1).compile(dialect=POSTGRESQL)
    plan = analyse(compiled)
    assert plan is not None
    assert plan.changes([compiled.construct_params()])[0].table == "tenant.t"
    assert plan.changes([compiled.construct_params()], {"tenant": "acme"})[0].table == "acme.t"
    assert plan.changes([compiled.construct_params()], {"tenant": None})[0].table == "t"


def test_functions_that_may_write_are_named() -> None:
    written = users.insert().values(id=func.nextval("s"), name=func.Audit.log(func.lower("x")))
    plan = analyse(written.compile(dialect=POSTGRESQL))
    assert plan is not None
    assert plan.functions == {"audit.log"}
    plan = analyse(select(func.write_it(users.c.id)).compile(dialect=POSTGRESQL))
    assert plan is not None
    assert (plan.functions, plan.changes([{}])) == ({"write_it"}, [])
    assert analyse(select(func.max(users.c.id), func.now()).compile(dialect=POSTGRESQL)) is None


def test_a_key_from_a_sequence_is_not_known() -> None:
    numbered = Table(
        "numbered",
        sqlalchemy.MetaData(),
        Column("id", Integer, Sequence("s"), primary_key=True),
        Column("name", String),
    )
    (change,) = announced(numbered.insert().values(name=None), POSTGRESQL)
    assert change.unkeyed == 1


def test_a_column_that_the_database_declares_otherwise_is_not_known() -> None:
    compiled = users.update().where(users.c.name == "x").values(email="e").compile(dialect=sqlite.dialect())
    assert analyse(compiled).changes([compiled.construct_params()])[0].where == {"name": "x"}  # type: ignore[union-attr]
    nocase = Canonical(sqlite.dialect(), inexact={("users", "name")})
    plan = analyse(compiled, nocase)
    assert plan is not None
    assert plan.changes([compiled.construct_params()])[0].where is None


def test_analysis_is_done_once_per_compiled_statement_and_does_not_keep_it_alive() -> None:
    compiled = users.delete().where(users.c.id == 1).compile(dialect=sqlite.dialect())
    assert analyse(compiled) is analyse(compiled)
    assert analyse(select(users).compile(dialect=sqlite.dialect())) is None
    gone = weakref.ref(compiled)
    del compiled
    gc.collect()
    assert gone() is None


def test_what_is_not_understood_is_everything_and_counted() -> None:
    compiled = users.delete().compile(dialect=sqlite.dialect())
    compiled.dml_compile_state = object()  # as a future version of SQLAlchemy might have it
    before = sum(dml.not_understood.values())
    plan = analyse(compiled)
    assert isinstance(plan, DmlPlan)
    assert plan.everything
    assert sum(dml.not_understood.values()) == before + 1


# The cursor event


def test_insertmanyvalues_fires_once_per_batch_with_all_parameters(engine: Any) -> None:
    if not hasattr(engine.dialect, "insertmanyvalues_page_size"):
        pytest.skip("new in SQLAlchemy 2.0")
    events: list[Any] = []
    event.listen(
        engine,
        "before_cursor_execute",
        lambda c, cur, statement, p, context, many: events.append((context, statement)),
    )
    with engine.begin() as connection:
        connection.execution_options(insertmanyvalues_page_size=2).execute(
            users.insert().returning(users.c.id), [{"name": f"m{n}"} for n in range(5)]
        )
    assert len(events) == 3
    assert len({id(context) for context, _ in events}) == 1
    context = events[0][0]
    assert is_ready(context)
    (change,) = analyse(context.compiled).changes(context.compiled_parameters)  # type: ignore[union-attr]
    assert len(change.rows or ()) == 5


def test_a_default_executed_before_an_insert_finds_its_parameters_not_ready(engine: Any) -> None:
    seen: list[tuple[bool, str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def before(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if not context.isddl:
            plan = analyse(context.compiled)
            assert plan is not None
            (change,) = plan.changes(context.compiled_parameters)
            seen.append((is_ready(context), statement.split()[0], (change.rows or ())[0].new))

    asked = Table(
        "asked",
        sqlalchemy.MetaData(),
        Column("id", Integer, primary_key=True, default=select(7).scalar_subquery()),
    )
    with engine.begin() as connection:
        asked.create(connection, checkfirst=False)
        connection.execute(asked.insert())
    assert seen[-1] == (True, "INSERT", {"id": "7"} if len(seen) == 2 else {})
    assert seen[:-1] in ([], [(False, "SELECT", {})])  # beforehand, or inline with RETURNING


# Whatever is executed


VALUES = {"name": st.sampled_from(["a", "b", None]), "active": st.booleans(), "id": st.integers(1, 6)}
CONDITIONS = [
    lambda draw: users.c.id == draw(VALUES["id"]),
    lambda draw: users.c.id.in_(draw(st.lists(VALUES["id"], max_size=3))),
    lambda draw: users.c.name == draw(VALUES["name"]),
    lambda draw: users.c.active == draw(VALUES["active"]),
    lambda draw: users.c.active.is_(draw(VALUES["active"])),
    lambda draw: users.c.id > draw(VALUES["id"]),
    lambda draw: or_(users.c.id == draw(VALUES["id"]), users.c.name == draw(VALUES["name"])),
    lambda draw: users.c.id == select(func.max(orders.c.owner)).scalar_subquery(),
    lambda draw: users.c.name == literal_column("'a' OR 1"),
]


@st.composite
def statements(draw: Any) -> Any:
    kind = draw(st.sampled_from(["insert", "many", "upsert", "replace", "update", "delete"]))
    names = draw(st.lists(st.sampled_from(["name", "active"]), unique=True, min_size=1))
    values: dict[str, Any] = {name: draw(VALUES[name]) for name in names}
    if draw(st.booleans()) and "name" in values:
        values["name"] = func.coalesce(users.c.name, "b") if kind == "update" else func.lower("B")
    if kind in ("update", "delete"):
        conditions = [draw(st.sampled_from(CONDITIONS))(draw) for _ in range(draw(st.integers(0, 2)))]
        if kind == "delete":
            return users.delete().where(*conditions)
        if draw(st.integers(0, 4)) == 0:
            values["id"] = draw(VALUES["id"])
        return users.update().where(*conditions).values(values)
    given = {**values, "id": draw(VALUES["id"])} if draw(st.booleans()) else values
    if kind == "many":
        return users.insert().values([given, {**given, "id": 30}] if "id" in given else [given, given])
    if kind == "replace":
        return users.insert().prefix_with("OR REPLACE").values(given)
    if kind == "upsert":
        made = sqlite.insert(users).values(given)
        new = made.excluded.name if draw(st.booleans()) else draw(VALUES["name"])
        return made.on_conflict_do_update(index_elements=["id"], set_={"name": new})
    return users.insert().values(given)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(statements(), min_size=1, max_size=4))
def test_whatever_a_statement_changes_was_announced(engine: Any, made: list[Any]) -> None:
    watch = Watch(engine)
    try:
        with engine.connect() as connection:
            for statement in made:
                try:
                    connection.execute(statement)
                except sqlalchemy.exc.IntegrityError:
                    continue
            connection.rollback()
    finally:
        event.remove(engine, "before_cursor_execute", watch._before)
        event.remove(engine, "after_cursor_execute", watch._after)
    assert not dml.not_understood["KeyError"]
