"""Single flight: concurrent misses of one entry in one process share one load.

::

    1. A and B miss the same entry, having sampled the same stamps, none of them in flight.
    2. A leads: it loads. B waits for A's rows instead of asking the database again.
    3. A writer commits: the stamps change. C, which comes now, sampled other stamps: it may not join A.
    4. A finishes: B takes A's rows. They were read after B's stamps were sampled (they equal A's), so B sees nothing
       older than what its own query would have seen when it began.

A follower waits only while its session holds no database connection (a pool of two held by two followers would starve
the leader), and never for a load of its own task or thread (a listener that reads the same while the load is under
way). A leader's error or cancellation reaches nobody else: the followers look again and one of them leads.

Where looking up takes a round trip, one more thing happens::

    1. A and B look up the same entry: nothing there. A leads, loads and finishes.
    2. B's answer from the store, sampled before A filled, arrives only now. No load is under way, so B would lead
       another. But B's stamps equal A's: what A loaded is B's answer as well.

So what a leader loaded stays for those who were looking up the same entry meanwhile (:meth:`Flights.approach`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy.util import await_only

from ..forks import renew
from ..store.stamps import Entry

Nonces = tuple[Any, ...]


class Flight:
    """One load under way."""

    __slots__ = ("done", "entry", "key", "leader", "nonces")

    def __init__(
        self, key: tuple[Any, str], nonces: Nonces, done: asyncio.Event | threading.Event, leader: Any
    ) -> None:
        self.key = key
        self.nonces = nonces
        self.done = done
        self.leader = leader
        self.entry: Entry | None = None

    def serves(self, nonces: Sequence[Any]) -> bool:
        """Tell whether what the leader has loaded answers a read that sampled ``nonces``."""
        entry = self.entry
        return entry is not None and self.nonces == tuple(nonces) and entry.expires_at > time.time()

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
        self.forked()
        renew(self)

    def forked(self) -> None:
        """Forget the loads that are under way in threads of the parent: nobody finishes them here."""
        self._flights: dict[tuple[Any, str], Flight] = {}
        self._approaching: dict[tuple[Any, str], int] = {}
        self._landed: dict[tuple[Any, str], Flight] = {}
        self._lock = threading.Lock()

    def approach(self, key: str) -> None:
        """Take note that somebody looks up an entry, until they :meth:`depart`."""
        where = self._where(key)
        with self._lock:
            self._approaching[where] = self._approaching.get(where, 0) + 1

    def depart(self, key: str) -> None:
        """Take note that they are done; the last one takes what was kept for them along."""
        where = self._where(key)
        with self._lock:
            left = self._approaching.pop(where, 1) - 1
            if left:
                self._approaching[where] = left
            else:
                self._landed.pop(where, None)

    def _where(self, key: str) -> tuple[Any, str]:
        return (asyncio.get_running_loop() if self._asynchronous else None, key)

    def _who(self) -> Any:
        return asyncio.current_task() if self._asynchronous else threading.get_ident()

    def enter(
        self, key: str, nonces: Sequence[Any], *, may_wait: bool, anew: bool = False
    ) -> tuple[Flight | None, bool]:
        """Join or lead: return the flight and whether the caller leads it; ``None`` to load alone.

        With ``anew``, what was loaded already will not do.
        """
        where = self._where(key)
        with self._lock:
            flight = self._flights.get(where)
            landed = self._landed.get(where)
            if landed is not None and not anew and landed.serves(nonces):
                return landed, False
            if flight is None:
                done: Any = asyncio.Event() if self._asynchronous else threading.Event()
                flight = self._flights[where] = Flight(where, tuple(nonces), done, self._who())
                return flight, True
            if may_wait and flight.nonces == tuple(nonces) and flight.leader != self._who():
                return flight, False
            return None, False

    def finish(self, flight: Flight, entry: Entry | None) -> None:
        """End a flight that the caller leads; followers get ``entry``."""
        flight.entry = entry
        with self._lock:
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
            if entry is not None and flight.key in self._approaching:
                self._landed[flight.key] = flight
        flight.done.set()
