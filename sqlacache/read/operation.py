"""Which operation a read is: a get by primary key, a count, a question whether something exists, or a fetch."""

from __future__ import annotations

from typing import Any

from sqlalchemy import inspect
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    FunctionFilter,
    Grouping,
    Null,
    UnaryExpression,
)
from sqlalchemy.sql.expression import Exists, Label, ScalarSelect
from sqlalchemy.sql.functions import FunctionElement

from ..decisions import Op
from .compiled import plain_select
from .conditions import conjuncts
from .recorder import Recording


def operation(statement: Any, recording: Recording) -> Op:
    """Tell counts and EXISTS by the only column selected, and gets by what the user asked for."""
    columns = recording.columns_of_top
    if len(columns) == 1:
        column = _bare(columns[0])
        if _counts(column):
            return "count"
        if _asks_for_existence(column):
            return "exists"
        top = recording.scopes[0]
        parts = [part for criterion in top.criteria for part in conjuncts(criterion)]
        if parts and not top.froms and all(_asks_for_existence(part) for part in parts):
            return "exists"  # SELECT 1 WHERE EXISTS (...)
    return "get" if _by_primary_key(statement) else "fetch"


def _bare(column: Any) -> Any:
    while isinstance(column, (Label, Grouping)):
        column = column.element
    return column


def _counts(column: Any) -> bool:
    column = _bare(column)
    if isinstance(column, FunctionFilter):
        column = column.func
    if isinstance(column, ScalarSelect):
        selected = list(getattr(column.element, "selected_columns", ()))
        return len(selected) == 1 and _counts(selected[0])
    return isinstance(column, FunctionElement) and str(getattr(column, "name", "")).lower() == "count"


def _asks_for_existence(column: Any) -> bool:
    column = _bare(column)
    while isinstance(column, UnaryExpression) and not isinstance(column, Exists):
        if column.operator is operators.exists:
            return True
        column = _bare(column.element)
    return isinstance(column, Exists)


def _by_primary_key(statement: Any) -> bool:
    """Tell whether the user asked for one entity by its full primary key and nothing else (eager loads aside)."""
    asked = plain_select(statement)
    if asked is None:
        return False
    descriptions: list[Any] = getattr(asked.statement, "column_descriptions", [])
    if len(descriptions) != 1:
        return False
    entity = descriptions[0].get("entity")
    if entity is None or descriptions[0].get("expr") is not entity:
        return False
    mapper = inspect(entity).mapper
    wanted = [set(mapper.get_property_by_column(column).columns) for column in mapper.primary_key]
    for part in (part for criterion in asked.criteria for part in conjuncts(criterion)):
        if not isinstance(part, BinaryExpression) or part.operator not in (operators.eq, operators.is_):
            return False
        column, value = (part.left, part.right)
        if isinstance(column, BindParameter):
            column, value = value, column
        if not isinstance(value, (BindParameter, Null)):
            return False
        known = [one for one in wanted if not one.isdisjoint(column.base_columns)]
        if len(known) != 1:
            return False
        wanted.remove(known[0])
    return not wanted
