"""The questions of :func:`sqlacache.write.catalog.read_catalog` for MySQL and MariaDB.

They are asked of the connection's own database and of those that tables of the application name as their schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import types as sqltypes

from ..canonical import Strings, declared_type, integer_range
from .catalog import Asked, ForeignKey, Trigger
from .catalog_triggers import written_tables
from .rawsql import tokens_of
from .sqlwords import HARMLESS_FUNCTIONS, PURE_FUNCTIONS

_TRIGGERS = """
    SELECT EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE, TRIGGER_NAME, LOWER(ACTION_TIMING), LOWER(EVENT_MANIPULATION),
        ACTION_STATEMENT
    FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA {within} ORDER BY 1, 2, 3
"""
_VIEWS = """
    SELECT TABLE_SCHEMA, TABLE_NAME, IS_UPDATABLE, VIEW_DEFINITION
    FROM information_schema.VIEWS WHERE TABLE_SCHEMA {within}
"""
_WITHOUT_TRANSACTIONS = """
    SELECT t.TABLE_SCHEMA, t.TABLE_NAME
    FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE
    WHERE t.TABLE_SCHEMA {within} AND t.TABLE_TYPE <> 'SEQUENCE' AND COALESCE(e.TRANSACTIONS, 'NO') <> 'YES'
"""
_COLUMNS = """
    SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, LOWER(DATA_TYPE), LOWER(COLUMN_TYPE), COLLATION_NAME,
        CHARACTER_MAXIMUM_LENGTH, LOWER(EXTRA)
    FROM information_schema.COLUMNS WHERE TABLE_SCHEMA {within}
"""
_FOREIGN_KEYS = """
    SELECT k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.COLUMN_NAME,
        k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE
    FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS r
        ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME
        AND r.TABLE_NAME = k.TABLE_NAME
    WHERE k.TABLE_SCHEMA {within} AND k.REFERENCED_TABLE_NAME IS NOT NULL
    ORDER BY 1, 2, 3, k.ORDINAL_POSITION
"""
_FUNCTIONS = """
    SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_DEFINITION
    FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA {within} AND ROUTINE_TYPE = 'FUNCTION'
"""
_HAS_LISTS = (
    "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME IN ('SQL_FUNCTIONS', 'KEYWORDS')"
)
_LISTS = """
    SELECT LOWER(`FUNCTION`) FROM information_schema.SQL_FUNCTIONS
    UNION SELECT LOWER(WORD) FROM information_schema.KEYWORDS
