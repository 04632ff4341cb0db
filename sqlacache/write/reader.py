"""Reads one INSERT, UPDATE or DELETE as SQLAlchemy compiled it: which columns get which parameters, of which rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy.schema import Column, Table
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    ClauseElement,
    ColumnClause,
    False_,
    Grouping,
    Null,
    TextClause,
    True_,
)
from sqlalchemy.sql.expression import Delete, Insert
from sqlalchemy.sql.selectable import Alias, Exists, ScalarSelect, SelectBase, TableClause

from ..canonical import NULL, Canonical, NotCanonical
from .criteria import Criteria, NotUnderstood, matching
from .plan import Changed, Choices, Inserted, Known, Matched, Parameters, Part, everything

_NARROWING_PREFIXES = {
    "sqlite": ("OR ABORT", "OR FAIL", "OR IGNORE", "OR ROLLBACK"),
    "mysql": ("LOW_PRIORITY", "HIGH_PRIORITY"),
    "mariadb": ("LOW_PRIORITY", "HIGH_PRIORITY"),
}
"""Prefixes with which a statement writes no more than without; ``OR REPLACE`` deletes other rows."""

_GIVEN: Any = object()
"""Stands for a value that only the execution's parameters have."""
_UNKNOWN: Any = object()
"""Stands for a value that a part of a column is set to."""


def written_table(target: Any) -> TableClause | None:
    """The table that a DML statement names, an alias taken off; ``None`` for anything but one table."""
    while isinstance(target, Alias):
        target = target.element
    if isinstance(target, Table):
        return target.metadata.tables.get(target.key, target)  # not the ORM's annotated copy
    return target if isinstance(target, TableClause) else None


def _safe(clause: Any) -> bool:
    """Whether SQLAlchemy alone decides how ``clause`` is rendered, so that no text in it can reach beyond it."""
    if isinstance(clause, (SelectBase, ScalarSelect, Exists)):
        return True  # in parentheses
    if isinstance(clause, TextClause) or (isinstance(clause, ColumnClause) and clause.is_literal):
        return False
    if not _own(clause) and not isinstance(clause, Column):
        return False
    return all(_safe(child) for child in clause.get_children())


def _clause(value: Any) -> Any:
    """ORM attributes as the clause elements they stand for."""
    make = getattr(value, "__clause_element__", None)
    return value if make is None or isinstance(value, ClauseElement) else make()


def _expanded(values: Parameters, names: tuple[str, ...]) -> Iterator[Any]:
    """Values of an IN list: SQLAlchemy replaces parameter ``id_1`` by ``id_1_1``, ``id_1_2`` before it executes."""
    for name in names:
        if name in values:
            yield from values[name]
            return
    for name in names:
        for index in itertools.count(1):
            if f"{name}_{index}" not in values:
                break
            yield values[f"{name}_{index}"]
        if f"{name}_1" in values:
            return


def written_unasked(column: Any) -> bool:
    """Whether any UPDATE sets the column; a computed one, which says so too, changes only with others."""
    if getattr(column, "onupdate", None) is not None:
        return True
    return getattr(column, "server_onupdate", None) is not None and getattr(column, "computed", None) is None


def computed_from(columns: Iterable[Any], written: set[str]) -> set[str]:
    """Generated columns whose expression mentions a written column, transitively; a substring is a mention."""
    texts = {
        column.name: str(column.computed.sqltext).lower()
        for column in columns
        if getattr(column, "computed", None) is not None
    }
    found: set[str] = set()
    changed = True
    while changed:
        sources = [name.lower() for name in written | found]
        more = {name for name, text in texts.items() if any(source in text for source in sources)} - found
        found |= more
        changed = bool(more)
    return found


def _own(element: Any) -> bool:
    """Whether SQLAlchemy defines the element's class and how it is rendered (no ``@compiles``)."""
    kind = type(element)
    if getattr(kind, "_compiler_dispatcher", None) is not None:
        return False
    modules = {base.__module__ for base in kind.__mro__}
    return all(
        module.startswith("sqlalchemy.") or module in ("builtins", "typing", "abc") for module in modules
    )


