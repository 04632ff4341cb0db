"""What every row of a table must satisfy to matter to a statement: equalities, spread through joins.

Only what is proved narrows: ``col = value``, ``col IN (values)``, ``IS NULL``, ``IS TRUE`` at the top level of WHERE's
AND, carried through join equalities between columns whose equality is the same. Everything else is not narrowed.

Outer joins: WHERE rejects null-extended rows when it holds a strict equality, so such an equality narrows either side
(``IS NULL`` is not strict: it narrows the preserved side only). A condition in an outer join's ON narrows only the optional
side, and values flow through it only from the preserved side to the optional one. A FULL join's ON narrows neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Union

from sqlalchemy import Integer
from sqlalchemy.schema import Column, Table
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    ClauseList,
    False_,
    Grouping,
    Null,
    True_,
    UnaryExpression,
)
from sqlalchemy.sql.expression import Alias, Join, Select

from ..canonical import Canonical, same_type

Node = Any
"""A table or an alias of one, standing in a statement's FROM."""
Place = tuple[Node, str]
"""A column of a node, by its database name."""


@dataclass(frozen=True)
class Constant:
    """A value known when the statement is analysed: ``None``, ``True`` or ``False``."""

    value: Any


@dataclass(frozen=True)
class Bound:
    """A value (or, with ``many``, a list of values) given by a bind parameter."""

    parameter: BindParameter[Any]
    many: bool


Value = Union[Constant, Bound]


@dataclass
class Source:
    """A table of the top-level FROM, with what is known of its columns."""

    node: Node
    table: Table
    known: dict[str, Value]


def narrow(statement: Any, canonical: Canonical) -> list[Source]:
    """Return the tables of the top-level FROM of ``statement`` with their known equalities.

    Tables that stand only in subqueries, CTEs or unions are not among them: they are not narrowed.
    """
    if not isinstance(statement, Select):
        return []
    return _Narrowing(canonical).run(statement)


