"""What the execution of a statement changes: the records, and the plan that makes them from parameters.

Unknown is always wider: a row's column that is missing from a mapping is not known, a change without rows is of any
row, one without columns of any column, and table :data:`EVERYTHING` is all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..decisions import EvictionCause

EVERYTHING = "*"
"""Table of a change that may be of any table."""
MOST_ROWS = 1000
"""Rows that one parameter set may name by ``IN`` before the change counts as one of any row."""

Op = Literal["insert", "update", "delete"]
Parameters = Mapping[str, Any]
Known = Callable[[Parameters], "str | None"]
"""The canonical text of a value under these parameters; ``None``: not known."""
Matched = Callable[[Parameters], "list[Any] | None"]
"""The conditions, as SQLAlchemy has them, that a row satisfies exactly when it is written; ``None``: not known."""
Choices = Callable[[Parameters], "tuple[str, ...] | None"]
"""The canonical texts that a column may have under these parameters; ``None``: not known."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row written, as far as it is known: database column names to canonical text, unknown columns missing."""

    old: Mapping[str, str] | None
    """Before the write; ``None`` for an insert. An upsert by primary key has the key: its row may have been there."""
    new: Mapping[str, str] | None
    """After the write; ``None`` for a delete."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one execution of a statement changes in one table."""

    table: str
    """``Table.fullname`` after schema translation, or :data:`EVERYTHING`."""
    op: Op
    columns: frozenset[str] | None
    """Columns written, those that the database computes from them included; ``None``: all (insert, delete, unknown)."""
    rows: tuple[RowChange, ...] | None
    """``None``: any row of the table for which ``where`` held."""
    cause: EvictionCause
    statement: str
    """Such as ``UPDATE users``; never values."""
    unkeyed: int = 0
    """How many of ``rows`` were inserted without their primary key being known."""
    where: Mapping[str, str] | None = None
    """Without rows: equalities that held for every row written, before the write."""
    after: Mapping[str, str] | None = None
    """Without rows: values that every row written has afterwards (``{}``: none known, ``None``: a delete)."""
    overwrites: frozenset[str] | None = None
    """Of an upsert by primary key: the columns that it writes of a row that is there."""

    @classmethod
    def of_everything(cls, statement: str, cause: EvictionCause = "raw_write") -> Change:
        """Return a change that may be of anything, for what cannot be told."""
        return cls(EVERYTHING, "update", None, None, cause, statement)


class Part:
    """A write to one table of which no row is known: the base of those where some are."""

    def __init__(
        self,
        op: Op,
        name: str,
        schema: str | None = None,
        columns: frozenset[str] | None = None,
        cause: EvictionCause = "bulk_write",
        summary: str = "",
    ) -> None:
        self.op, self.name, self.schema, self.columns = op, name, schema, columns
        self.cause: EvictionCause = cause
        self.summary = summary or f"{op.upper()} {name}"

    def fullname(self, schemas: Mapping[str | None, str | None]) -> str:
        schema = schemas.get(self.schema, self.schema)
        return f"{schema}.{self.name}" if schema else self.name

    def change(self, table: str, **known: Any) -> Change:
        made = Change(table, self.op, self.columns, None, self.cause, self.summary)
        return replace(made, **known) if known else made

    def changes(self, table: str, parameters: Sequence[Parameters]) -> list[Change]:
        return [self.change(table)]


def everything(summary: str) -> Part:
    """A write that may be of any table."""
    return Part("update", EVERYTHING, cause="raw_write", summary=summary)


class Inserted(Part):
    """Rows given by values.

    For an upsert on the primary key, ``upserted`` are the columns that end up as given anyway, and ``overwrites`` those
    that it writes of a row that is there.
    """

    def __init__(
        self,
        key: tuple[str, ...],
        rows: list[dict[str, Known]],
        upserted: frozenset[str] | None,
        overwrites: frozenset[str] | None = None,
        **table: Any,
    ) -> None:
        super().__init__("insert", **table)
        self.key, self.rows, self.upserted, self.overwrites = key, rows, upserted, overwrites

    def changes(self, table: str, parameters: Sequence[Parameters]) -> list[Change]:
        made, unkeyed = [], 0
        for values in parameters:
            for row in self.rows:
                new = _evaluate(row, values)
                keyed = all(column in new for column in self.key)
                old = None
                if self.upserted is not None:
                    if not keyed:
                        return [self.change(table, after={})]
                    old = {column: new[column] for column in self.key}
                    new = {column: text for column, text in new.items() if column in self.upserted}
                unkeyed += not keyed
                made.append(RowChange(old, new))
        return [
            self.change(
                table, rows=tuple(made), cause="row_insert", unkeyed=unkeyed, overwrites=self.overwrites
            )
        ]


