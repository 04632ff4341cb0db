"""Shapes, tags, and what a change touches: the place where the way of a read and the way of a write meet.

A read depends, per table, on a **shape** (the table, the columns it narrows by equality, and its footprint: the
columns it uses) and, for the values it narrows by, on **tags**. Each table, shape and tag has a stamp in the store. A
write is described by :class:`Change` records and, through :func:`touch`, becomes the set of stamps to replace.
Everything here is free of I/O, so that every store and both fronts share it.

Names are for people, too: ``users:42`` is the whole row of the primary key 42, ``users?active=true`` the rows under a
condition, ``users(id,name):*`` two columns of every row. A digest stands for a value that is not to be shown, as in
``users?active=~5f1c...`` (:mod:`.digests`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote

from .canonical import NULL, Private
from .decisions import EvictionCause, Scope
from .digests import Conceal

EVERYTHING = "*"
"""Name of the stamp that every read of a database depends on."""

MAX_STAMPS = 2000
"""A commit that would replace more stamps than this on one table replaces the table's stamp instead: replacing 8,000
in one script holds a Redis server for about 60 ms (DESIGN section 4)."""


def _escaped(column: str) -> str:
    """Return a column's name without the characters that names of stamps are put together with."""
    return column if column.isidentifier() else quote(column, safe=" ")


@dataclass(frozen=True)
class Shape:
    """What a read needs of one table: narrowed by ``columns`` (sorted names), using ``footprint`` (``None``: all)."""

    table: str
    columns: tuple[str, ...]
    footprint: frozenset[str] | None
    keyed: bool = False
    """``columns`` are the table's primary key."""
    shown: tuple[bool, ...] = field(default=(), compare=False)
    """Of a primary key, which columns are integers or UUIDs, whose values tags show; empty where that is not known."""
    name: str = field(init=False, compare=False)
    _begin: str = field(init=False, compare=False, repr=False)
    """What every tag of this shape begins with."""

    def __post_init__(self) -> None:
        used = "" if self.footprint is None else f"({','.join(map(_escaped, sorted(self.footprint)))})"
        object.__setattr__(self, "_begin", f"{self.table}{used}{':' if self.keyed else '?'}")
        if self.keyed:
            suffix = ":#key"
        elif self.columns:
            suffix = "?" + "&".join(map(_escaped, self.columns))
        else:
            suffix = ":*"
        object.__setattr__(self, "name", f"{self.table}{used}{suffix}")

    def tag(self, values: Sequence[str], conceal: Conceal | None = None) -> str:
        """Return the tag of one combination of canonical ``values``, in the order of ``columns``.

        With ``conceal``, what it returns stands for what is not to be shown: everything but the integers and UUIDs of
        a primary key, and NULL.
        """
        if conceal is not None and (not self.keyed or Private in map(type, values)):
            values = [
                value
                if value == NULL or (self.keyed and type(value) is not Private)
                else conceal(self.table, column, value)
                for column, value in zip(self.columns, values)
            ]
        if self.keyed:
            return self._begin + ",".join(values)
        columns = self.columns
        return self._begin + "&".join(
            [f"{_escaped(column)}={value}" for column, value in zip(columns, values)]
        )

    def meets(self, columns: frozenset[str] | None) -> bool:
        """Tell whether a write of ``columns`` (``None``: the whole row) can change what this shape reads."""
        return columns is None or self.footprint is None or not self.footprint.isdisjoint(columns)


@lru_cache(maxsize=1024)
def whole_row(table: str, key: tuple[str, ...]) -> Shape:
    """Return the shape of whole rows of ``table`` by primary key, which every write of the table asks for."""
    return Shape(table, key, None, keyed=True)


def is_key(name: str) -> bool:
    """Tell whether a stamp's name is the tag of a primary key, such as ``users:42`` or ``users(id,name):42``."""
    table, colon, rest = name.partition(":")
    return bool(colon) and "?" not in table and rest not in ("*", "#key")


class RowChangeLike(Protocol):
    """One row written: known columns with canonical values, before and after (see :class:`.write.dml.RowChange`)."""

    @property
    def old(self) -> Mapping[str, str] | None: ...
    @property
    def new(self) -> Mapping[str, str] | None: ...


class ChangeLike(Protocol):
    """What one statement writes to one table (see :class:`.write.dml.Change`)."""

    @property
    def table(self) -> str: ...
    @property
    def columns(self) -> frozenset[str] | None: ...
    @property
    def rows(self) -> Sequence[RowChangeLike] | None: ...
    @property
    def cause(self) -> EvictionCause: ...
    @property
    def statement(self) -> str: ...
    @property
    def where(self) -> Mapping[str, str] | None: ...
    @property
    def after(self) -> Mapping[str, str] | None: ...


