"""MySQL and MariaDB: what is equal there, what commits by itself, and what their catalog tells."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Enum,
    ForeignKey,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.types import CHAR

from sqlacache.canonical import Canonical, Canonicaliser, NotCanonical, Strings, canonicaliser
from sqlacache.write.catalog import Catalog, read_catalog
from sqlacache.write.catalog import ForeignKey as Key
from sqlacache.write.catalog_mysql import _strings
from sqlacache.write.catalog_triggers import written_tables
from sqlacache.write.ending import may_commit
from sqlacache.write.rawsql import classify
from tests.support.databases import MariaDBDatabases

MYSQL = mysql.dialect()
FOLDED, EXACT, NOT_PADDED = Strings(True, True, 20), Strings(False, True, 20), Strings(True, False, 20)


def text_of(type_: Any, strings: Strings | None = FOLDED) -> Canonicaliser | None:
    column = Column("c", type_)
    Table("t", MetaData(), column)
    return canonicaliser(column, MYSQL, strings=strings)


def texts(type_: Any, *values: Any, strings: Strings | None = FOLDED) -> list[str]:
    made = text_of(type_, strings)
    assert made is not None
    return [made(value) for value in values]


def refuses(type_: Any, *values: Any, strings: Strings | None = FOLDED) -> None:
    made = text_of(type_, strings)
    assert made is not None
    for value in values:
        with pytest.raises(NotCanonical):
            made(value)


# Equality


def test_strings_that_are_equal_there_have_one_text() -> None:
    assert set(texts(String(9), "Bob", "BOB", "bob ", "bob   ")) == {"bob"}
    assert texts(String(9), "Bob", "bob", "bob ", strings=EXACT) == ["Bob", "bob", "bob"]
    assert texts(String(9), "Bob", "bob ", strings=NOT_PADDED) == ["bob", "bob%20"]
    assert texts(String(9), "", "  ", "NULL", None) == ['""', '""', "%6Eull", "null"]


def test_strings_of_which_it_is_not_known_what_equals_them_have_none() -> None:
    refuses(String(9), "Böb", "b\x00b", "b\tb", 5, b"bob", "x" * 21)
    assert text_of(String(9), strings=None) is None
    assert text_of(CHAR(9)) is None


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


def test_enums_take_declared_values_only() -> None:
    assert texts(Enum(Colour), Colour.RED) == ["RED"]
    refuses(Enum("small", "large"), "Small", "small ")
    assert text_of(Enum("a", "A")) is None
    assert text_of(Enum("a", "ä")) is None


def test_integers_that_a_session_may_cut_have_no_text() -> None:
    assert texts(Integer(), -(2**31), 2**31 - 1) == [str(-(2**31)), str(2**31 - 1)]
    refuses(Integer(), 2**31, -(2**31) - 1, 1.0, True)
    refuses(SmallInteger(), 2**15)
    assert texts(BigInteger(), 2**62) == [str(2**62)]
    assert texts(mysql.INTEGER(unsigned=True), 2**32 - 1) == [str(2**32 - 1)]
    refuses(mysql.INTEGER(unsigned=True), -1)
    refuses(mysql.TINYINT(), 128)
    assert texts(Boolean(), True, 0) == ["true", "false"]


def test_a_value_is_carried_between_columns_that_compare_alike_only() -> None:
    one, other = (
        Table("one", MetaData(), Column("c", String(9))),
        Table("other", MetaData(), Column("c", String(9))),
    )
    names = {("one", "c"): FOLDED, ("other", "c"): Strings(True, True, 5)}
    assert Canonical(MYSQL, strings=names).compares_alike(one.c.c, other.c.c)
    names["other", "c"] = EXACT
    assert not Canonical(MYSQL, strings=names).compares_alike(one.c.c, other.c.c)


COLLATIONS = [
    "utf8mb4_general_ci",
    "utf8mb4_unicode_ci",
    "utf8mb4_unicode_520_ci",
    "utf8mb4_uca1400_ai_ci",
    "utf8mb4_general_nopad_ci",
    "utf8mb4_bin",
    "utf8mb4_nopad_bin",
    "utf8mb3_general_ci",
    "latin1_swedish_ci",
    "latin1_general_ci",
    "latin1_bin",
    "ascii_general_ci",
]


@pytest.mark.integration
@pytest.mark.parametrize("collation", COLLATIONS)
async def test_mariadb_agrees_on_which_strings_are_equal(collation: str, mariadb_url: str) -> None:
    """Of all pairs of printable characters, alone, before and after a letter, and of all pairs of such pairs."""
    strings = _strings(collation, 20)
    assert strings is not None
    characters = [chr(code) for code in range(32, 127)]
    values = [
        *characters,
        *(f"a{one}" for one in characters),
        *(f"{one}b" for one in characters),
        "",
        "aa",
        "ch",
        "ss",
    ]
    engine = create_async_engine(mariadb_url)
    async with engine.begin() as connection:
        kind = f"VARCHAR(9) CHARACTER SET {collation.partition('_')[0]} COLLATE {collation}"
        await connection.exec_driver_sql(f"CREATE TEMPORARY TABLE dr_equal (id INT, v {kind})")
        rows = [{"id": at, "v": value} for at, value in enumerate(values)]
        await connection.execute(text("INSERT INTO dr_equal VALUES (:id, :v)"), rows)
        await connection.exec_driver_sql("CREATE TEMPORARY TABLE dr_other SELECT * FROM dr_equal")
        found = await connection.exec_driver_sql(
            "SELECT a.id, b.id FROM dr_equal a JOIN dr_other b ON a.v = b.v"
        )
        equal = {(one, other) for one, other in found}
    await engine.dispose()
    made = texts(String(9), *values, strings=strings)
    ours = {
        (one, other) for one, left in enumerate(made) for other, right in enumerate(made) if left == right
    }
    assert [(values[one], values[other]) for one, other in equal ^ ours] == []


@pytest.mark.parametrize("collation", ["utf8mb4_danish_ci", "utf8mb4_general_cs", "sjis_japanese_ci", ""])
def test_nothing_is_assumed_of_other_collations(collation: str) -> None:
    assert _strings(collation, 20) is None


# What commits


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (id INT)",
        "create or replace view v as select 1",
        "DROP INDEX i ON t",
        "TRUNCATE t",
        "BEGIN",
        "START TRANSACTION READ ONLY",
        "LOCK TABLES t READ",
        "SET autocommit=1",
        "SET @@session.autocommit = 0",
        "SET STATEMENT x=1 FOR CREATE TABLE t (id INT)",
        "CALL p()",
        "XA COMMIT 'a'",
        "INSERT INTO t VALUES (1); COMMIT",
        "/*! COMMIT */",
        "(BEGIN)",
        "LOAD INDEX INTO CACHE t",
        "anything else",
    ],
)
def test_what_may_commit_is_told(sql: str) -> None:
    assert may_commit(sql, "mysql")
    assert not may_commit(sql, "postgresql")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "(SELECT 1) UNION (SELECT 2);",
        "INSERT INTO t VALUES (1)",
        "REPLACE t SET a = 1",
        "CREATE TEMPORARY TABLE t (id INT)",
        "DROP TEMPORARY TABLE t",
        "SET NAMES utf8mb4",
        "SET STATEMENT x=1 FOR UPDATE t SET a = 1",
        "XA START 'a'",
        "LOAD DATA INFILE 'x' INTO TABLE t",
        "SAVEPOINT a",
        "COMMIT",
        "",
    ],
)
def test_what_leaves_the_transaction_open_is_told(sql: str) -> None:
    assert not may_commit(sql, "mariadb")


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SET STATEMENT x = 1 FOR DELETE FROM t", "write"),
        ("SET STATEMENT x = 1 FOR SELECT 1", "read"),
        ("SET STATEMENT x = 1", "write"),
        ("SET @a = f()", "write"),
        ("SET @a = (SELECT f())", "write"),
        ("SET @a = 1", "state"),
        ("SET NAMES latin1", "state"),
        ("SET lock_wait_timeout = 5", "read"),
        ("XA START 'a'", "read"),
        ("XA PREPARE 'a'", "read"),
        ("XA COMMIT 'a'", "write"),
    ],
)
def test_settings_and_xa_are_told(sql: str, kind: str) -> None:
    assert classify(sql, "mysql") == kind


# Triggers


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("insert into log (what) values (new.id)", {"log"}),
        (
            "begin insert ignore into log values (1); update `app`.`b` set x = 1 where id = new.id; end",
            {"log", "app.b"},
        ),
        ("begin if new.id > 3 then set new.b = 'x'; end if; delete from log where id = old.id; end", {"log"}),
        ("insert into log values (1) on duplicate key update n = n + 1", {"log"}),
        ("set new.name = replace(new.name, 'a', 'b')", set()),
        ("replace log set what = 1", None),
        ("insert log values (1)", None),
        ("update a, b set b.x = 1 where a.id = b.id", None),
        ("update a join b on a.id = b.id set b.x = 1", None),
        ("delete a, b from a join b on a.id = b.id", None),
        ("delete from a, b using a join b on a.id = b.id", None),
        ("call p(new.id)", None),
        ("set new.a = f(new.id)", None),
    ],
)
def test_what_a_trigger_writes_is_told_or_not_known(source: str, written: set[str] | None) -> None:
    assert written_tables(source, "mysql", "users", ("id",)) == written


# The catalog


SCHEMA = [
    """CREATE TABLE parents (
        id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20), born DATE, size TINYINT, code CHAR(2),
        upper_name VARCHAR(20) AS (upper(name)) STORED,
        touched TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
        made DATETIME DEFAULT CURRENT_TIMESTAMP)""",
    """CREATE TABLE children (
        id INT PRIMARY KEY, parent_id INT, kind VARCHAR(10) COLLATE utf8mb4_bin, day DATETIME,
        danish VARCHAR(10) COLLATE utf8mb4_danish_ci,
        FOREIGN KEY (parent_id) REFERENCES parents (id) ON DELETE CASCADE)""",
    "CREATE TABLE log (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(20))",
    "CREATE TABLE plain (id INT PRIMARY KEY) ENGINE=MyISAM",
    "CREATE VIEW grown AS SELECT p.id, c.kind FROM parents p JOIN children c ON c.parent_id = p.id",
    "CREATE VIEW numbers AS SELECT id, count(*) AS n FROM log GROUP BY id",
    "CREATE TRIGGER noted AFTER INSERT ON children FOR EACH ROW INSERT INTO log (what) VALUES (new.id)",
    "CREATE FUNCTION doubled(a INT) RETURNS INT DETERMINISTIC RETURN a * 2",
    "CREATE FUNCTION noting(a INT) RETURNS INT BEGIN INSERT INTO log (what) VALUES (a); RETURN a; END",
    "CREATE PROCEDURE noting_all() INSERT INTO log (what) VALUES ('all')",
]


def application(metadata: MetaData) -> list[Table]:
    """The tables as an application may have mapped them, partly otherwise than they are."""
    return [
        Table(
            "parents",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("name", String(20)),
            Column("born", Date),
            Column("size", Integer),
        ),
        Table(
            "children",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("parent_id", ForeignKey("parents.id")),
            Column("day", Date),
        ),
    ]


@pytest_asyncio.fixture
async def catalog(mariadb_databases: MariaDBDatabases) -> AsyncIterator[Catalog]:
    async with mariadb_databases.empty() as url:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            for statement in SCHEMA:
                await connection.exec_driver_sql(statement)
            yield await connection.run_sync(lambda sync: read_catalog(sync, application(MetaData())))
        await engine.dispose()


@pytest.mark.integration
async def test_what_mariadb_does_by_itself_is_read(catalog: Catalog) -> None:
    assert catalog.unreadable == ()
    (trigger,) = catalog.triggers["children"]
    assert (trigger.name, trigger.timing, trigger.events) == ("noted", "after", {"insert"})
    assert trigger.writes == {"log"}
    assert Key("children", ("parent_id",), "parents", ("id",), "CASCADE", "RESTRICT") in catalog.foreign_keys
    assert catalog.generated == {"parents": {"upper_name", "touched"}}
    assert catalog.views == {"grown", "numbers", "plain"}
    assert catalog.selects_from == {"grown": {"parents", "children"}}
    assert catalog.functions["doubled"] == "stable"
    assert catalog.functions["noting"] == "volatile"
    assert "noting_all" not in catalog.functions
    assert {"concat", "date_add", "year", "count", "lower"} <= catalog.built_in


@pytest.mark.integration
async def test_how_mariadb_compares_columns_is_read(catalog: Catalog) -> None:
    assert catalog.strings["parents", "name"] == Strings(True, True, 20)
    assert catalog.strings["children", "kind"] == Strings(False, True, 10)
    assert ("children", "danish") not in catalog.strings
    assert ("parents", "code") not in catalog.strings
    assert catalog.inexact == {("parents", "size"), ("children", "day")}
