"""The asynchronous front: event loops, and SQLAlchemy's greenlet inside ``AsyncSession``."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Hashable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.util import await_only, greenlet_spawn

from ..errors import TransportError
from .patience import Patience
from .port import BUSY

CANCEL_AGAIN = 0.1
"""Seconds after which a task that was cancelled and goes on is cancelled again: before Python 3.12, ``wait_for`` loses
a cancellation that meets the end of what it waits for, such as redis-py's sending of a command."""


class AsyncFront:
    """Implements :class:`.port.Front`."""

    is_blocking = False

    def home(self) -> Hashable:
        return asyncio.get_running_loop()

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await_only(coroutine)
        except MissingGreenlet as error:
            # Called from where nothing can be awaited (a connection that the garbage collector gives back).
            coroutine.close()
            raise TransportError("the server cannot be asked outside of SQLAlchemy's greenlet") from error

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await greenlet_spawn(function, *arguments)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def gather(self, coroutines: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
        return await asyncio.gather(*coroutines, return_exceptions=True)

    async def within(self, seconds: float, coroutine: Coroutine[Any, Any, Any]) -> Any:
        with Patience(seconds):
            return await coroutine

    async def is_busy(self) -> bool:
        began = time.monotonic()
        await asyncio.sleep(0)
        return time.monotonic() - began >= BUSY

    def lock(self) -> AbstractAsyncContextManager[Any]:
        return asyncio.Lock()

    def can_start(self) -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    def start(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> TaskWorker:
        return TaskWorker(asyncio.get_running_loop().create_task(run(), name=name))


class TaskWorker:
    """A task of one event loop; in a process forked since, it does not go on."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task
        self._pid = os.getpid()

    @property
    def is_alive(self) -> bool:
        return not self._task.done() and self._pid == os.getpid() and self._task.get_loop().is_running()

    @property
    def is_current(self) -> bool:
        return asyncio.current_task() is self._task

    async def join(self, seconds: float) -> None:
        if self._is_here:
            await asyncio.wait([self._task], timeout=seconds)

    async def stop(self) -> None:
        loop = self._task.get_loop()
        if self._is_here:
            while not self._task.done():
                self._task.cancel()
                await asyncio.wait([self._task], timeout=CANCEL_AGAIN)
        elif self.is_alive:
            loop.call_soon_threadsafe(self._task.cancel)

    @property
    def _is_here(self) -> bool:
        return self._task.get_loop() is asyncio.get_running_loop()
