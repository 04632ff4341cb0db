"""What the database does by itself when a table is written: cascades, triggers, generated columns, partitions, views.

:meth:`Consequences.of` turns the changes of a statement into those of everything that follows from it. Where it is not
known what follows, the wider change is chosen:

* a table with a trigger loses column and condition precision: its rows keep their primary key only, since the
  trigger may set any other column of them;
* what a trigger writes elsewhere is what ``writes_also`` declares; else what its source names, when that can be read
  (:mod:`.catalog_triggers`); else anything, and a warning names the trigger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from sqlalchemy.schema import Table

from ..canonical import NULL
from ..decisions import EvictionCause
from ..logs import TRIGGER_UNKNOWN, log
from ..tags import EVERYTHING
from .catalog import Cascade, Catalog, Trigger, cascades
from .dml import Change, RowChange

_OF_ANY_KIND = frozenset({"trigger", "touched", "explicit"})
"""Causes of changes that say ``update`` and may be inserts and deletes as well."""
MAX_ROWS = 100
"""Rows of a parent up to which the children of each are touched by condition; with more, all children are."""


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
        children: dict[str, set[str]] = {}
        for child, parents in catalog.inherits.items():
            for parent in parents:
                children.setdefault(parent, set()).add(child)
        interesting = {*tables, *catalog.triggers, *catalog.replaces, *writes_also}
        self._relatives: dict[str, tuple[str, ...]] = {}
        """By table, those above and below it that hold its rows or whose rows it holds."""
        for table in {*children, *catalog.inherits}:
            related = _reached(table, catalog.inherits) | _reached(table, children)
            self._relatives[table] = tuple(sorted(related & interesting))
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
            self._cascades
            or self._written
            or catalog.generated
            or catalog.replaces
            or catalog.inherits
            or catalog.selects_from
        )

    def _by(self, trigger: Trigger) -> tuple[str, ...]:
        """Return the tables that a trigger writes; :data:`EVERYTHING` if that cannot be told."""
        if trigger.table in self._writes_also:
            return ()
        if trigger.writes is not None:
            return tuple(
                dict.fromkeys(name for named in sorted(trigger.writes) for name in self._called(named))
            )
        log(
            TRIGGER_UNKNOWN,
            "trigger %r on %s may write anything: every commit that fires it evicts everything; "
            "declare what it writes with writes_also={%r: [...]}",
            trigger.name,
            trigger.table,
            trigger.table,
            table=trigger.table,
            trigger=trigger.name,
        )
        return (EVERYTHING,)

    def _called(self, named: str) -> Iterable[str]:
        """Return every relation known that a name in a source may stand for: which schema it finds is not known."""
        catalog = self._catalog
        known = {
            *self._tables,
            *catalog.triggers,
            *catalog.selects_from,
            *catalog.inherits,
            *self._relatives,
            *self._cascades,
        }
        name = named.rpartition(".")[2]
        return sorted(table for table in known if table.rpartition(".")[2].lower() == name)

    def is_plain(self, table: str) -> bool:
        """Tell whether a statement on ``table`` writes the rows and columns that it names, and the database no others
        of it: no trigger, rule, partition, view, row security or ON CONFLICT REPLACE is there, as far as is known.
        """
        catalog = self._catalog
        return not (
            table not in self._tables
            or catalog.unreadable
            or table in self._written
            or table in self._relatives
            or table in catalog.triggers
            or table in catalog.replaces
            or table in catalog.views
            or table in catalog.row_security
        )

    def itself(self, change: Change) -> Change:
        """Return a change with the columns that the database writes by itself when others are written."""
        return self._itself(change)

    def of(self, changes: Iterable[Change]) -> list[Change]:
        """Return ``changes`` as the database carries them out, with everything that follows from them."""
        done: list[Change] = []
        seen: set[tuple[str, str, frozenset[str] | None, EvictionCause]] = set()
        pending = list(changes)
        while pending:
            change = self._itself(pending.pop(0))
            done.append(change)
            following = list(self._others(change))
            for name in self._relatives.get(change.table, ()):
                relative = self._itself(_any_row(change, name))
                done.append(relative)
                following += self._others(relative)
            for more in following:
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
        if not triggers:
            return True  # declared, without the catalog knowing why
        ops: set[str] = {change.op}
        if change.op == "insert":
            ops |= _does(change)
        if (
            change.cause in _OF_ANY_KIND or change.table in self._relatives
        ):  # a row may move to another partition
            ops = {"insert", "update", "delete"}
        return any(
            not ops.isdisjoint(trigger.events)
            and (trigger.columns is None or change.columns is None or bool(trigger.columns & change.columns))
            for trigger in triggers
        )

    def _others(self, change: Change) -> Iterable[Change]:
        table = change.table
        if table in self._written and self._fires(change):
            for name in self._written[table]:
                yield Change(name, "update", None, None, "trigger", f"trigger on {table}")
        for name in self._catalog.selects_from.get(table, ()):
            yield Change(name, change.op, None, None, change.cause, change.statement)
        called = change.cause in _OF_ANY_KIND
        for cascade in self._cascades.get(table, ()):
            if not called and cascade.on not in _does(change):
                continue
            by = cascade.triggered_by
            if by is not None and change.op == "insert" and change.rows is not None:
                by = by.difference(self._key_of(table))  # an upsert by the key leaves the key as it is
                if not by:
                    continue
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
        found = []
        for row in rows:
            known = row.old or {}
            if any(parent not in known for _, parent in cascade.by):
                yield made
                return
            where = {child: known[parent] for child, parent in cascade.by}
            found.append(replace(made, where=where, after=_after(cascade, row)))
        yield from found


def _reached(table: str, steps: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    pending = [table]
    while pending:
        new = set(steps.get(pending.pop(), ())) - found
        found |= new
        pending += new
    return found


def _any_row(change: Change, table: str) -> Change:
    return replace(change, table=table, rows=None, where=None, after=None, unkeyed=0, columns=None)


def _after(cascade: Cascade, row: RowChange) -> Mapping[str, str] | None:
    """Return what is known of the rows referring to ``row`` once its change was passed on."""
    if cascade.op == "delete":
        return None
    if cascade.action == "SET NULL":
        return {child: NULL for child, _ in cascade.by}
    if cascade.action == "CASCADE" and row.new is not None:
        return {child: row.new[parent] for child, parent in cascade.by if parent in row.new}
    return {}


def _does(change: Change) -> frozenset[str]:
    """Return what a change may do to rows that are there: an upsert may update, REPLACE may delete."""
    if change.op == "insert":
        if change.rows is None:
            return frozenset({"update", "delete"})
        return frozenset({"update"} if any(row.old is not None for row in change.rows) else ())
    if change.op == "update" and change.columns is None and change.rows is None:
        return frozenset({"update", "delete"})
    return frozenset({change.op})


def _only(row: Mapping[str, str] | None, key: tuple[str, ...]) -> Mapping[str, str] | None:
    return None if row is None else {column: row[column] for column in key if column in row}
