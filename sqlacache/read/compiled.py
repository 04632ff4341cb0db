"""Compiling a statement as SQLAlchemy will, its key and its parameters.

What reading needs of SQLAlchemy's private compile surface is here and, for watching what is rendered, in
:mod:`.recorder`; each use is tested on 1.4, 2.0 and 2.1 (``tests/read/test_compiled.py``):

* ``ClauseElement._compile_w_cache`` compiles into the engine's own cache, so that one compile serves the analysis, the
  real query and the replay. It returns three values up to 2.0 and four from 2.1 on.
* ``ClauseElement._generate_cache_key`` is SQLAlchemy's key of a statement's shape, memoised on the statement.
* ``SQLCompiler.construct_params(_collected_params=)``, ``_bind_processors`` and ``cache_key``: the parameters of a
  compiled statement; ``Dialect.compiler_linting``: the warnings that SQLAlchemy gives when it compiles.
* ``Select._where_criteria``, ``_setup_joins`` and ``_from_obj``, ``LambdaElement._resolved``: what the user wrote.
* ``_annotations`` and ``_deannotate()``: the element itself under a copy of it that the ORM made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy.schema import Table
from sqlalchemy.sql.compiler import WARN_LINTING
from sqlalchemy.sql.expression import Alias
from sqlalchemy.sql.lambdas import LambdaElement


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
    dialect: Any,
    compiled_cache: Any,
    names: Sequence[str],
    schema_translate_map: Mapping[Any, Any] | None,
) -> Any:
    """Compile ``statement`` into ``compiled_cache`` as ``Connection.execute`` will, and return the compiled object.

    ``None`` where the dialect does not let statements be kept: what they extract cannot be told apart then. An engine
    without a cache (``query_cache_size=0``) gets the same compile, kept nowhere but in the plan.
    """
    compiled = statement._compile_w_cache(
        dialect,
        compiled_cache={} if compiled_cache is None else compiled_cache,
        column_keys=list(names),
        for_executemany=False,
        schema_translate_map=schema_translate_map,
        linting=dialect.compiler_linting | WARN_LINTING,
    )[0]
    return compiled if compiled.cache_key is not None else None


def parameters_of(compiled: Any, key: StatementKey, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the statement's parameters by bind name, before bind processing."""
    more = {"_collected_params": key.collected} if key.collected is not None else {}
    parameters: dict[str, Any] = compiled.construct_params(
        given or None, extracted_parameters=key.extracted, escape_names=False, **more
    )
    return parameters


def bind_processors(compiled: Any) -> dict[str, Callable[[Any], Any]]:
    """Return bind processors by name; a parameter of IN gets one that maps its list."""
    found: dict[str, Callable[[Any], Any]] = {}
    for name, process in compiled._bind_processors.items():
        if not isinstance(process, tuple):
            found[name] = process
    for parameter in compiled.post_compile_params or ():
        name = compiled.bind_names.get(parameter, parameter.key)
        process = found.get(name)
        if process is not None:
            found[name] = _each(process)
    return found


def _each(process: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: [process(value) for value in values]


class PlainSelect(NamedTuple):
    """A SELECT as the user wrote it: its entities or columns, and its criteria; no joins, no FROM of its own."""

    statement: Any
    criteria: Sequence[Any]


def plain_select(statement: Any) -> PlainSelect | None:
    """Return what the user wrote, if it is a SELECT that names nothing but what it selects and its criteria."""
    if isinstance(statement, LambdaElement):
        statement = statement._resolved
    criteria = getattr(statement, "_where_criteria", None)
    if criteria is None or statement._setup_joins or statement._from_obj:
        return None
    return PlainSelect(statement, criteria)


def plain(element: Any) -> Any:
    """Return the element itself for a copy of it that the ORM annotated."""
    return element._deannotate() if getattr(element, "_annotations", None) else element


def table_of(source: Any) -> Table | None:
    """Return the table that a FROM element is, by itself or under an alias."""
    source = plain(source)
    if isinstance(source, Table):
        return source
    if type(source) is Alias:  # its subclasses sample, or are subqueries
        inner = plain(source.element)
        return inner if isinstance(inner, Table) else None
    return None