"""

_CHARACTER_SETS = frozenset({"utf8mb4", "utf8mb3", "utf8", "latin1", "ascii"})
_FOLDING = frozenset({"general", "unicode", "unicode_520", "uca1400", "0900"})
"""Collations in which printable ASCII is equal exactly when case is all that differs, blanks at the end aside. None of
a language: ``aa`` or ``ch`` may be one letter there."""
_TEXTS = frozenset({"varchar", "tinytext", "text", "mediumtext", "longtext", "enum"})
_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}

_Named = Callable[[str, str], str]


def read_mysql(asked: Asked) -> None:
    default = asked.connection.dialect.default_schema_name or ""
    schemas = {default, *(table.schema or default for table in asked.tables.values())}
    parameters = {f"schema_{at}": schema for at, schema in enumerate(sorted(schemas))}
    within = f"IN ({', '.join(f':{name}' for name in parameters)})"

    def rows(what: str, question: str) -> Iterator[Any]:
        return asked.rows(what, question.format(within=within), **parameters)

    def named(schema: str, table: str) -> str:
        return asked.name(schema, table, schema == default)

    _functions(asked, rows("functions", _FUNCTIONS), default)
    harmless = asked.built_in.union(name for name, kind in asked.functions.items() if kind != "volatile")
    for schema, table, name, timing, event, sql in rows("triggers", _TRIGGERS):
        on = named(schema, table)
        shown = bool(sql)  # not everybody is shown it
        writes = written_tables(sql, "mysql", on, asked.key(on), harmless) if shown else None
        asked.trigger(Trigger(name, on, "trigger", timing, frozenset({event}), None, sql or "", writes))
    relations: set[tuple[str, str]] = set()
    for schema, table, *described in rows("columns", _COLUMNS):
        relations.add((schema, table))
        _column(asked, named(schema, table), *described)
    for schema, view, updatable, definition in rows("views", _VIEWS):
        asked.views.add(named(schema, view))
        if updatable == "YES":
            mentioned = _mentioned(definition, relations) - {(schema, view)}
            asked.selects_from[named(schema, view)] = {named(*relation) for relation in mentioned}
    for schema, table in rows("tables without transactions", _WITHOUT_TRANSACTIONS):
        asked.views.add(named(schema, table))  # what is written is seen before COMMIT, and after ROLLBACK
    _foreign_keys(asked, rows("foreign keys", _FOREIGN_KEYS), named)


def _column(
    asked: Asked,
    table: str,
    column: str,
    kind: str,
    declared: str,
    collation: str | None,
    length: Any,
    extra: str,
) -> None:
    if "on update" in extra or ("generated" in extra and extra != "default_generated"):
        asked.generated.setdefault(table, set()).add(column)
    if kind in _TEXTS and (compared := _strings(collation or "", length)) is not None:
        asked.strings[table, column] = compared
    mapped = asked.mapped_type(table, column)
    mapped = None if mapped is None else declared_type(mapped, asked.connection.dialect)
    if isinstance(mapped, sqltypes.Integer):
        wanted, there = integer_range(mapped), _range(kind, declared)
        if wanted is None or there is None or wanted[0] < there[0] or wanted[1] > there[1]:
            asked.inexact.add((table, column))  # cut where the session is not strict; or not even a number
    elif isinstance(mapped, sqltypes.Date) and kind != "date":
        asked.inexact.add((table, column))


def _range(kind: str, declared: str) -> tuple[int, int] | None:
    bits = _BITS.get(kind)
    if bits is None:
        return None
    return (0, 2**bits - 1) if "unsigned" in declared else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _strings(collation: str, length: Any) -> Strings | None:
    """How strings of a collation are compared; ``None`` where that is not known even of ASCII."""
    if collation.partition("_")[0] not in _CHARACTER_SETS:
        return None
    pads = "nopad" not in collation and "_0900_" not in collation
    longest = min(int(length or 0), 255)  # TEXT counts bytes
    name = collation.replace("_nopad", "")
    if name.endswith("_bin"):
        return Strings(False, pads, longest)
    if name == "latin1_swedish_ci":
        return Strings(True, pads, longest)
    ignoring = name.partition("_")[2].removesuffix("_ci").removesuffix("_ai")
    return Strings(True, pads, longest) if ignoring in _FOLDING else None


def _mentioned(definition: str | None, relations: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The relations that a view's definition names, as the server writes it; all, when it is not shown."""
    tokens = tokens_of(definition or "", "mysql")
    if not tokens:
        return relations
    texts = {token.text for token in tokens if token.kind == "quoted"}
    return {(schema, table) for schema, table in relations if schema in texts and table in texts}


def _foreign_keys(asked: Asked, rows: Iterator[Any], named: _Named) -> None:
    keys: dict[tuple[str, str, str], list[Any]] = {}
    for row in rows:
        keys.setdefault(tuple(row[:3]), []).append(row)
    for (schema, table, _), parts in keys.items():
        *_, on_delete, on_update = parts[0]
        asked.foreign_keys.append(
            ForeignKey(
                named(schema, table),
                tuple(part[3] for part in parts),
                named(parts[0][4], parts[0][5]),
                tuple(part[6] for part in parts),
                on_delete.upper(),
                on_update.upper(),
            )
        )


def _functions(asked: Asked, rows: Iterator[Any], default: str) -> None:
    """Stored functions: none is known to be pure, whatever it declares; one that writes nothing is stable."""
    if any(count == 2 for (count,) in asked.rows("lists of functions", _HAS_LISTS)):  # MariaDB since 10.6
        asked.built_in.update(name for (name,) in asked.rows("built-in functions", _LISTS))
        asked.built_in.update(PURE_FUNCTIONS, HARMLESS_FUNCTIONS)
    for schema, function, definition in rows:
        wrote = written_tables(definition, "mysql", "", (), asked.built_in) if definition else None
        for name in (f"{schema}.{function}", function) if schema == default else (f"{schema}.{function}",):
            asked.functions[name.lower()] = "stable" if wrote == frozenset() else "volatile"
