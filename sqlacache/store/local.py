"""The local tier: decoded entries kept in this process, to be served only while they still hold.

Its room is bounded in bytes of this process's memory (:mod:`.weight`).

``validated``: every lookup asks the server for the stamps, and only for those; what is here is served if they are the
ones it was filled under. It is as fresh as the server, and saves moving and decoding the rows.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ..forks import renew
from . import weight
from .stamps import Entry


class LocalTier:
    """Entries of one database in this process; safe to use from several threads.

    Args:
        max_bytes: Room, in bytes of memory; the least recently used leave first.
        on_drop: Called with a table's name and a number of entries when entries leave for want of room.
    """

    def __init__(self, max_bytes: int, on_drop: Callable[[str, int], None] | None = None) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        """Bytes that what is here takes of this process."""
        self._on_drop = on_drop
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._shared = weight.Shared()
        self._under: Any = None
        self._dropped: dict[str, int] = {}
        self.forked()
        renew(self)

    def forked(self) -> None:
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        """Return an entry that has not expired."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry.expires_at <= time.time():
                self._remove(key)
                return None
            self._entries.move_to_end(key)
            return entry

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry whose rows are decoded, unless it is larger than all room."""
        if entry.encoded is not None:
            entry = replace(entry, encoded=None)
        taken = weight.entry(entry) + weight.stamps(entry.stamps)
        with self._lock:
            self._put(key, entry, taken)
            self._make_room()
        self._tell_dropped()

    def _put(self, key: str, entry: Entry, taken: int) -> None:
        if key in self._entries:
            self._remove(key)
        shared = self._shared
        entry.weigh(taken, under=self._same(entry.under))
        alone = taken + weight.key(key) + shared.weight(entry.description) + shared.weight(entry.under)
        if alone + self._beside() > self.max_bytes:
            return  # it must not displace all others
        self._entries[key] = entry
        self.bytes += taken + weight.key(key) + shared.take(entry.description) + shared.take(entry.under)

    def _same(self, under: Any) -> Any:
        """Return the generation of the entry before, if it is equal: each lookup brings another object."""
        if self._under != under or getattr(self._under, "__dict__", None) != getattr(under, "__dict__", None):
            self._under = under
        return self._under

    def _beside(self) -> int:
        """Return the bytes within :attr:`bytes` that are not of entries."""
        return 0

    def _make_room(self) -> None:
        while self.bytes > self.max_bytes and self._entries:
            oldest = next(iter(self._entries))
            self._remove(oldest)
            table = oldest.split(":", 1)[0]
            self._dropped[table] = self._dropped.get(table, 0) + 1

    def _tell_dropped(self) -> None:
        if not self._dropped:
            return
        with self._lock:
            dropped, self._dropped = self._dropped, {}
        if self._on_drop is not None:
            for table, count in dropped.items():
                self._on_drop(table, count)

    def drop(self, keys: Iterable[str]) -> None:
        """Forget entries."""
        with self._lock:
            for key in keys:
                if key in self._entries:
                    self._remove(key)

    def clear(self) -> int:
        """Forget everything; return how many entries there were."""
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
            self._shared.clear()
            self.bytes = self._beside()
            return count

    def learn(self, key: str, entry: Entry, what: Any) -> None:
        """Keep what was made of an entry's rows with it, if it is still here."""
        with self._lock:
            if self._entries.get(key) is not entry:
                return
            self.bytes += weight.learn(entry, what)
            self._make_room()
        self._tell_dropped()

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key)
        self.bytes -= entry.weight + weight.key(key)
        self.bytes -= self._shared.leave(entry.description) + self._shared.leave(entry.under)
