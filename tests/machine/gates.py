"""Gates of the machine: where a task of a program stops until another one has done its part.

Unlike those of ``tests.support.gates``, a program does not know beforehand whether a task will come to the gate at all
(a hit sends no SELECT, a session that wrote nothing sends no COMMIT): :meth:`Gate.arrival` says which it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Literal

import tests.support.gates
from tests.support.fronts import driver_class


class Gate(tests.support.gates.Gate):
    """Stops the first task that comes to it; every later one passes."""

    async def arrival(self, task: asyncio.Task[Any]) -> bool:
        """Wait until ``task`` is here (true) or has ended (false, and the gate is left open)."""
        reached = asyncio.create_task(self._reached.wait())
        await asyncio.wait({task, reached}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        if not self._reached.is_set():
            self.open()
        return self._reached.is_set()

    def open(self) -> None:
        """Let the task that waits go on, and every later one pass."""
        self._free.acquire(blocking=False)
        super().open()


@contextmanager
def answered(engine: Any, verb: str = "SELECT") -> Iterator[Gate]:
    """Stop the first task whose SELECT (or other ``verb``) the database has answered and that does not know it yet.

    At the driver, not in an event of the engine: SQLAlchemy iterates over an event's listeners meanwhile, and whoever
    binds or unbinds a cache then would break the statement.
    """
    gate = Gate()
    cursor = _adapted(engine.sync_engine.dialect, "cursor")
    original = cursor.execute

    def execute(self: Any, operation: str, *args: Any, **kw: Any) -> Any:
        result = original(self, operation, *args, **kw)
        if operation.lstrip().startswith(verb):
            gate.stop_here()
        return result

    cursor.execute = execute
    try:
        yield gate
    finally:
        gate.open()
        cursor.execute = original


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
    driver_connection = _adapted(engine.sync_engine.dialect, "connection")
    gate = Gate()
    original = driver_connection.commit
    driver_connection.commit = lambda self: _around(gate, lambda: original(self), before)
    try:
        yield gate
    finally:
        gate.open()
        driver_connection.commit = original


def _adapted(dialect: Any, what: Literal["connection", "cursor"]) -> Any:
    """The class of an ordinary driver's connections or cursors, or that an asynchronous one's are adapted to."""
    if not dialect.is_async:
        return driver_class(dialect, what)
    name = f"AsyncAdapt_{dialect.driver}_{what}"
    modules = [
        import_module(kind.__module__) for kind in type(dialect).__mro__
    ]  # MariaDB's is apart from MySQL's
    return next(getattr(module, name) for module in modules if hasattr(module, name))
