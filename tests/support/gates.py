"""Gates: places inside the database's work where a task, or a session's thread, stops until the test lets it go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.util import await_only

from .databases import Database
from .fronts import FRONT


class Gate:
    """Stops the first task or thread that comes to it; every later one passes. To be made in the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reached = asyncio.Event()
        self._opened = asyncio.Event()
        self._opened_for_threads = threading.Event()
        self._free = threading.Lock()

    async def reached_by(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start ``work`` and return its task once it waits here; work that ends before that fails the test."""
        task = asyncio.create_task(work)
        arrival = asyncio.create_task(self._reached.wait())
        await asyncio.wait({task, arrival}, return_when=asyncio.FIRST_COMPLETED)
        if not self._reached.is_set():
            arrival.cancel()
            raise AssertionError(
                f"ended with {task.exception() or task.result()!r} and never came to the gate"
            )
        return task

    def stop_here(self) -> None:
        """Wait until the gate is opened; called from inside SQLAlchemy's asyncio greenlet, or in a thread."""
        if not self._free.acquire(blocking=False):
            return
        if threading.get_ident() == self._loop._thread_id:  # type: ignore[attr-defined]  # asyncio's own loops have it
            self._reached.set()
            await_only(self._opened.wait())
        else:
            self._loop.call_soon_threadsafe(self._reached.set)
            self._opened_for_threads.wait()

    def open(self) -> None:
        """Let the task that waits go on."""
        self._opened.set()
        self._opened_for_threads.set()


@contextmanager
def after_select(database: Database, table: str = "users") -> Iterator[Gate]:
    """Stop the first reader of ``table`` when the database has answered it and its session has not."""
    gate = Gate()

    def answered(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.lstrip().startswith("SELECT") and table in statement:
            gate.stop_here()

    event.listen(database.engine.sync_engine, "after_cursor_execute", answered)
    try:
        yield gate
    finally:
        gate.open()
        event.remove(database.engine.sync_engine, "after_cursor_execute", answered)


@contextmanager
def failing_select(database: Database) -> Iterator[None]:
    """Let the first SELECT fail before it is sent; every later one passes."""
    failures = [RuntimeError("no answer")]

    def refuse(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if failures and statement.lstrip().startswith("SELECT"):
            raise failures.pop()

    event.listen(database.engine.sync_engine, "before_cursor_execute", refuse)
    try:
        yield
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", refuse)


async def let_others_run(turns: int = 100) -> None:
    """Give every other task that can go on without I/O some turns of the loop, and every thread some time."""
    for _ in range(turns):
        await asyncio.sleep(0.001 if FRONT == "sync" else 0)


@asynccontextmanager
async def before_commit(database: Database) -> AsyncIterator[Gate]:
    """Stop the first writer when its COMMIT is about to be sent by the driver."""
    async with _in_commit(database, lambda gate, commit: (gate.stop_here(), commit())) as gate:
        yield gate


@asynccontextmanager
async def after_commit(database: Database) -> AsyncIterator[Gate]:
    """Stop the first writer when the database has committed and the driver has not said so yet."""
    async with _in_commit(database, lambda gate, commit: (commit(), gate.stop_here())) as gate:
        yield gate


@asynccontextmanager
async def _in_commit(
    database: Database, around: Callable[[Gate, Callable[[], None]], Any]
) -> AsyncIterator[Gate]:
    async with database.truth_engine.connect() as connection:
        driver_connection = type((await connection.get_raw_connection()).dbapi_connection)
    gate = Gate()
    original = driver_connection.commit
    driver_connection.commit = lambda self: around(gate, lambda: original(self)) and None
    try:
        yield gate
    finally:
        gate.open()
        driver_connection.commit = original