class _Narrowing:
    def __init__(self, canonical: Canonical) -> None:
        self.canonical = canonical
        self.nodes: dict[Node, Table] = {}
        self.optional: set[Node] = set()
        self.strong: dict[Place, Value] = {}
        self.edges: list[tuple[Place, Place]] = []
        """Values flow from the first to the second."""

    def run(self, statement: Any) -> list[Source]:
        froms = statement.get_final_froms() if hasattr(statement, "get_final_froms") else statement.froms
        for source in froms:
            self._enter(source, frozenset(), frozenset())
        for criterion in statement._where_criteria:
            for part in conjuncts(criterion):
                self._where(part)
        self._flow()
        found = []
        for node, table in self.nodes.items():
            known = {name: value for (where, name), value in self.strong.items() if where is node}
            found.append(Source(node, table, known))
        return found

    def _enter(self, source: Any, optional: frozenset[Any], full: frozenset[Any]) -> frozenset[Node]:
        """Walk a FROM element; return its nodes."""
        if isinstance(source, Join):
            left = self._enter(source.left, optional, full)
            right = self._enter(source.right, optional, full)
            if source.full:
                self.optional |= left | right
            elif source.isouter:
                self.optional |= right
                for part in conjuncts(source.onclause):
                    self._outer(part, right)
            else:
                for part in conjuncts(source.onclause):
                    self._inner(part)
            return left | right
        if isinstance(source, Grouping) or type(source).__name__ == "FromGrouping":
            return self._enter(source.element, optional, full)
        node = _plain(source)
        table = _table_of(node)
        if table is None:
            return frozenset()
        self.nodes[node] = table
        return frozenset((node,))

    def _place(self, element: Any) -> tuple[Place, Column[Any]] | None:
        """Return where a column stands, if it is a narrowable column of a node."""
        element = _plain(element)
        if getattr(element, "is_literal", False):
            return None
        owner = getattr(element, "table", None)
        if owner is None:
            return None
        node = _plain(owner)
        for known, table in self.nodes.items():
            if known is node or (hash(known) == hash(node) and _table_of(node) is table):
                base = [column for column in element.base_columns if isinstance(column, Column)]
                if len(base) == 1 and base[0].table is table and self.canonical.of(base[0]) is not None:
                    return (known, base[0].name), base[0]
        return None

    def _equality(self, part: Any) -> tuple[Any, Any] | None:
        """Return the two sides of ``part`` if it is an equality or an IN."""
        if isinstance(part, BinaryExpression) and part.operator in (operators.eq, operators.in_op, operators.is_):
            return part.left, part.right
        return None

    def _value(self, part: Any, column: Column[Any], right: Any) -> Value | None:
        if isinstance(right, Null):
            return Constant(None) if part.operator is operators.is_ else None
        if isinstance(right, True_):
            return Constant(True)
        if isinstance(right, False_):
            return Constant(False)
        if isinstance(right, Grouping):
            right = right.element
        if isinstance(right, BindParameter) and self.canonical.compared(column, right) is not None:
            if part.operator is operators.in_op:
                return Bound(right, many=True) if right.expanding else None
            return None if right.expanding else Bound(right, many=False)
        return None

    def _known(self, part: Any) -> tuple[Place, Value] | None:
        """Return the place and value that ``part`` fixes, if it does."""
        boolean = _truth(part)
        if boolean is not None:
            placed = self._place(boolean[0])
            return (placed[0], Constant(boolean[1])) if placed else None
        sides = self._equality(part)
        if sides is None:
            return None
        for one, other in (sides, sides[::-1]):
            placed = self._place(one)
            if placed is not None:
                value = self._value(part, placed[1], other)
                if value is not None:
                    return placed[0], value
            if part.operator is not operators.eq:
                break
        return None

    def _pair(self, part: Any) -> tuple[Place, Place] | None:
        """Return the two places that ``part`` makes equal, if it does and their equality is the same."""
        sides = self._equality(part)
        if sides is None or part.operator is not operators.eq:
            return None
        one, other = self._place(sides[0]), self._place(sides[1])
        if one is None or other is None:
            return None
        if not same_type(one[1].type, other[1].type) and not (_plain_integer(one[1]) and _plain_integer(other[1])):
            return None
        return one[0], other[0]

    def _where(self, part: Any) -> None:
        known = self._known(part)
        if known is not None:
            place, value = known
            if value == Constant(None) and place[0] in self.optional:
                return
            self.strong.setdefault(place, value)
        else:
            pair = self._pair(part)
            if pair is not None:
                self.edges += [pair, pair[::-1]]

    def _inner(self, part: Any) -> None:
        known = self._known(part)
        if known is not None:
            if known[1] != Constant(None) or known[0][0] not in self.optional:
                self.strong.setdefault(*known)
        else:
            pair = self._pair(part)
            if pair is not None:
                self.edges += [pair, pair[::-1]]

    def _outer(self, part: Any, right: frozenset[Node]) -> None:
        known = self._known(part)
        if known is not None:
            if known[0][0] in right:
                self.strong.setdefault(*known)
            return
        pair = self._pair(part)
        if pair is None:
            return
        one, other = pair
        if one[0] in right:
            self.edges.append((other, one))
        if other[0] in right:
            self.edges.append((one, other))

    def _flow(self) -> None:
        changed = True
        while changed:
            changed = False
            for source, target in self.edges:
                value = self.strong.get(source)
                if value is not None and value != Constant(None) and target not in self.strong:
                    self.strong[target] = value
                    changed = True


def _plain_integer(column: Column[Any]) -> bool:
    return isinstance(column.type, Integer)


def conjuncts(criterion: Any) -> Iterator[Any]:
    """Yield the parts of a criterion that its top-level AND joins."""
    if isinstance(criterion, (BooleanClauseList, ClauseList)) and criterion.operator is operators.and_:
        for clause in criterion.clauses:
            yield from conjuncts(clause)
    elif isinstance(criterion, Grouping):
        yield from conjuncts(criterion.element)
    elif criterion is not None:
        yield criterion


def _truth(part: Any) -> tuple[Any, bool] | None:
    """Return the column and its truth if ``part`` is a boolean column standing alone or negated."""
    if isinstance(part, UnaryExpression) and part.operator in (operators.is_true, operators.is_false):
        return part.element, part.operator is operators.is_true
    if isinstance(part, UnaryExpression) and part.operator is operators.inv:
        inner = _truth(part.element)
        return (inner[0], not inner[1]) if inner else None
    return (part, True) if isinstance(_plain(part), Column) else None


def _plain(element: Any) -> Any:
    """Return the element itself for an annotated copy of it."""
    return element._deannotate() if getattr(element, "_annotations", None) else element


def _table_of(node: Any) -> Table | None:
    if isinstance(node, Table):
        return node
    if isinstance(node, Alias) and type(node).__name__ in ("Alias", "AnnotatedAlias"):
        inner = _plain(node.element)
        return inner if isinstance(inner, Table) else None
    return None
