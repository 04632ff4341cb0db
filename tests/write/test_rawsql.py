"""Raw SQL is told apart by its tokens; whatever is not certain is a write."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sqlacache.write.rawsql import PURE_FUNCTIONS, classify, modifies
from sqlacache.write.sqlwords import HARMLESS_FUNCTIONS, NOT_CALLS


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "select * from users where name = 'delete from users'",
        "SELECT * FROM users;",
        "  \n SELECT 1 -- delete\n",
        "SELECT /* insert into x */ 1",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "VALUES (1), (2)",
        "TABLE users",
        "WITH t AS (SELECT 1) SELECT * FROM t",
        "WITH RECURSIVE t(n, m) AS (VALUES (1, 2) UNION ALL SELECT n + 1, m FROM t) SELECT sum(n) FROM t",
        "WITH t (n) AS NOT MATERIALIZED (SELECT 1) SELECT n FROM t",
        "SELECT count(*), COUNT (DISTINCT x), coalesce(max(a), 0) FROM t GROUP BY GROUPING SETS ((a), (b))",
        "SELECT CAST(a AS varchar(20)), b::numeric(10, 2) FROM t",
        "SELECT pg_catalog.lower(name) FROM users",
        'SELECT "update", "a ""delete"" b" FROM users',
        "SELECT * FROM users WHERE id IN (1, 2) AND EXISTS (SELECT 1) FOR UPDATE",
        "SELECT * FROM users FOR NO KEY UPDATE SKIP LOCKED",
        "SELECT 'it''s; delete' WHERE id = :id AND x = ? AND y = %(name)s AND z = $1",
        "SELECT $$ it's; delete from users $$",
        "SELECT $tag$ $$ ; drop table users $tag$",
        "SELECT E'it\\'s; delete'",
        "SELECT row_number() OVER (PARTITION BY a ORDER BY b) FROM t",
        "SELECT now(), current_timestamp, random(), gen_random_uuid(), nextval('s')",
        "SELECT version()",
        "SELECT a[1:2] FROM t",
        "SELECT data->'a' ->> 'b' FROM t WHERE data @> '{}'",
        "EXPLAIN SELECT 1",
        "EXPLAIN DELETE FROM users",
        "EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM users",
        "SHOW search_path",
        "PRAGMA table_info(users)",
        "PRAGMA main.index_list('users')",
        "PRAGMA user_version",
        "PRAGMA foreign_keys = ON",
        "PRAGMA journal_mode=WAL",
        "SET LOCAL statement_timeout = '5s'",
        "SET application_name TO 'x'",
        "LISTEN channel",
        "",
        "-- nothing",
    ],
)
def test_reads_touch_nothing(sql: str) -> None:
    assert classify(sql) == "read"


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO users VALUES (1)",
        "update users set name = 'x'",
        "DELETE FROM users",
        "MERGE INTO users USING x ON true WHEN MATCHED THEN DELETE",
        "REPLACE INTO users VALUES (1)",
        "TRUNCATE users",
        "CREATE TABLE t (id int)",
        "DROP TABLE t",
        "ALTER TABLE t ADD COLUMN x int",
        "CALL do_it()",
        "DO $$ BEGIN DELETE FROM users; END $$",
        "EXECUTE prepared",
        "COPY users FROM STDIN",
        "REFRESH MATERIALIZED VIEW v",
        "SELECT 1; DELETE FROM users",
        "SELECT * INTO copied FROM users",
        "SELECT do_something(1)",
        "SELECT audit.lower(name) FROM users",
        'SELECT "Lower"(name) FROM users',
        "SELECT x.lower(1)",
        "WITH gone AS (DELETE FROM users RETURNING *) SELECT * FROM gone",
        "WITH x AS (SELECT 1) INSERT INTO users SELECT * FROM x",
        "WITH f(x) AS (SELECT write_it(1)) SELECT * FROM f",
        "EXPLAIN ANALYZE DELETE FROM users",
        "EXPLAIN (ANALYZE) EXECUTE x",
        "SELECT @x := 5",
        "COMMIT PREPARED 'x'",
        "ROLLBACK PREPARED 'x'",
        "VACUUM users",
        "SELECT 'open",
        'SELECT "open',
        "SELECT /* open",
        "SELECT $$ open",
        "SELECT /* /* */ DELETE FROM users */ 1",
        "SELECT /*! 1; DELETE FROM users */",
        "SELECT 'a\\' ; DELETE FROM users -- '",
        "SELECT 5--1\n",
        "SELECT 1 # ' \n; DELETE FROM users -- '",
        "SELECT [it's (1]",
        "\x00SELECT 1",
        "5",
        "?",
    ],
)
def test_whatever_writes_or_is_not_certain_is_a_write(sql: str) -> None:
    assert classify(sql) == "write"


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SET search_path TO tenant", "state"),
        ("SET ROLE admin", "state"),
        ("SET SESSION AUTHORIZATION x", "state"),
        ("SET statement_timeout = 5, search_path = x", "state"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "state"),
        ("RESET ALL", "state"),
        ("DISCARD ALL", "state"),
        ("USE other", "state"),
        ("ATTACH DATABASE 'x' AS y", "state"),
        ("SELECT set_config('app.tenant', '5', true)", "state"),
        ("PRAGMA case_sensitive_like = 1", "state"),
        ("PRAGMA writable_schema(1)", "state"),
        ("BEGIN IMMEDIATE", "begin"),
        ("START TRANSACTION", "begin"),
        ("commit", "commit"),
        ("END TRANSACTION", "commit"),
        ("ROLLBACK", "rollback"),
        ("ABORT", "rollback"),
        ("ROLLBACK TO SAVEPOINT a", "rollback_to"),
        ("ROLLBACK TRANSACTION TO a", "rollback_to"),
        ("SAVEPOINT a", "savepoint"),
        ("RELEASE SAVEPOINT a", "release"),
    ],
)
def test_state_and_transactions_are_told(sql: str, kind: str) -> None:
    assert classify(sql) == kind


def test_the_dialect_settles_what_databases_disagree_about() -> None:
    assert classify("SELECT 5--1\n", "postgresql") == "read"
    assert classify("SELECT data #> '{a}' FROM t", "postgresql") == "read"
    assert classify("SELECT 'C:\\'", "sqlite") == "read"
    assert classify("SELECT [it's] FROM t", "sqlite") == "read"
    assert classify("SELECT $$ x $$", "sqlite") == "write"
    assert classify("SELECT ARRAY[lower('x'), ']']", "postgresql") == "read"
    assert classify("SELECT ARRAY[write_it('x')]", "postgresql") == "write"


def test_set_config_beside_an_unknown_function_is_a_write() -> None:
    assert classify("SELECT set_config('a', 'b', true), write_it()") == "write"


def test_a_select_may_hide_a_modification() -> None:
    assert not modifies("SELECT users.id FROM users WHERE users.name = 'x' FOR UPDATE OF users")
    assert not modifies("SELECT users.\"insert\", 'delete' FROM users")
    assert modifies("WITH x AS (INSERT INTO users VALUES (1) RETURNING id) SELECT * FROM x")
    assert modifies("SELECT 'a\\'; delete from users --'")


QUOTED = st.sampled_from(["'{}'", '"{}"', "/* {} */", "-- {}\n", "$x$ {} $x$"])
INNOCENT = st.text(st.sampled_from("abc ;()=,insert delete"), max_size=20)


@given(st.lists(st.tuples(QUOTED, INNOCENT), max_size=4))
def test_nothing_quoted_makes_a_select_a_write(parts: list[tuple[str, str]]) -> None:
    assert classify("SELECT 1 " + " ".join(quote.format(inner) for quote, inner in parts)) == "read"


@given(
    st.lists(st.tuples(QUOTED, INNOCENT), max_size=4),
    st.sampled_from(["; DELETE FROM t", "INTO t", ", f(1)"]),
)
def test_nothing_quoted_hides_a_write(parts: list[tuple[str, str]], write: str) -> None:
    before = "SELECT 1 " + " ".join(quote.format(inner) for quote, inner in parts)
    assert classify(f"{before} {write} {before[8:]}") == "write"


@given(st.text(st.sampled_from("'\"`[]$-/*#\\;eE()a1 \n:,.@"), max_size=30))
def test_any_text_is_classified_without_an_error(sql: str) -> None:
    for dialect in ("", "sqlite", "postgresql", "mysql"):
        classify(f"SELECT {sql}", dialect)


@given(st.text(st.sampled_from("'\"[]-/*\\;a \n,."), max_size=12))
def test_what_counts_as_one_read_is_no_two_statements_for_sqlite(middle: str) -> None:
    """SQLite itself is asked where the first statement ends; a read must not hide a second one."""
    sql = f"SELECT 1 {middle} ; DELETE FROM t"
    if classify(sql, "sqlite") != "read":
        return
    connection = sqlite3.connect(":memory:")
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    try:
        connection.executescript(sql)
    except sqlite3.Error:
        return
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)


def test_words_that_no_function_can_be_named_are_no_functions() -> None:
    assert not NOT_CALLS & (PURE_FUNCTIONS | HARMLESS_FUNCTIONS)
    assert not PURE_FUNCTIONS & HARMLESS_FUNCTIONS


def test_pure_functions_are_deterministic_in_sqlite() -> None:
    deterministic = 0x800
    rows = (
        sqlite3.connect(":memory:").execute("SELECT name, type, flags FROM pragma_function_list").fetchall()
    )
    assert [
        name
        for name, kind, flags in rows
        if kind == "s" and name in PURE_FUNCTIONS and not flags & deterministic
    ] == []


@pytest.mark.integration
async def test_pure_functions_are_immutable_in_postgresql(postgres_url: str) -> None:
    engine: Any = create_async_engine(postgres_url)
    async with engine.connect() as connection:
        rows = await connection.execute(
            text(
                "SELECT proname, pg_get_function_arguments(p.oid) FROM pg_proc p JOIN pg_namespace n "
                "ON n.oid = pronamespace WHERE nspname = 'pg_catalog' AND provolatile <> 'i'"
            )
        )
        changing = {(name, arguments) for name, arguments in rows if name in PURE_FUNCTIONS}
    await engine.dispose()
    assert changing == {("length", "bytea, name")}
