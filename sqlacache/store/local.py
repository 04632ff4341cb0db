"""The local tier: decoded entries kept in this process, bounded in bytes, to be served only while they still hold.

``validated``: every lookup asks the server for the stamps, and only for those; what is here is served if they are the
ones it was filled under. It is as fresh as the server, and saves moving and decoding the rows.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

from ..forks import renew
from .stamps import Entry


class LocalTier:
    """Entries of one database in this process; safe to use from several threads.

    Args:
        max_bytes: Room, in bytes of the entries' encoded form; the least recently used leave first.
        on_drop: Called with a table's name and a number of entries when entries leave for want of room.
    """

    def __init__(self, max_bytes: int, on_drop: Callable[[str, int], None] | None = None) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._on_drop = on_drop
        self._entries: OrderedDict[str, Entry] = OrderedDict()
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
        """Keep an entry whose rows are decoded."""
        with self._lock:
            self._put(key, entry)
        self._tell_dropped()

    def _put(self, key: str, entry: Entry) -> None:
        if key in self._entries:
            self._remove(key)
        if entry.size > self.max_bytes:
            return
        self._entries[key] = replace(entry, encoded=None) if entry.encoded is not None else entry
        self.bytes += entry.size
        while self.bytes > self.max_bytes:
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
            self.bytes = 0
            return count

    def _remove(self, key: str) -> None:
        self.bytes -= self._entries.pop(key).size
