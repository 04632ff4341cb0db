"""What every row of a table must satisfy to matter to a statement: equalities, spread through joins.

Only what is proved narrows: ``col = value``, ``col IN (values)``, ``IS NULL``, ``IS TRUE`` at the top level of a
WHERE's AND, carried through join equalities between columns whose equality is the same. Nothing else narrows.

What "a table is narrowed by ``col = v``" means: take away from this *occurrence* of the table in the statement every
row where it does not hold, and the result is the same, whatever else is in the database. Each step below keeps that
true, so they may be taken one after another, at any depth:

* A SELECT's WHERE narrows its own tables, wherever the SELECT stands: a row that fails it is gone before anything else
  (GROUP BY, DISTINCT, windows, LIMIT) sees it. It also rejects rows that an outer join extended with NULLs, so that it
  narrows either side of an outer or FULL join; except by ``IS NULL``, which those rows satisfy.
* An inner join's ON is the same as WHERE. A LEFT join's ON narrows only the optional side: the rows of the other side
  are there in any case. A FULL join's ON narrows neither.
* ``a.x = b.y`` in WHERE or an inner join's ON carries a value either way; in a LEFT join's ON only to the optional
  side.
* A subquery's own ``inner.x = outer.y`` carries the value of the *outer* table inwards, never back: for an outer row
  that does not matter the subquery need not be right, but all rows of the outer table are there for it to judge.

Nothing is carried into or out of a subquery through its columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from sqlalchemy.sql.expression import Join
from sqlalchemy.sql.selectable import FromGrouping

from ..canonical import Canonical
from .compiled import plain, table_of
from .recorder import Scope


@dataclass(frozen=True)
class Constant:
    """A value known when the statement is analysed: ``None``, ``True`` or ``False``."""

    value: Any


@dataclass(frozen=True)
class Bound:
    """A value (or, with ``many``, a list of values) given by a bind parameter."""

    parameter: BindParameter[Any]
    many: bool


Value = Constant | Bound
NULL = Constant(None)


@dataclass(eq=False)
class Source:
    """One occurrence of a table in a FROM, with what is known of its columns, by their database names."""

    table: Table
    known: dict[str, Value] = field(default_factory=dict)
    optional: bool = False
    """An outer join may put NULLs in its place."""


Place = tuple[Source, str]
"""A column of a source, by its database name."""


@dataclass(eq=False)
class _Frame:
    """The FROM of one SELECT."""

    parent: _Frame | None
    sources: dict[Any, Source] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    """Names of everything in this FROM: they hide what has the same name further out."""

    def find(self, element: Any) -> tuple[Source, bool] | None:
        """Return the source that ``element`` is, and whether it is this frame's own."""
        frame: _Frame | None = self
        while frame is not None:
            source = frame.sources.get(element)
            if source is not None:
                return source, frame is self
            if _name(element) in frame.names:
                return None
            frame = frame.parent
        return None


def narrow(scopes: Sequence[Scope], canonical: Canonical) -> list[Source]:
    """Return every occurrence of a table in the FROM of these SELECTs, with its known equalities."""
    return _Narrowing(canonical).run(scopes)


