"""The blocking front: threads, and I/O that is done when it returns."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Coroutine, Hashable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

Result = TypeVar("Result")

STOP_WAIT = 2.0
"""Seconds that a background thread gets to end: it looks up at least as often as it listens for announcements."""


def finish(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that never suspends to its end; return or raise what it does."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    coroutine.close()
    raise RuntimeError("a blocking cache was made to wait for an event loop")


class BlockingFront:
    """Implements :class:`.port.Front`."""

    is_blocking = True

    def __init__(self) -> None:
        self._here = threading.local()

    def home(self) -> Hashable:
        return None

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return finish(coroutine)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    async def sleep(self, seconds: float) -> None:
        worker = getattr(self._here, "worker", None)
        if worker is not None:
            worker.stopping.wait(seconds)
        else:
            time.sleep(seconds)  # noqa: ASYNC251  # no event loop runs this

    async def gather(self, coroutines: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
        found: list[Any] = []
        for coroutine in coroutines:
            try:
                found.append(await coroutine)
            except Exception as error:
                found.append(
                    error
                )  # the caller's to look at, as asyncio.gather(return_exceptions=True) has it
        return found

    async def within(self, seconds: float, coroutine: Coroutine[Any, Any, Any]) -> Any:
        before = self.ends_at
        ends_at = time.monotonic() + seconds
        self._here.ends_at = ends_at if before is None else min(before, ends_at)
        try:
            return await coroutine
        finally:
            self._here.ends_at = before

    async def is_busy(self) -> bool:
        return False

    @property
    def ends_at(self) -> float | None:
        """When the time of this thread's call is up, on the monotonic clock, if :meth:`within` limits it."""
        return getattr(self._here, "ends_at", None)

    def lock(self) -> AbstractAsyncContextManager[Any]:
        return _Lock()

    def can_start(self) -> bool:
        return True

    def start(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> ThreadWorker:
        worker = ThreadWorker()

        def work() -> None:
            self._here.worker = worker
            finish(run())

        worker.thread = threading.Thread(target=work, name=name, daemon=True)
        worker.thread.start()
        return worker


class ThreadWorker:
    """A thread that ends with the process; in a process forked since, it does not go on."""

    thread: threading.Thread

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._pid = os.getpid()

    @property
    def is_alive(self) -> bool:
        return self.thread.is_alive() and self._pid == os.getpid()

    @property
    def is_current(self) -> bool:
        return threading.current_thread() is self.thread

    async def join(self, seconds: float) -> None:
        if self.is_alive:
            self.thread.join(seconds)

    async def stop(self) -> None:
        self.stopping.set()
        if not self.is_current:
            await self.join(STOP_WAIT)


class _Lock:
    """A thread's lock that is entered as an asynchronous one is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(self, *error: object) -> None:
        self._lock.release()
