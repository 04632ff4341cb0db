"""Whatever changes a statement's result must touch what the statement depends on: tried with random statements and
rows.

``SQLACACHE_SOUNDNESS_EXAMPLES`` sets how many statements are tried (each with several tables full of rows and dozens of
changes); the share of changes that touched without changing anything is printed, as information.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import exc
from sqlalchemy.dialects.sqlite import pysqlite

from sqlacache.canonical import Canonical
from sqlacache.read.compiled import statement_key
from sqlacache.read.statement import Plan, analyse, key_of, stamps_of
from sqlacache.tags import touch
from sqlacache.write.plan import Change, RowChange
from tests.read.statements import TABLES, VALUES, Maker, kind_of

EXAMPLES = int(os.environ.get("SQLACACHE_SOUNDNESS_EXAMPLES", "400"))
FILLINGS, CHANGES = 3, 25

DIALECT = pysqlite.dialect()
CANONICAL = Canonical(DIALECT)
KEYS = {table.name: key_of(table, CANONICAL) for table in TABLES}
COLUMNS = {
    table.name: {column.name: (kind_of(column.type), column.primary_key) for column in table.columns}
    for table in TABLES
}
TEXTS = {table.name: {column.name: CANONICAL.of(column) for column in table.columns} for table in TABLES}

seen: Counter[str] = Counter()


class Database:
    """SQLite in memory, by its driver alone."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for table in TABLES:
            columns = ", ".join(
                f"{name} {_affinity(kind)}" for name, (kind, _) in COLUMNS[table.name].items()
            )
            key = ", ".join(name for name, (_, keyed) in COLUMNS[table.name].items() if keyed)
            self.connection.execute(f"CREATE TABLE {table.name} ({columns}, PRIMARY KEY ({key}))")

    def fill(self, random: Random) -> None:
        for name in COLUMNS:
            self.connection.execute(f"DELETE FROM {name}")
            for _ in range(random.randint(0, 4)):
                self.insert(name, row_of(name, random), "OR IGNORE ")

    def insert(self, table: str, row: dict[str, Any], how: str = "") -> int:
        places = ", ".join("?" * len(row))
        names = ", ".join(row)
        return self.connection.execute(
            f"INSERT {how}INTO {table} ({names}) VALUES ({places})", list(row.values())
        ).rowcount

    def rows(self, table: str) -> list[dict[str, Any]]:
        names = list(COLUMNS[table])
        found = self.connection.execute(f"SELECT {', '.join(names)} FROM {table}")
        return [dict(zip(names, row)) for row in found]

    def answer(self, sql: str, parameters: list[Any]) -> list[Any]:
        return sorted(self.connection.execute(sql, parameters).fetchall(), key=repr)

    def change(self, random: Random) -> Change | None:
        """Change one row at random, and say exactly what changed."""
        table = random.choice(list(COLUMNS))
        rows = self.rows(table)
        op = random.choice(("insert", "update", "update", "delete"))
        try:
            if op == "insert":
                row = row_of(table, random)
                self.insert(table, row)
                return _change(table, "insert", None, None, row)
            if not rows:
                return None
            old = random.choice(rows)
            where = " AND ".join(f"{name} = ?" for name in COLUMNS[table] if COLUMNS[table][name][1])
            key = [old[name] for name in COLUMNS[table] if COLUMNS[table][name][1]]
            if op == "delete":
                self.connection.execute(f"DELETE FROM {table} WHERE {where}", key)
                return _change(table, "delete", None, old, None)
            written = random.sample(
                list(COLUMNS[table]), k=random.choice((1, 1, 2)) if len(COLUMNS[table]) > 2 else 1
            )
            fresh = row_of(table, random)
            new = {**old, **{name: fresh[name] for name in written}}
            sets = ", ".join(f"{name} = ?" for name in written)
            self.connection.execute(
                f"UPDATE {table} SET {sets} WHERE {where}", [*(new[name] for name in written), *key]
            )
            return _change(table, "update", frozenset(written), old, new)
        except sqlite3.IntegrityError:
            return None


def _affinity(kind: str) -> str:
    return {"int": "INTEGER", "str": "VARCHAR(5)", "bool": "BOOLEAN"}[kind]


