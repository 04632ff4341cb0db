"""The pushed tier: entries served from this process without asking anybody, fresh within a stated bound.

Writers announce the stamps they touch; what depends on them is void when the announcement arrives.

::

    1. A reader samples the stamps and loads old rows from the database.
    2. A writer commits and announces. The announcement arrives and voids what is here: the reader's entry is not, yet.
    3. The reader fills. Its entry would stay: nobody announces that commit again.

Hence an entry is void if an announcement of any of its stamps arrived after they were sampled, and is neither stored
nor served.

The server answers a PING on the subscription's own connection in order with the announcements, so that a PONG proves
that whatever was announced before the PING was sent has arrived. Entries are served for ``bound`` seconds after the
PING was sent that was last answered; a lost connection, a gap in the sequence or anything unreadable empties the tier.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from sys import getsizeof

from ..tags import table_stamp
from . import weight
from .announcing import Announcement
from .local import LocalTier
from .stamps import Entry, Sample, StampView

MAX_REMEMBERED = 100_000
"""Stamps whose last announcement is remembered; beyond it, or a quarter of the room, everything sampled before is
void."""
_PLACE = weight.slot(dict) + getsizeof(1 << 20)


class Generation(bytes):
    """A generation, with the number of announcements that had arrived when stamps were sampled under it."""

    arrived: int

    def __new__(cls, value: bytes, arrived: int) -> Generation:
        made = super().__new__(cls, value)
        made.arrived = arrived
        return made


class PushedTier(LocalTier):
    """A local tier that announcements keep fresh.

    Args:
        max_bytes: Room, in bytes of memory, of which what is remembered of announcements takes a quarter at most.
        bound: Seconds that an answer may be behind the newest commit.
        on_drop: Called with a table's name and a number of entries when entries leave for want of room.
    """

    def __init__(
        self, max_bytes: int, bound: float, on_drop: Callable[[str, int], None] | None = None
    ) -> None:
        super().__init__(max_bytes, on_drop)
        self.bound = bound
        self.arrived = 0
        """Announcements that have arrived."""
        self._live_until = 0.0
        self._last: dict[str, int] = {}
        """Number of the last announcement of each stamp."""
        self._noted = 0
        """Bytes of these."""
        self._floor = 0

    def _beside(self) -> int:
        return self._noted

    @property
    def is_live(self) -> bool:
        """Whether what is here may be served now."""
        return time.monotonic() < self._live_until

    def proved(self, sent_at: float) -> None:
        """Take note that whatever was announced before ``sent_at`` (on the monotonic clock) has arrived."""
        self._live_until = sent_at + self.bound

    def suspend(self) -> int:
        """Serve nothing until the next proof, and never what was sampled before; return how many entries there are."""
        with self._lock:
            self._live_until = 0.0
            self.arrived += 1
            self._forget()
            return len(self._entries)

    def _forget(self) -> None:
        """Take everything sampled until now for void: what was announced since is no longer known."""
        self._floor = self.arrived
        self._last.clear()
        self.bytes -= self._noted
        self._noted = 0

    def announce(self, announcement: Announcement) -> None:
        """Void what an announcement touches."""
        names: list[str] = []
        for touched in announcement.touched:
            names += touched.names if touched.names is not None else [table_stamp(touched.table)]
        self.touch(names)

    def touch(self, names: Iterable[str]) -> None:
        """Void what depends on stamps and was sampled before.

        It leaves when it is met, or for want of room: one stamp may void a hundred thousand entries, and looking for
        them would keep the event loop from everything else.
        """
        with self._lock:
            self.arrived += 1
            if len(self._last) > MAX_REMEMBERED or self._noted > self.max_bytes // 4:
                self._forget()
            more = 0
            for name in names:
                if name not in self._last:
                    more += _PLACE + weight.text(name)
                self._last[name] = self.arrived
            self._noted += more
            self.bytes += more
            self._make_room()
        self._tell_dropped()

    def get(self, key: str) -> Entry | None:
        entry = super().get(key)
        if entry is None or self._is_current(entry):
            return entry
        self.drop([key])
        return None

    def put(self, key: str, entry: Entry) -> None:
        if self._is_current(entry):
            super().put(key, entry)

    def _is_current(self, entry: Entry) -> bool:
        """Tell whether no announcement of an entry's stamps has arrived since they were sampled."""
        sampled = getattr(entry.under, "arrived", -1)
        with self._lock:
            if sampled < self._floor:
                return False
            last = self._last
            return all(last.get(name, -1) <= sampled for name, _, _ in entry.stamps)


def unasked(held: Entry) -> Sample:
    """Return what a lookup brings that asks nobody: no announcement has touched what the entry was filled under."""
    views = [StampView(version, nonce, False, None) for _, version, nonce in held.stamps]
    return Sample(held, views, under=held.under, tier="local")
