"""Compiling a statement as SQLAlchemy will, and watching what it renders.

Everything that reading needs of SQLAlchemy's private compile surface is here, each use tested on 1.4, 2.0 and 2.1
(``tests/read/test_compiled.py``):

* ``ClauseElement._compile_w_cache`` compiles into the engine's own cache, so that one compile serves the analysis, the
  real query and the replay. It returns three values up to 2.0 and four from 2.1 on.
* ``ClauseElement._generate_cache_key`` is SQLAlchemy's key of a statement's shape, memoised on the statement.
* ``SQLCompiler.compile_state.statement`` is the Core statement that an ORM statement became, eager joins included.
* the compiler's ``visit_*`` methods, overridden by :class:`Recorder` to see every table, column and function that is
  rendered, wherever it is nested.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy.engine import Dialect
from sqlalchemy.schema import Column, Table
from sqlalchemy.sql import operators, visitors

from ..write.rawsql import PURE_FUNCTIONS


class StatementKey(NamedTuple):
    """SQLAlchemy's key of a statement's shape, and what it extracted from this instance of it."""

    shape: tuple[Any, ...]
    extracted: Sequence[Any]
    collected: Mapping[str, Any] | None
    """Parameters given with ``statement.params()``; SQLAlchemy 2.1 keeps them apart."""


def statement_key(statement: Any) -> StatementKey | None:
    """Return the key of a statement's shape, or ``None`` if SQLAlchemy has none for it."""
    key = statement._generate_cache_key()
    if key is None:
        return None
    return StatementKey(key.key, key.bindparams, key[2] if len(key) > 2 else None)


def compile_statement(
    statement: Any,
    dialect: Dialect,
    compiled_cache: Any,
    names: Sequence[str],
    schema_translate_map: Mapping[Any, Any] | None,
) -> Any:
    """Compile ``statement`` into ``compiled_cache`` as ``Connection.execute`` will, and return the compiled object."""
    return statement._compile_w_cache(
        dialect,
        compiled_cache=compiled_cache,
        column_keys=list(names),
        for_executemany=False,
        schema_translate_map=schema_translate_map,
    )[0]


