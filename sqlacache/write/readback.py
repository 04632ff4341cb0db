"""Around a statement that writes: what it is about to overwrite is read, and what was noted of it is made narrower.

Rows named by primary key, and upserts, are completed before the statement (:mod:`.oldvalues`), or by what it returns
(:mod:`.returned`). A bulk UPDATE or DELETE names none; which rows it writes is read beforehand and proved afterwards:

::

    1. The rows that its WHERE matches are read and locked. The WHERE looks at nothing but the row (:mod:`.criteria`),
       so that each of them goes on to match: nobody else can change it.
    2. Other transactions may insert rows that match, or change others so that they match, and commit.
    3. The statement writes the rows of 1 and, on PostgreSQL at READ COMMITTED, those of 2.
    4. It says how many it wrote. As many as were locked: then there was none of 2, and the rows are those of 1. More,
       or it does not say: what was noted before stays, which is every shape that the written columns meet.

On SQLite nothing happens in 2, since the transaction holds the write lock (or a snapshot, and could not write after it
had become old). Until 4 the wider change is in the ledger, so that a statement that fails half-way, or is cancelled,
leaves it there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.pool import SingletonThreadPool, StaticPool
from sqlalchemy.schema import Table

from ..read.session import driver_in_transaction
from ..tags import MAX_STAMPS, Shape
from .dml import Change, RowChange
from .ledger import Ledger, Pending
from .oldvalues import complete, needed, overwritten, read_locked, without_idle
from .returned import Returned, returned

if TYPE_CHECKING:
    from ..binding import Binding

PROVED = frozenset({"sqlite", "postgresql"})
"""Dialects of which it is known that a locked row stays as it was read, and what a row count counts."""
MOST_MATCHED = 1000
"""Rows that a bulk statement may match before it counts as one of any row."""


class _Locked(NamedTuple):
    """What a bulk statement changes if it writes the rows that were locked for it, and no others."""

    changes: list[Change]
    rows: int


class ReadBack:
    """Reads old values back on one bound engine."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding

    def around(
        self,
        connection: Any,
        ledger: Ledger,
        fresh: int,
        pending: Pending,
        context: Any,
        sent: str,
        execute: Callable[[str], None],
    ) -> None:
        """Run a statement whose changes are in ``ledger`` from ``fresh`` on, and make those as narrow as is proved.

        ``execute`` runs it, its text being ``sent`` and what is given.
        """
        noted = ledger.changes[fresh:]
        provable = self._is_provable(connection, ledger, fresh, pending.changes[0].table)
        proved = asked = None
        if provable and all(change.rows is None for change in pending.changes):
            proved = self._matched(connection, ledger, pending)
        elif provable and any(change.overwrites is not None for change in pending.changes):
            ledger.changes[fresh:] = self._overwritten(connection, pending)
        elif provable and (asked := self._returned(context, sent, noted)) is not None:
            execute(asked.text)
            made = asked.completed(context)
            if made is not None and ledger.changes[fresh:] == noted:
                ledger.changes[fresh] = made
            return
        else:
            ledger.changes[fresh:] = self._completed(connection, noted, idle=provable)
        execute("")
        if proved is not None and self._agrees(context, proved) and ledger.changes[fresh:] == noted:
            ledger.changes[fresh:] = self.binding.follow(proved.changes)

    def _agrees(self, context: Any, proved: _Locked) -> bool:
        """Tell whether a bulk statement that has run wrote the rows that were locked, and no others."""
        written = getattr(context.cursor, "rowcount", -1)
        if isinstance(written, int) and written >= 0:
            return written == proved.rows
        return bool(context.dialect.name == "sqlite")

    def _is_provable(self, connection: Any, ledger: Ledger, fresh: int, table: str) -> bool:
        """Tell whether rows that are read now are as they were read when the statement finds them.

        Not where sessions share the connection: each may write between two statements of the other. On SQLite not in
        a transaction that has neither read nor written yet: reading first would make its write fail instead of wait
        when another connection writes.
        """
        dialect = connection.dialect.name
        if dialect not in PROVED or not self.binding.consequences.is_plain(table):
            return False
        if isinstance(self.binding.engine.pool, (StaticPool, SingletonThreadPool)):
            return False
        if dialect == "sqlite" and driver_in_transaction(connection):
            return fresh > 0 or ledger.read_first
        return True

    def _registered(self, table: str) -> tuple[Shape, ...]:
        _, shapes = self.binding.store.shapes([table])[table]
        return tuple(shapes)

    def _returned(self, context: Any, sent: str, noted: list[Change]) -> Returned | None:
        table = self.binding.table(noted[0].table)
        return returned(context, sent, noted, table, self._registered(noted[0].table), self.binding.canonical)

    def _completed(self, connection: Any, changes: list[Change], *, idle: bool) -> list[Change]:
        done: list[Change] = []
        for change in changes:
            table = self.binding.table(change.table)
            if table is None or change.rows is None:
                done.append(change)
                continue
            shapes = self._registered(change.table)
            made = complete(connection, change, table, shapes, self.binding.canonical)
            done += without_idle(made, table, self.binding.canonical) if idle else [made]
        return done

    def _overwritten(self, connection: Any, pending: Pending) -> list[Change]:
        done: list[Change] = []
        for change in pending.changes:
            table = self.binding.table(change.table)
            shapes = self._registered(change.table)
            if table is None or not shapes:
                done.append(change)
                continue
            change = replace(change, overwrites=self._columns(change))
            for made in overwritten(connection, change, table, shapes, self.binding.canonical):
                done += without_idle(made, table, self.binding.canonical)
        return self.binding.follow(done)

    def _columns(self, change: Change) -> frozenset[str] | None:
        """The columns that an upsert overwrites, generated ones included."""
        if change.overwrites is None:
            return None
        as_update = replace(change, op="update", columns=change.overwrites)
        return self.binding.consequences.itself(as_update).columns

    def _matched(self, connection: Any, ledger: Ledger, pending: Pending) -> _Locked | None:
        """Read and lock the rows that a bulk statement is about to write; ``None`` where that would not pay."""
        stated = pending.changes[0]
        table = self.binding.table(stated.table)
        change = self.binding.consequences.itself(replace(stated, where=None, after=None))
        shapes = [shape for shape in self._registered(change.table) if shape.meets(change.columns)]
        unknown = change.op == "insert" or (change.op == "update" and change.columns is None)
        room = self._room(ledger, change.table, len(shapes))
        if table is None or not shapes or unknown or room <= 0:
            return None
        matched = pending.matched()
        if matched is None:
            return None
        sets = _sets(pending.changes, change.columns)
        found = self._read(connection, table, change, needed(change.columns, shapes), sets, matched, room)
        if found is None:
            return None
        rows = tuple(RowChange(old, _after(change, old, sets)) for old in found)
        changes = without_idle(replace(change, rows=rows), table, self.binding.canonical)
        return _Locked(changes, len(rows))

    def _room(self, ledger: Ledger, table: str, shapes: int) -> int:
        """How many rows may be named one by one before their stamps are too many, which would be wider than now."""
        named = sum(len(change.rows or ()) for change in ledger.changes if change.table == table)
        return min(MOST_MATCHED, MAX_STAMPS // (2 * (shapes + 1)) - named)

    def _read(
        self,
        connection: Any,
        table: Table,
        change: Change,
        names: set[str],
        sets: dict[str, str],
        matched: list[Any],
        room: int,
    ) -> list[dict[str, str]] | None:
        """Read and lock what the WHERE matches; ``None`` for more than ``room`` rows.

        In no order, as the statement itself would lock them.
        """
        key = [column.name for column in table.primary_key.columns]
        asked = [column for column in table.columns if column.name in names.union(sets, key)]
        if not key:
            return None
        statement = select(*asked).where(*matched).limit(room + 1)
        found = read_locked(connection, statement, asked, change, key, self.binding.canonical)
        return found if len(found) <= room else None


def _sets(changes: list[Change], columns: frozenset[str] | None) -> dict[str, str]:
    """The values that all rows are set to, as far as they are known."""
    first = changes[0].after
    if first is None or columns is None:
        return {}
    return {
        name: text
        for name, text in first.items()
        if name in columns and all((change.after or {}).get(name) == text for change in changes)
    }


def _after(change: Change, old: dict[str, str], sets: dict[str, str]) -> dict[str, str] | None:
    if change.op == "delete":
        return None
    kept = {name: text for name, text in old.items() if change.columns is None or name not in change.columns}
    return {**kept, **sets}
