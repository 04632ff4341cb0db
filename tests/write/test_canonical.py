"""Canonical text: equal for two values exactly when the database finds them equal, or none at all."""

from __future__ import annotations

import datetime
import enum
import uuid
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import (
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
    MetaData,
    Numeric,
    PickleType,
    SmallInteger,
    String,
    Table,
    Text,
    Time,
    Unicode,
    create_engine,
    literal,
    select,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import func
from sqlalchemy.types import CHAR, NCHAR, TypeDecorator, UserDefinedType

from sqlacache.canonical import LONGEST, Canonical, Canonicaliser, NotCanonical, canonicaliser, same_type

SQLITE, POSTGRESQL, MYSQL = sqlite.dialect(), asyncpg.dialect(), mysql.dialect()
SQLITE_AND_POSTGRESQL = pytest.mark.parametrize("dialect", [SQLITE, POSTGRESQL], ids=lambda d: d.name)


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class LowerCase(TypeDecorator):
    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value if value is None else value.lower()


class Squared(TypeDecorator):
    """Rendered with SQL around the value, so that what is compared is not what was sent."""

    impl = Integer
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.abs(bindvalue, type_=Integer)


class Guid(TypeDecorator):
    """The recipe that SQLAlchemy's documentation had before there was a type for it."""

    impl = CHAR
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        native = dialect.name == "postgresql"
        return dialect.type_descriptor(postgresql.UUID() if native else CHAR(32))

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value if value is None else str(value) if dialect.name == "postgresql" else value.hex


class CaseInsensitive(String):
    """A subclass of a user's: nobody knows what column it makes."""


@compiles(CaseInsensitive)
def _citext(type_: Any, compiler: Any, **kw: Any) -> str:
    return "CITEXT"


class Point(UserDefinedType):
    def get_col_spec(self, **kw: Any) -> str:
        return "POINT"


def text_of(type_: Any, dialect: Any = SQLITE, **options: Any) -> Canonicaliser | None:
    column = Column("c", type_)
    Table("t", MetaData(), column)
    return canonicaliser(column, dialect, **options)


def texts(type_: Any, *values: Any, dialect: Any = SQLITE) -> list[str]:
    text = text_of(type_, dialect)
    assert text is not None
    return [text(value) for value in values]


def refuses(type_: Any, *values: Any, dialect: Any = SQLITE) -> None:
    text = text_of(type_, dialect)
    assert text is not None
    for value in values:
        with pytest.raises(NotCanonical):
            text(value)


@pytest.mark.parametrize(
    "type_",
    [
        Numeric(),
        Float(),
        DateTime(),
        Time(),
        Interval(),
        JSON(),
        LargeBinary(),
        PickleType(),
        CHAR(3),
        NCHAR(3),
        String(collation="NOCASE"),
        String(collation="de_DE"),
        CaseInsensitive(),
        Point(),
        Squared(),
    ],
    ids=repr,
)
@SQLITE_AND_POSTGRESQL
def test_types_whose_equality_is_not_pythons_are_not_narrowed(type_: Any, dialect: Any) -> None:
    assert text_of(type_, dialect) is None


def test_types_of_postgresql_with_an_equality_of_their_own_are_not_narrowed() -> None:
    for type_ in [postgresql.ARRAY(Integer), postgresql.JSONB(), postgresql.INET(), postgresql.INT4RANGE()]:
        assert text_of(type_, POSTGRESQL) is None
    if hasattr(postgresql, "CITEXT"):
        assert text_of(postgresql.CITEXT(), POSTGRESQL) is None


@pytest.mark.parametrize("type_", [Integer(), SmallInteger(), BigInteger()], ids=repr)
def test_integers_take_exact_integers_only(type_: Any) -> None:
    assert texts(type_, 42, -1, None) == ["42", "-1", "null"]
    # SQLite finds '1', 1.0 and True equal to 1; what is stored for them is another matter.
    refuses(type_, "1", 1.0, True, Decimal(1), literal(1), b"1")


@SQLITE_AND_POSTGRESQL
def test_booleans_read_the_same_as_stored(dialect: Any) -> None:
    assert texts(Boolean(), True, 1, False, 0, None, dialect=dialect) == [
        "true",
        "true",
        "false",
        "false",
        "null",
    ]
    refuses(Boolean(), "true", 2, "1", dialect=dialect)


@SQLITE_AND_POSTGRESQL
def test_dates_are_not_datetimes(dialect: Any) -> None:
    assert texts(Date(), datetime.date(2024, 2, 29), dialect=dialect) == ["2024-02-29"]
    refuses(Date(), "2024-02-29", 20240229, dialect=dialect)
    refuses(Date(), datetime.datetime(2024, 2, 29, 1), dialect=POSTGRESQL)


def test_a_date_in_sqlite_is_the_text_that_is_stored() -> None:
    assert texts(
        sqlite.DATE(storage_format="%(day)02d.%(month)02d.%(year)04d"), datetime.date(2024, 2, 29)
    ) == ["29.02.2024"]


@SQLITE_AND_POSTGRESQL
def test_enums_read_as_the_database_has_them(dialect: Any) -> None:
    assert texts(Enum(Colour), Colour.RED, "RED", None, dialect=dialect) == ["RED", "RED", "null"]
    assert texts(Enum("a", "b", name="ab"), "a", dialect=dialect) == ["a"]
    refuses(Enum(Colour), 5, Decimal(1), dialect=dialect)


UUID = uuid.UUID("2e8587d3-b570-4c5e-9f3a-0123456789ab")
UUIDS: list[Any] = [postgresql.UUID(as_uuid=True), postgresql.UUID(as_uuid=False)]
if hasattr(sqlalchemy, "Uuid"):
    UUIDS += [sqlalchemy.Uuid(), sqlalchemy.Uuid(as_uuid=False)]


@pytest.mark.parametrize("type_", UUIDS, ids=repr)
def test_a_native_uuid_reads_the_same_in_every_spelling(type_: Any) -> None:
    values = [UUID] if getattr(type_, "as_uuid", True) else [str(UUID), str(UUID).upper(), UUID.hex]
    assert set(texts(type_, *values, dialect=POSTGRESQL)) == {str(UUID)}
    refuses(type_, "not a uuid", 5, dialect=POSTGRESQL)


@pytest.mark.skipif(not hasattr(sqlalchemy, "Uuid"), reason="SQLAlchemy 1.4 has no type for UUIDs everywhere")
def test_a_uuid_stored_as_text_takes_its_one_usual_spelling_only() -> None:
    assert texts(sqlalchemy.Uuid(), UUID) == [str(UUID)]
    assert texts(sqlalchemy.Uuid(as_uuid=False), str(UUID), UUID.hex) == [str(UUID)] * 2
    refuses(sqlalchemy.Uuid(as_uuid=False), str(UUID).upper(), f"{{{UUID}}}")
    assert texts(sqlalchemy.Uuid(native_uuid=False), UUID, dialect=POSTGRESQL) == [str(UUID)]


def test_a_decorator_is_narrowed_by_what_it_makes_for_the_dialect() -> None:
    assert texts(Guid(), UUID, dialect=POSTGRESQL) == [str(UUID)]
    assert text_of(Guid(), SQLITE) is None
    assert texts(LowerCase(), "ABC", "abc") == ["abc", "abc"]
    refuses(LowerCase(), 5)


def test_a_variant_counts_as_the_type_it_is_on_the_dialect() -> None:
    varying = String().with_variant(CHAR(5), "postgresql")
    assert texts(varying, "a", dialect=SQLITE) == ["a"]
    assert text_of(varying, POSTGRESQL) is None
    assert texts(Integer().with_variant(BigInteger(), "postgresql"), 7, dialect=POSTGRESQL) == ["7"]


@pytest.mark.parametrize("type_", [String(), String(20), Text(), Unicode(), String(collation="C")], ids=repr)
@SQLITE_AND_POSTGRESQL
def test_strings_are_escaped_so_that_composites_cannot_collide(type_: Any, dialect: Any) -> None:
    made = texts(type_, "abc", "a,b=c", "a:b?c&d", "*", "50%", "", "null", None, "'\"#", dialect=dialect)
    assert made[:3] == ["abc", "a%2Cb%3Dc", "a%3Ab%3Fc%26d"]
    assert made[5:8] == ['""', "%6Eull", "null"]
    assert len(set(made)) == len(made)
    refuses(type_, 5, b"abc", "nul\0", "\ud800", dialect=dialect)


def test_strings_are_narrowed_only_where_bytes_decide() -> None:
    assert text_of(String(), MYSQL) is None
    assert text_of(String(), SQLITE, binary_strings=False) is None
    assert text_of(String(), mysql.dialect(), binary_strings=True) is None


def test_a_string_that_postgresql_may_cut_is_refused() -> None:
    # 'abc   ' is stored as 'abc' in a varchar(3): the excess is spaces.
    refuses(String(3), "abc   ", dialect=POSTGRESQL)
    assert texts(String(3), "abc   ", dialect=SQLITE) == ["abc%20%20%20"]


@given(st.text(), st.text())
@example("ü" * 40, "ü" * 41)
@example("x" * 500, "x" * 499 + "y")
@example("null", "NULL")
def test_text_is_bounded_and_distinct_values_stay_distinct(one: str, other: str) -> None:
    text = text_of(String())
    assert text is not None
    try:
        first, second = text(one), text(other)
    except NotCanonical:
        return
    assert len(first) <= LONGEST
    assert (first == second) is (one == other)
    assert not set(first) & set(",=:?&*'\\ \n")
    assert first != "null"


@given(
    st.one_of(
        st.none(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.text(), st.floats(allow_nan=False)
    )
)
def test_sqlite_agrees_on_what_is_equal(value: Any) -> None:
    """Every value that has a text is found by exactly the values with the same text."""
    metadata = MetaData()
    table = Table("t", metadata, Column("i", Integer), Column("s", String), Column("b", Boolean))
    engine = create_engine("sqlite://", future=True)
    metadata.create_all(engine)
    canonical = Canonical(engine.dialect)
    candidates: list[Any] = [1, 0, True, "1", "0", "", "a", "A", "a "]
    candidates += [] if value is None else [value]
    with engine.connect() as connection:
        for column in table.c:
            text = canonical.of(column)
            assert text is not None
            known = {}
            for candidate in candidates:
                try:
                    known[repr(candidate)] = (candidate, text(candidate))
                except NotCanonical:
                    continue
            if value is None or repr(value) not in known:
                continue
            connection.execute(table.delete())
            connection.execute(table.insert().values({column.key: value}))
            for candidate, made in known.values():
                found = connection.execute(select(column).where(column == candidate)).all()
                assert bool(found) is (made == known[repr(value)][1]), (column, value, candidate)
    engine.dispose()


def test_a_column_that_the_database_declares_otherwise_is_not_narrowed() -> None:
    table = Table("users", MetaData(schema="app"), Column("email", String), Column("name", String))
    canonical = Canonical(SQLITE, inexact={("app.users", "email")})
    assert canonical.of(table.c.email) is None
    assert canonical.of(table.c.name) is not None
    assert canonical.of(table.alias().c.email) is None


def test_a_column_is_prepared_once_and_an_aliass_column_is_the_tables() -> None:
    table = Table("users", MetaData(), Column("name", String))
    canonical = Canonical(SQLITE)
    assert canonical.of(table.c.name) is canonical.of(table.c.name)
    assert canonical.of(table.alias().c.name) is canonical.of(table.c.name)
    assert canonical.of(select(func.max(table.c.name).label("name")).subquery().c.name) is None


def test_a_parameter_of_another_type_than_the_column_is_not_compared_as_the_column_is() -> None:
    table = Table("users", MetaData(), Column("id", Integer), Column("day", Date), Column("name", String(5)))
    canonical = Canonical(SQLITE)
    assert canonical.compared(table.c.id, (table.c.id == 5).right) is not None
    assert canonical.compared(table.c.id, (table.c.id == "5").right) is None
    assert canonical.compared(table.c.day, (table.c.day == datetime.datetime(2024, 2, 29)).right) is None
    assert canonical.compared(table.c.name, (table.c.name == "x").right) is not None


def test_two_types_are_the_same_only_if_they_are_made_alike() -> None:
    decorated = LowerCase()
    assert same_type(Integer(), Integer())
    assert same_type(decorated, decorated)
    assert not same_type(decorated, LowerCase())
    assert not same_type(Integer(), BigInteger())
    assert not same_type(String(5), String(6))
    assert not same_type(Enum("a"), Enum("b"))


def test_what_a_bind_processor_raises_is_not_canonical() -> None:
    class Fails(TypeDecorator):
        impl = Integer
        cache_ok = True

        def process_bind_param(self, value: Any, dialect: Any) -> Any:
            raise RuntimeError("no")

    refuses(Fails(), 5)


def test_only_values_that_are_sent_and_returned_as_they_are_count_as_the_very_same() -> None:
    class Folded(TypeDecorator[str]):
        impl = String
        cache_ok = True

    kinds: dict[str, Any] = {
        "integer": Integer(),
        "string": String(),
        "enum": Enum("a", "b"),
        "decorated": Folded(),
        "decimal": Numeric(10, 2),
        "boolean": Boolean(),
    }
    table = Table("raw", MetaData(), *(Column(name, kind) for name, kind in kinds.items()))
    for dialect in (sqlite.dialect(), asyncpg.dialect()):
        canonical = Canonical(dialect)
        for _ in range(2):  # the second time remembered
            assert {name for name in kinds if canonical.is_raw(table.c[name])} == {"integer", "string"}
