"""What an INSERT, UPDATE or DELETE that SQLAlchemy is about to execute will change: decided purely, before it runs.

:func:`analyse` looks at a compiled statement once and remembers a :class:`DmlPlan` for it; :meth:`DmlPlan.changes`
reads the parameters of one execution. Both belong in the engine event ``before_cursor_execute``, with
``context.compiled`` and ``context.compiled_parameters``. On SQLAlchemy 1.4, 2.0 and 2.1 these parameters hold, by bind
name and before bind processing, everything that Python knows: values of Python-side ``default=`` and ``onupdate=`` and
of sequences executed beforehand included. What only the database knows (``server_default``, SQL expressions,
autoincrement keys) is left out of the rows.

Two things about that event (both tested):

* A sequence or a default that SQLAlchemy executes by itself beforehand fires it with the *same* context, before the
  parameters are complete: :func:`is_ready` tells. The event of the statement itself always follows.
* "insertmanyvalues" of SQLAlchemy 2.x fires it once per batch with the same context, whose ``compiled_parameters`` are
  those of *all* batches: take the changes at the context's first event that is ready, and at no later one.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

from sqlalchemy.engine.interfaces import Compiled
from sqlalchemy.sql import visitors
from sqlalchemy.sql.ddl import DDLElement
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.sql.expression import Delete, Insert, TextualSelect, Update
from sqlalchemy.sql.functions import FunctionElement

from ..canonical import Canonical
from ..logs import STATEMENT_UNKNOWN, log
from .plan import EVERYTHING, Change, DmlPlan, Op, Part, RowChange, everything
from .rawsql import PURE_FUNCTIONS, classify, modifies
from .reader import Reader, written_table
from .sqlwords import HARMLESS_FUNCTIONS

__all__ = ["EVERYTHING", "Change", "DmlPlan", "RowChange", "analyse", "is_ready", "not_understood"]

not_understood: Counter[str] = Counter()
"""Statements whose analysis raised, by the kind of error; each counted as a change of everything."""


_plans: weakref.WeakKeyDictionary[Compiled, DmlPlan | None] = weakref.WeakKeyDictionary()
"""Of statements that nobody's columns are known for."""
_UNKNOWN: Any = object()


def analyse(compiled: Compiled, canonical: Canonical | None = None) -> DmlPlan | None:
    """Return what ``compiled`` changes, or ``None`` when it changes nothing; remembered as long as ``compiled`` lives.

    A SELECT that calls functions which are not known to write nothing has a plan without changes that names them.

    ``canonical`` knows the columns of the database; without it, what the dialect says of them is believed.
    """
    plans = _plans if canonical is None else canonical.plans
    remembered: DmlPlan | None = plans.get(compiled, _UNKNOWN)
    if remembered is not _UNKNOWN:
        return remembered
    try:
        plan = _analysed(compiled, canonical or Canonical(compiled.dialect))
    except Exception as error:
        kind = type(error).__name__
        not_understood[kind] += 1
        if not_understood[kind] == 1:
            told = "cannot tell what a statement changes (%s in its analysis): taken as everything"
            log(STATEMENT_UNKNOWN, told, kind, way="write", error=kind)
        plan = DmlPlan([everything("not understood")])
    plans[compiled] = plan
    return plan


def is_ready(context: Any) -> bool:
    """Whether an execution context has all its parameters: not while it executes the sequences of an INSERT."""
    return getattr(context, "statement", None) is not None and bool(getattr(context, "parameters", None))


def _analysed(compiled: Any, canonical: Canonical) -> DmlPlan | None:
    statement = compiled.statement
    if isinstance(statement, DDLElement) or not hasattr(compiled, "bind_names"):
        return DmlPlan([everything(type(statement).__name__)])
    dialect = compiled.dialect.name
    if isinstance(statement, (TextClause, TextualSelect)):
        kind = classify(compiled.string, dialect)
        return DmlPlan([everything("text")]) if kind == "write" else None
    state = compiled.dml_compile_state
    main = state.statement if state is not None else None
    roots = [statement, main, getattr(compiled.compile_state, "statement", None), *(compiled.ctes or ())]
    if main is None and not modifies(compiled.string, dialect):
        functions = _functions(roots)
        return DmlPlan([], functions) if functions else None
    parts: list[Part] = []
    if main is not None:
        parts.extend(Reader(compiled, canonical, state).parts())
    nested = [part for dml in _nested_dml(roots, main) for part in _nested_parts(dml)]
    parts.extend(nested)
    if not parts:
        parts.append(everything("SELECT"))  # the text modifies, and nothing tells what
    return DmlPlan(parts, _functions(roots))


def _nested_dml(roots: list[Any], main: Any) -> list[Any]:
    """INSERT, UPDATE and DELETE inside the statement: in its CTEs."""
    mains = {id(main)} | {id(getattr(roots[0], name, None)) for name in ("element", "statement")}
    found: dict[tuple[type, Any], Any] = {}
    for root in roots:
        if isinstance(root, (Insert, Update, Delete)) and root is not main:
            mains.add(id(root))  # the statement as written, of which main is what the ORM made
    for root in roots:
        if root is None:
            continue
        for element in visitors.iterate(root):
            if isinstance(element, (Insert, Update, Delete)) and id(element) not in mains:
                found.setdefault((type(element), written_table(element.table)), element)
    return list(found.values())


def _nested_parts(dml: Any) -> list[Part]:
    op: Op = "insert" if isinstance(dml, Insert) else "update" if isinstance(dml, Update) else "delete"
    table = written_table(dml.table)
    return [everything(op.upper()) if table is None else Part(op, table.name, getattr(table, "schema", None))]


def _functions(roots: list[Any]) -> frozenset[str]:
    """Names of the SQL functions anywhere in the statement that are not known to write nothing."""
    names = set()
    for root in roots:
        for element in visitors.iterate(root) if root is not None else ():
            if isinstance(element, FunctionElement):
                package = getattr(element, "packagenames", ())
                names.add(".".join((*package, getattr(element, "name", "?"))).lower())
    return frozenset(names - PURE_FUNCTIONS - HARMLESS_FUNCTIONS)
