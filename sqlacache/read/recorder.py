"""Watching what SQLAlchemy renders: every table, column and function of a statement, wherever it is nested.

SQLAlchemy's private surface of this concern, each use tested on 1.4, 2.0 and 2.1 (``tests/read/test_recorder.py``):

* the compiler's ``visit_*`` methods, ``for_update_clause``, ``_label_select_column`` and ``_compose_select_body``,
  overridden by :class:`Recorder`; the last is where a SELECT has the FROM elements and the WHERE that it ends up with,
  ORM entities, eager joins, loader criteria and correlation worked out. ``bind_names`` and ``positiontup`` of it.
* of ``Select``: ``_raw_columns``, ``_where_criteria``, ``_for_update_arg``, ``_hints``, ``_statement_hints``,
  ``_distinct``, ``_group_by_clauses``, ``_having_criteria``, ``_has_row_limiting_clause``, and the places of 2.1's
  extensions (``_pre_columns_clause`` and its kin).
* ``TypeEngine._has_column_expression``, and ``_compiler_dispatcher``, which ``@compiles`` leaves on a class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Dialect
from sqlalchemy.schema import Column, Table
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import TableValuedColumn
from sqlalchemy.sql.expression import Join
from sqlalchemy.sql.functions import ScalarFunctionColumn
from sqlalchemy.sql.selectable import FromGrouping
from sqlalchemy.types import Date, DateTime, String, Time

from ..write.rawsql import PURE_FUNCTIONS
from .compiled import plain, table_of


@dataclass(eq=False)
class Scope:
    """One SELECT that was rendered, at any depth, or one part of a UNION."""

    parent: Scope | None
    """The SELECT in which this one stands, whose tables it may refer to."""
    exists: bool = False
    """It stands directly in EXISTS (...)."""
    source: bool = False
    """It stands in a FROM or is a CTE, by itself: no part of a UNION."""
    froms: Sequence[Any] = ()
    """Its FROM elements, as rendered."""
    criteria: Sequence[Any] = ()
    """Its WHERE, joined by AND."""
    select: Any = None
    composed: int = 0
    _unlisted: bool | None = None

    def lists_for_nothing(self, select: Any) -> bool:
        """Tell whether listing a column changes nothing of what this SELECT gives to those who do not ask for it."""
        if self._unlisted is None:
            self._unlisted = (self.exists or self.source) and not (
                select._distinct
                or select._group_by_clauses
                or select._having_criteria
                or select._has_row_limiting_clause
                or any(getattr(select, name, None) is not None for name in _EXTENSION_POINTS)
            )
        return self._unlisted


_EXTENSION_POINTS = (
    "_pre_columns_clause",
    "_post_select_clause",
    "_post_criteria_clause",
    "_post_body_clause",
)


@dataclass
class Recording:
    """What was rendered into a statement's SQL."""

    tables: dict[Table, int] = field(default_factory=dict)
    """How often each table stands in a FROM, wherever nested; in the order of the SQL."""
    columns: dict[Table, set[str]] = field(default_factory=dict)
    """Database names of the columns of each table used anywhere."""
    whole: set[Table] = field(default_factory=set)
    """Tables of which a row was used as a value."""
    loose: bool = False
    """A column was named without its table: it may be any column of any table."""
    untracked: list[str] = field(default_factory=list)
    """Sources that are no :class:`~sqlalchemy.schema.Table`."""
    impure: list[str] = field(default_factory=list)
    """Functions not known to be pure."""
    text: bool = False
    """A ``text()`` or ``literal_column()`` fragment, a hint, an operator of unknown meaning, or ``*`` as text."""
    writes: bool = False
    """An INSERT, UPDATE or DELETE, such as in a CTE."""
    locking: bool = False
    opaque: list[str] = field(default_factory=list)
    """Constructs that SQLAlchemy renders through user code (``@compiles``, ``column_expression``)."""
    scopes: list[Scope] = field(default_factory=list)
    """Every SELECT, enclosing ones first."""
    columns_of_top: Sequence[Any] = ()
    """What the outermost SELECT selects; nothing for a UNION."""
    bind_names: Mapping[Any, str] = field(default_factory=dict)
    """Names of the bind parameters in the SQL."""
    sql: str = ""
    positions: Sequence[str] | None = None
    """Names of the parameters in the order of the SQL's placeholders, where those have none."""

    def same_as(self, compiled: Any) -> bool:
        """Tell whether ``compiled`` has the same SQL with the same parameters at the same places."""
        return bool(self.sql == compiled.string and self.positions == getattr(compiled, "positiontup", None))


_recording: ContextVar[Recording] = ContextVar("sqlacache_recording")
_HARMLESS_LITERAL = re.compile(r"\s*(-?\d+(\.\d+)?|'[^'\\]*'|null|true|false)\s*", re.IGNORECASE)
_KNOWN_OPERATOR = re.compile(
    r"(?!.*(--|/\*))[-+*/<>=~!@#%^&|?]+"
    r"|(not )?(i?like|similar to|regexp|rlike|glob|match)|is (not )?distinct from"
    r"|collate|at time zone|div|mod|overlaps",
    re.IGNORECASE,
)


