"""What each driver returns is stored and comes back exactly: type, value and description; or it is not stored."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from sqlalchemy import Column, Integer, LargeBinary, select
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import ARRAY, INT4RANGE, TSTZRANGE
from sqlalchemy.orm import declarative_base

from sqlacache.errors import SerializationError
from sqlacache.store.codec import SafeCodec
from sqlacache.store.values import _foreign_class
from tests.store.samples import same
from tests.store.test_driver_values import POSTGRESQL, SQLITE
from tests.support.databases import Database
from tests.support.reading import Reader
from tests.support.reads import entities, get

MARIADB = [
    "SET SESSION sql_mode = ''",
    "SET SESSION time_zone = '+00:00'",
    """CREATE TABLE dr_values (
      b BIT(9), bit1 BIT(1), bool1 BOOL, tiny TINYINT, tiny_u TINYINT UNSIGNED, small SMALLINT, medium MEDIUMINT, i INT,
      i_u INT UNSIGNED, zero INT(8) ZEROFILL, big BIGINT, big_u BIGINT UNSIGNED, f FLOAT, d DOUBLE, n DECIMAL(30, 10),
      y YEAR, dt DATE, t TIME, t6 TIME(6), ts TIMESTAMP NULL, dtm DATETIME, dtm6 DATETIME(6), c CHAR(5), v VARCHAR(20),
      l VARCHAR(20) CHARACTER SET latin1, tx TEXT, bin BINARY(4), vb VARBINARY(4), bl BLOB, e ENUM('a', 'b'),
      s SET('x', 'y', 'z'), j JSON, u UUID, i6 INET6, g POINT)""",
    """INSERT INTO dr_values VALUES (
      b'101000001', b'1', TRUE, -128, 255, -32768, 8388607, -2147483648, 4294967295, 42, -9223372036854775808,
      18446744073709551615, 1.5, 1.7976931348623157e308, -12345678901234567890.0123456789, 2024, '2024-02-29',
      '-838:59:59', '12:30:01.000001', '2024-02-29 12:30:01', '1000-01-01', '9999-12-31 23:59:59.999999', 'ab', 'ü😀 ',
      'ü', 'long', 'a', 'b', x'00ff', 'b', 'x,z', '{"a": [1, null]}', '12345678-1234-5678-9234-567812345678', '::1',
      POINT(1, 2))""",
    """INSERT INTO dr_values (y, dt, t, ts, dtm, e, s, v)
      VALUES ('0000', '0000-00-00', '00:00:00', '0000-00-00', '2024-00-31', 'wrong', '', '')""",
]
FROM_MARIADB = (
    "SELECT *, NULL, 1 = 1, 0x41, 1.50, '', CURRENT_DATE IS NULL, 1e0, COUNT(*) OVER () FROM dr_values"
)


async def returned(database: Database, sql: str, *before: str) -> tuple[Any, Any]:
    """Description and rows as SQLAlchemy's cursor has them, before any result processor."""

    def run(connection: Any) -> tuple[Any, Any]:
        for statement in before:
            connection.exec_driver_sql(statement)
        cursor = connection.exec_driver_sql(sql).cursor
        return cursor.description, cursor.fetchall()

    async with database.truth_engine.connect() as connection:
        found: tuple[Any, Any] = await connection.run_sync(run)
        return found


def question(database: Database, driver: str) -> tuple[str, ...]:
    """A statement that returns a value of every type there is, and those to be executed before it."""
    if database.dialect == "sqlite":
        return (SQLITE,)
    if database.dialect == "mariadb":
        return (FROM_MARIADB, *MARIADB)
    if driver.endswith("psycopg"):  # which refuses to return what Python has no value for
        return (POSTGRESQL.replace("infinity", "2024-02-29").replace("'-2024", "'2024"),)
    return (POSTGRESQL,)


def parts(value: Any) -> Any:
    """What a range is made of: those of psycopg2 find two equal whose members are of different types."""
    names = ("lower", "upper", "lower_inc", "upper_inc", "isempty")
    if type(value).__name__ == "Multirange":
        return [parts(one) for one in value]
    if all(hasattr(value, name) for name in names):
        return [type(value), *(getattr(value, name) for name in names)]
    if isinstance(value, memoryview):
        return [value.format, value.readonly, value.tobytes()]
    return value


async def test_every_type_comes_back_exactly(database: Database, driver: str) -> None:
    description, found = await returned(database, *question(database, driver))
    assert len(found[0]) > (50 if database.dialect == "postgresql" else 8)
    codec = SafeCodec()
    stored = codec.decode_rows(codec.encode_rows(description, [tuple(row) for row in found]))
    assert same(stored.description, tuple(map(tuple, description)))
    pairs = [pair for both in zip(found, stored.rows) for pair in zip(*both)]
    assert [pair for pair in pairs if not same(*map(parts, pair))] == []
    assert [type(one) for one, _ in pairs] == [type(other) for _, other in pairs]


MULTIRANGE = (
    "select '{[1,2),[5,6)}'::int4multirange, int8range(null, 5), '{}'::int4multirange, int4range(null, null)"
)


async def test_ranges_of_ranges_come_back_exactly(database: Database) -> None:
    if database.dialect != "postgresql":
        pytest.skip("PostgreSQL alone has them")
    description, found = await returned(database, MULTIRANGE)
    codec = SafeCodec()
    stored = codec.decode_rows(codec.encode_rows(description, [tuple(row) for row in found]))
    assert same([parts(value) for value in stored.rows[0]], [parts(value) for value in found[0]])


def test_stored_bytes_of_a_driver_that_is_not_loaded_do_not_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from psycopg2._range import NumericRange

    codec = SafeCodec()
    stored = codec.encode_rows([("r", None)], [(NumericRange(1, 5),)])
    monkeypatch.delitem(sys.modules, "psycopg2._range")
    _foreign_class.cache_clear()
    with pytest.raises(SerializationError, match="not loaded"):
        codec.decode_rows(stored)
    assert "psycopg2._range" not in sys.modules


Base = declarative_base()


class OnSQLite(Base):
    """Types in which processors of the dialect or of the driver have a hand."""

    __tablename__ = "dr_on_sqlite"

    id = Column(Integer, primary_key=True)
    data = Column(LargeBinary)


class OnMariaDB(Base):
    __tablename__ = "dr_on_mariadb"

    id = Column(Integer, primary_key=True)
    data = Column(LargeBinary)
    bits = Column(mysql.BIT(9))
    year = Column(mysql.YEAR)
    time = Column(mysql.TIME(fsp=6))


class OnPostgreSQL(Base):
    __tablename__ = "dr_on_postgresql"

    id = Column(Integer, primary_key=True)
    data = Column(LargeBinary)
    range = Column(INT4RANGE)
    zoned = Column(TSTZRANGE)
    array = Column(ARRAY(Integer))


TYPED: dict[str, tuple[Any, str]] = {
    "sqlite": (OnSQLite, "1, x'00ff'"),
    "mariadb": (OnMariaDB, "1, x'00ff', 257, 2024, '-01:00:00.5'"),
    "postgresql": (OnPostgreSQL, "1, '\\x00ff', '[1,5)', '[2024-01-01 00:00+00,)', '{1,2}'"),
}


async def test_a_hit_has_the_types_and_values_that_the_database_gives(reader: Reader) -> None:
    model, values = TYPED[reader.database.dialect]
    async with reader.database.truth_engine.begin() as connection:
        await connection.run_sync(model.__table__.create)
        await connection.exec_driver_sql(f"INSERT INTO {model.__tablename__} VALUES ({values})")
    await reader.warm(get(model, 1), entities(lambda: select(model)))
