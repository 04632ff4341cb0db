"""The questions of :func:`sqlacache.write.catalog.read_catalog`, by dialect."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import types as sqltypes

from .catalog import TRIGGER_EVENTS, Asked, ForeignKey, Trigger, TriggerEvent, Volatility
from .catalog_mysql import read_mysql
from .catalog_triggers import written_tables
from .rawsql import Token, tokens_of

# PostgreSQL

_PG_TABLES = """
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
"""
_PG_OURS = "n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
_PG_NAME = "n.nspname::text, c.relname::text, pg_catalog.pg_table_is_visible(c.oid)"

_PG_TRIGGERS = f"""
    SELECT {_PG_NAME}, t.tgname::text, t.tgtype::int, pg_catalog.pg_get_triggerdef(t.oid),
        ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum = ANY (t.tgattr)),
        CASE WHEN l.lanname IN ('plpgsql', 'sql') THEN f.prosrc END
    {_PG_TABLES} JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid
    JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid JOIN pg_catalog.pg_language l ON l.oid = f.prolang
    WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND {_PG_OURS}
    ORDER BY 1, 2, 4
"""
_PG_RULES = f"""
    SELECT {_PG_NAME}, r.rulename::text, r.ev_type::text, r.is_instead, pg_catalog.pg_get_ruledef(r.oid)
    {_PG_TABLES} JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid
    WHERE r.rulename <> '_RETURN' AND {_PG_OURS}
    ORDER BY 1, 2, 4
"""
_PG_RELATIONS = f"""
    SELECT {_PG_NAME}, c.relkind::text, c.relrowsecurity
    {_PG_TABLES} WHERE (c.relkind IN ('v', 'm', 'f') OR c.relrowsecurity) AND {_PG_OURS}
"""
_PG_INHERITS = f"""
    SELECT {_PG_NAME}, pn.nspname::text, p.relname::text, pg_catalog.pg_table_is_visible(p.oid)
    {_PG_TABLES} JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f') AND {_PG_OURS}
"""
_PG_VIEWS = f"""
    SELECT DISTINCT {_PG_NAME}, bn.nspname::text, b.relname::text, pg_catalog.pg_table_is_visible(b.oid)
    {_PG_TABLES} JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid
    JOIN pg_catalog.pg_depend d ON d.objid = r.oid AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
    JOIN pg_catalog.pg_class b ON b.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    JOIN pg_catalog.pg_namespace bn ON bn.oid = b.relnamespace
    WHERE c.relkind = 'v' AND b.oid <> c.oid AND b.relkind IN ('r', 'p', 'v', 'f') AND {_PG_OURS}
"""
_PG_FOREIGN_KEYS = f"""
    SELECT {_PG_NAME}, pn.nspname::text, p.relname::text, pg_catalog.pg_table_is_visible(p.oid),
        k.confdeltype::text, k.confupdtype::text,
        ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u(num, place)
              JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.place),
        ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u(num, place)
              JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.place)
    {_PG_TABLES} JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid AND k.contype = 'f'
    JOIN pg_catalog.pg_class p ON p.oid = k.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
    WHERE {_PG_OURS}
    ORDER BY 1, 2, k.conname
"""
_PG_COLUMNS = f"""
    SELECT {_PG_NAME}, a.attname::text, coalesce(b.typname, t.typname)::text, t.typcategory::text,
        coalesce(l.collisdeterministic, true), a.attgenerated::text <> ''
    {_PG_TABLES} JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
    LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND {_PG_OURS}
        AND (coalesce(b.typname, t.typname) NOT IN ('text', 'varchar', 'int4', 'int8', 'bool')
             OR NOT coalesce(l.collisdeterministic, true) OR a.attgenerated::text <> '')
"""
_PG_FUNCTIONS = f"""
    SELECT n.nspname::text, f.proname::text, pg_catalog.pg_function_is_visible(f.oid), f.provolatile::text
    FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
    WHERE {_PG_OURS} ORDER BY position(f.provolatile::text IN 'isv')
"""
_PG_BUILT_IN = """
    SELECT DISTINCT f.proname::text
    FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
    WHERE n.nspname = 'pg_catalog'
