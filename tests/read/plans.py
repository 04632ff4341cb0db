"""What the analysis makes of a statement, as text: the tags it depends on, or the bypass it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.dialects.sqlite import pysqlite

from sqlacache.canonical import Canonical
from sqlacache.read.compiled import statement_key
from sqlacache.read.statement import Plan, analyse
from sqlacache.tags import Shape

SQLITE = pysqlite.dialect()
POSTGRESQL = asyncpg.dialect()
DIALECTS = {"sqlite": SQLITE, "postgresql": POSTGRESQL}


def planned(
    statement: Any,
    dialect: Any = SQLITE,
    given: Mapping[str, Any] | None = None,
    *,
    translate: Mapping[Any, Any] | None = None,
    cache: Any = None,
    **how: Any,
) -> Plan:
    """Analyse a statement as the read path does."""
    compiled_cache: Any = {} if cache is None else cache
    names = tuple(sorted(given or ()))
    return analyse(statement, dialect, compiled_cache, names, translate, Canonical(dialect), **how)


def reads(
    statement: Any, dialect: Any = SQLITE, given: Mapping[str, Any] | None = None, **how: Any
) -> set[str]:
    """Return the tags that a statement depends on; a shape's name where it depends on all of that shape.

    A statement that is not cached depends on ``{"bypass: <reason>"}``.
    """
    plan = planned(statement, dialect, given, **how)
    if plan.bypass is not None:
        return {f"bypass: {plan.bypass}"}
    key = statement_key(statement)
    assert key is not None
    found: set[str] = set()
    for shape, tags in plan.dependencies_of(plan.parameters(key, given)):
        assert isinstance(shape, Shape)
        found.update(tags or (shape.name,))
    return found


def on_both(statement: Any, **how: Any) -> set[str]:
    """As :func:`reads`, on SQLite and PostgreSQL, which must agree."""
    found = reads(statement, SQLITE, **how)
    assert reads(statement, POSTGRESQL, **how) == found
    return found
