"""Ending a connection that the garbage collector found without waiting for it.

SQLAlchemy ends such a connection of an asynchronous engine there and then, and if that is in one of its greenlets, the
greenlet waits meanwhile (2.x: to close it gracefully; 1.4: to roll back). The collector runs wherever memory is asked
for, so whoever waits may hold any lock of the process:

1. Greenlet A holds a lock and asks for memory; the collector finds a session that nobody closed, and A waits.
2. The loop runs greenlet B, which wants the lock: the thread blocks, and with it the loop, for good.

Ours are not the only locks that are held while a query goes on: those of metrics and of handlers of logs are, too.
Outside a greenlet SQLAlchemy does not wait, so that is where it gets to be (1.4 is refused its rollback, and ends it).

SQLAlchemy's private surface of this concern, tested on 1.4, 2.0 and 2.1
(``tests/issues/test_a_forgotten_connection_was_waited_for_under_a_lock.py``): ``_finalize_fairy`` of its pool and the
name in it that says who called; a version that has other names waits as it does by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy import __version__
from sqlalchemy.exc import InvalidRequestError

ROLLS_BACK = __version__.startswith("1.")
"""Whether a connection that was found is rolled back, and kept, instead of being ended."""
FARTHEST = 4
"""Calls between the pool's finalizer and the dialect."""


def without_waiting(end: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return ``end``, an asynchronous dialect's ``do_terminate``, run outside of SQLAlchemy's greenlets when it is the
    garbage collector's. Asynchronous engines have ``greenlet`` at hand."""
    from greenlet import greenlet

    def do_terminate(connection: Any) -> None:
        if _is_collected():
            greenlet(end).switch(connection)
        else:
            end(connection)

    return do_terminate


def unless_collected(roll_back: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return ``roll_back``, an asynchronous dialect's ``do_rollback``, that refuses when it is the garbage collector's:
    the pool logs that, and ends the connection, for which 1.4 does not wait."""

    def do_rollback(connection: Any) -> None:
        if _is_collected():
            raise InvalidRequestError(
                "the garbage collector found this connection, so it is not rolled back but ended"
            )
        roll_back(connection)

    return do_rollback


def _is_collected() -> bool:
    frame = sys._getframe(2)
    for _ in range(FARTHEST):
        if frame.f_code.co_name == "_finalize_fairy":
            held = frame.f_locals
            return bool(held.get("is_gc_cleanup") or held.get("ref") is not None)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return False
