"""What a statement is to the cache: analysed once per shape, remembered under SQLAlchemy's own statement cache key.

:func:`analyse` turns a statement into a :class:`Plan`: which operation it is, why it cannot be cached if it cannot, and
what it depends on. :meth:`Plan.dependencies_of` then gives the tags for one set of parameters, which is all that a hot
read does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from sqlalchemy import inspect
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import Column, Table
from sqlalchemy.sql.expression import Exists, Label, ScalarSelect, Select
from sqlalchemy.sql.functions import FunctionElement

from ..canonical import Canonical, NotCanonical
from ..decisions import BypassReason, Op
from ..tags import Shape, table_stamp
from .compiled import Recording, StatementKey, compile_statement, parameters_of, record
from .conditions import Constant, Source, conjuncts, narrow

MAX_TAGS = 32
"""An IN with more values than this (as a product over the columns of one table) is not narrowed."""
MAX_COLUMNS = 3
"""A table is narrowed by at most so many columns beside its primary key."""


class Dependency(NamedTuple):
    """A shape and the tags of it that one read depends on (none: all of the shape)."""

    shape: Shape
    tags: tuple[str, ...]


class _Condition(NamedTuple):
    canonical: Callable[[Any], str]
    constant: str | None
    parameter: str | None
    many: bool


@dataclass(frozen=True)
class _Narrowed:
    shape: Shape
    wide: Shape
    conditions: tuple[_Condition, ...]

    def resolve(self, parameters: Mapping[str, Any]) -> Dependency:
        choices: list[list[str]] = []
        count = 1
        try:
            for condition in self.conditions:
                if condition.constant is not None:
                    choices.append([condition.constant])
                    continue
                assert condition.parameter is not None
                value = parameters[condition.parameter]
                if not condition.many:
                    if value is None:  # `col = NULL` matches nothing, unlike `col IS NULL`
                        return Dependency(self.wide, ())
                    choices.append([condition.canonical(value)])
                    continue
                values = list(value)
                count *= len(values)
                if not values or count > MAX_TAGS or any(one is None for one in values):
                    return Dependency(self.wide, ())
                choices.append([condition.canonical(one) for one in values])
        except (NotCanonical, TypeError):
            return Dependency(self.wide, ())
        return Dependency(self.shape, tuple(self.shape.tag(values) for values in product(*choices)))


class Plan:
    """A statement's shape, analysed."""

    __slots__ = (
        "bypass",
        "compiled",
        "declared",
        "fixed",
        "hasher",
        "narrowed",
        "notes",
        "op",
        "order",
        "policy",
        "processors",
        "sources",
        "sql",
        "tables",
    )

    def __init__(self, op: Op) -> None:
        self.op: Op = op
        self.bypass: BypassReason | None = None
        self.notes: str = ""
        """Detail of the bypass, for people: the function or source that is not known."""
        self.compiled: Any = None
        self.sql = ""
        self.tables: tuple[str, ...] = ()
        """Full names, the statement's first table first."""
        self.sources: tuple[Table, ...] = ()
        self.fixed: tuple[Dependency, ...] = ()
        self.narrowed: tuple[_Narrowed, ...] = ()
        self.declared: tuple[str, ...] = ()
        self.processors: dict[str, Callable[[Any], Any]] = {}
        self.policy: Any = None
        self.order: tuple[str, ...] = ()
        """Names of the parameters, sorted: the order in which they enter the entry's key."""
        self.hasher: Any = None
        """Digest of everything of the entry's identity that is the same for every execution."""

    def limit(self, admit: Callable[[Shape], bool]) -> None:
        """Widen what ``admit`` refuses (a table has a bounded number of shapes): first the footprint, then the condition."""
        fixed, narrowed = [], []
        for dependency in self.fixed:
            whole = Shape(dependency.shape.table, (), None)
            fixed.append(dependency if admit(dependency.shape) else Dependency(whole, ()))
        for entry in self.narrowed:
            shape, wide = entry.shape, entry.wide
            if not (admit(shape) and admit(wide)):
                shape, wide = replace(shape, footprint=None), Shape(shape.table, (), None)
            if shape.keyed or admit(shape):
                narrowed.append(replace(entry, shape=shape, wide=wide))
            else:
                fixed.append(Dependency(wide, ()))
        self.fixed, self.narrowed = tuple(fixed), tuple(narrowed)

    def dependencies_of(self, parameters: Mapping[str, Any]) -> list[Dependency]:
        """Return what the statement depends on with these parameters (by bind name, before bind processing)."""
        return [*self.fixed, *(narrowed.resolve(parameters) for narrowed in self.narrowed)]

    def parameters(self, key: StatementKey, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the parameters of one execution by bind name, before bind processing."""
        return parameters_of(self.compiled, key, given)

    def processed(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters as the driver will get them, for the entry's identity."""
        if not self.processors:
            return dict(parameters)
        result = dict(parameters)
        for name, process in self.processors.items():
            if name in result:
                result[name] = process(result[name])
        return result


def stamps_of(dependencies: Sequence[Dependency]) -> list[str]:
    """Return the stamp names that an entry with these dependencies is filled under, table stamps first."""
    names: dict[str, None] = {}
    for shape, _ in dependencies:
        names[table_stamp(shape.table)] = None
    for shape, tags in dependencies:
        names[shape.name] = None
        for tag in tags:
            names[tag] = None
    return list(names)


def selects(statement: Any) -> bool:
    """Tell whether a statement is a SELECT construct, also inside ``from_statement``."""
    return bool(getattr(getattr(statement, "element", statement), "is_select", False))


def full_name(table: Table) -> str:
    """Return a table's name with its schema, as in tags and metrics."""
    return f"{table.schema}.{table.name}" if table.schema else str(table.name)


def key_of(table: Table, canonical: Canonical) -> tuple[str, ...]:
    """Return the primary-key columns of ``table`` (sorted names), empty if their equality is not ours."""
    columns = list(table.primary_key.columns)
    if not columns or any(canonical.of(column) is None for column in columns):
        return ()
    return tuple(sorted(column.name for column in columns))


def analyse(
    statement: Any,
    dialect: Dialect,
    compiled_cache: Any,
    names: Sequence[str],
    schema_translate_map: Mapping[Any, Any] | None,
    canonical: Canonical,
    depends_on: Sequence[str] = (),
    pure_functions: frozenset[str] = frozenset(),
    views: Mapping[str, Sequence[str]] | frozenset[str] = frozenset(),
    declared_views: Mapping[str, Sequence[str]] | None = None,
) -> Plan:
    """Analyse a statement's shape.

    Args:
        statement: The statement as a session was asked to execute it.
        dialect: The dialect of the bound engine.
        compiled_cache: The engine's cache of compiled statements, so that compiling here serves the execution too.
        names: Sorted names of the parameters given beside the statement.
        schema_translate_map: As given to the execution.
        canonical: Canonicaliser of the dialect's values.
        depends_on: Tables (or views) that the caller says the statement depends on: makes sources cacheable that are
            not known otherwise.
        pure_functions: More functions that the user declares pure, in lower case.
        views: Relations of the database that are not tables.
        declared_views: What relations of the database read from, as the user declares once for all statements.
    """
    recording = record(statement, dialect, names, schema_translate_map)
    plan = Plan(_op(statement, recording))
    declared_views = declared_views or {}
    by_option = bool(depends_on)
    sources = [*recording.untracked, *(full_name(table) for table in recording.tables)]
    depends_on = tuple(dict.fromkeys([*depends_on, *_declared(sources, declared_views)]))
    given = frozenset(declared_views)
    plan.sources = tuple(recording.tables)
    plan.tables = tuple(dict.fromkeys([*(full_name(table) for table in recording.tables), *depends_on]))
    plan.declared = tuple(depends_on)
    plan.bypass, plan.notes = _static_bypass(recording, by_option, given, pure_functions, views)
    if plan.bypass is not None:
        return plan
    plan.compiled = compile_statement(statement, dialect, compiled_cache, names, schema_translate_map)
    if getattr(plan.compiled, "literal_execute_params", None):
        plan.bypass, plan.notes = "unkeyable_params", "parameters rendered into the SQL"
        return plan
    plan.sql = plan.compiled.string
    plan.processors = _processors(plan.compiled)
    same_names = set(recording.bind_names.values()) == set(plan.compiled.bind_names.values())
    _depend(plan, recording, canonical, narrowable=same_names and not schema_translate_map)
    if plan.op == "fetch" and _is_get(plan, statement):
        plan.op = "get"
    return plan


def _declared(sources: Sequence[str], declared_views: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the declared relations among ``sources`` and what they read from, views of views included."""
    found: dict[str, None] = {}
    waiting = [source for source in sources if source in declared_views]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += declared_views.get(name, ())
    return list(found)


def _static_bypass(
    recording: Recording, declared: bool, given: frozenset[str], pure: frozenset[str], views: Any
) -> tuple[BypassReason | None, str]:
    if recording.writes:
        return "raw_sql", "the statement writes"
    if recording.locking:
        return "locking_read", ""
    impure = [name for name in recording.impure if name not in pure]
    if impure:
        return "nondeterministic", f"{impure[0]}() is not known to be pure; declare it with functions={{...}}"
    if recording.opaque:
        return "raw_sql", f"{recording.opaque[0]} is rendered by code that the cache cannot read"
    if declared:
        return None, ""
    if recording.text or recording.star:
        return "raw_sql", "text in the statement; name its tables with sqlacache_depends_on"
    untracked = [*recording.untracked, *(full_name(t) for t in recording.tables if full_name(t) in views)]
    known = [name for name in untracked if name in given]
    untracked = [name for name in untracked if name not in given]
    if untracked or not (recording.tables or known):
        return "untracked_source", f"source {untracked[0]!r} is not a known table" if untracked else "no table"
    return None, ""


def _processors(compiled: Any) -> dict[str, Callable[[Any], Any]]:
    """Return bind processors by name; a parameter of IN gets one that maps its list."""
    found: dict[str, Callable[[Any], Any]] = {}
    for name, process in compiled._bind_processors.items():
        if isinstance(process, tuple):
            continue
        found[name] = process
    for parameter in compiled.post_compile_params or ():
        name = compiled.bind_names.get(parameter, parameter.key)
        process = found.get(name)
        if process is not None:
            found[name] = _each(process)
    return found


def _each(process: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: [process(value) for value in values]


def _depend(plan: Plan, recording: Recording, canonical: Canonical, *, narrowable: bool) -> None:
    sources: dict[Table, list[Source]] = {}
    for source in narrow(recording.statement, canonical):
        sources.setdefault(source.table, []).append(source)
    fixed: dict[str, Dependency] = {}
    narrowed: list[_Narrowed] = []
    for table, times in recording.tables.items():
        name = full_name(table)
        used = None if recording.star else frozenset(recording.columns.get(table, ()))
        if used is not None and used >= {column.name for column in table.columns}:
            used = None
        wide = Shape(name, (), used)
        found = sources.get(table, [])
        conditions: list[_Narrowed | None] = [None]
        if narrowable and len(found) == times:
            conditions = [_conditions(source, canonical, wide, recording.bind_names) for source in found]
        if any(condition is None for condition in conditions):
            fixed[name] = Dependency(wide, ())
        else:
            narrowed += [condition for condition in conditions if condition is not None]
    for name in plan.declared:
        fixed[name] = Dependency(Shape(name, (), None), ())
    plan.fixed = tuple(fixed.values())
    plan.narrowed = tuple(narrowed)


def _conditions(
    source: Source, canonical: Canonical, wide: Shape, bind_names: Mapping[Any, str]
) -> _Narrowed | None:
    key = key_of(source.table, canonical)
    keyed = bool(key) and all(name in source.known for name in key)
    names = list(key) if keyed else sorted(source.known)[:MAX_COLUMNS]
    if not names:
        return None
    columns: dict[str, Column[Any]] = {column.name: column for column in source.table.columns}
    conditions = []
    for name in names:
        normalise = canonical.of(columns[name])
        assert normalise is not None  # only narrowable columns become known
        value = source.known[name]
        if isinstance(value, Constant):
            try:
                conditions.append(_Condition(normalise, normalise(value.value), None, False))
            except NotCanonical:
                return None
        else:
            bind_name = bind_names.get(value.parameter)
            if bind_name is None:
                return None
            conditions.append(_Condition(normalise, None, bind_name, value.many))
    shape = Shape(wide.table, tuple(names), wide.footprint, keyed=keyed)
    return _Narrowed(shape, wide, tuple(conditions))


def _op(statement: Any, recording: Recording) -> Op:
    """Tell counts and EXISTS from fetches by the only column of the statement."""
    rendered = recording.statement
    if not isinstance(rendered, Select):
        return "fetch"
    columns = list(rendered._raw_columns)
    if len(columns) != 1:
        return "fetch"
    column: Any = columns[0]
    while isinstance(column, Label):
        column = column.element
    if isinstance(column, FunctionElement) and str(getattr(column, "name", "")).lower() == "count":
        return "count"
    if isinstance(column, Exists) or _negated_exists(column):
        return "exists"
    return "fetch"


def _negated_exists(column: Any) -> bool:
    element = column
    while element is not None and not isinstance(element, ScalarSelect):
        if isinstance(element, Exists):
            return True
        element = getattr(element, "element", None)
    return False


def _is_get(plan: Plan, statement: Any) -> bool:
    """Tell whether this is a select of one entity by its full primary key and nothing else (eager loads aside)."""
    descriptions = getattr(statement, "column_descriptions", None)
    if not descriptions or len(descriptions) != 1 or getattr(statement, "_setup_joins", ()):
        return False
    entity = descriptions[0].get("entity")
    if entity is None or descriptions[0].get("expr") is not entity:
        return False
    mapper = inspect(entity).mapper
    criteria = [part for criterion in statement._where_criteria for part in conjuncts(criterion)]
    if len(criteria) != len(mapper.primary_key):
        return False
    single = {
        narrowed.shape.table
        for narrowed in plan.narrowed
        if narrowed.shape.keyed and not any(condition.many for condition in narrowed.conditions)
    }
    return all(full_name(table) in single for table in mapper.tables)
