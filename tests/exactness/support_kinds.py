"""Tables with a column of every kind of value, and two values of each: one that a row has, one that it takes."""

from __future__ import annotations

import base64
import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import (
    CHAR,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    PickleType,
    SmallInteger,
    String,
    Text,
    Time,
    Unicode,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import declarative_base
from sqlalchemy.types import TypeDecorator

from .support_schema import fill

Base = declarative_base()
PostgresBase = declarative_base()
UTC = dt.timezone.utc
BERLIN = dt.timezone(dt.timedelta(hours=2))


class Mood(enum.Enum):
    """Names and values differ, and one name is the value of another."""

    GOOD = "fine"
    BAD = "GOOD"


class Rank(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Lowered(TypeDecorator):
    """Stores text in lower case."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.lower()


class Sealed(TypeDecorator):
    """Stores text so that only we can read it, the same text the same way each time."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else base64.b64encode(value[::-1].encode())

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else base64.b64decode(value).decode()[::-1]


class Salted(TypeDecorator):
    """Stores text so that the same text never looks the same twice: nothing can be found by it."""

    impl = String(80)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else f"{uuid.uuid4()}:{value}"

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.partition(":")[2]


class Pair(TypeDecorator):
    """A value with parts, stored as text; its Python form is a list, which cannot be hashed."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else "/".join(map(str, value))

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else [int(part) for part in value.split("/")]


class Ranked(TypeDecorator):
    """An enum stored by its number."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else int(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else Rank(value)


def _uuid_type() -> Any:
    if hasattr(sqlalchemy, "Uuid"):
        return sqlalchemy.Uuid()
    return postgresql.UUID(as_uuid=True).with_variant(UuidText(), "sqlite")


class UuidText(TypeDecorator):
    """What SQLAlchemy 1.4 lacks on SQLite."""

    impl = String(36)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else uuid.UUID(value)


class Thing(Base):
    __tablename__ = "odd_things"

    id = Column(Integer, primary_key=True)
    other = Column(String(10), nullable=False, default="same")
    flag = Column(Boolean)
    small = Column(SmallInteger)
    big = Column(BigInteger)
    ratio = Column(Float)
    price = Column(Numeric(10, 2))
    precise = Column(Numeric(20, 8))
    name = Column(String(80))
    note = Column(Text)
    label = Column(Unicode(40))
    code = Column(CHAR(6))
    nick = Column(String(20).with_variant(String(20, collation="NOCASE"), "sqlite"))
    day = Column(Date)
    at = Column(DateTime)
    zoned = Column(DateTime(timezone=True))
    clock = Column(Time)
    span = Column(Interval)
    data = Column(JSON(none_as_null=True))
    blob = Column(LargeBinary)
    mood = Column(Enum(Mood, name="odd_mood"))
    temper = Column(Enum(Mood, name="odd_temper", native_enum=False, length=10))
    word = Column(Enum("a", "b", name="odd_word"))
    uid = Column(_uuid_type())
    lowered = Column(Lowered)
    sealed = Column(Sealed)
    salted = Column(Salted)
    pair = Column(Pair)
    rank = Column(Ranked)
    pickled = Column(PickleType)
    state = Column(MutableDict.as_mutable(JSON))


class Rich(PostgresBase):
    """What only PostgreSQL has."""

    __tablename__ = "odd_riches"

    id = Column(Integer, primary_key=True)
    other = Column(String(10), nullable=False, default="same")
    numbers = Column(postgresql.ARRAY(Integer))
    words = Column(postgresql.ARRAY(String))
    grid = Column(postgresql.ARRAY(Integer, dimensions=2))
    moods = Column(postgresql.ARRAY(Enum(Mood, name="odd_moods")))
    tracked = Column(MutableList.as_mutable(postgresql.ARRAY(Integer)))
    document = Column(postgresql.JSONB)
    period = Column(postgresql.INT4RANGE)
    address = Column(postgresql.INET)
    network = Column(postgresql.CIDR)
    span = Column(postgresql.INTERVAL)
    bits = Column(postgresql.BIT(4))
    large = Column(Numeric(60, 0))
    double = Column(postgresql.DOUBLE_PRECISION)
    uuid_text = Column(postgresql.UUID(as_uuid=False))


class Kind(NamedTuple):
    """A column, the value that row 1 has, and the one that it takes."""

    column: str
    before: Any
    after: Any
    found: bool = True
    """The column can be compared with a value, which finds the row."""


KINDS = [
    Kind("flag", True, False),
    Kind("small", -7, 0),
    Kind("big", 2**63 - 1, -(2**63)),
    Kind("ratio", 0.1, 1e300),
    Kind("price", Decimal("1.10"), Decimal("99999999.99")),
    Kind("precise", Decimal("0.12500000"), Decimal("-3.00000000")),
    Kind("name", "", "null"),
    Kind("name", "x" * 80, "x" * 79 + "y"),
    Kind("note", "é", "e\u0301"),
    Kind("label", "日本語 🎉", "ß'\"%_\\:;--"),
    Kind("code", "ab", "abc"),
    Kind("nick", "Ann", "Bob"),
    Kind("day", dt.date(2024, 2, 29), dt.date(1, 1, 1)),
    Kind("at", dt.datetime(2024, 2, 29, 12, 30, 1, 5), dt.datetime(1999, 12, 31)),
    Kind("zoned", dt.datetime(2024, 3, 31, 1, tzinfo=UTC), dt.datetime(2024, 10, 27, 3, 30, tzinfo=BERLIN)),
    Kind("clock", dt.time(23, 59, 59, 999999), dt.time(0)),
    Kind("span", dt.timedelta(days=3, microseconds=7), dt.timedelta(hours=1)),
    Kind("data", {"a": [1, 2.5, None, True, "x"], "b": {}}, [], found=False),
    Kind("data", {"a": 1}, None, found=False),
    Kind("blob", b"\x00\xff", b""),
    Kind("mood", Mood.GOOD, Mood.BAD),
    Kind("temper", Mood.GOOD, Mood.BAD),
    Kind("word", "a", "b"),
    Kind("uid", uuid.UUID(int=1), uuid.UUID(int=2**127)),
    Kind("lowered", "LOUD", "Louder"),
    Kind("sealed", "secret", "other"),
    Kind("salted", "secret", "other", found=False),
    Kind("pair", [1, 2], [2, 1]),
    Kind("rank", Rank.LOW, Rank.HIGH),
    Kind("pickled", {"a": (1, {2})}, b"x", found=False),
    Kind("state", {"n": 1}, {"n": 2}, found=False),
]

RICH_KINDS = [
    Kind("numbers", [1, 2, None], []),
    Kind("words", ["a,b", "c"], ["a", "b,c"]),
    Kind("grid", [[1, 2], [3, 4]], [[1, 2]]),
    Kind("moods", [Mood.GOOD], [Mood.BAD], found=False),
    Kind("tracked", [1], [1, 2]),
    Kind("document", {"a": [1, 2]}, {"a": [2, 1]}),
    Kind("period", None, None, found=False),
    Kind("address", "10.0.0.1", "10.0.0.2"),
    Kind("network", "10.0.0.0/24", "10.0.1.0/24"),
    Kind("span", dt.timedelta(days=400, seconds=5), dt.timedelta(0)),
    Kind("large", Decimal(10**50 + 1), Decimal(10**50)),
    Kind("double", float("nan"), float("inf")),
    Kind("double", float("-inf"), -0.0),
    Kind("uuid_text", str(uuid.UUID(int=5)), str(uuid.UUID(int=6))),
]


def of_kinds(kinds: list[Kind]) -> dict[str, Any]:
    """The values that row 1 has, the first of each column."""
    values: dict[str, Any] = {}
    for kind in kinds:
        values.setdefault(kind.column, kind.before)
    return values


def furnish(connection: Connection) -> None:
    """The tables, each with a row of every value (1) and one of NULLs (2)."""
    fill(connection, Base.metadata, {Thing.__table__: [{"id": 1, **of_kinds(KINDS)}]})
    fill(connection, Base.metadata, {Thing.__table__: [{"id": 2}]})
    if connection.dialect.name == "postgresql":
        fill(connection, PostgresBase.metadata, {Rich.__table__: [{"id": 1, **of_kinds(RICH_KINDS)}]})
        fill(connection, PostgresBase.metadata, {Rich.__table__: [{"id": 2}]})
        connection.execute(text("ALTER TABLE odd_things ALTER COLUMN nick TYPE varchar(20)"))
