"""What a change touches: pure, without a store."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlacache.tags import EVERYTHING, MAX_STAMPS, Shape, TableTouch, table_stamp, touch
from sqlacache.write.dml import Change, RowChange

KEYS = {"users": ("id",)}
ROW = Shape("users", ("id",), None, keyed=True)
PARTS = Shape("users", ("id",), frozenset({"id", "name"}), keyed=True)
LIST = Shape("users", (), None)
NAMES = Shape("users", (), frozenset({"id", "name"}))
ACTIVE = Shape("users", ("active",), None)
ACTIVE_NAMES = Shape("users", ("active",), frozenset({"active", "name"}))
PLAN = Shape("users", ("active", "plan"), None)
ALL = (ROW, PARTS, LIST, NAMES, ACTIVE, ACTIVE_NAMES, PLAN)


def changed(
    columns: set[str] | None, *rows: tuple[dict[str, str] | None, dict[str, str] | None], **more: Any
) -> Change:
    written = tuple(RowChange(old, new) for old, new in rows) if rows else None
    return Change(
        "users",
        more.pop("kind", "update"),
        None if columns is None else frozenset(columns),
        written,
        more.pop("cause", "row_update"),
        more.pop("statement", "UPDATE users"),
        **more,
    )


def touched(*changes: Change, shapes: Any = ALL) -> TableTouch:
    return touch(changes, {"users": shapes}, KEYS)["users"]


def test_names_are_for_people() -> None:
    assert ROW.tag(["42"]) == "users:42"
    assert PARTS.tag(["42"]) == "users(id,name):42"
    assert ACTIVE.tag(["true"]) == "users?active=true"
    assert PLAN.tag(["true", "pro"]) == "users?active=true&plan=pro"
    assert NAMES.name == "users(id,name):*"
    assert LIST.name == "users:*"
    assert table_stamp("users") == "users#table"
    assert table_stamp(EVERYTHING) == EVERYTHING


def test_the_names_of_the_shapes_of_a_table_do_not_collide() -> None:
    columns = ["a", "b", "c"]
    subsets = [tuple(some) for size in range(4) for some in combinations(columns, size)]
    shapes = {
        Shape("t", narrowed, None if used is None else frozenset(used), keyed=keyed)
        for narrowed, used, keyed in product(subsets, [None, *subsets[1:]], [False, True])
        if not (keyed and narrowed != ("a",))
    }
    assert len({shape.name for shape in shapes}) == len(shapes)
    assert table_stamp("t") not in {shape.name for shape in shapes}


@given(st.lists(st.text(alphabet="ab", min_size=1, max_size=3), min_size=2, max_size=2))
def test_the_tags_of_a_shape_tell_values_apart(values: list[str]) -> None:
    shape = Shape("t", ("x", "y"), None)
    keyed = Shape("t", ("x", "y"), None, keyed=True)
    other = [values[1], values[0]]
    for each in (shape, keyed):
        assert (each.tag(values) == each.tag(other)) == (values == other)


def test_an_update_touches_what_its_columns_meet_under_old_and_new_values() -> None:
    what = touched(
        changed(
            {"plan"},
            ({"id": "1", "active": "true", "plan": "free"}, {"id": "1", "active": "true", "plan": "pro"}),
        )
    )
    assert set(what.stamps) == {
        "users:1",
        "users:*",
        "users?active=true",
        "users?active=true&plan=free",
        "users?active=true&plan=pro",
    }
    assert (what.scope, what.bumped, what.rows, what.columns) == ("rows", False, 1, {"plan"})
    assert list(what.keys) == ["users:1"]


def test_an_update_of_a_column_that_nobody_reads_touches_the_row_only() -> None:
    row = {"id": "1", "active": "true"}
    what = touched(changed({"last_seen"}, (row, row)), shapes=(PARTS, NAMES, ACTIVE_NAMES))
    assert set(what.stamps) == {"users:1"}


def test_an_insert_touches_the_conditions_that_the_new_row_meets() -> None:
    what = touched(
        changed(
            None, (None, {"id": "9", "active": "false", "plan": "free"}), cause="row_insert", kind="insert"
        )
    )
    assert set(what.stamps) == {
        "users:9",
        "users(id,name):9",
        "users:*",
        "users(id,name):*",
        "users?active=false",
        "users(active,name)?active=false",
        "users?active=false&plan=free",
    }
    assert what.columns is None


def test_a_delete_touches_the_conditions_that_the_old_row_met() -> None:
    what = touched(changed(None, ({"id": "9", "active": "true", "plan": "x"}, None)), shapes=(ROW, PLAN))
    assert set(what.stamps) == {"users:9", "users?active=true&plan=x"}


@pytest.mark.parametrize("old", [{"id": "1"}, {}], ids=["key", "nothing"])
def test_a_value_that_is_not_known_widens_to_the_shape(old: dict[str, str]) -> None:
    what = touched(changed({"active"}, (old, {"id": "1", "active": "true"})), shapes=(ROW, ACTIVE))
    assert {"users:1", "users?active", "users?active=true"} <= set(what.stamps)
    assert what.scope == "conditions"
    assert (ROW.name in what.stamps) == (old == {})


def test_a_write_of_unknown_rows_touches_every_shape_it_meets_and_bumps() -> None:
    what = touched(changed({"name"}, cause="bulk_write"))
    assert set(what.stamps) == {shape.name for shape in ALL if shape.meets(frozenset({"name"}))}
    assert (what.scope, what.bumped, what.rows) == ("conditions", True, 0)


def test_a_bulk_write_under_a_condition_touches_its_tags() -> None:
    what = touched(
        changed({"plan"}, where={"active": "false", "plan": "free"}, after={"active": "false", "plan": "x"}),
        shapes=(PLAN, ACTIVE, LIST),
    )
    assert set(what.stamps) == {
        "users?active=false&plan=free",
        "users?active=false&plan=x",
        "users?active=false",
        "users:*",
        ROW.name,
    }


def test_a_write_of_unknown_rows_and_columns_is_of_the_table() -> None:
    what = touched(changed(None, cause="raw_write"))
    assert (what.scope, what.names(), what.bumped) == ("table", ["users#table"], True)


def test_a_write_of_everything_is_one_stamp() -> None:
    what = touch([Change(EVERYTHING, "update", None, None, "raw_write", "DDL")], {}, {})
    assert what[EVERYTHING].names() == [EVERYTHING]


def test_the_widest_of_several_changes_names_the_cause() -> None:
    row = {"id": "1", "active": "true", "plan": "x"}
    narrow = changed({"name"}, (row, row))
    wide = changed(None, cause="bulk_write", statement="DELETE users")
    for order in ((narrow, wide), (wide, narrow)):
        what = touched(*order)
        assert (what.scope, what.cause, what.statement) == ("table", "bulk_write", "DELETE users")
    assert touched(narrow, narrow).rows == 2


def test_without_registered_shapes_only_the_rows_are_touched() -> None:
    row = {"id": "1", "active": "true"}
    assert set(touched(changed({"name"}, (row, row)), shapes=()).stamps) == {"users:1"}


def test_a_great_many_stamps_collapse_to_the_table() -> None:
    rows = [({"id": str(n), "active": "true", "plan": "x"},) * 2 for n in range(MAX_STAMPS + 1)]
    what = touched(changed({"name"}, *rows), shapes=(ROW,))
    assert (what.names(), what.bumped, what.rows) == (["users#table"], True, MAX_STAMPS + 1)
    assert touched(changed({"name"}, *rows[:-1]), shapes=(ROW,)).scope == "rows"


def test_tables_are_touched_apart() -> None:
    other = Change("orders", "delete", None, None, "cascade", "DELETE users")
    found = touch([changed({"name"}, ({"id": "1"}, {"id": "1"})), other], {}, KEYS)
    assert list(found) == ["users", "orders"]
    assert found["orders"].cause == "cascade"
