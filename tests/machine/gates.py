"""Gates of the machine: where a task of a program stops until another one has done its part.

Unlike those of ``tests.support.gates``, a program does not know beforehand whether a task will come to the gate at all
(a hit sends no SELECT, a session that wrote nothing sends no COMMIT): :meth:`Gate.arrival` says which it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.util import await_only


class Gate:
    """Stops the first task that comes to it; every later one passes."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._opened = asyncio.Event()
        self._used = False

    def stop_here(self) -> None:
        """Wait until the gate is opened; called from inside SQLAlchemy's asyncio greenlet."""
        if not self._used:
            self._used = True
            self._reached.set()
            await_only(self._opened.wait())

    async def arrival(self, task: asyncio.Task[Any]) -> bool:
        """Wait until ``task`` is here or has ended; tell whether it is here. One that has ended leaves the gate open."""
        reached = asyncio.create_task(self._reached.wait())
        await asyncio.wait({task, reached}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        if not self._reached.is_set():
            self.open()
        return self._reached.is_set()

    def open(self) -> None:
        """Let the task that waits go on, and every later one pass."""
        self._used = True
        self._opened.set()


@contextmanager
def answered_select(engine: Any) -> Iterator[Gate]:
    """Stop the first reader on ``engine`` when the database has answered and its session has not."""
    gate = Gate()

    def answered(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.lstrip().startswith("SELECT"):
            gate.stop_here()

    event.listen(engine.sync_engine, "after_cursor_execute", answered)
    try:
        yield gate
    finally:
        gate.open()
        event.remove(engine.sync_engine, "after_cursor_execute", answered)


def _around(gate: Gate, commit: Callable[[], None], before: bool) -> None:
    if before:
        gate.stop_here()
    commit()
    if not before:
        gate.stop_here()


@contextmanager
def at_commit(engine: Any, *, before: bool) -> Iterator[Gate]:
    """Stop the first writer on ``engine`` just before its COMMIT is sent, or just after the database has committed.

    The engine must have connected already.
    """
    driver_connection: Any = _adapted(engine.sync_engine.dialect)
    gate = Gate()
    original = driver_connection.commit
    driver_connection.commit = lambda self: _around(gate, lambda: original(self), before)
    try:
        yield gate
    finally:
        gate.open()
        driver_connection.commit = original


def _adapted(dialect: Any) -> type:
    """The class of connections that the dialect's asynchronous driver is adapted to."""
    name = f"AsyncAdapt_{dialect.driver}_connection"
    module = __import__(type(dialect).__module__, fromlist=[name])
    found: type = getattr(module, name)
    return found