"""
_PG_VOLATILITIES: dict[str, Volatility] = {"i": "immutable", "s": "stable", "v": "volatile"}
_PG_ACTIONS = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT", "r": "RESTRICT"}
_PG_TRIGGER_BITS: dict[int, TriggerEvent] = {4: "insert", 8: "delete", 16: "update", 32: "truncate"}
_PG_RULE_EVENTS: dict[str, TriggerEvent] = {"2": "update", "3": "insert", "4": "delete"}


def _postgresql(asked: Asked) -> None:
    for schema, function, visible, volatility in asked.rows(
        "functions", _PG_FUNCTIONS
    ):  # the most volatile last
        for name in (f"{schema}.{function}", function) if visible else (f"{schema}.{function}",):
            asked.functions[name.lower()] = _PG_VOLATILITIES[volatility]
    asked.built_in.update(name for (name,) in asked.rows("built-in functions", _PG_BUILT_IN))
    harmless = {name for name, volatility in asked.functions.items() if volatility != "volatile"}
    for schema, table, visible, name, bits, sql, columns, source in asked.rows("triggers", _PG_TRIGGERS):
        timing = "instead" if bits & 64 else "before" if bits & 2 else "after"
        events = frozenset(event for bit, event in _PG_TRIGGER_BITS.items() if bits & bit)
        of = frozenset(columns) if columns and events == {"update"} else None
        on = asked.name(schema, table, visible)
        writes = None
        if source is not None:
            writes = written_tables(source, "postgresql", on, asked.key(on), harmless)
        asked.trigger(Trigger(name, on, "trigger", timing, events, of, sql, writes))
    for schema, table, visible, name, event, instead, sql in asked.rows("rules", _PG_RULES):
        events = frozenset({_PG_RULE_EVENTS[event]}) if event in _PG_RULE_EVENTS else TRIGGER_EVENTS
        timing = "instead" if instead else "after"
        on = asked.name(schema, table, visible)
        action = re.split(r"\bDO\b", sql, maxsplit=1)  # pg_get_ruledef writes keywords in upper case
        writes = written_tables(action[-1], "postgresql", on, (), harmless) if len(action) == 2 else None
        asked.trigger(Trigger(name, on, "rule", timing, events, None, sql, writes))
    for schema, table, visible, kind, secured in asked.rows("views and row security", _PG_RELATIONS):
        if kind in ("v", "m", "f"):
            asked.views.add(asked.name(schema, table, visible))
        if secured:
            asked.row_security.add(asked.name(schema, table, visible))
    for schema, view, visible, *source in asked.rows("views' sources", _PG_VIEWS):
        asked.selects_from.setdefault(asked.name(schema, view, visible), set()).add(asked.name(*source))
    for schema, table, visible, *parent in asked.rows("inheritance and partitions", _PG_INHERITS):
        asked.inherits.setdefault(asked.name(schema, table, visible), set()).add(asked.name(*parent))
    for row in asked.rows("foreign keys", _PG_FOREIGN_KEYS):
        (
            schema,
            table,
            visible,
            parent_schema,
            parent_table,
            parent_visible,
            delete,
            update,
            columns,
            parents,
        ) = row
        asked.foreign_keys.append(
            ForeignKey(
                asked.name(schema, table, visible),
                tuple(columns),
                asked.name(parent_schema, parent_table, parent_visible),
                tuple(parents),
                _PG_ACTIONS.get(delete, ""),
                _PG_ACTIONS.get(update, ""),
            )
        )
    for schema, table, visible, column, kind, category, deterministic, generated in asked.rows(
        "columns", _PG_COLUMNS
    ):
        name = asked.name(schema, table, visible)
        if generated:
            asked.generated.setdefault(name, set()).add(column)
        other_string = category == "S" and kind not in ("text", "varchar")
        mapped_as_string = kind not in ("text", "varchar") and _plain_string(asked.mapped_type(name, column))
        if not deterministic or other_string or mapped_as_string:
            asked.inexact.add((name, column))


def _plain_string(type_: Any) -> bool:
    return isinstance(type_, sqltypes.String) and not isinstance(type_, sqltypes.Enum)


# SQLite

_LITE_MASTER = (
    "SELECT type, name, tbl_name, sql FROM {schema}.sqlite_master WHERE substr(name, 1, 7) <> 'sqlite_'"
)
_LITE_COLUMNS = """
    SELECT m.name, x.name, x.type, x.hidden, x.pk
    FROM {schema}.sqlite_master AS m JOIN pragma_table_xinfo(m.name, :schema) AS x
    WHERE m.type IN ('table', 'view')
"""
_LITE_FOREIGN_KEYS = """
    SELECT m.name, f.id, f."from", f."table", f."to", f.on_delete, f.on_update
    FROM {schema}.sqlite_master AS m JOIN pragma_foreign_key_list(m.name, :schema) AS f
    WHERE m.type = 'table' ORDER BY m.name, f.id, f.seq
