"""What the database does by itself when a table is written, and what its tables are: read once, at bind.

The metadata of an application knows few of these: foreign keys with actions, triggers and rules, row security, views,
generated columns, and columns that the database compares otherwise than byte by byte. :func:`read_catalog` asks the
database, :func:`cascades` follows foreign keys from table to table, of the metadata and of the database alike.

Tables are named as ``Table.fullname`` names them: without a schema where the table is found without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.schema import Table

from ..canonical import Strings
from .reader import computed_from, written_unasked

TriggerEvent = Literal["insert", "update", "delete", "truncate"]
TRIGGER_EVENTS: frozenset[TriggerEvent] = frozenset({"insert", "update", "delete", "truncate"})

Volatility = Literal["immutable", "stable", "volatile"]

_SETTING = frozenset({"CASCADE", "SET NULL", "SET DEFAULT"})


@dataclass(frozen=True, slots=True)
class Trigger:
    """Something that the database executes when a table is written."""

    name: str
    table: str
    kind: Literal["trigger", "rule"]
    timing: str
    """``before``, ``after`` or ``instead``; empty when it could not be told."""
    events: frozenset[TriggerEvent]
    columns: frozenset[str] | None
    """Columns whose update fires it; ``None``: of any column."""
    sql: str
    """Its definition, as the database has it."""
    writes: frozenset[str] | None = None
    """Names of the tables that its source writes, in lower case; ``None`` when that cannot be told."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key of ``table`` to ``parent``, with the actions in upper case (empty: none)."""

    table: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    on_delete: str = ""
    on_update: str = ""


@dataclass(frozen=True, slots=True)
class Cascade:
    """What a write to a table does to another one, perhaps by way of a third, through foreign keys."""

    table: str
    """The table written by the database."""
    op: Literal["update", "delete"]
    """What is done to its rows."""
    columns: frozenset[str] | None
    """Its columns written; ``None``: rows are deleted."""
    on: Literal["update", "delete"]
    """What is done to the parent table's rows."""
    triggered_by: frozenset[str] | None
    """Columns of the parent table whose update causes it; ``None`` for its deletes."""
    by: tuple[tuple[str, str], ...] = ()
    """For a direct reference: (column of ``table``, column of the parent) that were equal before the write."""
    action: str = ""
    """For a direct reference: the action of the foreign key."""


@dataclass(frozen=True)
class Catalog:
    """What a database said about itself."""

    triggers: Mapping[str, tuple[Trigger, ...]] = field(default_factory=dict)
    """Triggers and rules by the table they are on."""
    foreign_keys: tuple[ForeignKey, ...] = ()
    row_security: frozenset[str] = frozenset()
    """Tables whose rows depend on who asks."""
    views: frozenset[str] = frozenset()
    """Relations that are no tables: views, materialized views, foreign and virtual tables."""
    inexact: frozenset[tuple[str, str]] = frozenset()
    """(table, column) of strings that may be equal when their bytes are not (see ``sqlacache.canonical.Canonical``)."""
    strings: Mapping[tuple[str, str], Strings] = field(default_factory=dict)
    """How strings are compared, by (table, column); elsewhere it is not known (MySQL)."""
    generated: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Columns, by table, that the database sets when others are written."""
    replaces: frozenset[str] = frozenset()
    """Tables declared with ON CONFLICT REPLACE: a plain INSERT or UPDATE may delete other rows (SQLite)."""
    functions: Mapping[str, Volatility] = field(default_factory=dict)
    """Functions that the database has beside the built-in ones, by name and by ``schema.name``, lower
    case: the most volatile of that name (PostgreSQL)."""
    built_in: frozenset[str] = frozenset()
    """Names of the functions that come with the database (PostgreSQL); empty where they are not known."""
    inherits: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Parents, by table, whose reads return the table's rows, too: partitions and inheriting tables (PostgreSQL)."""
    selects_from: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """What views read, by view: writing to a view that can be written by itself writes those (PostgreSQL)."""
    unreadable: tuple[str, ...] = ()
    """What could not be read, each with the reason; whatever it would have said is missing above."""


def read_catalog(connection: Connection, tables: Iterable[Table] = ()) -> Catalog:
    """Ask the database behind ``connection`` what the metadata does not know.

    ``tables`` are the application's, for the names that it gives them (a schema spelled out or not) and the types that
    it maps columns to. Nothing is raised when a question fails: :attr:`Catalog.unreadable` says which and why.
    """
    from . import catalog_queries

    asked = Asked(connection, tables)
    read = catalog_queries.BY_DIALECT.get(connection.dialect.name)
    if read is None:
        asked.unreadable.append(f"everything: no questions are known for {connection.dialect.name}")
    else:
        read(asked)
    return Catalog(
        triggers={table: tuple(found) for table, found in asked.triggers.items()},
        foreign_keys=tuple(asked.foreign_keys),
        row_security=frozenset(asked.row_security),
        views=frozenset(asked.views),
        inexact=frozenset(asked.inexact),
        strings=asked.strings,
        generated={table: frozenset(columns) for table, columns in asked.generated.items()},
        replaces=frozenset(asked.replaces),
        functions=asked.functions,
        built_in=frozenset(asked.built_in),
        inherits={table: frozenset(parents) for table, parents in asked.inherits.items()},
        selects_from={view: frozenset(tables) for view, tables in asked.selects_from.items()},
        unreadable=tuple(asked.unreadable),
    )