def parameters_of(compiled: Any, key: StatementKey, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the statement's parameters by bind name, before bind processing."""
    more = {"_collected_params": key.collected} if key.collected is not None else {}
    parameters: dict[str, Any] = compiled.construct_params(
        given or None, extracted_parameters=key.extracted, escape_names=False, **more
    )
    return parameters


@dataclass
class Recording:
    """What was rendered into a statement's SQL."""

    tables: dict[Table, int] = field(default_factory=dict)
    """How often each table stands in a FROM, wherever nested; in the order of the SQL."""
    columns: dict[Table, set[str]] = field(default_factory=dict)
    """Database names of the columns of each table used anywhere."""
    untracked: list[str] = field(default_factory=list)
    """Sources that are no :class:`~sqlalchemy.schema.Table`."""
    impure: list[str] = field(default_factory=list)
    """Functions not known to be pure."""
    text: bool = False
    """A ``text()`` or ``literal_column()`` fragment."""
    writes: bool = False
    """An INSERT, UPDATE or DELETE, such as in a CTE."""
    locking: bool = False
    star: bool = False
    """A ``*`` outside of ``count(*)`` and EXISTS: every column is used."""
    opaque: list[str] = field(default_factory=list)
    """Constructs that SQLAlchemy renders through user code (``@compiles``, ``column_expression``)."""
    statement: Any = None
    """The Core statement that was rendered at top level."""
    bind_names: Mapping[Any, str] = field(default_factory=dict)
    """Names of the bind parameters of ``statement`` in the SQL."""


_recording: ContextVar[Recording] = ContextVar("sqlacache_recording")
_HARMLESS_LITERAL = re.compile(r"\s*(\d+|'[^'\\]*'|null|true|false)\s*", re.IGNORECASE)


class Recorder:
    """Mixed into a dialect's compiler to note what it renders."""

    _sqlacache_star_is_harmless = 0

    def visit_table(self, table: Any, asfrom: bool = False, **kw: Any) -> Any:
        if asfrom:
            recording = _recording.get()
            if isinstance(table, Table):
                plain = _plain(table)
                recording.tables[plain] = recording.tables.get(plain, 0) + 1
            else:
                recording.untracked.append(str(table.name))
        return super().visit_table(table, asfrom=asfrom, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_column(self, column: Any, *args: Any, **kw: Any) -> Any:
        recording = _recording.get()
        if column.is_literal:
            text = str(column.name)
            if text == "*":
                recording.star = recording.star or not self._sqlacache_star_is_harmless
            elif not _HARMLESS_LITERAL.fullmatch(text):
                recording.text = True
        else:
            for base in column.base_columns:
                if isinstance(base, Column) and isinstance(base.table, Table):
                    recording.columns.setdefault(_plain(base.table), set()).add(base.name)
                    if base.type._has_column_expression:
                        recording.opaque.append(repr(base.type))
        return super().visit_column(column, *args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_function(self, func: Any, **kw: Any) -> Any:
        recording = _recording.get()
        name = ".".join((*func.packagenames, func.name)).lower()
        if name not in PURE_FUNCTIONS:
            recording.impure.append(name)
        if name == "count":
            self._sqlacache_star_is_harmless += 1
            try:
                return super().visit_function(func, **kw)  # type: ignore[misc]  # mixed into SQLCompiler
            finally:
                self._sqlacache_star_is_harmless -= 1
        return super().visit_function(func, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_unary(self, unary: Any, *args: Any, **kw: Any) -> Any:
        if unary.operator is not operators.exists:
            return super().visit_unary(unary, *args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler
        self._sqlacache_star_is_harmless += 1
        try:
            return super().visit_unary(unary, *args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler
        finally:
            self._sqlacache_star_is_harmless -= 1

    def visit_select(self, select: Any, *args: Any, **kw: Any) -> Any:
        recording = _recording.get()
        if select._for_update_arg is not None:
            recording.locking = True
        if select._statement_hints:
            recording.text = True
        return super().visit_select(select, *args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def for_update_clause(self, select: Any, **kw: Any) -> Any:
        _recording.get().locking = True
        return super().for_update_clause(select, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_textclause(self, *args: Any, **kw: Any) -> Any:
        _recording.get().text = True
        return super().visit_textclause(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_textual_select(self, *args: Any, **kw: Any) -> Any:
        _recording.get().text = True
        return super().visit_textual_select(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_sequence(self, *args: Any, **kw: Any) -> Any:
        _recording.get().impure.append("nextval")
        return super().visit_sequence(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_next_value_func(self, *args: Any, **kw: Any) -> Any:
        _recording.get().impure.append("nextval")
        return super().visit_next_value_func(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_tablesample(self, *args: Any, **kw: Any) -> Any:
        _recording.get().impure.append("tablesample")
        return super().visit_tablesample(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_insert(self, *args: Any, **kw: Any) -> Any:
        _recording.get().writes = True
        return super().visit_insert(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_update(self, *args: Any, **kw: Any) -> Any:
        _recording.get().writes = True
        return super().visit_update(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_delete(self, *args: Any, **kw: Any) -> Any:
        _recording.get().writes = True
        return super().visit_delete(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler


def _plain(table: Table) -> Table:
    """Return the table itself for an annotated copy of it."""
    if not getattr(table, "_annotations", None):
        return table
    plain: Table = table._deannotate()  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
    return plain


_recorders: dict[type, type] = {}


def record(
    statement: Any, dialect: Dialect, names: Sequence[str], schema_translate_map: Mapping[Any, Any] | None
) -> Recording:
    """Render ``statement`` once more through a recording compiler and return what was rendered."""
    kind = dialect.statement_compiler
    recorder = _recorders.get(kind)
    if recorder is None:
        recorder = _recorders[kind] = type(f"Recording{kind.__name__}", (Recorder, kind), {})
    recording = Recording()
    token = _recording.set(recording)
    try:
        compiler: Any = recorder(
            dialect, statement, column_keys=list(names), schema_translate_map=schema_translate_map
        )
    finally:
        _recording.reset(token)
    recording.bind_names = compiler.bind_names
    state = getattr(compiler, "compile_state", None)
    recording.statement = getattr(state, "statement", None) if state is not None else None
    if recording.statement is None:
        recording.statement = statement
    for element in visitors.iterate(recording.statement, {}):
        kind_of_element = type(element)
        if any("_compiler_dispatcher" in vars(base) for base in kind_of_element.__mro__):
            recording.opaque.append(kind_of_element.__name__)
    return recording
