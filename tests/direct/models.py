"""Models of every kind that matters to a get that makes its object by itself."""

from __future__ import annotations

import datetime
import decimal
import enum
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    PickleType,
    String,
    Time,
    event,
    func,
    select,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    column_property,
    composite,
    declarative_base,
    deferred,
    reconstructor,
    relationship,
    synonym,
)
from sqlalchemy.types import TypeDecorator

Base: Any = declarative_base(metadata=MetaData())


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Short(TypeDecorator):
    """One that leaves what is loaded alone, as SQLModel's does."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        return dialect.type_descriptor(String(20))


class Loud(TypeDecorator):
    """One whose values depend on when they are loaded."""

    impl = String
    cache_ok = True
    volume = 0

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value + "!" * type(self).volume


class Person(Base):
    __tablename__ = "direct_people"
    id = Column(Integer, primary_key=True)
    name = Column(String(50))
    mail = Column("e_mail", String(50))
    active = Column(Boolean)
    height = Column(Float)
    salary = Column(Numeric(10, 2))
    born = Column(Date)
    seen = Column(DateTime)
    wakes = Column(Time)
    shift = Column(Interval)
    color = Column(Enum(Color))
    photo = Column(LargeBinary)
    nick = Column(Short)
    empty = Column(String)
    also = synonym("name")
    pets = relationship("Pet", back_populates="owner")

    @hybrid_property
    def shouted(self) -> Any:
        return self.name.upper()


class Pet(Base):
    __tablename__ = "pets"
    id = Column(Integer, primary_key=True)
    name = Column(String(50))
    owner_id = Column(ForeignKey("direct_people.id"))
    owner = relationship(Person, back_populates="pets")


class Seat(Base):
    __tablename__ = "seats"
    row = Column(Integer, primary_key=True)
    letter = Column(String(1), primary_key=True)
    taken = Column(Boolean)


class Word(Base):
    __tablename__ = "words"
    text = Column(String(20), primary_key=True)
    count = Column(Integer)


class Document(Base):
    __tablename__ = "documents"
    id = Column(Integer, primary_key=True)
    title = Column(String)
    body = deferred(Column(String))
    notes = deferred(Column(String), group="more")


class Versioned(Base):
    __tablename__ = "versioned"
    id = Column(Integer, primary_key=True)
    text = Column(String)
    version = Column(Integer, nullable=False)
    __mapper_args__: ClassVar[dict[str, Any]] = {"version_id_col": version}


class Config(Base):
    __tablename__ = "configs"
    id = Column(Integer, primary_key=True)
    value = Column(JSON)


# -- those of which no object is made without SQLAlchemy ---------------------------------------------------------------


class Watched(Base):
    __tablename__ = "watched"
    id = Column(Integer, primary_key=True)
    text = Column(String)
    loads = 0


@event.listens_for(Watched, "load")
def _count(target: Any, context: Any) -> None:
    target.loads = 1


class Reconstructed(Base):
    __tablename__ = "reconstructed"
    id = Column(Integer, primary_key=True)

    @reconstructor
    def again(self) -> None:
        self.fresh = []


class Eager(Base):
    __tablename__ = "eager"
    id = Column(Integer, primary_key=True)
    parts = relationship("Part", lazy="selectin")


class Part(Base):
    __tablename__ = "parts"
    id = Column(Integer, primary_key=True)
    of = Column(ForeignKey("eager.id"))


class Joined(Base):
    __tablename__ = "joined"
    id = Column(Integer, primary_key=True)
    person_id = Column(ForeignKey("direct_people.id"))
    person = relationship(Person, lazy="joined")


class Counted(Base):
    __tablename__ = "counted"
    id = Column(Integer, primary_key=True)
    parts = column_property(select(func.count(Part.id)).scalar_subquery())


class Animal(Base):
    __tablename__ = "animals"
    id = Column(Integer, primary_key=True)
    kind = Column(String)
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": kind, "polymorphic_identity": "animal"}


class Dog(Animal):
    __tablename__ = "dogs"
    id = Column(ForeignKey("animals.id"), primary_key=True)
    tricks = Column(Integer)
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "dog"}


@dataclass(frozen=True)
class Point:
    x: int
    y: int

    def __composite_values__(self) -> tuple[int, int]:
        return self.x, self.y


class Placed(Base):
    __tablename__ = "placed"
    id = Column(Integer, primary_key=True)
    x = Column(Integer)
    y = Column(Integer)
    at = composite(Point, x, y)


class Settings(Base):
    __tablename__ = "settings"
    id = Column(Integer, primary_key=True)
    value = Column(MutableDict.as_mutable(JSON))


class Shouting(Base):
    __tablename__ = "shouting"
    id = Column(Integer, primary_key=True)
    text = Column(Loud)


class Pickled(Base):
    __tablename__ = "pickled"
    id = Column(Integer, primary_key=True)
    value = Column(PickleType)


class Refusing(Base):
    __tablename__ = "refusing"
    id = Column(Integer, primary_key=True)
    text = deferred(Column(String), raiseload=True)


class Refreshing(Base):
    __tablename__ = "refreshing"
    id = Column(Integer, primary_key=True)
    text = Column(String)
    __mapper_args__: ClassVar[dict[str, Any]] = {"always_refresh": True}


DIRECT: dict[str, tuple[Any, Any]] = {
    "plain": (Person, 1),
    "nulls": (Person, 2),
    "relation": (Pet, 1),
    "composite-key": (Seat, (1, "a")),
    "composite-key-not-there": (Seat, (1, "z")),
    "not-there": (Person, 99),
    "string-key": (Word, "one"),
    "deferred": (Document, 1),
    "versioned": (Versioned, 1),
    "json-null": (Config, 2),
    "raiseload": (Refusing, 1),
}
"""Gets that take the short way from the third on."""

THROUGH: dict[str, tuple[Any, Any, str]] = {
    "json": (Config, 1, "values"),
    "load-event": (Watched, 1, "listeners"),
    "reconstructor": (Reconstructed, 1, "listeners"),
    "selectin": (Eager, 1, "model"),
    "joined": (Joined, 1, "model"),
    "expression": (Counted, 1, "model"),
    "polymorphic": (Animal, 1, "model"),
    "polymorphic-subclass-as-base": (Animal, 2, "model"),
    "inheriting": (Dog, 2, "model"),
    "composite-attribute": (Placed, 1, "listeners"),
    "mutable": (Settings, 1, "listeners"),
    "decorated-type": (Shouting, 1, "model"),
    "pickled": (Pickled, 1, "model"),
    "always-refresh": (Refreshing, 1, "model"),
}
"""Gets that SQLAlchemy answers, and why."""


def fill(session: Any) -> None:
    """Add a row of everything."""
    session.add_all(
        [
            Person(
                id=1,
                name="Ann",
                mail="a@b",
                active=True,
                height=1.5,
                salary=decimal.Decimal("10.50"),
                born=datetime.date(2000, 1, 2),
                seen=datetime.datetime(2020, 1, 2, 3, 4, 5, 6),
                wakes=datetime.time(7, 30),
                shift=datetime.timedelta(hours=8),
                color=Color.BLUE,
                photo=b"\x00\xff",
                nick="annie",
            ),
            Person(id=2),
            Seat(row=1, letter="a", taken=True),
            Word(text="one", count=1),
            Document(id=1, title="t", body="b", notes="n"),
            Versioned(id=1, text="v"),
            Config(id=1, value={"a": [1]}),
            Config(id=2),
            Watched(id=1, text="w"),
            Reconstructed(id=1),
            Eager(id=1, parts=[Part(id=1), Part(id=2)]),
            Counted(id=1),
            Animal(id=1),
            Dog(id=2, tricks=3),
            Placed(id=1, at=Point(1, 2)),
            Settings(id=1, value={"a": 1}),
            Shouting(id=1, text="s"),
            Pickled(id=1, value=(1, 2)),
            Refusing(id=1, text="r"),
            Refreshing(id=1, text="r"),
        ]
    )
    session.flush()
    session.add_all([Pet(id=1, name="Rex", owner_id=1), Joined(id=1, person_id=1)])
    session.commit()