@dataclass
class TableTouch:
    """The stamps of one table that a write replaces."""

    table: str
    cause: EvictionCause
    scope: Scope = "rows"
    rows: int = 0
    stamps: dict[str, None] = field(default_factory=dict)
    """Names of shape and tag stamps, in order; empty with ``scope == "table"``, which replaces the table's stamp."""
    keys: dict[str, None] = field(default_factory=dict)
    """Tags of the rows written, for people."""
    columns: set[str] | None = field(default_factory=set)
    statement: str = ""
    bumped: bool = False

    def names(self) -> list[str]:
        """Return the names of every stamp to replace."""
        return [table_stamp(self.table)] if self.scope == "table" else list(self.stamps)


def table_stamp(table: str) -> str:
    """Return the name of a table's own stamp (a tag cannot have it: those contain ``:`` or ``?`` after the name)."""
    return f"{table}#table" if table != EVERYTHING else EVERYTHING


def touch(
    changes: Iterable[ChangeLike],
    shapes: Mapping[str, Iterable[Shape]],
    keys: Mapping[str, tuple[str, ...]],
    conceal: Conceal | None = None,
) -> dict[str, TableTouch]:
    """Return what ``changes`` touch, by table.

    Args:
        changes: What was written, in order.
        shapes: The registered shapes of each table.
        keys: The primary-key columns (sorted names) of each table.
        conceal: As readers have it, for :meth:`Shape.tag`.

    A value that is not known widens to the whole shape; rows that are not known touch every shape that the written
    columns meet. Where nothing is registered for a table, its primary-key tags alone are touched.
    """
    touched: dict[str, TableTouch] = {}
    for change in changes:
        if change.rows is not None and not change.rows:
            continue  # no row was named: nothing is written
        entry = touched.get(change.table)
        if entry is None:
            entry = touched[change.table] = TableTouch(change.table, change.cause, statement=change.statement)
        _add(entry, change, shapes.get(change.table, ()), keys, conceal)
    for entry in touched.values():
        if len(entry.stamps) > MAX_STAMPS:
            entry.scope, entry.bumped = "table", True
            entry.stamps.clear()
    return touched


def _add(
    entry: TableTouch,
    change: ChangeLike,
    shapes: Iterable[Shape],
    keys: Mapping[str, tuple[str, ...]],
    conceal: Conceal | None,
) -> None:
    if change.columns is None:
        entry.columns = None
    elif entry.columns is not None:
        entry.columns |= change.columns
    anything = change.rows is None and change.where is None and change.columns is None
    if change.table == EVERYTHING or anything:
        entry.scope, entry.bumped = "table", True
        entry.cause, entry.statement = change.cause, change.statement
        return  # no stamp beside the table's is named
    key = keys.get(change.table, ())
    if change.rows is None:
        _add_any(entry, change, shapes, key, conceal)
        return
    entry.rows += len(change.rows)
    if key:
        whole = whole_row(change.table, key)
        for row in change.rows:
            _add_row(entry, whole, row, conceal, remember=True)
    for shape in shapes:
        if not shape.meets(change.columns) or (
            shape.keyed and shape.footprint is None and shape.columns == key
        ):
            continue
        if not shape.columns:
            entry.stamps[shape.name] = None
            continue
        for row in change.rows:
            _add_row(entry, shape, row, conceal)


def _add_any(
    entry: TableTouch,
    change: ChangeLike,
    shapes: Iterable[Shape],
    key: tuple[str, ...],
    conceal: Conceal | None,
) -> None:
    """Touch every shape that the written columns meet; where all written rows satisfied ``where``, only its tags."""
    entry.bumped = True
    if entry.scope == "rows":
        entry.scope = "conditions"
        entry.cause, entry.statement = change.cause, change.statement
    for shape in shapes:
        if not shape.meets(change.columns):
            continue
        if shape.columns and change.where is not None:
            after = change.after if change.after is not None else change.where
            _add_row(entry, shape, _Row(change.where, after), conceal)
        else:
            entry.stamps[shape.name] = None
    if key:
        entry.stamps[whole_row(change.table, key).name] = None


@dataclass(frozen=True)
class _Row:
    old: Mapping[str, str] | None
    new: Mapping[str, str] | None


def _add_row(
    entry: TableTouch, shape: Shape, row: RowChangeLike, conceal: Conceal | None, *, remember: bool = False
) -> None:
    for values in (row.old, row.new):
        if values is None:
            continue
        try:
            tag = shape.tag([values[column] for column in shape.columns], conceal)
        except KeyError:
            entry.stamps[shape.name] = None
            if entry.scope == "rows":
                entry.scope = "conditions"
        else:
            entry.stamps[tag] = None
            if remember:
                entry.keys[tag] = None