class Changed(Part):
    """Rows named by equalities: by primary key one by one, else all for which the equalities held."""

    def __init__(
        self,
        op: Op,
        key: tuple[str, ...],
        where: dict[str, Choices],
        sets: dict[str, Known],
        matched: Matched | None = None,
        **table: Any,
    ) -> None:
        super().__init__(op, **table)
        self.key, self.where, self.sets, self.matched = key, where, sets, matched
        self.by_key = bool(key) and all(column in where for column in key)
        self.row_cause: EvictionCause = "row_update" if op == "update" else "row_delete"

    def changes(self, table: str, parameters: Sequence[Parameters]) -> list[Change]:
        keyed: list[RowChange] = []
        others: list[Change] = []
        for values in parameters:
            choices = {}
            for column, choose in self.where.items():
                chosen = choose(values)
                if chosen is not None:
                    choices[column] = chosen
            sets = _evaluate(self.sets, values)
            if self.by_key and (named := _combinations(choices, self.key)) is not None:
                keyed.extend(RowChange(old, self._after(old, sets)) for old in named)
            elif len(others) < MOST_ROWS:
                held = _combinations(choices, tuple(choices)) or [{}]
                others.extend(
                    self.change(table, where=old or None, after=self._after(old, sets)) for old in held
                )
        if len(others) >= MOST_ROWS or any(change.where is None for change in others):
            after: Mapping[str, str] | None = {} if self.op == "update" else None
            others = [self.change(table, after=others[0].after if len(others) == 1 else after)]
        if keyed:
            others.insert(0, self.change(table, rows=tuple(keyed), cause=self.row_cause))
        return others

    def _after(self, old: Mapping[str, str], sets: Mapping[str, str]) -> Mapping[str, str] | None:
        if self.op == "delete":
            return None
        if self.columns is None:
            return {}
        kept = {column: text for column, text in old.items() if column not in self.columns}
        return {**kept, **sets}


def _evaluate(known: Mapping[str, Known], values: Parameters) -> dict[str, str]:
    return {column: text for column, get in known.items() if (text := get(values)) is not None}


def _combinations(
    choices: Mapping[str, tuple[str, ...]], needed: tuple[str, ...]
) -> list[dict[str, str]] | None:
    """Every combination of the needed columns' values, with the single values of the others; ``None``: too many."""
    total = 1
    for column in needed:
        if column not in choices:
            return None
        total *= len(choices[column])
    if total > MOST_ROWS:
        return None
    fixed = {column: texts[0] for column, texts in choices.items() if len(texts) == 1}
    return [
        {**fixed, **dict(zip(needed, texts))}
        for texts in itertools.product(*(choices[column] for column in needed))
    ]


class DmlPlan:
    """What a compiled statement changes, given parameters."""

    def __init__(self, parts: Sequence[Part], functions: frozenset[str] = frozenset()) -> None:
        self._parts = tuple(parts)
        self.functions = functions
        """SQL functions called anywhere in the statement, lower case, but for those known to write nothing (see
        ``rawsql``): whether one writes, and what, this plan does not tell."""
        self.coarse: tuple[int, Change | None] | None = None
        """What :class:`.coarse.Coarse` made of it, and the epoch of the binding that it did so for."""

    def whole(self) -> Change | None:
        """Return what any execution changes, without a look at its parameters; ``None`` where that is not one table.

        An INSERT that can only insert has one row, of which nothing is known, to tell it from one that overwrites.
        """
        if len(self._parts) != 1 or self.functions or self.everything:
            return None
        (part,) = self._parts
        after: Mapping[str, str] | None = None if part.op == "delete" else {}
        if isinstance(part, Inserted) and part.upserted is None:
            return part.change(
                part.fullname({}), rows=(RowChange(None, {}),), cause="row_insert", after=after
            )
        cause = part.row_cause if isinstance(part, Changed) and part.by_key else part.cause
        return part.change(part.fullname({}), cause=cause, after=after)

    def matched(self, compiled_parameters: Sequence[Parameters]) -> list[Any] | None:
        """Return the conditions that tell which rows this execution writes; ``None`` where nothing short of it does.

        Not for statements that name their rows by primary key.
        """
        if len(self._parts) != 1 or len(compiled_parameters) != 1 or self.functions:
            return None
        (part,) = self._parts
        if not isinstance(part, Changed) or part.by_key or part.matched is None:
            return None
        return part.matched(compiled_parameters[0])

    @property
    def everything(self) -> bool:
        """Whether any table may be changed."""
        return any(part.name == EVERYTHING for part in self._parts)

    def changes(
        self,
        compiled_parameters: Sequence[Parameters],
        schema_translate_map: Mapping[str | None, str | None] | None = None,
    ) -> list[Change]:
        """Return what an execution with these parameter sets changes."""
        made: list[Change] = []
        for part in self._parts:
            table = part.fullname(schema_translate_map or {})
            made.extend(part.changes(table, compiled_parameters))
        return made