class Recorder:
    """Mixed into a dialect's compiler to note what it renders."""

    dialect: Any
    _sqlacache_scope: Scope | None = None
    _sqlacache_exists = False
    """The next SELECT stands directly in EXISTS."""
    _sqlacache_star_is_harmless = False
    _sqlacache_unlisted: Any = None
    """A column about to be rendered for nobody: whoever asks for it names it."""

    # -- sources -------------------------------------------------------------------------------------------------------

    def visit_table(self, table: Any, asfrom: bool = False, **kw: Any) -> Any:
        if asfrom or kw.get("within_tstring"):
            recording = _recording.get()
            if isinstance(table, Table):
                itself = plain(table)
                recording.tables[itself] = recording.tables.get(itself, 0) + 1
            else:
                recording.untracked.append(str(table.name))
        return super().visit_table(table, asfrom=asfrom, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_tablesample(self, *args: Any, **kw: Any) -> Any:
        _recording.get().impure.append("tablesample")
        return super().visit_tablesample(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_select(self, select: Any, *args: Any, **kw: Any) -> Any:
        before = (self._sqlacache_scope, self._sqlacache_star_is_harmless, self._sqlacache_unlisted)
        alone = kw.get("compound_index") is None
        scope = Scope(before[0], self._sqlacache_exists and alone, bool(kw.get("asfrom")) and alone)
        _recording.get().scopes.append(scope)
        self._sqlacache_scope, self._sqlacache_star_is_harmless, self._sqlacache_unlisted = scope, False, None
        self._sqlacache_exists = False
        try:
            return super().visit_select(select, *args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler
        finally:
            self._sqlacache_scope, self._sqlacache_star_is_harmless, self._sqlacache_unlisted = before

    def _compose_select_body(
        self,
        text: Any,
        select: Any,
        compile_state: Any,
        inner_columns: Any,
        froms: Any,
        byfrom: Any,
        toplevel: Any,
        kwargs: Any,
    ) -> Any:
        recording, scope = _recording.get(), self._sqlacache_scope
        if select._for_update_arg is not None:
            recording.locking = True
        hints = [name for _, name in select._hints] + [name for name, _ in select._statement_hints]
        if not {"*", self.dialect.name}.isdisjoint(hints):
            recording.text = True
        if toplevel:
            recording.columns_of_top = list(select._raw_columns)
        if scope is not None:
            scope.composed, scope.select = scope.composed + 1, select
            scope.froms, scope.criteria = (froms, select._where_criteria) if scope.composed == 1 else ((), ())
        return super()._compose_select_body(  # type: ignore[misc]  # mixed into SQLCompiler
            text, select, compile_state, inner_columns, froms, byfrom, toplevel, kwargs
        )

    def for_update_clause(self, select: Any, **kw: Any) -> Any:
        _recording.get().locking = True
        return super().for_update_clause(select, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    # -- columns -------------------------------------------------------------------------------------------------------

    def _label_select_column(self, select: Any, column: Any, *args: Any, **kw: Any) -> Any:
        scope = self._sqlacache_scope
        before = (self._sqlacache_star_is_harmless, self._sqlacache_unlisted)
        if scope is not None and scope.lists_for_nothing(select):
            self._sqlacache_star_is_harmless = scope.exists
            self._sqlacache_unlisted = column if isinstance(column, Column) else None
        selected = (args and args[0]) or kw.get("need_column_expressions")  # the first is populate_result_map
        if selected and column.type.dialect_impl(self.dialect)._has_column_expression:
            _recording.get().opaque.append(type(column.type).__name__)
        try:
            return super()._label_select_column(  # type: ignore[misc]  # mixed into SQLCompiler
                select, column, *args, **kw
            )
        finally:
            self._sqlacache_star_is_harmless, self._sqlacache_unlisted = before

    def visit_column(self, column: Any, *args: Any, **kw: Any) -> Any:
        if column is self._sqlacache_unlisted:
            self._sqlacache_unlisted = None
        else:
            self._sqlacache_use(column)
        return super().visit_column(column, *args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def _sqlacache_use(self, column: Any) -> None:
        recording = _recording.get()
        if column.is_literal:
            text = str(column.name)
            harmless = self._sqlacache_star_is_harmless if text == "*" else _HARMLESS_LITERAL.fullmatch(text)
            recording.text = recording.text or not harmless
            return
        if isinstance(column, TableValuedColumn):
            row = table_of(column.scalar_alias)
            if row is not None:
                recording.whole.add(row)
            else:
                recording.loose = True
        elif column.table is None and not isinstance(column, ScalarFunctionColumn):
            recording.loose = True
        for base in column.base_columns:
            if isinstance(base, Column) and isinstance(base.table, Table):
                recording.columns.setdefault(plain(base.table), set()).add(base.name)

    # -- expressions ---------------------------------------------------------------------------------------------------

    def visit_function(self, func: Any, **kw: Any) -> Any:
        name = ".".join((*func.packagenames, func.name)).lower()
        if name not in PURE_FUNCTIONS:
            _recording.get().impure.append(name)
        before = self._sqlacache_star_is_harmless
        self._sqlacache_star_is_harmless = name == "count"
        try:
            return super().visit_function(func, **kw)  # type: ignore[misc]  # mixed into SQLCompiler
        finally:
            self._sqlacache_star_is_harmless = before

    def visit_unary(self, unary: Any, *args: Any, **kw: Any) -> Any:
        self._sqlacache_exists = unary.operator is operators.exists
        try:
            return super().visit_unary(unary, *args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler
        finally:
            self._sqlacache_exists = False

    def visit_custom_op_binary(self, element: Any, operator: Any, **kw: Any) -> Any:
        self._sqlacache_operator(operator)
        return super().visit_custom_op_binary(element, operator, **kw)  # type: ignore[misc]  # as above

    def visit_custom_op_unary_operator(self, element: Any, operator: Any, **kw: Any) -> Any:
        self._sqlacache_operator(operator)
        return super().visit_custom_op_unary_operator(element, operator, **kw)  # type: ignore[misc]  # as above

    def visit_custom_op_unary_modifier(self, element: Any, operator: Any, **kw: Any) -> Any:
        self._sqlacache_operator(operator)
        return super().visit_custom_op_unary_modifier(element, operator, **kw)  # type: ignore[misc]  # as above

    def _sqlacache_operator(self, operator: Any) -> None:
        if not _KNOWN_OPERATOR.fullmatch(operator.opstring.strip()):
            _recording.get().text = True

    def visit_match_op_binary(self, *args: Any, **kw: Any) -> Any:
        if self.dialect.name == "postgresql":  # depends on default_text_search_config
            _recording.get().impure.append("plainto_tsquery")
        return super().visit_match_op_binary(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_cast(self, cast: Any, **kw: Any) -> Any:
        to_time = isinstance(cast.type, (Date, DateTime, Time)) and isinstance(cast.clause.type, String)
        if to_time and self.dialect.name != "sqlite":  # the text may be 'now' or 'today'
            _recording.get().impure.append("cast of text to a date or time")
        return super().visit_cast(cast, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_textclause(self, textclause: Any, *args: Any, **kw: Any) -> Any:
        if not _HARMLESS_LITERAL.fullmatch(textclause.text):
            _recording.get().text = True
        return super().visit_textclause(textclause, *args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_tstring(self, *args: Any, **kw: Any) -> Any:
        _recording.get().text = True
        return super().visit_tstring(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_textual_select(self, *args: Any, **kw: Any) -> Any:
        _recording.get().text = True
        return super().visit_textual_select(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_sequence(self, *args: Any, **kw: Any) -> Any:
        _recording.get().impure.append("nextval")
        return super().visit_sequence(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_next_value_func(self, *args: Any, **kw: Any) -> Any:
        _recording.get().impure.append("nextval")
        return super().visit_next_value_func(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    # -- writes --------------------------------------------------------------------------------------------------------

    def visit_insert(self, *args: Any, **kw: Any) -> Any:
        _recording.get().writes = True
        return super().visit_insert(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_update(self, *args: Any, **kw: Any) -> Any:
        _recording.get().writes = True
        return super().visit_update(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler

    def visit_delete(self, *args: Any, **kw: Any) -> Any:
        _recording.get().writes = True
        return super().visit_delete(*args, **kw)  # type: ignore[misc]  # mixed into SQLCompiler


def _leading_table(froms: Sequence[Any]) -> Table | None:
    element = froms[0] if froms else None
    while isinstance(element, (Join, FromGrouping)):
        element = element.left if isinstance(element, Join) else element.element
    return table_of(element)


def _by_user_code(statement: Any, dialect: Dialect) -> list[str]:
    """Name the constructs in ``statement`` that ``@compiles`` functions render for this dialect."""
    found = []
    for element in visitors.iterate(statement):
        registered = getattr(type(element), "_compiler_dispatcher", None)
        if registered is not None:
            render = registered.specs.get(dialect.name) or registered.specs.get("default")
            if getattr(render, "__name__", "") != "_wrap_existing_dispatch":  # SQLAlchemy's own rendering
                found.append(type(element).__name__)
    return found


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
    recording.sql = compiler.string
    recording.positions = getattr(compiler, "positiontup", None)
    for part in (statement, *(scope.select for scope in recording.scopes if scope.select is not None)):
        recording.opaque += _by_user_code(part, dialect)
    for table in (*recording.columns, *recording.whole):
        recording.tables.setdefault(table, 0)  # named by a fragment of text only
    first = _leading_table(recording.scopes[0].froms) if recording.scopes else None
    if first is not None:  # subqueries among the columns are rendered before the FROM
        recording.tables = {first: recording.tables.pop(first), **recording.tables}
    return recording