class Asked:
    """A catalog in the making: asks, and keeps what fails from failing the rest."""

    def __init__(self, connection: Connection, tables: Iterable[Table]) -> None:
        self.connection = connection
        self.tables = {table.fullname: table for table in tables}
        self.triggers: dict[str, list[Trigger]] = {}
        self.foreign_keys: list[ForeignKey] = []
        self.row_security: set[str] = set()
        self.views: set[str] = set()
        self.inexact: set[tuple[str, str]] = set()
        self.strings: dict[tuple[str, str], Strings] = {}
        self.generated: dict[str, set[str]] = {}
        self.replaces: set[str] = set()
        self.functions: dict[str, Volatility] = {}
        self.built_in: set[str] = set()
        self.inherits: dict[str, set[str]] = {}
        self.selects_from: dict[str, set[str]] = {}
        self.unreadable: list[str] = []

    def rows(self, what: str, sql: str, **parameters: Any) -> Iterator[Any]:
        """Yield the answer to a question about ``what``; nothing when it fails, which is noted."""
        try:
            if self.connection.dialect.name == "postgresql":  # a failure must not end the transaction
                with self.connection.begin_nested():
                    answer = self.connection.execute(text(sql), parameters).fetchall()
            else:
                answer = self.connection.execute(text(sql), parameters).fetchall()
        except Exception as error:
            self.unreadable.append(f"{what}: {type(error).__name__}: {error}".split("\n")[0])
            return
        yield from answer

    def name(self, schema: str | None, table: str, visible: bool) -> str:
        """The table's name as the application has it; ``visible``: found without its schema."""
        qualified = f"{schema}.{table}"
        return table if visible and qualified not in self.tables else qualified

    def trigger(self, made: Trigger) -> None:
        self.triggers.setdefault(made.table, []).append(made)

    def key(self, table: str) -> tuple[str, ...]:
        """The primary key that the application gives a table; empty when it does not know it."""
        known = self.tables.get(table)
        return tuple(column.name for column in known.primary_key.columns) if known is not None else ()

    def mapped_type(self, table: str, column: str) -> Any:
        """The type that the application gives a column; ``None`` when it does not know it."""
        known = self.tables.get(table)
        return next((one.type for one in known.c if one.name == column), None) if known is not None else None


def metadata_foreign_keys(tables: Iterable[Table]) -> Iterator[ForeignKey]:
    """Yield the foreign keys that the metadata has."""
    for table in tables:
        for constraint in table.foreign_key_constraints:
            columns = tuple(element.parent.name for element in constraint.elements)
            actions = (constraint.ondelete or "").upper(), (constraint.onupdate or "").upper()
            try:
                parent = constraint.referred_table.fullname
                referred = tuple(element.column.name for element in constraint.elements)
            except NoReferenceError:  # a table that the metadata does not have
                names = [element.target_fullname.rpartition(".") for element in constraint.elements]
                parent, referred = names[0][0], tuple(name[2] for name in names)
            yield ForeignKey(table.fullname, columns, parent, referred, *actions)


def cascades(tables: Iterable[Table], found: Iterable[ForeignKey] = ()) -> Mapping[str, tuple[Cascade, ...]]:
    """Return, by table, what writing it makes the database write elsewhere, transitively.

    ``found`` are the foreign keys that the database has (:attr:`Catalog.foreign_keys`); where they and the metadata
    differ, both count.
    """
    known = {table.fullname: table for table in tables}
    referring: dict[str, list[ForeignKey]] = {}
    for key in dict.fromkeys([*metadata_foreign_keys(known.values()), *found]):
        if key.on_delete in _SETTING or key.on_update in _SETTING:
            referring.setdefault(key.parent, []).append(key)
    made = {}
    for parent, keys in referring.items():
        caused: dict[tuple[Any, ...], set[str]] = {}
        for way in _follow(parent, None, referring, known):
            caused.setdefault(("delete", *way), set())
        for column in sorted({column for key in keys for column in key.parent_columns}):
            for way in _follow(parent, frozenset({column}), referring, known):
                caused.setdefault(("update", *way), set()).add(column)
        made[parent] = tuple(
            Cascade(table, op, columns, on, frozenset(by_columns) if on == "update" else None, by, action)
            for (on, table, op, columns, by, action), by_columns in caused.items()
        )
    return {parent: found_here for parent, found_here in made.items() if found_here}


_Way = tuple[str, Literal["update", "delete"], "frozenset[str] | None", "tuple[tuple[str, str], ...]", str]


def _follow(
    parent: str,
    written: frozenset[str] | None,
    referring: Mapping[str, list[ForeignKey]],
    known: Mapping[str, Table],
) -> list[_Way]:
    """Everything that follows from writing columns of ``parent`` (``None``: from deleting its rows)."""
    ways: dict[_Way, None] = {}
    pending: list[tuple[str, frozenset[str] | None, bool]] = [(parent, written, True)]
    seen = {(parent, written)}
    while pending:
        table, columns, direct = pending.pop()
        for key in referring.get(table, ()):
            if columns is not None and columns.isdisjoint(key.parent_columns):
                continue
            action = key.on_delete if columns is None else key.on_update
            if action not in _SETTING:
                continue
            deletes = columns is None and action == "CASCADE"
            child = None if deletes else _with_dependents(key.table, key.columns, known)
            by = tuple(zip(key.columns, key.parent_columns)) if direct else ()
            ways.setdefault(
                (key.table, "delete" if deletes else "update", child, by, action if direct else "")
            )
            if (key.table, child) not in seen:
                seen.add((key.table, child))
                pending.append((key.table, child, False))
    return list(ways)


def _with_dependents(table: str, columns: Iterable[str], known: Mapping[str, Table]) -> frozenset[str]:
    """The columns set in ``table``, with those that the database sets along with them."""
    written = set(columns)
    if table in known:
        all_columns = list(known[table].c)
        written |= {
            column.name for column in all_columns if written_unasked(column) and column.onupdate is None
        }
        written |= computed_from(all_columns, written)
    return frozenset(written)
