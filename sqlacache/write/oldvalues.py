"""The values that a row had before a write: read back under a lock just before the statement runs.

A session's memory of a row is no proof of what the UPDATE will find: at READ COMMITTED another transaction may have
committed in between.

::

    1. We load order 7: user_id = 1.
    2. Another transaction moves it to user 2 and commits.
    3. We set its status. What we touch must be user 2's list, not only user 1's, which we remember.

So, only where a registered shape narrows the table by a column whose old value is not known, one statement per written
table reads those columns with a lock that the write itself would take a moment later: ``FOR NO KEY UPDATE`` where
the key stays (so that inserts of referring rows do not wait longer than they would), else ``FOR UPDATE``; on SQLite,
whose writers exclude each other, a plain SELECT after BEGIN IMMEDIATE. Where it cannot be read, the whole shape is
touched instead.

An upsert by primary key is read back alike: the rows that are there are locked, so that it overwrites them and nothing
else, and the change is that of an UPDATE. Of a row that is not there nothing is known: another transaction may insert
it before the upsert does (:func:`overwritten`).

A column of which the value read back is the value that it is set to is not written (:func:`without_idle`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from sqlalchemy import Integer, String, and_, or_, select
from sqlalchemy.engine import Connection
from sqlalchemy.schema import Column, Table
from sqlalchemy.types import TypeDecorator

from ..canonical import Canonical
from ..read.session import driver_in_transaction
from ..tags import Shape
from .dml import Change, RowChange

LOCKING = frozenset({"postgresql", "mysql", "mariadb", "sqlite"})
"""Dialects on which a row can be read so that nobody changes it before the write."""
MAX_ROWS = 500
"""Rows of one statement that are read back at most; with more, the shapes are touched as a whole."""
OPTION = {"sqlacache_read_back": True}
"""Execution option of the statements sent here, for those who count what reaches the database."""


def complete(
    connection: Connection,
    change: Change,
    table: Table,
    shapes: Iterable[Shape],
    canonical: Canonical,
) -> Change:
    """Return ``change`` with the old values that ``shapes`` narrow by, as far as they can be read back."""
    rows, missing = change.rows, unknown(change, table, shapes)
    if rows is None or not missing or connection.dialect.name not in LOCKING:
        return change
    key = [column.name for column in table.primary_key.columns]
    found = _read(connection, change, table, key, missing | _set(change), rows, canonical)
    if found is None:
        return change
    completed = []
    for row in rows:
        read = found.get(tuple((row.old or {})[name] for name in key))
        completed.append(row if read is None else merged(row, read, change.columns))
    return replace(change, rows=tuple(completed))


def unknown(change: Change, table: Table, shapes: Iterable[Shape]) -> set[str]:
    """Return the columns by which ``shapes`` are narrowed, and whose old values are to be read for a change."""
    rows = change.rows
    if rows is None or not 0 < len(rows) <= MAX_ROWS or change.op == "insert":
        return set()
    if change.op == "update" and change.columns is None:
        return set()  # a trigger may set anything afterwards: the new values would stay unknown
    key = {column.name for column in table.primary_key.columns}
    return needed(change.columns, shapes) - key - _known_in_all(rows)


def overwritten(
    connection: Connection,
    change: Change,
    table: Table,
    shapes: Iterable[Shape],
    canonical: Canonical,
) -> list[Change]:
    """Return an upsert by primary key as the UPDATE that it is of rows that are there, and what is left of it.

    ::

        1. The rows that are there are read and locked: nobody changes or deletes them.
        2. Another transaction may insert one that was not there, and commit.
        3. The upsert meets the rows of 1, and perhaps that of 2.

    So the old values of 1 are proved, and nothing is of a row that was not found in 1: that stays as wide as it was.
    """
    rows, overwrites = change.rows, change.overwrites
    if not rows or len(rows) > MAX_ROWS or overwrites is None:
        return [change]
    key = [column.name for column in table.primary_key.columns]
    asked = (needed(None, shapes) | overwrites) - set(key)
    found = _read(connection, replace(change, columns=overwrites), table, key, asked, rows, canonical)
    if not found:
        return [change]
    there: list[RowChange] = []
    others: list[RowChange] = []
    for row in rows:
        old = found.get(tuple((row.old or {})[name] for name in key))
        if old is None:
            others.append(row)
            continue
        kept = {name: value for name, value in old.items() if name not in overwrites}
        there.append(RowChange(old, {**kept, **(row.new or {})}))
    made = replace(
        change, op="update", columns=overwrites, rows=tuple(there), cause="row_update", overwrites=None
    )
    return [made, *([replace(change, rows=tuple(others))] if others else [])]


def needed(columns: frozenset[str] | None, shapes: Iterable[Shape]) -> set[str]:
    """Return the columns by which shapes are narrowed that a write of ``columns`` meets."""
    return {name for shape in shapes if shape.meets(columns) and not shape.keyed for name in shape.columns}


def _set(change: Change) -> set[str]:
    """Columns whose new value is known for every row."""
    if change.op != "update" or not change.columns or not change.rows:
        return set()
    known = set(change.columns)
    for row in change.rows:
        known &= set(row.new or ())
    return known


def without_idle(change: Change, table: Table, canonical: Canonical) -> list[Change]:
    """Return an UPDATE without the columns that it sets to what they are, row by row.

    Only where the database's value is the parameter, as it is: no type of ours in between, which might take two values
    for one.
    """
    if change.op != "update" or change.columns is None or not change.rows:
        return [change]
    written = change.columns
    sure = {column.name for column in table.columns if column.name in written and canonical.is_raw(column)}
    if not sure:
        return [change]
    groups: dict[frozenset[str], list[RowChange]] = {}
    for row in change.rows:
        old, new = row.old or {}, row.new or {}
        idle = {name for name in sure if name in old and old[name] == new.get(name)}
        groups.setdefault(written - idle, []).append(row)
    groups.pop(frozenset(), None)
    if not groups:
        return [replace(change, rows=())]
    return [replace(change, columns=columns, rows=tuple(rows)) for columns, rows in groups.items()]


def _known_in_all(rows: Sequence[RowChange]) -> set[str]:
    known = set(rows[0].old or ())
    for row in rows[1:]:
        known &= set(row.old or ())
    return known


def merged(row: RowChange, read: Mapping[str, str], columns: frozenset[str] | None) -> RowChange:
    """Return a row of a change of ``columns`` with the old values that were ``read``."""
    old = {**read, **(row.old or {})}
    if row.new is None:
        return RowChange(old, None)
    kept = {name: value for name, value in old.items() if columns is not None and name not in columns}
    return RowChange(old, {**kept, **row.new})


def _read(
    connection: Connection,
    change: Change,
    table: Table,
    key: Sequence[str],
    missing: Iterable[str],
    rows: Sequence[RowChange],
    canonical: Canonical,
) -> dict[tuple[str, ...], dict[str, str]] | None:
    """Read ``missing`` of ``rows``, by canonical key; ``None`` if the keys cannot be asked for."""
    columns: dict[str, Column[Any]] = {column.name: column for column in table.columns}
    keys: list[list[Any]] = []
    for row in rows:
        if row.old is None or any(name not in row.old for name in key):
            return None
        values = [_value(columns[name], row.old[name]) for name in key]
        if any(value is None for value in values):
            return None
        keys.append(values)
    asked = [columns[name] for name in (*key, *sorted(missing)) if name in columns]
    statement = select(*asked).where(_where([columns[name] for name in key], keys))
    if connection.dialect.name != "sqlite":
        statement = statement.order_by(*(columns[name] for name in key))
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for known in read_locked(connection, statement, asked, change, key, canonical):
        if all(name in known for name in key):
            found[tuple(known[name] for name in key)] = known
    return found


def read_locked(
    connection: Connection,
    statement: Any,
    asked: Sequence[Column[Any]],
    change: Change,
    key: Iterable[str],
    canonical: Canonical,
) -> list[dict[str, str]]:
    """Read rows under the lock that ``change`` would take, as canonical texts; columns that have none are left out."""
    if connection.dialect.name == "sqlite":
        if not driver_in_transaction(connection):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        stays = change.op != "delete" and change.columns is not None and change.columns.isdisjoint(key)
        statement = statement.with_for_update(key_share=stays)
    normalisers = [(column.name, canonical.of(column)) for column in asked]
    found = []
    for row in connection.execute(statement.execution_options(**OPTION)):
        known: dict[str, str] = {}
        for (name, normalise), value in zip(normalisers, row):
            if normalise is None:
                continue
            try:
                known[name] = normalise(value)
            except ValueError:
                continue
        found.append(known)
    return found


def _where(columns: Sequence[Column[Any]], keys: Sequence[Sequence[Any]]) -> Any:
    if len(columns) == 1:
        return columns[0].in_([values[0] for values in keys])
    return or_(*(and_(*(column == value for column, value in zip(columns, values))) for values in keys))


def _value(column: Column[Any], text: str) -> Any:
    """Return the Python value of a canonical text, for the kinds of keys that have one; else ``None``."""
    kind = column.type
    if isinstance(kind, TypeDecorator):
        return None
    if isinstance(kind, Integer):
        return int(text)
    if isinstance(kind, String) and type(kind).__visit_name__ != "enum":
        return None if "#" in text else "" if text == '""' else unquote(text)
    if kind.__visit_name__.lower() == "uuid":
        made = uuid.UUID(text)
        return made if getattr(kind, "as_uuid", True) else str(made)
    return None
