"""What the ORM is about to change is told before it runs, and what it then changes is within that."""

from __future__ import annotations

from sqlalchemy import (
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased

from tests.write.announced import (
    Manager,
    Node,
    Order,
    Person,
    Seat,
    Status,
    Tag,
    User,
    Watch,
    since_20,
    update_from,
)

# The flush


def test_a_flushed_insert_knows_its_values_but_not_the_key_that_the_database_makes(
    session: Session, watch: Watch
) -> None:
    session.add(User(name="new", email="new@x"))
    session.flush()
    change = watch.one()
    assert (change.table, change.op, change.cause, change.columns) == ("users", "insert", "row_insert", None)
    assert change.unkeyed == 1
    assert change.statement == "INSERT users"
    (row,) = change.rows or ()
    assert row.old is None
    # `revision` is a Python-side default; `score` has no canonical text; the database makes `id`, `loud`, `stamped`.
    assert row.new == {
        "name": "new",
        "email": "new%40x".replace("%40", "@"),
        "active": "true",
        "revision": "7",
    }


def test_a_flushed_insert_with_a_key_is_keyed(session: Session, watch: Watch) -> None:
    session.add(Seat(row=2, place=1))
    session.flush()
    change = watch.one()
    assert change.unkeyed == 0
    assert [row.new for row in change.rows or ()] == [{"row": "2", "place": "1", "taken": "null"}]


def test_a_flushed_update_names_the_columns_as_emitted(session: Session, watch: Watch) -> None:
    session.get(User, 1).name = "changed"
    session.flush()
    change = watch.one()
    # onupdate in Python and in SQL, and the computed column that mentions the name
    assert change.columns == {"name", "loud", "revision", "stamped"}
    assert change.cause == "row_update"
    (row,) = change.rows or ()
    assert row.old == {"id": "1"}
    assert row.new == {"id": "1", "name": "changed", "revision": "8"}


def test_a_computed_column_changes_only_with_what_it_mentions(session: Session, watch: Watch) -> None:
    session.get(User, 1).active = False
    session.flush()
    assert watch.one().columns == {"active", "revision", "stamped"}


def test_a_value_that_is_an_expression_is_not_known(session: Session, watch: Watch) -> None:
    session.get(User, 1).name = func.lower("X")
    session.flush()
    change = watch.one()
    assert "name" in (change.columns or ())
    assert [row.new for row in change.rows or ()] == [{"id": "1", "revision": "8"}]


def test_a_version_is_known_before_and_after(session: Session, watch: Watch) -> None:
    session.get(Order, 1).status = Status.PAID
    session.flush()
    (row,) = watch.one().rows or ()
    assert row.old == {"id": "1", "version": "1"}
    assert row.new == {"id": "1", "version": "2", "status": "PAID"}


def test_a_changed_primary_key_is_known_before_and_after(session: Session, watch: Watch) -> None:
    session.get(Seat, (1, 1)).place = 9
    session.flush()
    (row,) = watch.one().rows or ()
    assert row.old == {"row": "1", "place": "1"}
    assert row.new == {"row": "1", "place": "9"}


def test_several_flushed_rows_are_one_change_with_as_many_rows(session: Session, watch: Watch) -> None:
    for user in session.query(User).filter(User.id < 3):
        user.name = f"x{user.id}"
    session.flush()
    rows = [row for change in watch.take() for row in change.rows or ()]
    assert [row.old for row in rows] == [{"id": "1"}, {"id": "2"}]
    for user in session.query(User).filter(User.id < 3):
        session.delete(user)
    session.flush()
    deleted = watch.one()
    assert (deleted.op, deleted.cause, deleted.columns) == ("delete", "row_delete", None)
    assert [(row.old, row.new) for row in deleted.rows or ()] == [({"id": "1"}, None), ({"id": "2"}, None)]


def test_a_secondary_table_is_written_by_its_key(session: Session, watch: Watch) -> None:
    user = session.get(User, 1)
    user.tags.append(session.get(Tag, 2))
    session.flush()
    change = watch.one()
    assert change.table == "user_tags"
    assert change.unkeyed == 0
    assert [row.new for row in change.rows or ()] == [{"user_id": "1", "tag_id": "2"}]
    user.tags.clear()
    session.flush()
    change = watch.one()
    assert [(row.old, row.new) for row in change.rows or ()] == [({"user_id": "1", "tag_id": "2"}, None)]


def test_joined_inheritance_writes_each_table_by_key(session: Session, watch: Watch) -> None:
    boss = session.get(Manager, 1)
    boss.name, boss.budget = "chief", 6
    session.flush()
    changes = {change.table: change for change in watch.take()}
    assert changes["people"].columns == {"name"}
    assert changes["managers"].columns == {"budget"}
    assert [row.new for row in changes["managers"].rows or ()] == [{"id": "1", "budget": "6"}]
    session.add(Manager(name="new", budget=1))
    session.flush()
    assert [(change.table, change.unkeyed) for change in watch.take()] == [("people", 1), ("managers", 0)]


def test_post_update_is_an_update_of_its_own(session: Session, watch: Watch) -> None:
    one, two = session.get(Node, 1), session.get(Node, 2)
    one.favourite, two.favourite = two, one
    session.flush()
    changes = watch.take()
    assert {change.columns for change in changes} == {frozenset({"favourite_id"})}
    rows = [row for change in changes for row in change.rows or ()]
    assert {tuple(sorted((row.new or {}).items())) for row in rows} == {
        (("favourite_id", "2"), ("id", "1")),
        (("favourite_id", "1"), ("id", "2")),
    }


# ORM statements


def test_an_orm_bulk_update_by_key_is_by_row(session: Session, watch: Watch) -> None:
    session.execute(update(User).where(User.id.in_([1, 2])).values(name="z"))
    changes = [change for change in watch.take() if change.rows is not None]
    (change,) = changes
    assert change.columns == {"name", "loud", "revision", "stamped"}
    assert [row.old for row in change.rows or ()] == [{"id": "1"}, {"id": "2"}]
    assert [row.new for row in change.rows or ()] == [{"id": n, "name": "z", "revision": "8"} for n in "12"]


def test_an_orm_bulk_update_by_a_condition_says_what_held(session: Session, watch: Watch) -> None:
    session.execute(update(Order).where(Order.user == 2).values(status=Status.PAID))
    change = watch.one()
    assert (change.rows, change.cause) == (None, "bulk_write")
    assert change.where == {"user_id": "2"}
    assert change.after == {"user_id": "2", "status": "PAID"}


def test_attributes_named_unlike_their_columns_are_told_by_column(session: Session, watch: Watch) -> None:
    session.execute(update(Order).where(Order.number == 1).values(user=5))
    change = watch.one()
    assert change.columns == {"user_id"}
    assert [(row.old, row.new) for row in change.rows or ()] == [({"id": "1"}, {"id": "1", "user_id": "5"})]


def test_a_condition_that_is_no_equality_only_widens(session: Session, watch: Watch) -> None:
    session.execute(
        update(User).where(User.id > 2).values(name="z"), execution_options={"synchronize_session": False}
    )
    change = watch.one()
    assert (change.rows, change.where, change.after) == (None, None, {"name": "z", "revision": "8"})
    session.execute(
        delete(User).where(or_(User.id == 1, User.id == 2)), execution_options={"synchronize_session": False}
    )
    change = watch.one()
    assert (change.rows, change.where, change.after) == (None, None, None)


def test_further_conditions_beside_the_key_do_not_widen(session: Session, watch: Watch) -> None:
    session.execute(
        update(User)
        .where(User.id == 1, User.active.is_(True), User.name != "x", User.score > 1)
        .values(score=User.score + 1),
        execution_options={"synchronize_session": False},
    )
    (row,) = watch.one().rows or ()
    assert row.old == {"id": "1", "active": "true"}
    assert row.new == {"id": "1", "active": "true", "revision": "8"}


@update_from
def test_a_condition_on_another_table_does_not_count(session: Session, watch: Watch) -> None:
    session.execute(
        update(User).where(User.id == Order.user, Order.number == 1).values(name="z"),
        execution_options={"synchronize_session": False},
    )
    change = watch.one()
    assert (change.table, change.rows, change.where) == ("users", None, None)


@update_from
def test_a_condition_on_an_alias_of_the_table_does_not_count(session: Session, watch: Watch) -> None:
    other = aliased(User)
    session.execute(
        update(User).where(User.name == other.name, other.id == 1).values(active=False),
        execution_options={"synchronize_session": False},
    )
    assert watch.one().rows is None


def test_exists_in_the_condition_does_not_hide_the_key(session: Session, watch: Watch) -> None:
    session.execute(
        update(User).where(User.id == 1, User.tags.any(), exists().where(Order.user == 1)).values(name="q"),
        execution_options={"synchronize_session": False},
    )
    assert [row.old for row in watch.one().rows or ()] == [{"id": "1"}]


@update_from
def test_joined_inheritance_in_a_bulk_update_writes_the_table_it_names(
    session: Session, watch: Watch
) -> None:
    session.execute(
        update(Manager).where(Manager.id == Person.id, Person.name == "boss").values(budget=1),
        execution_options={"synchronize_session": False},
    )
    change = watch.one()
    assert (change.table, change.columns, change.rows) == ("managers", {"budget"}, None)


def test_deleting_by_statement(session: Session, watch: Watch) -> None:
    session.execute(
        delete(Order).where(Order.number == 3), execution_options={"synchronize_session": "fetch"}
    )
    (change,) = watch.take()
    assert [(row.old, row.new) for row in change.rows or ()] == [({"id": "3"}, None)]
    session.execute(delete(Order).where(Order.user == 1), execution_options={"synchronize_session": False})
    change = watch.one()
    assert (change.rows, change.where, change.after) == (None, {"user_id": "1"}, None)


@since_20
def test_orm_bulk_insert_and_update_by_key(session: Session, watch: Watch) -> None:
    session.execute(insert(User), [{"name": "a", "email": "a"}, {"name": "b", "email": "b"}])
    change = watch.one()
    assert change.unkeyed == 2
    assert [(row.new or {}).get("email") for row in change.rows or ()] == ["a", "b"]
    session.execute(update(User), [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    change = watch.one()
    assert [row.new for row in change.rows or ()] == [
        {"id": "1", "name": "a", "revision": "8"},
        {"id": "2", "name": "b", "revision": "8"},
    ]


@since_20
def test_orm_insert_with_returning_is_one_write(session: Session, watch: Watch) -> None:
    made = session.scalars(
        insert(User).returning(User), [{"name": "a", "email": "a"}, {"name": "b", "email": "b"}]
    )
    assert len(made.all()) == 2
    assert [change.unkeyed for change in watch.take()] == [2]
    session.scalars(
        select(User).from_statement(insert(User).values(name="c", email="c").returning(User))
    ).one()
    assert [(change.table, change.unkeyed) for change in watch.take()] == [("users", 1)]


def test_bulk_mappings_are_by_row(session: Session, watch: Watch) -> None:
    session.bulk_insert_mappings(User, [{"name": "a", "email": "a"}, {"name": "b", "email": "b"}])
    assert [len(change.rows or ()) for change in watch.take()] == [2]
    session.bulk_update_mappings(User, [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    assert [row.old for row in watch.one().rows or ()] == [{"id": "1"}, {"id": "2"}]
