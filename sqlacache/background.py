"""An observer that is told in a thread of its own, so that it may be slow, or block, without a query noticing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from .errors import ConfigError
from .forks import renew
from .observers import Observer, Observers

TOLD = (
    *("bound", "decided", "invalidated", "dropped", "verified", "received", "backend_failed", "owed"),
    "capacity",
)
"""What can be told later: not where a load or an invalidation begins, whose scope the query needs at once."""
IDLE = 5.0
"""Seconds without a record after which the thread ends, so that none is left of an observer that is told no more."""


class InBackground(Observer):
    """Tells another observer everything in a thread of its own, in order::

        cache.add_observer(InBackground(MySlowObserver()))

    An observer's methods run inside the query or commit that they describe: what takes long there, or waits for
    something, holds that query up, and with asyncio all others of its event loop. In the background, they cost a query
    what putting a record into a queue costs. At most ``size`` records wait; while there are that many, further ones are
    dropped and counted (:attr:`lost`). What the observer raises is counted (:attr:`errors`), and logged the first time.

    ``load_started``, ``load_finished`` and ``invalidation_started`` are not passed on, and scopes are always ``None``:
    what makes spans has to be told at once. Nor is ``observer_failed``. Records that wait when the process ends are
    lost, unless :meth:`flush` was called.

    Raises:
        ConfigError: ``size`` is not a number above 0.
    """

    def __new__(cls, observer: Observer, size: int = 10_000) -> InBackground:
        # Only what the other one wants to hear: some things are told only where somebody wants to hear them.
        wanted = [name for name in TOLD if getattr(type(observer), name) is not getattr(Observer, name)]
        kind = type(cls.__name__, (cls,), {name: _handing_on(name) for name in wanted})
        made: InBackground = object.__new__(kind)
        return made

    def __init__(self, observer: Observer, size: int = 10_000) -> None:
        if type(size) is not int or size < 1:
            raise ConfigError(f"size: takes a number above 0, got {size!r}")
        self.lost = 0
        """Records that were dropped because too many waited."""
        self._observer = observer
        self._told = Observers([observer])
        self._size = size
        self.forked()
        renew(self)

    def forked(self) -> None:
        self._waiting: queue.Queue[tuple[str, tuple[Any, ...]]] = queue.Queue(self._size)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def __repr__(self) -> str:
        return f"<InBackground {self._observer!r}>"

    @property
    def errors(self) -> int:
        """How often the observer raised."""
        return self._told.errors.total()

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait, for at most ``timeout`` seconds, until everything that waits has been told; say whether it has."""
        waiting = self._waiting
        with waiting.all_tasks_done:
            return waiting.all_tasks_done.wait_for(lambda: not waiting.unfinished_tasks, timeout)

    def _put(self, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            self._waiting.put_nowait((name, arguments))
        except queue.Full:
            with self._starting:
                self.lost += 1
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._tell, name=f"sqlacache-{self!r}", daemon=True)
                self._thread.start()

    def _tell(self) -> None:
        waiting, told = self._waiting, self._told
        while True:
            try:
                name, arguments = waiting.get(timeout=IDLE)
            except queue.Empty:
                if self._leaves():
                    return
                continue
            if name == "invalidated":
                told.invalidated(arguments[0], [(self._observer, None)])
            else:
                getattr(told, name)(*arguments)
            waiting.task_done()

    def _leaves(self) -> bool:
        """Let the thread end, unless a record came meanwhile.

        ::

            1. The thread finds nothing in the queue.
            2. Somebody puts a record there, and sees that there is a thread.
            3. The thread says that it is none, and must look once more: nobody else would tell that record.
        """
        me, self._thread = self._thread, None
        with self._starting:
            if self._waiting.empty() or self._thread is not None:
                return True
            self._thread = me
            return False


def _handing_on(name: str) -> Callable[..., None]:
    with_scope = name in ("decided", "invalidated")

    def hand_on(self: InBackground, *arguments: Any) -> None:
        self._put(name, arguments[:1] if with_scope else arguments)

    return hand_on
