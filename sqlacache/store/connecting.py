"""Opening a connection in a task of its own, which goes on when those who wait for it no longer can.

Opening takes a dozen turns of the event loop, and a read waits a quarter of a second. On a busy loop, each read would
begin anew, and none would ever come to the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from redis.exceptions import TimeoutError as TimedOut

from ..front.asynchronous import CANCEL_AGAIN


class Undecided(TimedOut):
    """The time of whoever waits is up, which says nothing of the server."""


class Connecting:
    """An attempt to open a connection, awaited by all who need it.

    Args:
        opens: What opens it.
        ended: Called as soon as it has ended, in whatever way, and before anybody who waits goes on.
        failed: Told of the error if nobody waits any more.
    """

    def __init__(
        self,
        opens: Callable[[], Coroutine[Any, Any, None]],
        ended: Callable[[], Any],
        failed: Callable[[BaseException], None] | None,
    ) -> None:
        self._opens = opens
        self._failed = failed
        self._waiting = 0
        self._is_told = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="sqlacache connecting")
        self._task.add_done_callback(lambda _: ended())

    async def _run(self) -> BaseException | None:
        """Return what went wrong, rather than raise it: there may be nobody to receive it."""
        try:
            await self._opens()
        except Exception as error:
            error.sqlacache_connecting = self  # type: ignore[attr-defined]  # read by first_to_tell
            if not self._waiting and self._failed is not None:
                self._failed(error)
            return error
        return None

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for it."""
        return self._waiting > 0

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until it is open, at most so long; being cancelled does not end it.

        Raises what went wrong with it, and :class:`Undecided`.
        """
        self._waiting += 1
        try:
            await asyncio.wait([self._task], timeout=seconds)
        finally:
            self._waiting -= 1
        if not self._task.done():
            raise Undecided("the connection is still being opened")
        if self._task.cancelled():
            raise Undecided("the connection was closed while it was being opened")
        error = self._task.result()
        if error is not None:
            raise error.with_traceback(None)  # which would grow with everybody who waits

    def cancel(self) -> None:
        """End it soon, unless it is who asks."""
        if asyncio.current_task() is not self._task:
            self._task.cancel()

    async def stop(self) -> None:
        """End it."""
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CANCEL_AGAIN)

    def tell(self) -> bool:
        """Tell whether this is the first time that its failure is told of."""
        is_first, self._is_told = not self._is_told, True
        return is_first


def of(error: BaseException) -> Connecting | None:
    """Return the attempt that failed with this error, if it is one's."""
    found: Connecting | None = getattr(error, "sqlacache_connecting", None)
    return found