"""


def _sqlite(asked: Asked) -> None:
    for _, schema, _ in asked.rows("databases", "PRAGMA database_list"):
        if schema != "temp":
            _sqlite_schema(asked, schema)


def _sqlite_schema(asked: Asked, schema: str) -> None:
    quoted = asked.connection.dialect.identifier_preparer.quote(schema)

    def named(table: str) -> str:
        return asked.name(schema, table, schema == "main")

    definitions: dict[str, str] = {}
    for kind, name, table, sql in asked.rows("tables and triggers", _LITE_MASTER.format(schema=quoted)):
        if kind == "trigger":
            asked.trigger(_sqlite_trigger(name, named(table), sql, asked.key(named(table))))
        elif kind == "view":
            asked.views.add(named(name))
        elif kind == "table":
            definitions[name] = sql or ""
    primary: dict[str, list[tuple[int, str]]] = {}
    columns: dict[str, dict[str, str]] = {}
    for table, column, type_, hidden, place in asked.rows(
        "columns", _LITE_COLUMNS.format(schema=quoted), schema=schema
    ):
        columns.setdefault(table, {})[column] = type_ or ""
        if hidden in (2, 3):
            asked.generated.setdefault(named(table), set()).add(column)
        if place:
            primary.setdefault(table.lower(), []).append((place, column))
    for table, sql in definitions.items():
        _sqlite_table(asked, named(table), sql, columns.get(table, {}))
    keys: dict[tuple[str, int], list[Any]] = {}
    for row in asked.rows("foreign keys", _LITE_FOREIGN_KEYS.format(schema=quoted), schema=schema):
        keys.setdefault((row[0], row[1]), []).append(row)
    spelled = {table.lower(): table for table in definitions}
    for (table, _), parts in keys.items():
        parent, on_delete, on_update = parts[0][3], parts[0][5], parts[0][6]
        referred = [part[4] for part in parts]
        if None in referred:  # of the primary key, without saying so
            referred = [column for _, column in sorted(primary.get(parent.lower(), []))]
        asked.foreign_keys.append(
            ForeignKey(
                named(table),
                tuple(part[2] for part in parts),
                named(spelled.get(parent.lower(), parent)),
                tuple(referred),
                on_delete.upper(),
                on_update.upper(),
            )
        )


def _sqlite_table(asked: Asked, name: str, sql: str, columns: dict[str, str]) -> None:
    """What only the text of CREATE TABLE tells; where it cannot be read, the wider assumption."""
    tokens = tokens_of(sql, "sqlite")
    words = [token.text for token in tokens or ()]
    if words[1:2] == ["virtual"]:
        asked.views.add(name)
    if tokens is None or any(words[at : at + 2] == ["conflict", "replace"] for at in range(len(words))):
        asked.replaces.add(name)
    collated = _collated(tokens, columns) if tokens is not None else set(columns)
    asked.inexact.update((name, column) for column in collated)
    for column, declared in columns.items():
        type_ = asked.mapped_type(name, column)
        text = (
            _plain_string(type_)
            or isinstance(type_, sqltypes.Enum)
            or type(type_).__name__ in ("Uuid", "UUID")
        )
        if text and _affinity(declared) not in ("TEXT", "BLOB"):
            asked.inexact.add((name, column))  # '01' and '1' become the same number
    if tokens is None:
        asked.unreadable.append(f"the definition of table {name}: taken as the widest")


def _collated(tokens: list[Token], columns: dict[str, str]) -> set[str]:
    """Columns declared with a collation other than BINARY; in a table whose text is unusual, all."""
    spelled = {column.lower(): column for column in columns}
    found: set[str] = set()
    depth, column, expected = 0, "", False
    for at, token in enumerate(tokens):
        if token == Token("punct", "("):
            depth += 1
            expected = expected or depth == 1
            continue
        if token == Token("punct", ")"):
            depth -= 1
        elif token == Token("punct", ",") and depth == 1:
            expected = True
            continue
        elif expected and depth == 1:
            column, expected = spelled.get(token.text.lower(), ""), False
        if token == Token("word", "collate"):
            collation = tokens[at + 1].text.lower() if at + 1 < len(tokens) else ""
            if collation != "binary":
                if not column and depth < 2:
                    return set(columns)
                if column:
                    found.add(column)
    return found


def _affinity(declared: str) -> str:
    """SQLite's rules for what a declared type makes of values (https://sqlite.org/datatype3.html, 3.1)."""
    upper = declared.upper()
    if "INT" in upper:
        return "INTEGER"
    if any(part in upper for part in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not upper or "BLOB" in upper:
        return "BLOB"
    return "REAL" if any(part in upper for part in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def _sqlite_trigger(name: str, table: str, sql: str, key: tuple[str, ...]) -> Trigger:
    words = [token.text.lower() for token in tokens_of(sql, "sqlite") or ()]
    begin = re.search(r"\bbegin\b", sql, re.IGNORECASE)
    writes = written_tables(sql[begin.end() :], "sqlite", table, key) if begin is not None else None
    head = words[: words.index("on")] if "on" in words else []
    of: frozenset[str] | None = None
    for event in ("insert", "update", "delete"):
        if event not in head[2:]:
            continue
        place = head.index(event, 2)
        timing = {"before": "before", "of": "instead"}.get(head[place - 1], "after")
        if event == "update" and head[place + 1 : place + 2] == ["of"]:
            of = frozenset(word for word in head[place + 2 :] if word != ",")
        return Trigger(name, table, "trigger", timing, frozenset({event}), of, sql, writes)
    return Trigger(name, table, "trigger", "", TRIGGER_EVENTS, None, sql, writes)


BY_DIALECT: dict[str, Callable[[Asked], None]] = {
    "postgresql": _postgresql,
    "sqlite": _sqlite,
    "mysql": read_mysql,
    "mariadb": read_mysql,
}
