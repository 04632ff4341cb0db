"""What a statement is to the cache: analysed once per shape, remembered under SQLAlchemy's own statement cache key.

:func:`analyse` turns a statement into a :class:`Plan`: which operation it is, why it cannot be cached if it cannot, and
what it depends on. :meth:`Plan.dependencies_of` then gives the tags for one set of parameters, which is all that a hot
read does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from sqlalchemy.engine import Dialect
from sqlalchemy.schema import Column, Table

from ..canonical import Canonical, NotCanonical, is_open
from ..decisions import BypassReason, Op
from ..digests import Conceal
from ..logs import STATEMENT_UNKNOWN, log
from ..tags import Shape, table_stamp
from .compiled import StatementKey, bind_processors, compile_statement, parameters_of
from .conditions import Bound, Source, Value, narrow
from .operation import operation
from .recorder import Recording, record

MAX_TAGS = 128
"""An IN with more values than this (as a product over the columns of one table) is not narrowed by."""
MAX_COLUMNS = 4
"""A table is narrowed by at most so many columns beside its primary key."""

not_understood: Counter[str] = Counter()
"""Statements whose analysis raised, by the kind of error; each is left to SQLAlchemy, which may raise the same."""


class Dependency(NamedTuple):
    """A shape and the tags of it that one read depends on (none: all of the shape)."""

    shape: Shape
    tags: tuple[str, ...]


class _Condition(NamedTuple):
    canonical: Callable[[Any], str]
    constant: str
    """Canonical, where there is no parameter."""
    parameter: str | None
    many: bool


@dataclass(frozen=True)
class _Narrowed:
    shape: Shape
    wide: Shape
    conditions: tuple[_Condition, ...]
    otherwise: _Narrowed | None = None
    """By fewer columns, where these have too many values."""
    conceal: Conceal | None = None
    """For :meth:`.tags.Shape.tag`; ``None`` where nothing is to be concealed: a key of integers, above all."""

    def resolve(self, parameters: Mapping[str, Any]) -> Dependency:
        choices: list[list[str]] = []
        count = 1
        try:
            for condition in self.conditions:
                if condition.parameter is None:
                    choices.append([condition.constant])
                    continue
                value = parameters[condition.parameter]
                if condition.many:
                    values = [one for one in value if one is not None]  # NULL in an IN matches nothing
                    count *= len(values)
                    if not 0 < count <= MAX_TAGS:
                        return self._wider(parameters)
                    choices.append([condition.canonical(one) for one in values])
                elif value is None:  # `col = NULL` matches nothing, unlike `col IS NULL`
                    return self._wider(parameters)
                else:
                    choices.append([condition.canonical(value)])
        except (NotCanonical, TypeError):
            return self._wider(parameters)
        tag, conceal = self.shape.tag, self.conceal
        return Dependency(self.shape, tuple([tag(values, conceal) for values in product(*choices)]))

    def _wider(self, parameters: Mapping[str, Any]) -> Dependency:
        return self.otherwise.resolve(parameters) if self.otherwise is not None else Dependency(self.wide, ())


class Plan:
    """A statement's shape, analysed."""

    __slots__ = (
        "asked",
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
        self.asked = 0
        """When it was last asked for, in lookups of its binding."""
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
        """Widen what ``admit`` refuses (a table's shapes are bounded): first the footprint, then the condition."""
        fixed, narrowed = [], []
        for dependency in self.fixed:
            whole = Shape(dependency.shape.table, (), None)
            fixed.append(dependency if admit(dependency.shape) else Dependency(whole, ()))
        for entry in self.narrowed:
            if not (admit(entry.shape) and admit(entry.wide)):
                entry = replace(
                    entry,
                    shape=replace(entry.shape, footprint=None),
                    wide=replace(entry.wide, footprint=None),
                    otherwise=None,
                )
            if entry.otherwise is not None and not admit(entry.otherwise.shape):
                entry = replace(entry, otherwise=None)
            if entry.shape.keyed or admit(entry.shape):
                narrowed.append(entry)
            else:
                fixed.append(Dependency(entry.wide, ()))
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


def full_name(table: Table, schema_translate_map: Mapping[Any, Any] | None = None) -> str:
    """Return a table's name with its schema, as in tags and metrics and as the write path names what is written."""
    schema = (schema_translate_map or {}).get(table.schema, table.schema)
    return f"{schema}.{table.name}" if schema else str(table.name)


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
    views: Mapping[str, Sequence[str]] | Collection[str] = frozenset(),
    declared_views: Mapping[str, Sequence[str]] | None = None,
    conceal: Conceal | None = None,
    excluded: Callable[[Table], Collection[str]] = lambda table: (),
) -> Plan:
    """Analyse a statement's shape. A statement that cannot be analysed is one to bypass; SQLAlchemy says what is wrong.

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
        conceal: As writers have it, for :meth:`.tags.Shape.tag`.
        excluded: Returns the database names of a table's columns of which nothing may be stored.
    """
    plan = Plan("fetch")
    views_known = declared_views or {}
    try:
        recording = record(statement, dialect, names, schema_translate_map)
        plan.op = operation(statement, recording)
        plan.sources = tuple(recording.tables)
        tables = [full_name(table, schema_translate_map) for table in recording.tables]
        named = _declared([*recording.untracked, *tables], views_known)
        plan.declared = tuple(dict.fromkeys([*depends_on, *named]))
        plan.tables = tuple(dict.fromkeys([*tables, *plan.declared]))
        untracked = [*recording.untracked, *(name for name in tables if name in views)]
        unknown = [name for name in untracked if name not in views_known]
        plan.bypass, plan.notes = _static_bypass(recording, unknown, bool(depends_on), pure_functions)
        if plan.bypass is None and not plan.tables:
            plan.bypass, plan.notes = "untracked_source", "no table"
        if plan.bypass is None:
            plan.bypass, plan.notes = _uses_excluded(recording, excluded)
        if plan.bypass is None:
            _compile(plan, recording, statement, dialect, compiled_cache, names, schema_translate_map)
        if plan.bypass is None:
            _depend(plan, recording, canonical, schema_translate_map, conceal)
    except Exception as error:
        kind = type(error).__name__
        not_understood[kind] += 1
        if not_understood[kind] == 1:
            told = "cannot tell what a statement depends on (%s in its analysis): not cached"
            log(STATEMENT_UNKNOWN, told, kind, way="read", error=kind)
        plan.bypass, plan.notes = "raw_sql", f"the statement cannot be analysed: {kind}"
    return plan


