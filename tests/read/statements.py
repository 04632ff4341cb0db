"""Random statements over a small schema, made from a tape of numbers so that a failing one shrinks.

The same structure tape with another tape of values makes another instance of the same statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    bindparam,
    case,
    except_,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    tuple_,
    union,
    union_all,
)
from sqlalchemy.orm import (
    aliased,
    column_property,
    configure_mappers,
    contains_eager,
    declarative_base,
    defer,
    joinedload,
    load_only,
    relationship,
    with_loader_criteria,
    with_polymorphic,
)

metadata = MetaData()
Base = declarative_base(metadata=metadata)

pupil_clubs = Table(
    "pupil_clubs",
    metadata,
    Column("pupil_id", ForeignKey("pupils.id"), primary_key=True),
    Column("club_id", ForeignKey("clubs.id"), primary_key=True),
)


class Club(Base):
    __tablename__ = "clubs"
    id = Column(Integer, primary_key=True)
    name = Column(String(5))
    open = Column(Boolean)


class Mark(Base):
    __tablename__ = "marks"
    id = Column(Integer, primary_key=True)
    pupil_id = Column(ForeignKey("pupils.id"))
    subject = Column(String(5))
    value = Column(Integer)


class Pupil(Base):
    """Single-table inheritance by ``kind``, a table that refers to itself, a column made by a subquery."""

    __tablename__ = "pupils"
    id = Column(Integer, primary_key=True)
    kind = Column(String(5))
    name = Column(String(5))
    active = Column(Boolean)
    mentor_id = Column(ForeignKey("pupils.id"))

    marks = relationship(Mark, backref="pupil")
    clubs = relationship(Club, secondary=pupil_clubs, backref="pupils")
    mentor = relationship("Pupil", remote_side=id, backref="mentored")
    best = column_property(
        select(func.max(Mark.value)).where(Mark.pupil_id == id).correlate_except(Mark).scalar_subquery(),
        deferred=True,
    )
    __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "a"}  # noqa: RUF012


class Guest(Pupil):
    __mapper_args__ = {"polymorphic_identity": "b"}  # noqa: RUF012


class Thing(Base):
    """Joined inheritance."""

    __tablename__ = "things"
    id = Column(Integer, primary_key=True)
    kind = Column(String(5))
    owner_id = Column(ForeignKey("pupils.id"))
    owner = relationship(Pupil, backref="things", lazy="joined")
    __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "a"}  # noqa: RUF012


class Book(Thing):
    __tablename__ = "books"
    id = Column(ForeignKey("things.id"), primary_key=True)
    pages = Column(Integer)
    __mapper_args__ = {"polymorphic_identity": "b"}  # noqa: RUF012


configure_mappers()
TABLES: tuple[Table, ...] = tuple(metadata.sorted_tables)
SQLALCHEMY_14 = sqlalchemy.__version__.startswith("1.4")
HAS_FULL_JOIN = sqlite3.sqlite_version_info >= (3, 39)
VALUES: dict[str, tuple[Any, ...]] = {
    "int": (1, 2, 3, None),
    "str": ("a", "b", None),
    "bool": (True, False, None),
}


def kind_of(type_: Any) -> str:
    return "bool" if isinstance(type_, Boolean) else "int" if isinstance(type_, Integer) else "str"


class Term(NamedTuple):
    """A column or expression, and what kind of values it has."""

    sql: Any
    kind: str


class Tape:
    """Numbers to choose by; when they are used up, the first choice is taken, which is the simplest."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = iter(numbers)

    def upto(self, most: int) -> int:
        return next(self._numbers, 0) % (most + 1)

    def of(self, options: Sequence[Any]) -> Any:
        return options[self.upto(len(options) - 1)]

    def chance(self, one_in: int) -> bool:
        return self.upto(one_in - 1) == 1


