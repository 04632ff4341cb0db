"""What the database does by itself is read from it, and followed from table to table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import (
    Column,
    Computed,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    text,
)
from sqlalchemy.ext.asyncio import create_async_engine

from sqlacache.write import catalog_mysql, catalog_queries
from sqlacache.write.catalog import Cascade, Catalog, cascades, metadata_foreign_keys, read_catalog
from sqlacache.write.catalog import ForeignKey as Key
from sqlacache.write.rawsql import classify


def table(metadata: MetaData, name: str, *columns: Any, **options: Any) -> Table:
    return Table(name, metadata, Column("id", Integer, primary_key=True), *columns, **options)


def parts(
    found: tuple[Cascade, ...],
) -> set[tuple[str, str, str, frozenset[str] | None, frozenset[str] | None]]:
    return {(one.on, one.table, one.op, one.columns, one.triggered_by) for one in found}


# Foreign keys


def test_a_delete_follows_foreign_keys_through_several_tables() -> None:
    metadata = MetaData()
    table(metadata, "users")
    table(metadata, "orders", Column("user_id", ForeignKey("users.id", ondelete="CASCADE")))
    table(metadata, "lines", Column("order_id", ForeignKey("orders.id", ondelete="cascade")))
    table(metadata, "notes", Column("line_id", ForeignKey("lines.id", ondelete="SET NULL")))
    table(metadata, "logs", Column("user_id", ForeignKey("users.id")))
    found = cascades(metadata.tables.values())
    assert parts(found["users"]) == {
        ("delete", "orders", "delete", None, None),
        ("delete", "lines", "delete", None, None),
        ("delete", "notes", "update", frozenset({"line_id"}), None),
    }
    assert parts(found["orders"]) == {
        ("delete", "lines", "delete", None, None),
        ("delete", "notes", "update", frozenset({"line_id"}), None),
    }
    assert found.keys() == {"users", "orders", "lines"}
    (direct,) = [one for one in found["users"] if one.table == "orders"]
    assert direct.by == (("user_id", "id"),)
    assert {one.by for one in found["users"] if one.table != "orders"} == {()}


def test_an_update_follows_only_the_columns_that_are_referred_to() -> None:
    metadata = MetaData()
    table(metadata, "users", Column("code", String, unique=True), Column("name", String))
    table(metadata, "orders", Column("code", ForeignKey("users.code", onupdate="CASCADE"), unique=True))
    table(metadata, "lines", Column("code", ForeignKey("orders.code", onupdate="SET NULL")))
    found = cascades(metadata.tables.values())
    assert parts(found["users"]) == {
        ("update", "orders", "update", frozenset({"code"}), frozenset({"code"})),
        ("update", "lines", "update", frozenset({"code"}), frozenset({"code"})),
    }


def test_set_null_may_set_off_an_update_further_on() -> None:
    metadata = MetaData()
    table(metadata, "a")
    table(metadata, "b", Column("a_id", ForeignKey("a.id", ondelete="SET NULL"), unique=True))
    table(metadata, "c", Column("a_id", ForeignKey("b.a_id", onupdate="CASCADE")))
    assert parts(cascades(metadata.tables.values())["a"]) == {
        ("delete", "b", "update", frozenset({"a_id"}), None),
        ("delete", "c", "update", frozenset({"a_id"}), None),
    }


def test_tables_that_refer_to_themselves_and_in_circles_end() -> None:
    metadata = MetaData()
    table(metadata, "nodes", Column("up", ForeignKey("nodes.id", ondelete="CASCADE", onupdate="CASCADE")))
    table(metadata, "a", Column("b_id", ForeignKey("b.id", ondelete="CASCADE")))
    table(metadata, "b", Column("a_id", ForeignKey("a.id", ondelete="CASCADE")))
    found = cascades(metadata.tables.values())
    assert ("delete", "nodes", "delete", None, None) in parts(found["nodes"])
    assert ("update", "nodes", "update", frozenset({"up"}), frozenset({"id"})) in parts(found["nodes"])
    assert parts(found["a"]) == {("delete", "b", "delete", None, None), ("delete", "a", "delete", None, None)}


def test_composite_keys_name_every_column_and_computed_columns_follow() -> None:
    metadata = MetaData()
    Table(
        "seats",
        metadata,
        Column("row", Integer, primary_key=True),
        Column("place", Integer, primary_key=True),
    )
    table(
        metadata,
        "tickets",
        Column("row_no", Integer),
        Column("place_no", Integer),
        Column("label", String, Computed("row_no || '-' || place_no")),
        Column("other", String, Computed("id || ''")),
        ForeignKeyConstraint(["row_no", "place_no"], ["seats.row", "seats.place"], ondelete="SET NULL"),
    )
    (one,) = cascades(metadata.tables.values())["seats"]
    assert one.columns == {"row_no", "place_no", "label"}
    assert one.by == (("row_no", "row"), ("place_no", "place"))


def test_the_databases_foreign_keys_count_beside_the_metadatas() -> None:
    metadata = MetaData()
    table(metadata, "users")
    table(metadata, "orders", Column("user_id", ForeignKey("users.id")))
    assert cascades(metadata.tables.values()) == {}
    found = cascades(metadata.tables.values(), [Key("orders", ("user_id",), "users", ("id",), "CASCADE", "")])
    assert parts(found["users"]) == {("delete", "orders", "delete", None, None)}


def test_a_foreign_key_to_a_table_that_the_metadata_lacks_is_kept_by_name() -> None:
    metadata = MetaData()
    orders = table(metadata, "orders", Column("user_id", ForeignKey("app.users.id", ondelete="CASCADE")))
    assert list(metadata_foreign_keys([orders])) == [
        Key("orders", ("user_id",), "app.users", ("id",), "CASCADE", "")
    ]


# SQLite


@pytest.fixture
def sqlite_catalog() -> Callable[..., Catalog]:
    def read(script: str, *tables: Table) -> Catalog:
        engine = create_engine("sqlite://", future=True)
        with engine.connect() as connection:
            connection.connection.cursor().executescript(script)
            found = read_catalog(connection, tables)
        engine.dispose()
        return found

    return read


def test_sqlite_tells_its_triggers(sqlite_catalog: Any) -> None:
    found = sqlite_catalog(
        """
        CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, plan TEXT);
        CREATE TABLE log (what TEXT);
        CREATE VIEW v AS SELECT * FROM users;
        CREATE TRIGGER plain AFTER INSERT ON users BEGIN INSERT INTO log VALUES ('insert'); END;
        CREATE TRIGGER "on update" BEFORE UPDATE OF name, "plan" ON users BEGIN DELETE FROM log; END;
        CREATE TRIGGER IF NOT EXISTS untimed DELETE ON users BEGIN SELECT 1; END;
        CREATE TRIGGER on_view INSTEAD OF INSERT ON v BEGIN INSERT INTO users (name) VALUES (new.name); END;
        """
    )
    assert found.unreadable == ()
    told = {one.name: (one.timing, set(one.events), one.columns) for one in found.triggers["users"]}
    assert told == {
        "plain": ("after", {"insert"}, None),
        "on update": ("before", {"update"}, {"name", "plan"}),
        "untimed": ("after", {"delete"}, None),
    }
    assert found.triggers["v"][0].timing == "instead"
    assert "INSERT INTO log" in next(one.sql for one in found.triggers["users"] if one.name == "plain")
    assert found.views == {"v"}


def test_sqlite_tells_its_foreign_keys(sqlite_catalog: Any) -> None:
    found = sqlite_catalog(
        """
        CREATE TABLE Users (id INTEGER PRIMARY KEY, a INT, b INT, UNIQUE (a, b));
        CREATE TABLE orders (
            id INTEGER PRIMARY KEY,
            user_id INTEGER REFERENCES users ON DELETE CASCADE ON UPDATE SET NULL,
            a INT, b INT, FOREIGN KEY (a, b) REFERENCES Users (a, b) ON DELETE SET NULL
        );
        """
    )
    assert set(found.foreign_keys) == {
        Key("orders", ("user_id",), "Users", ("id",), "CASCADE", "SET NULL"),
        Key("orders", ("a", "b"), "Users", ("a", "b"), "SET NULL", "NO ACTION"),
    }


def test_sqlite_tells_columns_whose_strings_are_not_compared_by_bytes(sqlite_catalog: Any) -> None:
    mapped = Table(
        "t",
        MetaData(),
        Column("numeric", String),
        Column("odd", Enum("1", "01")),
        Column("blob", String),
        Column("number", Integer),
    )
    found = sqlite_catalog(
        """
        CREATE TABLE t (
            plain VARCHAR(5) COLLATE BINARY,
            nocase VARCHAR(5) NOT NULL COLLATE NOCASE DEFAULT 'collate rtrim',
            "quoted name" TEXT COLLATE "rtrim",
            numeric NUMERIC, odd STRING, blob, number NUMERIC, last TEXT,
            CHECK (plain COLLATE NOCASE <> 'x'),
            UNIQUE (last COLLATE NOCASE)
        );
        CREATE TABLE u (a TEXT COLLATE /* NOCASE */ BINARY, b TEXT COLLATE NOCASE);
        CREATE TABLE none (a TEXT DEFAULT 'COLLATE NOCASE', "collate" TEXT);
        """,
        mapped,
    )
    assert found.unreadable == ()
    assert found.inexact == {
        ("t", "nocase"),
        ("t", "quoted name"),
        ("t", "numeric"),
        ("t", "odd"),
        ("u", "b"),
    }


def test_sqlite_tells_generated_columns_replacing_and_virtual_tables(sqlite_catalog: Any) -> None:
    found = sqlite_catalog(
        """
        CREATE TABLE t (a INT, b INT AS (a + 1), c INT GENERATED ALWAYS AS (a * 2) STORED);
        CREATE TABLE r (a INT UNIQUE ON CONFLICT REPLACE);
        CREATE TABLE i (a INT UNIQUE ON CONFLICT IGNORE);
        CREATE VIRTUAL TABLE f USING fts5(a);
        """
    )
    assert found.generated == {"t": {"b", "c"}}
    assert found.replaces == {"r"}
    assert found.views == {"f"}


def test_sqlite_names_tables_of_attached_databases_by_schema(sqlite_catalog: Any) -> None:
    mapped = Table("t", MetaData(schema="main"), Column("id", Integer))
    found = sqlite_catalog(
        """
        ATTACH ':memory:' AS "other one";
        CREATE TABLE "other one".t (id INTEGER PRIMARY KEY, b INT AS (id));
        CREATE TABLE t (id INTEGER PRIMARY KEY, b INT AS (id));
        """,
        mapped,
    )
    assert found.generated == {"main.t": {"b"}, "other one.t": {"b"}}


def test_a_question_that_fails_is_told_and_the_rest_is_answered(
    sqlite_catalog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(catalog_queries, "_LITE_FOREIGN_KEYS", "SELECT * FROM nowhere")
    found = sqlite_catalog("CREATE TABLE t (a INT, b INT AS (a))")
    assert [reason.split(":")[0] for reason in found.unreadable] == ["foreign keys"]
    assert found.generated == {"t": {"b"}}


def test_a_database_that_nobody_asks_about_is_unreadable() -> None:
    class Dialect:
        name = "oracle"

    class Connection:
        dialect = Dialect()

    connection: Any = Connection()
    assert read_catalog(connection).unreadable == ("everything: no questions are known for oracle",)


def test_the_questions_are_reads() -> None:
    asked = 0
    for module in (catalog_queries, catalog_mysql):
        for name, sql in vars(module).items():
            dialect = {"_PG_": "postgresql", "_LIT": "sqlite"}.get(name[:4])
            dialect = "mysql" if module is catalog_mysql else dialect
            if isinstance(sql, str) and "SELECT" in sql and dialect is not None:
                made = sql if dialect == "postgresql" else sql.format(schema="main", within="IN (:schema)")
                assert classify(made, dialect) == "read", name
                asked += 1
    assert asked > 15


# PostgreSQL

# The server that the tests start is built without ICU, which nondeterministic collations need: the flag is set by hand.
POSTGRESQL_SCHEMA = """
CREATE SCHEMA app;
CREATE DOMAIN short AS varchar(5);
CREATE DOMAIN padded AS char(5);
CREATE COLLATION nocase FROM "C";
CREATE TABLE users (
    id int PRIMARY KEY, code char(5), name text, nick text COLLATE nocase, c text COLLATE "C", s short, p padded,
    loud text GENERATED ALWAYS AS (upper(name)) STORED, token uuid
);
CREATE TABLE app.orders (
    id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE ON UPDATE SET NULL, a int, b int, UNIQUE (b, a)
);
CREATE TABLE app.lines (
    x int, y int, FOREIGN KEY (x, y) REFERENCES app.orders (b, a) ON DELETE SET DEFAULT
);
CREATE TABLE events (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE VIEW v AS SELECT * FROM users;
CREATE MATERIALIZED VIEW app.m AS SELECT * FROM users;
ALTER TABLE app.orders ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * $1';
CREATE FUNCTION twice(text) RETURNS text STABLE LANGUAGE sql AS 'SELECT $1 || $1';
CREATE FUNCTION app."Write"() RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
CREATE TRIGGER stamped BEFORE UPDATE OF name, nick ON users FOR EACH ROW EXECUTE FUNCTION f();
CREATE TRIGGER logged AFTER INSERT OR DELETE ON users FOR EACH STATEMENT EXECUTE FUNCTION f();
CREATE TRIGGER off AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION f();
ALTER TABLE users DISABLE TRIGGER off;
UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'nocase';
CREATE RULE also AS ON INSERT TO app.lines DO ALSO DELETE FROM app.orders;
"""


@pytest_asyncio.fixture
async def postgresql_catalog(postgres_url: str) -> AsyncIterator[Callable[..., Any]]:
    """Reads the catalog of a fresh database made by a script."""
    engine = create_async_engine(postgres_url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("DROP DATABASE IF EXISTS sqlacache_catalog"))
        await connection.execute(text("CREATE DATABASE sqlacache_catalog"))
    own = create_async_engine(engine.url.set(database="sqlacache_catalog"))

    async def read(script: str, *tables: Table) -> Catalog:
        async with own.connect() as connection:
            for statement in script.split(";\n"):
                if statement.strip():
                    await connection.exec_driver_sql(statement)
            found = await connection.run_sync(read_catalog, tables)
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1  # the transaction is intact
            return found

    yield read
    await own.dispose()
    async with engine.connect() as connection:
        await connection.execute(text("DROP DATABASE sqlacache_catalog"))
    await engine.dispose()


@pytest.mark.integration
async def test_postgresql_tells_everything(postgresql_catalog: Any) -> None:
    mapped = Table(
        "users", MetaData(), Column("name", String), Column("token", String), Column("id", Integer)
    )
    orders = Table("orders", MetaData(schema="app"), Column("id", Integer))
    found = await postgresql_catalog(POSTGRESQL_SCHEMA, mapped, orders)
    assert found.unreadable == ()
    told = {one.name: (one.kind, one.timing, set(one.events), one.columns) for one in found.triggers["users"]}
    assert told == {
        "stamped": ("trigger", "before", {"update"}, {"name", "nick"}),
        "logged": ("trigger", "after", {"insert", "delete"}, None),
    }
    (rule,) = found.triggers["app.lines"]
    assert (rule.kind, set(rule.events), rule.timing) == ("rule", {"insert"}, "after")
    assert "app.orders" in rule.sql
    assert set(found.foreign_keys) == {
        Key("app.orders", ("user_id",), "users", ("id",), "CASCADE", "SET NULL"),
        Key("app.lines", ("x", "y"), "app.orders", ("b", "a"), "SET DEFAULT", ""),
    }
    assert found.row_security == {"app.orders"}
    assert found.views == {"v", "app.m"}
    assert {column for name, column in found.inexact if name == "users"} == {"code", "nick", "p", "token"}
    assert found.generated == {"users": {"loud"}}
    assert {name: found.functions[name] for name in ("twice", "public.twice", "app.write", "f")} == {
        "twice": "stable",
        "public.twice": "stable",
        "app.write": "volatile",
        "f": "volatile",
    }
    assert "write" not in found.functions
    assert found.inherits == {"events_2024": {"events"}}
    assert parts(cascades([], found.foreign_keys)["users"]) == {
        ("delete", "app.orders", "delete", None, None),
        ("delete", "app.lines", "update", frozenset({"x", "y"}), None),
        ("update", "app.orders", "update", frozenset({"user_id"}), frozenset({"id"})),
    }


@pytest.mark.integration
async def test_postgresql_names_tables_as_the_application_does(postgresql_catalog: Any) -> None:
    public = Table("t", MetaData(schema="public"), Column("id", Integer))
    script = "CREATE TABLE t (id int, b int GENERATED ALWAYS AS (id) STORED)"
    assert (await postgresql_catalog(script, public)).generated == {"public.t": {"b"}}


@pytest.mark.integration
async def test_a_failed_question_leaves_postgresqls_transaction_intact(
    postgresql_catalog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(catalog_queries, "_PG_RULES", "SELECT nonsense")
    found = await postgresql_catalog("CREATE TABLE t (id int, b int GENERATED ALWAYS AS (id) STORED)")
    assert [reason.split(":")[0] for reason in found.unreadable] == ["rules"]
    assert found.generated == {"t": {"b"}}
