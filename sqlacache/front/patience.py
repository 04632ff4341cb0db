"""Time limits that do not count what the event loop itself is late."""

from __future__ import annotations

import asyncio
from types import TracebackType

TICKS = 10
"""Parts of a limit, each of which takes a turn of the loop at least."""


class Patience:
    """Gives the server ``seconds`` to answer, on a loop that may be busy; use as a context manager of one task.

    An ordinary timer does not know how long the loop looked at nothing::

        1. A command is sent. The answer arrives at once, but the loop's turn takes longer than the limit.
        2. The next turn begins: the answer is read, and whoever waits for it is to go on in the turn after.
        3. The timer is due as well. It cancels who waits; a server that was quick counts as silent.

    Hence the limit is counted in ticks, and one that comes late counts as one: on an idle loop they take ``seconds`` in
    all, and on a busy one as many turns as there are ticks.

    Args:
        seconds: How long to wait.
        error: What to raise then; asyncio's TimeoutError if not given.
        why: What it says.
    """

    __slots__ = ("_cancelling", "_error", "_is_over", "_left", "_loop", "_task", "_tick", "_timer", "_why")

    def __init__(
        self,
        seconds: float,
        error: type[Exception] = asyncio.TimeoutError,
        why: str = "no answer",
    ) -> None:
        self._tick = seconds / TICKS
        self._error = error
        self._why = why
        self._is_over = False
        self._left = TICKS

    def __enter__(self) -> Patience:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling() if hasattr(task, "cancelling") else 0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._tick, self._pass)
        return self

    def end(self) -> None:
        """Wait as long as it takes from now on."""
        self._timer.cancel()

    def _pass(self) -> None:
        self._left -= 1
        if self._left:
            self._timer = self._loop.call_later(self._tick, self._pass)
        else:
            self._is_over = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if not self._is_over:
            return
        # From Python 3.11 on, a task knows how many have cancelled it: perhaps somebody else has, too.
        left = self._task.uncancel() if hasattr(self._task, "uncancel") else 0
        if left <= self._cancelling and kind is asyncio.CancelledError:
            raise self._error(self._why) from error