class _Narrowing:
    def __init__(self, canonical: Canonical) -> None:
        self.canonical = canonical
        self.frame = _Frame(None)
        self.edges: list[tuple[Place, Place]] = []
        """Values flow from the first to the second."""

    def run(self, scopes: Sequence[Scope]) -> list[Source]:
        frames: dict[Scope | None, _Frame | None] = {None: None}
        for scope in scopes:
            self.frame = frames[scope] = _Frame(frames[scope.parent])
            for element in scope.froms:
                self._enter(element)
            for criterion in scope.criteria:
                for part in conjuncts(criterion):
                    self._holds(part)
        self._flow()
        return [source for frame in frames.values() if frame is not None for source in frame.sources.values()]

    def _enter(self, element: Any) -> frozenset[Source]:
        """Walk a FROM element; return its tables."""
        if isinstance(element, (FromGrouping, Grouping)):
            return self._enter(element.element)
        if isinstance(element, Join):
            left, right = self._enter(element.left), self._enter(element.right)
            parts = conjuncts(element.onclause)
            if element.full:
                optional = left | right
            elif element.isouter:
                optional = right
                for part in parts:
                    self._holds_for(part, right)
            else:
                optional = frozenset()
                for part in parts:
                    self._holds(part)
            for source in optional:
                source.optional = True
            return left | right
        itself = plain(element)
        self.frame.names.add(_name(itself))
        table = table_of(itself)
        if table is None:
            return frozenset()
        source = self.frame.sources[itself] = Source(table)
        return frozenset((source,))

    # -- what a condition says -----------------------------------------------------------------------------------------

    def _place(self, element: Any) -> tuple[Place, Column[Any], bool] | None:
        """Return where a column stands and whether in the SELECT at hand, if its equality is ours."""
        element = plain(element)
        if not isinstance(element, Column) or element.table is None:
            return None
        found = self.frame.find(plain(element.table))
        if found is None:
            return None
        source, own = found
        base = [column for column in element.base_columns if isinstance(column, Column)]
        if len(base) != 1 or plain(base[0].table) is not source.table or self.canonical.of(base[0]) is None:
            return None
        return (source, base[0].name), base[0], own

    def _value(self, part: Any, column: Column[Any], right: Any) -> Value | None:
        if isinstance(right, Null):
            return NULL if part.operator is operators.is_ else None
        if isinstance(right, (True_, False_)):
            return Constant(isinstance(right, True_))
        if isinstance(right, Grouping):
            right = right.element
        if not isinstance(right, BindParameter) or self.canonical.compared(column, right) is None:
            return None
        if right.expanding != (part.operator is operators.in_op):
            return None
        return Bound(right, many=right.expanding)

    def _known(self, part: Any) -> tuple[Place, Value] | None:
        """Return the place and value that ``part`` fixes, if it does."""
        boolean = _truth(part)
        if boolean is not None:
            placed = self._place(boolean[0])
            return (placed[0], Constant(boolean[1])) if placed and placed[2] else None
        sides = _sides(part, operators.eq, operators.in_op, operators.is_)
        if sides is None:
            return None
        for one, other in (sides, sides[::-1]) if part.operator is operators.eq else (sides,):
            placed = self._place(one)
            if placed is not None and placed[2]:
                value = self._value(part, placed[1], other)
                if value is not None:
                    return placed[0], value
        return None

    def _pair(self, part: Any) -> list[tuple[Place, Place]]:
        """Return the ways, to places of the SELECT at hand, in which ``part`` carries values."""
        sides = _sides(part, operators.eq)
        if sides is None:
            return []
        one, other = self._place(sides[0]), self._place(sides[1])
        if one is None or other is None:
            return []
        if not self.canonical.compares_alike(one[1], other[1]):
            return []
        return [(start[0], end[0]) for start, end in ((one, other), (other, one)) if end[2]]

    def _holds(self, part: Any) -> None:
        """Every row of the SELECT at hand satisfies ``part``."""
        known = self._known(part)
        if known is None:
            self.edges += self._pair(part)
        elif known[1] != NULL or not known[0][0].optional:
            self._learn(*known)

    def _holds_for(self, part: Any, optional: frozenset[Source]) -> None:
        """Rows of these tables that do not satisfy ``part`` are not joined; those of others are there all the same."""
        known = self._known(part)
        if known is None:
            self.edges += [edge for edge in self._pair(part) if edge[1][0] in optional]
        elif known[0][0] in optional and (known[1] != NULL or not known[0][0].optional):
            self._learn(*known)

    def _learn(self, place: Place, value: Value) -> None:
        place[0].known.setdefault(place[1], value)

    def _flow(self) -> None:
        changed = True
        while changed:
            changed = False
            for (start, column), (end, target) in self.edges:
                value = start.known.get(column)
                if value is not None and value != NULL and target not in end.known:
                    end.known[target] = value
                    changed = True


def conjuncts(criterion: Any) -> Iterator[Any]:
    """Yield the parts of a criterion that its top-level AND joins."""
    if isinstance(criterion, (BooleanClauseList, ClauseList)) and criterion.operator is operators.and_:
        for clause in criterion.clauses:
            yield from conjuncts(clause)
    elif isinstance(criterion, Grouping):
        yield from conjuncts(criterion.element)
    elif criterion is not None:
        yield criterion


def _name(element: Any) -> str:
    return str(getattr(element, "name", "")).lower()


def _sides(part: Any, *comparisons: Any) -> tuple[Any, Any] | None:
    """Return the two sides of ``part`` if it is one of these comparisons."""
    if isinstance(part, BinaryExpression) and part.operator in comparisons:
        return part.left, part.right
    return None


def _truth(part: Any) -> tuple[Any, bool] | None:
    """Return the column and its truth if ``part`` is a boolean column standing alone or negated."""
    if isinstance(part, UnaryExpression):
        if part.operator in (operators.is_true, operators.is_false):
            return part.element, part.operator is operators.is_true
        if part.operator is operators.inv:
            inner = _truth(part.element)
            return (inner[0], not inner[1]) if inner else None
    return (part, True) if isinstance(part, Column) else None
