"""The shop's database, looked at directly through its driver: SQLAlchemy and the cache have no part in it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Coroutine
from datetime import datetime
from decimal import Decimal
from itertools import count
from threading import Thread
from typing import Any, Protocol


class Database(Protocol):
    """Plain SQL with ``?`` for values, run at once and committed."""

    def rows(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]: ...

    def close(self) -> None: ...


def connect(url: str) -> Database:
    """Open the database at a SQLAlchemy URL."""
    scheme, _, place = url.partition("://")
    return (
        SQLite(place.removeprefix("/"))
        if scheme.startswith("sqlite")
        else PostgreSQL(f"postgresql://{place}")
    )


class SQLite:
    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=30)

    def rows(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()

    def close(self) -> None:
        self._connection.close()


class PostgreSQL:
    """asyncpg on an event loop in a thread of its own, so that asking it is as plain as asking SQLite."""

    def __init__(self, url: str) -> None:
        import asyncpg

        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connection = self._wait(asyncpg.connect(url))

    def rows(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        numbers = count(1)
        numbered = re.sub(r"\?", lambda _: f"${next(numbers)}", sql)
        return [tuple(map(plain, row)) for row in self._wait(self._connection.fetch(numbered, *values))]

    def close(self) -> None:
        self._wait(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)


def plain(value: Any) -> Any:
    """Give what SQLite gives: no decimals, and timestamps as text."""
    if isinstance(value, Decimal):
        return float(value)
    return str(value) if isinstance(value, datetime) else value
