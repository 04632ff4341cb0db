"""How a cache waits: in an event loop (``configure``), or by blocking its thread (``configure_sync``).

Whatever does I/O is written once, as coroutines. In the asynchronous front an event loop runs them, awaited from inside
SQLAlchemy's greenlet. In the blocking front nothing that they await ever suspends, so that they run to their end right
where they are begun: what they await does its work before it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

BUSY = 0.01
"""Seconds that a turn of a busy event loop takes at least."""


class Worker(Protocol):
    """Work in the background: a task, or a thread."""

    @property
    def is_alive(self) -> bool:
        """Whether it goes on, in this process and in a loop that runs."""

    @property
    def is_current(self) -> bool:
        """Whether it is who asks."""

    async def join(self, seconds: float) -> None:
        """Wait for its end, at most so long, where that can be awaited."""

    async def stop(self) -> None:
        """End it."""


class Front(Protocol):
    """What differs between the two."""

    is_blocking: bool

    def home(self) -> Hashable:
        """Return what a connection belongs to: the running event loop; ``None`` if any thread may use it."""

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Carry out a coroutine from inside SQLAlchemy's event handlers.

        Raises :class:`~sqlacache.errors.TransportError` where nothing can be awaited.
        """

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that may :meth:`wait`."""

    async def sleep(self, seconds: float) -> None:
        """Let others go on for so long; a background worker that is being stopped wakes up."""

    async def gather(self, coroutines: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Carry out all of them, at once if possible; return what each returned or raised."""

    async def within(self, seconds: float, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Carry out a coroutine. Raises :class:`TimeoutError` (or asyncio's) when it takes longer."""

    async def is_busy(self) -> bool:
        """Tell whether the loop is late: whether one of its turns takes :data:`BUSY` seconds."""

    def lock(self) -> AbstractAsyncContextManager[Any]:
        """Return a lock for those who share a :meth:`home`."""

    def can_start(self) -> bool:
        """Tell whether background work can be started here."""

    def start(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> Worker:
        """Start background work."""