def _static_bypass(
    recording: Recording, unknown: Sequence[str], declared: bool, pure: frozenset[str]
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
    if recording.text:
        return "raw_sql", "text in the statement; name its tables with sqlacache_depends_on"
    if unknown:
        return "untracked_source", f"source {unknown[0]!r} is not a known table"
    return None, ""


def _uses_excluded(
    recording: Recording, excluded: Callable[[Table], Collection[str]]
) -> tuple[BypassReason | None, str]:
    for table in recording.tables:
        names = set(excluded(table))
        if not (recording.text or recording.loose or table in recording.whole):
            names &= set(recording.columns.get(table, ()))
        if names:
            return "opted_out", f"{table.fullname}.{min(names)} is used, which the configuration excludes"
    return None, ""


def _declared(sources: Sequence[str], views: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the declared relations among ``sources`` and what they read from, views of views included."""
    found: dict[str, None] = {}
    waiting = [source for source in sources if source in views]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += views.get(name, ())
    return list(found)


def _compile(
    plan: Plan,
    recording: Recording,
    statement: Any,
    dialect: Dialect,
    compiled_cache: Any,
    names: Sequence[str],
    schema_translate_map: Mapping[Any, Any] | None,
) -> None:
    """Compile as the execution will; the plan bypasses if what was recorded is not what will be executed."""
    compiled = compile_statement(statement, dialect, compiled_cache, names, schema_translate_map)
    if compiled is None:
        plan.bypass, plan.notes = "unkeyable_params", "the dialect does not let statements be kept"
    elif getattr(compiled, "literal_execute_params", None):
        plan.bypass, plan.notes = "unkeyable_params", "parameters rendered into the SQL"
    elif not recording.same_as(compiled):
        plan.bypass, plan.notes = "raw_sql", "the statement is rendered differently from time to time"
    else:
        plan.compiled = compiled
        plan.sql = compiled.string
        plan.processors = bind_processors(compiled)


def _depend(
    plan: Plan,
    recording: Recording,
    canonical: Canonical,
    schema_translate_map: Mapping[Any, Any] | None,
    conceal: Conceal | None,
) -> None:
    """Give the plan its dependencies. Text may name any column and undo any condition: then nothing is narrowed.

    Under a schema translation the names of the tables are others, for which no values and keys are known.
    """
    sources: dict[Table, list[Source]] = {}
    if not (recording.text or schema_translate_map):
        for source in narrow(recording.scopes, canonical):
            sources.setdefault(source.table, []).append(source)
    fixed: dict[Shape, None] = {}
    narrowed: dict[_Narrowed, None] = {}
    for table, times in recording.tables.items():
        used = frozenset(recording.columns.get(table, ()))
        every = recording.text or recording.loose or table in recording.whole
        if every or used >= {column.name for column in table.columns}:
            wide = Shape(full_name(table, schema_translate_map), (), None)
        else:
            wide = Shape(full_name(table, schema_translate_map), (), used)
        found = sources.get(table, [])
        conditions: list[_Narrowed] = []
        if len(found) == times:  # else it also stands where conditions are not followed
            conditions = [
                condition
                for source in found
                if (condition := _narrowed(source, canonical, wide, recording.bind_names, conceal))
                is not None
            ]
        if conditions and len(conditions) == times:
            narrowed.update(dict.fromkeys(conditions))
        else:
            fixed[wide] = None
    for name in plan.declared:
        fixed[Shape(name, (), None)] = None
    plan.fixed = tuple(Dependency(shape, ()) for shape in fixed)
    plan.narrowed = tuple(narrowed)


def _narrowed(
    source: Source, canonical: Canonical, wide: Shape, bind_names: Mapping[Any, str], conceal: Conceal | None
) -> _Narrowed | None:
    columns: dict[str, Column[Any]] = {column.name: column for column in source.table.columns}
    conditions: dict[str, _Condition] = {}
    for name, value in source.known.items():
        condition = _condition(value, canonical.of(columns[name]), bind_names)
        if condition is not None:
            conditions[name] = condition
    key = key_of(source.table, canonical)
    keyed = bool(key) and conditions.keys() >= set(key)
    single = {name for name, condition in conditions.items() if not condition.many}
    ranked = sorted(
        conditions, key=lambda name: (name not in single, conditions[name].parameter is None, name)
    )
    chosen = list(key) if keyed else sorted(ranked[:MAX_COLUMNS])
    if not chosen:
        return None
    otherwise = None
    fewer = sorted([name for name in ranked if name in single][:MAX_COLUMNS])
    if fewer and not single.issuperset(chosen):
        shape = Shape(wide.table, tuple(fewer), wide.footprint)
        otherwise = _Narrowed(shape, wide, tuple(conditions[name] for name in fewer), conceal=conceal)
    shown = tuple(is_open(columns[name], canonical.dialect) for name in chosen) if keyed else ()
    shape = Shape(wide.table, tuple(chosen), wide.footprint, keyed, shown)
    if keyed and all(shown):
        conceal = None
    return _Narrowed(shape, wide, tuple(conditions[name] for name in chosen), otherwise, conceal)


def _condition(
    value: Value, normalise: Callable[[Any], str] | None, bind_names: Mapping[Any, str]
) -> _Condition | None:
    assert normalise is not None  # only narrowable columns become known
    if isinstance(value, Bound):
        name = bind_names.get(value.parameter)
        return None if name is None else _Condition(normalise, "", name, value.many)
    try:
        return _Condition(normalise, normalise(value.value), None, False)
    except NotCanonical:
        return None
