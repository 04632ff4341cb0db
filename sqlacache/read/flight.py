"""Single flight: concurrent misses of one entry in one process share one load.

::

    1. A and B miss the same entry, having sampled the same stamps, none of them in flight.
    2. A leads: it loads. B waits for A's rows instead of asking the database again.
    3. A writer commits: the stamps change. C, which comes now, sampled other stamps: it may not join A.
    4. A finishes: B takes A's rows. They were read after B's stamps were sampled (they equal A's), so B sees nothing
       older than what its own query would have seen when it began.

A follower waits only while its session holds no database connection (a pool of two held by two followers would starve
the leader). A leader's error or cancellation reaches nobody else: the followers look again and one of them leads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from sqlalchemy.util import await_only

from ..store.stamps import Entry

Nonces = tuple[int, ...]


class Flight:
    """One load under way."""

    __slots__ = ("done", "entry", "key", "nonces")

    def __init__(self, key: tuple[Any, str], nonces: Nonces, done: asyncio.Event | threading.Event) -> None:
        self.key = key
        self.nonces = nonces
        self.done = done
        self.entry: Entry | None = None

    def wait(self) -> Entry | None:
        """Wait for the leader; return what it loaded, or ``None`` if it failed."""
        if isinstance(self.done, asyncio.Event):
            await_only(self.done.wait())
        else:
            self.done.wait()
        return self.entry


class Flights:
    """The loads under way in this process."""

    def __init__(self, *, asynchronous: bool) -> None:
        self._asynchronous = asynchronous
        self._flights: dict[tuple[Any, str], Flight] = {}
        self._lock = threading.Lock()

    def enter(self, key: str, nonces: Sequence[int], *, may_wait: bool) -> tuple[Flight | None, bool]:
        """Join or lead: return the flight and whether the caller leads it; ``None`` to load alone."""
        where = (asyncio.get_running_loop() if self._asynchronous else None, key)
        with self._lock:
            flight = self._flights.get(where)
            if flight is None:
                done: Any = asyncio.Event() if self._asynchronous else threading.Event()
                flight = self._flights[where] = Flight(where, tuple(nonces), done)
                return flight, True
            if may_wait and flight.nonces == tuple(nonces):
                return flight, False
            return None, False

    def finish(self, flight: Flight, entry: Entry | None) -> None:
        """End a flight that the caller leads; followers get ``entry``."""
        flight.entry = entry
        with self._lock:
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
        flight.done.set()
