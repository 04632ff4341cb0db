"""Conditions that look at nothing but the row: what a bulk UPDATE or DELETE matches can be asked for beforehand.

A WHERE is understood here when each part of it compares a column of the written table with a value, or with another
of its columns, by an operator that gives the same answer for the same row, whenever it is asked: ``=``, ``<>``, ``<``,
``<=``, ``>``, ``>=``, ``IN``, ``IS``, joined by AND, OR and NOT. Then a row that is locked and matches goes on to match
until the lock is released. Functions, subqueries and other tables are not understood: between two statements
another transaction may change what they return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import and_, bindparam, not_, or_
from sqlalchemy.schema import Column, Table
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    AsBoolean,
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    False_,
    Grouping,
    Null,
    True_,
    UnaryExpression,
)
from sqlalchemy.types import Boolean, TypeDecorator

_COMPARISONS = frozenset(
    {operators.eq, operators.ne, operators.lt, operators.le, operators.gt, operators.ge}
    | {operators.is_, operators.is_not, operators.in_op, operators.not_in_op}
)

ValueOf = Callable[["BindParameter[Any]"], Any]


class NotUnderstood(ValueError):
    """A condition that may look at more than the row."""


class Criteria:
    """The WHERE of one statement on ``table``: ``clauses``, of which all must hold.

    Raises :class:`NotUnderstood` for a condition that may look at more than the row.
    """

    def __init__(self, table: Table, clauses: Iterable[Any]) -> None:
        self.table = table
        self._clauses = tuple(clauses)
        self._by_column = {column: column for column in table.columns}
        self.parameters: list[BindParameter[Any]] = []
        self.rebuilt(self._asked)

    def _asked(self, bind: BindParameter[Any]) -> Any:
        self.parameters.append(bind)
        return [None] if bind.expanding else None

    def rebuilt(self, value_of: ValueOf) -> list[Any]:
        """Return the same conditions on the table itself, with the values that ``value_of`` has for the parameters."""
        return [self._clause(clause, value_of) for clause in self._clauses]

    def _clause(self, clause: Any, value_of: ValueOf) -> Any:
        kind = type(clause)
        if kind is Grouping:
            return self._clause(clause.element, value_of)
        if isinstance(clause, Column):
            return self._flag(clause)
        if isinstance(clause, (True_, False_)):
            return type(clause)()
        if kind is BooleanClauseList:
            join = {operators.and_: and_, operators.or_: or_}.get(clause.operator)
            if join is None or not clause.clauses:
                raise NotUnderstood
            return join(*(self._clause(part, value_of) for part in clause.clauses))
        if kind is AsBoolean:
            column = self._flag(clause.element)
            return not_(column) if clause.operator is operators.is_false else column
        if kind is UnaryExpression and clause.operator is operators.inv and clause.modifier is None:
            return not_(self._clause(clause.element, value_of))
        if kind is BinaryExpression and clause.operator in _COMPARISONS and not clause.modifiers:
            sides = (self._side(clause.left, value_of), self._side(clause.right, value_of))
            return BinaryExpression(*sides, clause.operator, type_=clause.type, negate=clause.negate)
        raise NotUnderstood

    def _side(self, clause: Any, value_of: ValueOf) -> Any:
        if type(clause) is Grouping:
            return self._side(clause.element, value_of)
        if isinstance(clause, (Null, True_, False_)):
            return type(clause)()
        if type(clause) is BindParameter:
            if clause.literal_execute or not _is_plain(clause.type):
                raise NotUnderstood
            return bindparam(
                None, value_of(clause), type_=clause.type, unique=True, expanding=clause.expanding
            )
        return self._own(clause)

    def _own(self, clause: Any) -> Column[Any]:
        own = self._by_column.get(clause) if isinstance(clause, Column) else None
        if own is None or not _is_plain(own.type):
            raise NotUnderstood
        return own

    def _flag(self, clause: Any) -> Column[Any]:
        own = self._own(clause)
        if not isinstance(own.type, Boolean):
            raise NotUnderstood
        return own


def matching(
    criteria: Criteria,
    names_of: Callable[[BindParameter[Any]], tuple[str, ...]],
    expanded: Callable[[Mapping[str, Any], tuple[str, ...]], Iterable[Any]],
) -> Callable[[Mapping[str, Any]], list[Any] | None]:
    """Return a function from an execution's parameters to the conditions with those values (``None``: not known).

    Args:
        criteria: The WHERE of a compiled statement.
        names_of: The names that a parameter may have among those of an execution.
        expanded: The values of a list among them, by these names.
    """
    names = {bind: names_of(bind) for bind in criteria.parameters}

    def rebuild(values: Mapping[str, Any]) -> list[Any] | None:
        def value_of(bind: BindParameter[Any]) -> Any:
            if bind.expanding:
                if some := list(expanded(values, names[bind])):
                    return some
            elif (given := next((one for one in names[bind] if one in values), None)) is not None:
                return values[given]
            raise NotUnderstood

        try:
            return criteria.rebuilt(value_of)
        except NotUnderstood:
            return None

    return rebuild


def _is_plain(kind: Any) -> bool:
    """Tell whether SQLAlchemy defines the type in the database, so that its operators are the database's own."""
    for _ in range(10):
        if not isinstance(kind, TypeDecorator):
            return type(kind).__module__.startswith("sqlalchemy.")
        kind = kind.impl
    return False