def row_of(table: str, random: Random) -> dict[str, Any]:
    row = {}
    for name, (kind, keyed) in COLUMNS[table].items():
        value = random.choice(VALUES[kind][:-1] if keyed else VALUES[kind])
        row[name] = int(value) if isinstance(value, bool) else value
    return row


def _texts(table: str, row: dict[str, Any] | None) -> dict[str, str] | None:
    if row is None:
        return None
    found = {}
    for name, value in row.items():
        text = TEXTS[table][name]
        if text is not None:
            kind = COLUMNS[table][name][0]
            found[name] = text(bool(value) if kind == "bool" and value is not None else value)
    return found


def _change(
    table: str,
    op: Any,
    columns: frozenset[str] | None,
    old: dict[str, Any] | None,
    new: dict[str, Any] | None,
) -> Change:
    row = RowChange(_texts(table, old), _texts(table, new))
    cause: Any = f"row_{op}"
    return Change(table, op, columns, (row,), cause, f"{op} {table}")


DATABASE = Database()


def plan_of(statement: Any) -> Plan:
    plan = analyse(statement, DIALECT, {}, (), None, CANONICAL)
    return plan


def tried(
    structure: list[int], values: list[int], seed: int
) -> Iterator[tuple[Plan, Any, Change, bool, bool]]:
    """Try a statement on several databases with many changes: was its result changed, was it touched?"""
    statement = Maker(structure, values).statement()
    again = Maker(structure, values[::-1]).statement()
    plan = plan_of(statement)
    assert plan.bypass is None, (plan.notes, str(statement))
    for one in (statement, again):
        key, first = statement_key(one), statement_key(statement)
        if key is None or first is None:
            seen["without a key"] += 1
            continue
        used = plan if key.shape == first.shape else plan_of(one)
        parameters = used.parameters(key, None)
        dependencies = used.dependencies_of(parameters)
        stamps = set(stamps_of(dependencies))
        shapes: dict[str, list[Any]] = {}
        for shape, _ in dependencies:
            shapes.setdefault(shape.table, []).append(shape)
        compiled = one.compile(dialect=DIALECT, compile_kwargs={"render_postcompile": True})
        bound = [compiled.params[name] for name in compiled.positiontup]
        bound = [int(value) if isinstance(value, bool) else value for value in bound]
        random = Random(seed)
        for _ in range(FILLINGS):
            DATABASE.fill(random)
            try:
                before = DATABASE.answer(compiled.string, bound)
            except sqlite3.OperationalError as error:
                seen[f"refused: {error}"] += 1
                break
            for _ in range(CHANGES):
                DATABASE.connection.execute("BEGIN")
                change = DATABASE.change(random)
                if change is not None:
                    changed = DATABASE.answer(compiled.string, bound) != before
                    names = [
                        name for entry in touch([change], shapes, KEYS).values() for name in entry.names()
                    ]
                    yield used, one, change, changed, not stamps.isdisjoint(names)
                DATABASE.connection.execute("ROLLBACK")


def check(structure: list[int], values: list[int], seed: int) -> None:
    try:
        for plan, statement, change, changed, touched in tried(structure, values, seed):
            seen["changes"] += 1
            seen["touched"] += touched
            seen["needless"] += touched and not changed
            if changed and not touched:
                key = statement_key(statement)
                assert key is not None
                dependencies = plan.dependencies_of(plan.parameters(key, None))
                raise AssertionError(
                    f"{change} changed the result of\n{plan.sql}\n{plan.parameters(key, None)}\n"
                    f"and touched none of {dependencies}"
                )
        seen["statements"] += 1
    except exc.ArgumentError as error:
        seen[f"not a statement: {str(error)[:60]}"] += 1
    except exc.CompileError as error:
        seen[f"not compiled: {error}"] += 1
    finally:
        if DATABASE.connection.in_transaction:
            DATABASE.connection.execute("ROLLBACK")


NUMBERS = st.lists(st.integers(0, 63), min_size=10, max_size=120)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(structure=NUMBERS, values=st.lists(st.integers(0, 11), max_size=20), seed=st.integers(0, 10_000))
def test_whatever_changes_a_result_touches_what_it_depends_on(
    structure: list[int], values: list[int], seed: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exc.SAWarning)
        check(structure, values, seed)