class Reader:
    """Reads the DML statement that ``compiled`` is; ``state`` is SQLAlchemy's compile state of it.

    The private attributes of SQLAlchemy that are read here are the same in 1.4, 2.0 and 2.1: of the statement
    ``_prefixes``, ``_post_values_clause``, ``_select_names`` and ``_where_criteria``, of the state ``_no_parameters``,
    ``_dict_parameters``, ``_multi_parameters``, ``_has_multi_parameters`` and ``_extra_froms``.
    """

    def __init__(self, compiled: Any, canonical: Canonical, state: Any) -> None:
        self.compiled, self.canonical, self.state = compiled, canonical, state
        self.statement = state.statement
        self.table = written_table(self.statement.table)
        self.columns: dict[str, Any] = {}
        self.key: tuple[str, ...] = ()
        if self.table is not None:
            self.columns = {column.key: column for column in self.table.c}
            if isinstance(self.table, Table):
                self.key = tuple(column.name for column in self.table.primary_key)

    def parts(self) -> list[Part]:
        extensions = (
            getattr(self.statement, "_post_values_clause", None),
            getattr(self.statement, "_post_criteria_clause", None),
        )
        own = all(_own(part) for part in (self.statement, *extensions) if part is not None)
        if self.table is None or not own:
            return [everything(self.statement.__visit_name__.upper())]
        if isinstance(self.statement, Insert):
            return [self._insert()]
        if isinstance(self.statement, Delete):
            return [self._changed("delete", None, {})]
        return [self._update(), *self._updated_beside()]

    def _described(self, columns: frozenset[str] | None = None) -> dict[str, Any]:
        assert self.table is not None
        return {"name": self.table.name, "schema": getattr(self.table, "schema", None), "columns": columns}

    def _usual_prefixes(self) -> bool:
        dialect = self.compiled.dialect.name
        used = [
            str(prefix).upper() for prefix, only in self.statement._prefixes if only in (None, "*", dialect)
        ]
        return all(prefix in _NARROWING_PREFIXES.get(dialect, ()) for prefix in used)

    # INSERT

    def _insert(self) -> Part:
        statement = self.statement
        wide = Part("insert", **self._described())
        if statement._select_names or not self._usual_prefixes():
            return wide
        upserted = overwrites = None
        upsert = statement._post_values_clause
        if upsert is not None and upsert.__visit_name__ != "on_conflict_do_nothing":
            both = self._upserted(upsert)
            if both is None:
                return wide
            upserted, overwrites = both
        if self.state._has_multi_parameters:
            given = [self._keyed(row) for row in self.state._multi_parameters]
        else:
            given = [self._given()]
        rows: list[dict[str, Known]] = []
        for index, row in enumerate(given):
            if row is None or not all(
                _safe(value) for value in row.values() if isinstance(value, ClauseElement)
            ):
                return wide
            rows.append(self._inserted(row, index if self.state._has_multi_parameters else None))
        return Inserted(self.key, rows, upserted, overwrites, **self._described())

    def _inserted(self, row: Mapping[str, Any], index: int | None) -> dict[str, Known]:
        """The columns of one row whose values the parameters hold; ``index`` in a statement of several rows."""
        known: dict[str, Known] = {}
        prefetched = self._prefetched(self.compiled.insert_prefetch)
        for key, column in self.columns.items():
            plain = key if index is None else f"{key}_m{index}"
            if key in row:
                name = self._value_name(row[key], plain, index)
            elif index:
                name = plain if plain in prefetched else None
            else:
                name = key if key in prefetched else None
            if name is not None and (get := self._parameter(column, name)) is not None:
                known[column.name] = get
        return known

    def _upserted(self, upsert: Any) -> tuple[frozenset[str], frozenset[str]] | None:
        """Columns that ON CONFLICT on the primary key leaves as an insert would, and those that it writes of a row
        that is there; ``None``: not by row."""
        if upsert.__visit_name__ != "on_conflict_do_update" or not self.key:
            return None
        named = getattr(upsert, "constraint_target", None)
        if named is not None:
            if not isinstance(self.table, Table) or named != self.table.primary_key.name:
                return None
        else:
            target = self._keyed(dict.fromkeys(upsert.inferred_target_elements or ()))
            if target is None or {self.columns[key].name for key in target} != set(self.key):
                return None
        sets = upsert.update_values_to_set
        pairs = self._keyed(dict(sets))
        if pairs is None:
            return None
        same, written = set(self.key), set()
        for key, value in pairs.items():
            name = self.columns[key].name
            if isinstance(value, ClauseElement) and not _safe(value):
                return None
            excluded = isinstance(value, ColumnClause) and getattr(value.table, "name", "") == "excluded"
            if excluded and value.name == name:
                same.add(name)
            elif name in self.key:
                return None
            if name not in self.key:
                written.add(name)
        # Nothing else: SQLAlchemy leaves ``onupdate`` out of DO UPDATE.
        return frozenset(same), frozenset(written | computed_from(self.columns.values(), written))

    # UPDATE and DELETE

    def _update(self) -> Part:
        given = self._given()
        if not isinstance(self.table, Table):
            return Part("update", **self._described())  # nothing tells what else the database writes with it
        if given is None or not all(
            _safe(value) for value in given.values() if isinstance(value, ClauseElement)
        ):
            return Part("update", **self._described())
        written, sets = set(), {}
        prefetched = self._prefetched(self.compiled.update_prefetch)
        for key, column in self.columns.items():
            if key in given:
                written.add(column.name)
                name = self._value_name(given[key], key, None)
            elif written_unasked(column):
                written.add(column.name)
                name = key if key in prefetched else None
            else:
                continue
            if name is not None and (get := self._parameter(column, name)) is not None:
                sets[column.name] = get
        written |= computed_from(self.columns.values(), written)
        return self._changed("update", frozenset(written), sets)

    def _changed(self, op: Any, columns: frozenset[str] | None, sets: dict[str, Known]) -> Part:
        where: dict[str, Choices] = {}
        matched = None
        criteria = self.statement._where_criteria
        if not self._usual_prefixes():
            columns = None
        elif all(_safe(clause) for clause in criteria):
            for clause in criteria:
                for column, choices in self._equalities(clause):
                    where.setdefault(column, choices)
            matched = self._matched(criteria)
        return Changed(op, self.key, where, sets, matched, **self._described(columns))

    def _matched(self, criteria: Iterable[Any]) -> Matched | None:
        """Conditions that decide alone, row by row, what is written: only of a statement on one table."""
        target, beside = self.statement.table, getattr(self.state, "_extra_froms", ())
        if not isinstance(self.table, Table) or isinstance(target, Alias) or beside or self.compiled.ctes:
            return None
        try:
            return matching(Criteria(self.table, criteria), self._names_of, _expanded)
        except NotUnderstood:
            return None

    def _names_of(self, bind: BindParameter[Any]) -> tuple[str, ...]:
        name = self.compiled.bind_names.get(bind) or (None if bind.unique else bind.key)
        return () if name is None else (self._escaped(name), name)

    def _updated_beside(self) -> Iterator[Part]:
        """Other tables that MySQL's UPDATE of several tables sets columns of."""
        for key in self.state._dict_parameters or ():
            table = getattr(_clause(key), "table", None)
            if table is not None and table in self.state._extra_froms:
                other = written_table(table)
                yield (
                    everything("UPDATE")
                    if other is None
                    else Part("update", other.name, getattr(other, "schema", None))
                )

    def _equalities(self, clause: Any) -> Iterator[tuple[str, Choices]]:
        """Equalities of the table's columns with known values that every row must satisfy."""
        if isinstance(clause, Grouping):
            yield from self._equalities(clause.element)
        elif isinstance(clause, BooleanClauseList):
            if clause.operator is operators.and_ or len(clause.clauses) == 1:
                for part in clause.clauses:
                    yield from self._equalities(part)
        elif isinstance(clause, BinaryExpression) and clause.operator in (
            operators.eq,
            operators.in_op,
            operators.is_,
        ):
            sides = [(clause.left, clause.right)]
            if clause.operator is operators.eq:
                sides.append((clause.right, clause.left))
            for column, value in sides:
                if isinstance(column, Column) and self.statement.table.c.contains_column(column):
                    choices = self._choices(column, value)
                    if choices is not None:
                        yield column.name, choices
                        return

    def _choices(self, column: Column[Any], value: Any) -> Choices | None:
        """The texts that a column compared with ``value`` may have; ``None`` where that is never known."""
        text = self.canonical.of(column)
        if text is None:
            return None
        if isinstance(value, (Null, True_, False_)):
            try:
                constant = text(None if isinstance(value, Null) else isinstance(value, True_))
            except NotCanonical:
                return None
            return lambda values: (constant,)
        if not isinstance(value, BindParameter):
            return None
        name = self.compiled.bind_names.get(value)
        if name is None and not value.unique:
            name = value.key
        bind = self.compiled.binds.get(name)
        if bind is None or not bind.expanding:
            get = self._parameter(column, name, nulls=True)
            return None if get is None else lambda values: None if (one := get(values)) is None else (one,)
        if bind.literal_execute or self.canonical.compared(column, bind) is None:
            return None
        names = (self._escaped(name), name)

        def choose(values: Parameters) -> tuple[str, ...] | None:
            try:
                chosen = tuple(text(one) for one in _expanded(values, names))
            except NotCanonical:
                return None
            return (
                chosen or None
            )  # SQLAlchemy takes the list out of the parameters, so that none may mean unknown

        return choose

    # values

    def _prefetched(self, columns: Iterable[Any]) -> set[str]:
        """Keys of columns that have a Python-side default in the parameters: not told apart from a CTE's."""
        return set() if self.compiled.ctes else {column.key for column in columns}

    def _given(self) -> dict[str, Any] | None:
        """Values by column key as the statement has them; ``None`` when they are not understood."""
        if self.state._no_parameters and self.compiled.column_keys is None:
            return dict.fromkeys(self.columns, _GIVEN)
        given = self._keyed(self.state._dict_parameters or {})
        if given is not None:
            for key in self.compiled.column_keys or ():
                if key in self.columns:
                    given.setdefault(key, _GIVEN)
        return given

    def _keyed(self, values: Mapping[Any, Any]) -> dict[str, Any] | None:
        keyed: dict[str, Any] = {}
        for key, value in values.items():
            clause = _clause(key)
            if isinstance(clause, str):
                name = clause
            elif isinstance(clause, ColumnClause) and not clause.is_literal:
                if clause.table is not None and clause.table in getattr(self.state, "_extra_froms", ()):
                    continue  # a column of another table, see _updated_beside
                name = clause.key
            elif isinstance(clause, ClauseElement):  # part of a column: an array's slice, a key of JSON
                columns = [part.key for part in visitors.iterate(clause) if isinstance(part, Column)]
                if not columns or not _safe(clause):
                    return None
                keyed.update(dict.fromkeys(columns, _UNKNOWN))
                continue
            else:
                return None
            if name not in self.columns:
                return None
            keyed[name] = value
        return keyed

    def _value_name(self, value: Any, plain: str, index: int | None) -> str | None:
        """Name of the parameter that ``value`` became; ``plain`` is what SQLAlchemy names a literal's."""
        value = _clause(value)
        if isinstance(value, BindParameter):
            if index:
                name: str | None = self.compiled.bind_names.get(value)
                return name
            return plain if value.unique else value.key
        return None if value is _UNKNOWN or isinstance(value, ClauseElement) else plain

    def _parameter(self, column: Any, name: str | None, nulls: bool = False) -> Known | None:
        """Reads parameter ``name`` as a value of ``column``; NULL in a column that has none is generated, not known."""
        bind = self.compiled.binds.get(name)
        if bind is None or name is None or not isinstance(column, Column):
            return None
        if bind.expanding or bind.literal_execute or bind in self.compiled.literal_execute_params:
            return None
        text = self.canonical.compared(column, bind)
        if text is None:
            return None
        generated = {NULL} if not nulls and not column.nullable else set()
        if column.primary_key and self.compiled.dialect.name in ("mysql", "mariadb"):
            generated.add("0")  # AUTO_INCREMENT takes it for NULL
        names = (name, self._escaped(name))

        def get(values: Parameters) -> str | None:
            given = next((one for one in names if one in values), None)
            if given is None:
                return None
            try:
                made = text(values[given])
            except NotCanonical:
                return None
            return None if made in generated else made

        return get

    def _escaped(self, name: str) -> str:
        escaped: str = (self.compiled.escaped_bind_names or {}).get(name, name)
        return escaped
