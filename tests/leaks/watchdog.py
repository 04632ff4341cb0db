"""Says what everything waits for when no operation has ended for a while, so that a hang explains itself."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import io
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from types import TracebackType

from greenlet import greenlet

PATIENCE = 60.0
"""Seconds."""


def _print(told: str) -> None:
    print(told, file=sys.stderr, flush=True)


class Watchdog:
    """While it is entered, looks at a number that ought to grow; when it has not for ``patience`` seconds, tells once
    where all threads are, and then, if the loop still turns, where its tasks and all greenlets are."""

    def __init__(
        self,
        progress: Callable[[], int],
        loop: asyncio.AbstractEventLoop | None,
        patience: float = PATIENCE,
        tell: Callable[[str], None] = _print,
    ) -> None:
        self._progress = progress
        self._loop = loop
        self._patience = patience
        self._tell = tell
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        before, told = self._progress(), False
        while not self._ended.wait(self._patience):
            now = self._progress()
            if now == before and not told:
                told = True
                self._tell(f"no operation has ended for {self._patience:g} s\n{threads()}")
                if self._loop is not None:
                    # In its own thread, where no greenlet runs on while its frames are read.
                    self._loop.call_soon_threadsafe(self._tell_of_loop, self._loop)
            elif now != before:
                before, told = now, False

    def _tell_of_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tell(f"{tasks(loop)}\n{greenlets()}")


def threads() -> str:
    """Where every thread is."""
    with tempfile.TemporaryFile("w+") as told:
        faulthandler.dump_traceback(told, all_threads=True)
        told.seek(0)
        return told.read()


def tasks(loop: asyncio.AbstractEventLoop) -> str:
    """Where every task of a loop is, as far as its coroutines go."""
    told = io.StringIO()
    for one in asyncio.all_tasks(loop):
        print(repr(one), file=told)
        one.print_stack(file=told)
    return told.getvalue()


def greenlets() -> str:
    """Where every greenlet is that waits."""
    found = [one for one in gc.get_objects() if isinstance(one, greenlet) and one.gr_frame is not None]
    return "\n".join(f"{one!r}\n{''.join(traceback.format_stack(one.gr_frame))}" for one in found)
