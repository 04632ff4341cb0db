"""A driver that answers at once: what SQLAlchemy itself spends on a query, with nothing behind it.

It stands in front of a real connection and remembers what that answered to a SELECT; from then on it answers the same
statement with the same parameters from memory. Pool, transaction, compilation and loading are SQLAlchemy's own. What a
hit costs beyond this reference is the cache's own work. (A hit may cost less, since it takes no connection from the
pool. With JSON the reference is too good: it hands out the same dictionaries every time, which a cache must not.)

What writes goes to the database, and nothing that is remembered is forgotten: beside writers, it is a cache that never
misses and is always wrong. That tells how much any cache could save that leaves the loading to SQLAlchemy.
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
            answer = (cursor.description, rows)
            self.rowcount = cursor.rowcount
            if operation.startswith("SELECT"):
                self._connection.answers[asked] = answer
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


Answers = dict[tuple[str, tuple[Any, ...]], tuple[Any, tuple[Any, ...]]]
"""Description and rows, by statement and parameters."""


class InstantConnection:
    """A DBAPI connection in front of a real one, whose transaction begins with what that one is asked."""

    def __init__(self, real: Any, answers: Answers) -> None:
        self.real = real
        self.answers = answers

    def cursor(self, server_side: bool = False) -> Any:
        return InstantCursor(self)

    def commit(self) -> None:
        self.real.commit()

    def rollback(self) -> None:
        self.real.rollback()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def make_instant(engine: AsyncEngine) -> Answers:
    """Let the connections that ``engine`` makes from now on answer at once what one of them was asked before.

    Returns what they remember.
    """
    answers: Answers = {}

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
        return InstantConnection(dialect.connect(*arguments, **options), answers)

    return answers