class Maker:
    """Makes a statement."""

    def __init__(self, structure: Sequence[int], values: Sequence[int]) -> None:
        self.tape = Tape(structure)
        self.values = Tape(values)
        self.labels = 0

    def statement(self) -> Any:
        made = self.tape.of((self.core, self.core, self.core, self.entities, self.entities, self.compound))()
        return made

    # -- values and conditions -----------------------------------------------------------------------------------------

    def value(self, kind: str) -> Any:
        return self.values.of(VALUES[kind])

    def some(self, kind: str) -> Any:
        return self.values.of(VALUES[kind][:-1])

    def condition(self, own: Sequence[Term], outer: Sequence[Term], depth: int) -> Any:
        """Make a condition on own columns, perhaps compared with those of an enclosing SELECT."""
        tape = self.tape
        column = tape.of(outer if outer and tape.chance(5) else own)
        form = tape.of((*range(21), 16, 16, 17, 18))
        if form < 5:
            return column.sql == self.some(column.kind)
        if form == 5:
            return literal(self.some(column.kind), column.sql.type) == column.sql
        if form in (6, 7):
            other = tape.of([term for term in (*own, *outer) if term.kind == column.kind])
            return column.sql == other.sql
        if form == 8:
            count = self.values.upto(3)
            return column.sql.in_([self.value(column.kind) for _ in range(count)])
        if form == 9:
            return column.sql.is_(None)
        if form == 10:
            return column.sql.isnot(None)
        if form == 11:
            flags = [term for term in (*own, *outer) if term.kind == "bool"]
            if flags:
                flag = tape.of(flags).sql
                return tape.of((flag, ~flag, flag.is_(True), flag.is_(False), not_(~flag), flag == True))
            return column.sql == bindparam(None, self.value(column.kind), type_=column.sql.type)
        if form == 12:
            return or_(self.condition(own, outer, depth), self.condition(own, outer, depth))
        if form == 13:
            return and_(self.condition(own, outer, depth), self.condition(own, outer, depth))
        if form == 14:
            return not_(and_(self.condition(own, outer, depth), self.condition(own, outer, depth)))
        if form == 15 and outer:
            other = [term for term in outer if term.kind == column.kind]
            return column.sql == tape.of(other).sql if other else column.sql != self.some(column.kind)
        if form == 16 and depth:
            inner = self.select(depth - 1, [*own, *outer], most_columns=1)
            return tape.of((exists(inner), ~exists(inner), inner.exists()))
        if form == 17 and depth:
            return column.sql.in_(self.select(depth - 1, [*own, *outer], most_columns=1, kind=column.kind))
        if form == 18 and depth:
            return column.sql == self.scalar([*own, *outer], depth - 1)
        if form == 19:
            wrong = {"int": "2", "str": 2, "bool": 1}[column.kind]
            return column.sql == (wrong if column.kind != "bool" else bool(wrong))
        if form == 20 and not SQLALCHEMY_14:  # whose compiled statement does not tell the parts of a tuple
            return tuple_(column.sql, own[0].sql).in_([(self.some(column.kind), self.some(own[0].kind))])
        return column.sql != self.some(column.kind)

    def scalar(self, outer: Sequence[Term], depth: int) -> Any:
        froms, own = self.froms(outer, depth)
        column = self.tape.of(own)
        made = select(self.tape.of((func.count(), func.max(column.sql), func.min(column.sql)))).select_from(
            froms
        )
        for _ in range(self.tape.upto(2)):
            made = made.where(self.condition(own, outer, depth))
        return made.scalar_subquery()

    # -- FROM ----------------------------------------------------------------------------------------------------------

    def source(self, outer: Sequence[Term], depth: int) -> tuple[Any, list[Term]]:
        form = self.tape.upto(7)
        if form >= 6 and depth:
            inner = self.select(depth - 1, (), most_columns=3)
            if self.tape.chance(4):
                inner = union_all(inner, inner)
            made: Any = inner.subquery() if form == 6 else inner.cte()
            return made, [Term(column, kind_of(column.type)) for column in made.c]
        table = self.tape.of(TABLES)
        if form > 1 or (table in self.used):
            table = table.alias()
        else:
            self.used.append(table)
        return table, [Term(column, kind_of(column.type)) for column in table.c]

    used: list[Any]

    def froms(self, outer: Sequence[Term], depth: int) -> tuple[Any, list[Term]]:
        """Make a FROM; tables by themselves are used once, so that nothing correlates unasked."""
        made, own = self.source(outer, depth)
        for _ in range(self.tape.of((0, 0, 1, 1, 2))):
            right, more = self.source(outer, depth)
            if self.tape.chance(6):
                deeper, most = self.source(outer, depth)
                right = right.join(deeper, self.on(more, most, (), depth), isouter=self.tape.chance(2))
                more = [*more, *most]
            form = self.tape.of(("inner", "inner", "left", "left", "full"))
            on = self.on(own, more, outer if form == "inner" else (), depth)
            if form == "full" and HAS_FULL_JOIN:
                made = made.join(right, on, full=True)
            else:
                made = made.join(right, on, isouter=form != "inner")
            own = [*own, *more]
        return made, own

    def on(self, left: Sequence[Term], right: Sequence[Term], outer: Sequence[Term], depth: int) -> Any:
        column = self.tape.of(left)
        parts = [column.sql == other.sql for other in right if other.kind == column.kind][
            : 1 + self.tape.upto(1)
        ]
        while not parts or self.tape.chance(3):
            parts.append(self.condition([*left, *right], outer, min(depth, 1)))
        return and_(*parts)

    # -- statements ----------------------------------------------------------------------------------------------------

    def core(self) -> Any:
        self.used = []
        return self.select(2, (), most_columns=4)

    def select(self, depth: int, outer: Sequence[Term], *, most_columns: int, kind: str | None = None) -> Any:
        tape = self.tape
        froms, own = self.froms(outer, depth)
        offered = [term for term in own if kind in (None, term.kind)] or own
        grouped = tape.chance(5)
        columns: list[Any] = []
        for index in range(1 + tape.upto(most_columns - 1)):
            column = tape.of(offered).sql
            form = tape.upto(9) if kind is None else 0
            if grouped and index:
                column = tape.of(
                    (func.count(), func.count(column), func.max(column), func.count(column.distinct()))
                )
            elif form == 9 and depth:
                column = self.scalar([*own, *outer], depth - 1)
            elif form == 8 and not grouped:
                column = func.row_number().over(order_by=[tape.of(own).sql, *[term.sql for term in own[:2]]])
            elif form == 7:
                column = case((self.condition(own, (), 0), 1), else_=0)
            elif form == 6 and not grouped:
                column = func.count().over(partition_by=column)
            bare = any(column is term.sql for term in own) and tape.chance(2)
            columns.append(column if bare else self.labelled(column))
        if kind is None and tape.chance(6):
            counts = (func.count(), func.count(own[0].sql), func.coalesce(func.max(own[-1].sql), 0))
            columns = [self.labelled(tape.of(counts))]
            grouped = False
        made = select(*columns).select_from(froms)
        for _ in range(tape.of((0, 1, 1, 2, 3))):
            made = made.where(self.condition(own, outer, depth))
        if grouped:
            made = made.group_by(getattr(columns[0], "element", columns[0]))
            if tape.chance(2):
                made = made.having(func.count() > self.values.upto(2))
        elif tape.chance(6):
            made = made.distinct()
        if tape.chance(3):
            made = made.order_by(*[getattr(column, "element", column) for column in columns])
            made = made.limit(1 + self.values.upto(2)) if tape.chance(2) else made
        return made

    def labelled(self, column: Any) -> Any:
        self.labels += 1
        return column.label(f"c{self.labels}")

    def compound(self) -> Any:
        self.used = []
        parts = [self.select(1, (), most_columns=1) for _ in range(2)]
        joined = self.tape.of((union, union_all, except_))(*parts)
        if self.tape.chance(2):
            inner = joined.subquery()
            return select(self.tape.of((inner.c[0], func.count()))).select_from(inner)
        return joined

    def entities(self) -> Any:
        """Make a statement of mapped classes, with relationships and loader options."""
        tape, self.used = self.tape, list(TABLES)
        model = tape.of((Pupil, Pupil, Mark, Club, Thing, Book, Guest))
        entity = aliased(model) if tape.chance(4) else model
        if model is Thing and entity is Thing and tape.chance(2):
            entity = with_polymorphic(Thing, [Book])
        own = [Term(getattr(entity, name), kind) for name, kind in ATTRIBUTES[model].items()]
        made = select(entity)
        if tape.chance(5):
            made = select(*[term.sql for term in own[: 1 + tape.upto(2)]])
        elif tape.chance(4):
            made = made.options(tape.of((defer, load_only))(own[-1].sql))
        inners: list[Any] = []
        for name, target in RELATIONSHIPS[model].items():
            attribute = getattr(entity, name)
            use = tape.upto(9)
            if use == 1:
                made = made.options(joinedload(attribute, innerjoin=tape.chance(3)))
            elif use == 2:
                criterion = self.condition(
                    [Term(getattr(target, n), k) for n, k in ATTRIBUTES[target].items()], (), 0
                )
                related = attribute.property.uselist
                made = made.where((attribute.any if related else attribute.has)(criterion))
            elif use in (3, 4):
                other = aliased(target)
                made = made.join(attribute.of_type(other), isouter=use == 4)
                inners += [Term(getattr(other, n), k) for n, k in ATTRIBUTES[target].items()]
                if tape.chance(3):
                    made = made.options(contains_eager(attribute.of_type(other)))
            elif use == 5:
                criterion = self.condition(
                    [Term(getattr(target, n), k) for n, k in ATTRIBUTES[target].items()], (), 0
                )
                made = made.options(with_loader_criteria(target, criterion), joinedload(attribute))
        for _ in range(tape.of((0, 1, 1, 2))):
            made = made.where(self.condition([*own, *inners], (), 1))
        if tape.chance(3):
            made = made.order_by(own[0].sql)
            made = made.limit(1 + self.values.upto(2)) if tape.chance(2) else made
        if tape.chance(6):
            inner = made.subquery()
            return select(func.count()).select_from(inner)
        return select(exists(made)) if tape.chance(8) else made


ATTRIBUTES: dict[Any, dict[str, str]] = {
    Club: {"id": "int", "name": "str", "open": "bool"},
    Mark: {"id": "int", "pupil_id": "int", "subject": "str", "value": "int"},
    Pupil: {"id": "int", "name": "str", "active": "bool", "mentor_id": "int", "kind": "str", "best": "int"},
    Guest: {"id": "int", "name": "str", "active": "bool", "mentor_id": "int"},
    Thing: {"id": "int", "kind": "str", "owner_id": "int"},
    Book: {"id": "int", "owner_id": "int", "pages": "int"},
}
RELATIONSHIPS: dict[Any, dict[str, Any]] = {
    Club: {"pupils": Pupil},
    Mark: {"pupil": Pupil},
    Pupil: {"marks": Mark, "clubs": Club, "mentor": Pupil, "mentored": Pupil, "things": Thing},
    Guest: {"marks": Mark, "clubs": Club},
    Thing: {"owner": Pupil},
    Book: {"owner": Pupil},
}
