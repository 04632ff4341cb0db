"""What the database does by itself when a table is written: cascades, triggers, generated columns, partitions.

:meth:`Consequences.of` turns the changes of a statement into those of everything that follows from it. Where it is not
known what follows, the wider change is chosen:

* a table with a trigger loses column and condition precision: its rows keep their primary key only, since the
  trigger may set any other column of them;
* what a trigger writes elsewhere is what ``writes_also`` declares; else what its source names, when that can be read
  (SQLite has it, PostgreSQL for functions that run no dynamic SQL); else anything, and a warning names the trigger.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from sqlalchemy.schema import Table

from ..decisions import EvictionCause
from ..tags import EVERYTHING
from .catalog import Cascade, Catalog, Trigger, cascades
from .dml import Change, RowChange

logger = logging.getLogger("sqlacache")

MAX_ROWS = 100
"""Rows of a parent up to which the children of each are touched by condition; with more, all children are."""
_DYNAMIC = re.compile(r"\b(execute|perform|call|dblink|select\s+[\w.\"]+\s*\()", re.IGNORECASE)
_WRITES = re.compile(r"\b(insert|update|delete|merge|truncate|copy)\b", re.IGNORECASE)


class Consequences:
    """What follows from writing the tables of one database."""

    def __init__(
        self,
        catalog: Catalog,
        tables: Mapping[str, Table],
        writes_also: Mapping[str, tuple[str, ...]],
        key_of: Callable[[str], tuple[str, ...]],
    ) -> None:
        self._catalog = catalog
        self._tables = tables
        self._writes_also = writes_also
        self._key_of = key_of
        self._cascades: Mapping[str, tuple[Cascade, ...]] = cascades(tables.values(), catalog.foreign_keys)
        self._children: dict[str, set[str]] = {}
        for child, parents in catalog.inherits.items():
            for parent in parents:
                self._children.setdefault(parent, set()).add(child)
        self._written: dict[str, tuple[str, ...]] = {}
        for table, triggers in catalog.triggers.items():
            self._written[table] = tuple(
                dict.fromkeys(name for trigger in triggers for name in self._by(trigger))
            )
        for table, names in writes_also.items():
            self._written[table] = tuple(dict.fromkeys((*self._written.get(table, ()), *names)))

    def __bool__(self) -> bool:
        catalog = self._catalog
        return bool(
            self._cascades or self._written or catalog.generated or catalog.replaces or catalog.inherits
        )

    def _by(self, trigger: Trigger) -> tuple[str, ...]:
        """Return the tables that a trigger writes; :data:`EVERYTHING` if that cannot be told."""
        if trigger.table in self._writes_also:
            return ()
        source = trigger.sql
        header = source.lower().find("begin")
        body = source[header:] if header >= 0 else source
        if header >= 0 and not _DYNAMIC.search(body):
            if not _WRITES.search(body):
                return ()
            named = {
                name
                for name in self._tables
                if re.search(rf"\b{re.escape(name.split('.')[-1])}\b", body, re.I)
            }
            if named:
                return tuple(sorted(named))
        logger.warning(
            "trigger %r on %s may write anything: every commit that fires it evicts everything; "
            "declare what it writes with writes_also={%r: [...]}",
            trigger.name,
            trigger.table,
            trigger.table,
        )
        return (EVERYTHING,)

    def of(self, changes: Iterable[Change]) -> list[Change]:
        """Return ``changes`` as the database carries them out, with everything that follows from them."""
        done: list[Change] = []
        seen: set[tuple[str, str, frozenset[str] | None, EvictionCause]] = set()
        pending = list(changes)
        while pending:
            change = self._itself(pending.pop(0))
            done.append(change)
            for more in self._others(change):
                what = (more.table, more.op, more.columns, more.cause)
                if more.where is not None:
                    done.append(self._itself(more))
                    what = (more.table, more.op, more.columns, "bulk_write")
                    more = replace(more, where=None)
                    if what not in seen:
                        seen.add(what)
                        pending += self._others(more)
                elif what not in seen:
                    seen.add(what)
                    pending.append(more)
        return done

    def _itself(self, change: Change) -> Change:
        """Return a change with what the database adds to the rows and columns written."""
        table = change.table
        if table in self._catalog.replaces and change.op != "delete":
            return replace(change, rows=None, columns=None, where=None, after=None, unkeyed=0)
        if table in self._written and self._fires(change):
            key = self._key_of(table)
            rows = change.rows
            if rows is not None:
                rows = tuple(RowChange(_only(row.old, key), _only(row.new, key)) for row in rows)
            return replace(change, columns=None, rows=rows, where=None, after=None)
        generated = self._catalog.generated.get(table)
        if generated and change.columns is not None:
            return replace(change, columns=change.columns | generated)
        return change

    def _fires(self, change: Change) -> bool:
        triggers = self._catalog.triggers.get(change.table, ())
        if change.table in self._writes_also and not triggers:
            return True
        for trigger in triggers:
            fires = change.op in trigger.events or (change.op == "insert" and "update" in trigger.events)
            if fires and (
                trigger.columns is None or change.columns is None or trigger.columns & change.columns
            ):
                return True
        return False

    def _others(self, change: Change) -> Iterable[Change]:
        table = change.table
        if table in self._written and self._fires(change):
            for name in self._written[table]:
                yield Change(name, "update", None, None, "trigger", f"trigger on {table}")
        for other in (*self._catalog.inherits.get(table, ()), *self._children.get(table, ())):
            if other in self._tables:
                yield replace(change, table=other, rows=None, where=None, after=None, unkeyed=0, columns=None)
        called = change.cause in ("touched", "explicit")
        for cascade in self._cascades.get(table, ()):
            if not called and cascade.on not in _does(change):
                continue
            by = cascade.triggered_by
            if change.columns is None or by is None or not by.isdisjoint(change.columns):
                yield from self._cascaded(change, cascade)

    def _cascaded(self, change: Change, cascade: Cascade) -> Iterable[Change]:
        made = Change(
            cascade.table, cascade.op, cascade.columns, None, "cascade", f"cascade from {change.table}"
        )
        rows = change.rows
        if not cascade.by or rows is None or len(rows) > MAX_ROWS:
            yield made
            return
        conditions = []
        for row in rows:
            known = row.old or {}
            if any(parent not in known for _, parent in cascade.by):
                yield made
                return
            conditions.append({child: known[parent] for child, parent in cascade.by})
        for where in conditions:
            yield replace(made, where=where, after={} if cascade.op == "update" else None)


def _does(change: Change) -> frozenset[str]:
    """Return what a change may do to rows that are there: an upsert may update, REPLACE may delete."""
    if change.op == "insert":
        overwrites = change.rows is None or any(row.old is not None for row in change.rows)
        return frozenset({"update", "delete"}) if overwrites else frozenset()
    if change.op == "update" and change.columns is None:
        return frozenset({"update", "delete"})
    return frozenset({change.op})


def _only(row: Mapping[str, str] | None, key: tuple[str, ...]) -> Mapping[str, str] | None:
    return None if row is None else {column: row[column] for column in key if column in row}
