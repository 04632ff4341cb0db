"""The ledger: what counts as written after savepoints, and rows whose keys become known later."""

from __future__ import annotations

from typing import Any

from sqlacache.tags import EVERYTHING
from sqlacache.write.dml import Change, RowChange
from sqlacache.write.ledger import Inserted, Ledger, existing_ledger, ledger_of

KEYS = {"users": ("id",)}


def change(table: str = "users", **options: Any) -> Change:
    return Change(table, "update", None, None, "row_update", f"UPDATE {table}", **options)


def written(ledger: Ledger) -> list[str]:
    return [change.table for change in ledger.changes]


def ledger_with(*tables: str) -> Ledger:
    ledger = Ledger()
    ledger.add(change(table) for table in tables)
    return ledger


def test_what_is_rolled_back_to_a_savepoint_was_never_written() -> None:
    ledger = ledger_with("a")
    ledger.savepoint("one")
    ledger.add([change("b")])
    ledger.savepoint("two")
    ledger.add([change("c")])
    ledger.roll_back_to("two")
    assert written(ledger) == ["a", "b"]
    ledger.roll_back_to("one")
    assert written(ledger) == ["a"]
    ledger.add([change("d")])
    ledger.roll_back_to("one")  # the savepoint stays, as in SQL
    assert written(ledger) == ["a"]


def test_what_a_released_savepoint_wrote_stays_written() -> None:
    ledger = ledger_with("a")
    ledger.savepoint("one", outermost=True)
    ledger.add([change("b")])
    mark = ledger.release("one")
    assert mark is not None
    assert mark.outermost
    assert written(ledger) == ["a", "b"]
    assert ledger.release("one") is None
    ledger.roll_back_to("one")
    assert written(ledger) == ["a", "b"]


def test_releasing_an_outer_savepoint_releases_the_inner_ones() -> None:
    ledger = ledger_with()
    for name in ("one", "two", "three"):
        ledger.savepoint(name)
        ledger.add([change(name)])
    ledger.release("two")
    ledger.roll_back_to("three")
    assert written(ledger) == ["one", "two", "three"]
    ledger.roll_back_to("one")
    assert written(ledger) == []


def test_savepoints_of_one_name_are_the_last_of_it() -> None:
    ledger = ledger_with()
    for table in ("a", "b"):
        ledger.savepoint("same")
        ledger.add([change(table)])
    ledger.roll_back_to("same")
    assert written(ledger) == ["a"]
    ledger.release("same")
    ledger.roll_back_to("same")
    assert written(ledger) == []


def test_a_savepoint_without_a_name_is_the_last() -> None:
    ledger = ledger_with("a")
    ledger.savepoint("one")
    ledger.add([change("b")])
    ledger.roll_back_to(None)
    assert written(ledger) == ["a"]


def test_an_end_forgets_the_transaction_and_not_the_session() -> None:
    ledger = ledger_with("a", EVERYTHING)
    ledger.session_state = ledger.transaction_state = ledger.read_first = True
    assert ledger.is_everything()
    assert ledger.tables() == {"a", EVERYTHING}
    ledger.savepoint("one")
    ledger.clear()
    assert not ledger
    assert (ledger.marks, ledger.read_first, ledger.transaction_state) == ([], False, False)
    assert ledger.session_state
    assert not ledger.is_everything()


def insert(*rows: dict[str, str], unkeyed: int) -> Change:
    return Change(
        "users",
        "insert",
        None,
        tuple(RowChange(None, row) for row in rows),
        "row_insert",
        "INSERT users",
        unkeyed=unkeyed,
    )


def known(row: dict[str, str]) -> Inserted:
    """A row as it is noted once its key is known."""
    return Inserted("users", "insert", None, (RowChange(None, row),), "row_insert", "INSERT users")


def test_rows_whose_keys_become_known_stand_for_those_without() -> None:
    ledger = Ledger()
    ledger.add([insert({"name": "a"}, {"name": "b"}, unkeyed=2)])
    assert ledger.unkeyed == {"users": 2}
    ledger.changes += [known({"id": "1", "name": "a"}), known({"id": "2", "name": "b"})]
    rows = [row.new for change in ledger.resolved(KEYS) for row in change.rows or ()]
    assert rows == [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}]


def test_rows_without_keys_stay_when_too_few_became_known() -> None:
    ledger = Ledger()
    ledger.add([insert({"name": "a"}, {"name": "b"}, unkeyed=2)])
    ledger.changes.append(known({"id": "1", "name": "a"}))
    rows = [row.new for change in ledger.resolved(KEYS) for row in change.rows or ()]
    assert {"name": "b"} in rows
    assert {"id": "1", "name": "a"} in rows


def test_a_change_completed_with_its_keys_needs_no_second_note() -> None:
    ledger = Ledger()
    ledger.add([insert({"name": "a"}, {"name": "b"}, unkeyed=2)])
    completed = (RowChange(None, {"id": "1", "name": "a"}), RowChange(None, {"id": "2", "name": "b"}))
    assert ledger.complete(ledger.changes[0], completed)
    assert ledger.unkeyed == {}
    assert [change.rows for change in ledger.resolved(KEYS)] == [completed]


def test_a_row_noted_afterwards_counts_once_where_its_key_was_known() -> None:
    ledger = Ledger()
    ledger.add([insert({"id": "1"}, unkeyed=0)])
    ledger.changes.append(known({"id": "1"}))
    assert len(ledger.resolved(KEYS)) == 1


def test_the_ledger_belongs_to_the_connections_info() -> None:
    class Connection:
        def __init__(self) -> None:
            self.info: dict[str, Any] = {}

    connection = Connection()
    assert existing_ledger(connection) is None
    ledger = ledger_of(connection)
    assert ledger_of(connection) is existing_ledger(connection) is ledger
