"""A driver that answers at once: what SQLAlchemy itself spends on a query, with nothing behind it.

It stands in front of a real connection and remembers what that answered; from then on it answers the same statement
with the same parameters from memory. Pool, transaction, compilation and loading are SQLAlchemy's own. What a hit costs
beyond this reference is the cache's own work. (A hit may cost less, since it takes no connection from the pool. With
JSON the reference is too good: it hands out the same dictionaries every time, which a cache must not.)
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine


class InstantCursor:
    """A DBAPI cursor that asks the real one only what it has not been asked before."""

    def __init__(self, connection: InstantConnection) -> None:
        self._connection = connection
        self._rows: tuple[Any, ...] = ()
        self._at = 0
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid = None
        self.arraysize = 1

    def execute(self, operation: str, parameters: Any = ()) -> None:
        asked = (operation, tuple(parameters))
        answer = self._connection.answers.get(asked)
        if answer is None:
            cursor = self._connection.real.cursor()
            cursor.execute(operation, parameters)
            rows = tuple(map(tuple, cursor.fetchall())) if cursor.description else ()
            answer = self._connection.answers[asked] = (cursor.description, rows)
            cursor.close()
        self.description, self._rows = answer
        self._at = 0

    def fetchall(self) -> list[Any]:
        rows = list(self._rows[self._at :])
        self._at = len(self._rows)
        return rows

    def fetchone(self) -> Any:
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int = 1) -> list[Any]:
        rows = list(self._rows[self._at : self._at + size])
        self._at += len(rows)
        return rows

    def setinputsizes(self, *sizes: Any) -> None: ...

    def close(self) -> None: ...

    async def _async_soft_close(self) -> None: ...


class InstantConnection:
    """A DBAPI connection for reads only, in front of a real one."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.answers: dict[tuple[str, tuple[Any, ...]], tuple[Any, tuple[Any, ...]]] = {}

    def cursor(self, server_side: bool = False) -> Any:
        return InstantCursor(self)

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def make_instant(engine: AsyncEngine) -> None:
    """Let every connection that ``engine`` makes from now on answer at once what it was asked before."""

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
        return InstantConnection(dialect.connect(*arguments, **options))
