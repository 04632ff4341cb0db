"""The store inside one process: ``mem://``.

A cashews memory backend (registered as ``sqlacache+mem``), so that cashews opens and closes it like any other, with
the stamp protocol as plain methods under a lock. It keeps no janitor: expired entries leave when they are met or when
room is needed, and stamps are swept a few at a time, so that the event loop never waits for a scan.

Rows stay decoded when no value in them is mutable; otherwise the bytes are kept and decoded anew for every hit, so that
nothing one caller does to its result reaches another.

**Room** is for entries and stamps (:mod:`.weight`). When it is full, the least recently used entries leave, and with
them the stamps that no other entry was filled under; so do stamps whose reads stored nothing, the oldest first. Whoever
was about to fill under one that left is fenced, and whoever needs it next seeds it anew, with another nonce. Everything
else is bounded by itself: what is remembered of entries gone by :data:`REMEMBERED` and a sixteenth of the room, writers
that settled by :data:`SETTLED`, marks by the writers under way, shapes and revisions by the application's statements.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from cashews import register_backend
from cashews.backends.memory import Memory

from ..decisions import Cause, FillOutcome, MissReason
from ..forks import renew
from ..tags import EVERYTHING, Shape, TableTouch, table_stamp
from . import weight
from .marked import UNMARKED, Stamp
from .stamps import Entry, Sample, StampView
from .unbound import unneeded

SWEEP = 64
"""Stamps looked at per sweep; one sweep is done for every so many stamps seeded."""
SETTLED = 1000
"""Writers that are known to have settled, so that one who does it again, for want of an answer, replaces no more."""
REMEMBERED = 10_000
"""Keys of entries gone whose reason is remembered, so that a miss can say it expired or was evicted for room."""
GONE = 4096
"""Bytes of room for each of them, which takes a sixteenth of that; a few are remembered in any case."""
LOOKED = 2
"""Stamps looked at for each entry that leaves for want of room."""


class MemoryBackend(Memory):
    """cashews' memory backend without its janitor; the stores of a cache, one per database, live in it.

    Closing it (``Cache.close()``) forgets every entry. Stamps and the marks of writers stay, so that a writer who
    was at its COMMIT meanwhile still voids what is stored after it is opened again.
    """

    breaker = None
    transport = None

    def __init__(self, **kwargs: Any) -> None:
        kwargs["check_interval"] = 0
        super().__init__(**kwargs)
        self._stores: dict[str, MemoryStore] = {}

    def open(
        self, database: str, *, max_bytes: int, lease: float, on_drop: Callable[[str, int], None]
    ) -> MemoryStore:
        """Return the store of one database."""
        store = self._stores.get(database)
        if store is None:
            store = self._stores[database] = MemoryStore(max_bytes=max_bytes, lease=lease, on_drop=on_drop)
        return store

    async def keep(self, bound: Collection[str], awaited: Collection[str]) -> None:
        for database in unneeded(self._stores, bound, awaited, MemoryStore.is_being_written):
            del self._stores[database]

    def forked(self) -> None:
        """Nothing listens here."""

    async def close(self) -> None:
        for store in self._stores.values():
            store.delete_everything()
        await super().close()


register_backend("sqlacache+mem", MemoryBackend)


class MemoryStore:
    """Implements :class:`~sqlacache.store.port.Store` in this process; safe to use from several threads.

    Args:
        max_bytes: Room for entries and stamps, in bytes of memory; the least recently used leave first.
        lease: Seconds after which a writer that did not come back is no longer considered to be under way.
        on_drop: Called with a table's name and a number of entries when entries leave for want of room.
    """

    tier = "local"
    budget = inf
    keeps_bytes = False

    def __init__(
        self, *, max_bytes: int, lease: float, on_drop: Callable[[str, int], None] | None = None
    ) -> None:
        self.max_bytes = max_bytes
        self.lease = lease
        self.bytes = 0
        """Bytes that entries and stamps take of this process."""
        self._on_drop = on_drop
        self.forked()
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._descriptions = weight.Shared()
        self._gone: OrderedDict[str, MissReason] = OrderedDict()
        self._stamps: OrderedDict[str, Stamp] = OrderedDict()
        self._shapes: dict[str, dict[str, Shape]] = {}
        self._revisions: dict[str, int] = {}
        self._writers: dict[str, dict[str, float]] = {}
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._seeded = 0
        renew(self)

    def forked(self) -> None:
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, key: str, names: Sequence[str]) -> Sample:
        with self._lock:
            entry = self._entries.get(key)
            gone: MissReason | None = None
            if entry is None:
                gone = self._gone.get(key)
            elif entry.expires_at <= time.time():
                self._remove(key, "expired")
                entry, gone = None, "expired"
            else:
                self._entries.move_to_end(key)
            return Sample(entry, self._view(names), gone)

    def at_hand(self, key: str, names: Sequence[str]) -> Sample | None:
        return self.lookup(key, names)

    def unconfirmed(self, key: str) -> Entry | None:
        return None  # everything is at hand

    async def confirm(self, key: str, names: Sequence[str], entry: Entry) -> Sample | None:
        return None

    def peek(self, key: str, names: Sequence[str]) -> Sample:
        with self._lock:
            entry = self._entries.get(key)
            gone = self._gone.get(key)
            if entry is not None and entry.expires_at <= time.time():
                entry, gone = None, "expired"
            return Sample(entry, self._view(names), gone)

    def _view(self, names: Sequence[str]) -> list[StampView | None]:
        stamps = self._stamps
        views: list[StampView | None] = []
        for name in names:
            stamp = stamps.get(name)
            if stamp is None:
                views.append(None)
                continue
            in_flight = bool(stamp.marks) and self._alive(stamp.marks)
            views.append(StampView(stamp.version, stamp.nonce, in_flight, stamp.cause))
        return views

    @staticmethod
    def _alive(tokens: dict[str, float]) -> bool:
        now = time.monotonic()
        for token in [token for token, until in tokens.items() if until <= now]:
            del tokens[token]
        return bool(tokens)

    def sample(
        self,
        names: Sequence[str],
        tables: Iterable[str],
        shapes: Iterable[Shape],
        ttl: float,
        within: float = inf,
    ) -> tuple[Sample, bool]:
        if self.bytes > self.max_bytes:
            self._make_room()
        with self._lock:
            under_way = self._busy(EVERYTHING) or any(self._busy(table) for table in tables)
            missing = [shape for shape in shapes if shape.name not in self._shapes.get(shape.table, ())]
            absent = [name for name in names if name not in self._stamps]
            if under_way and (missing or absent):
                return Sample(None, self._view(names)), False
            for shape in missing:
                self._shapes.setdefault(shape.table, {})[shape.name] = shape
                self._revisions[shape.table] = self._revisions.get(shape.table, 0) + 1
            until = time.time() + ttl
            for name in absent:
                seeded = self._stamps[name] = Stamp(1, secrets.randbits(63), until)
                seeded.weight = weight.stamp(name, seeded)
                self.bytes += seeded.weight
                self._seeded += 1
            for name in names:
                stamp = self._stamps[name]
                stamp.expires_at = max(stamp.expires_at, until)
                self._stamps.move_to_end(name)
            if self._seeded >= SWEEP:
                self._seeded = 0
                self._sweep()
            return Sample(None, self._view(names)), True

    def registered(self, shapes: Iterable[Shape], names: Sequence[str], sample: Sample) -> bool:
        """Here, a registry is never lost: whoever seeded a shape's stamp has registered the shape."""
        return None not in sample.stamps

    def _busy(self, table: str) -> bool:
        writers = self._writers.get(table)
        return writers is not None and self._alive(writers)

    def _sweep(self) -> None:
        now = time.time()
        for name in [name for _, name in zip(range(SWEEP * 2), self._stamps)]:
            if self._stamps[name].expires_at > now or not self._drop_unused(name):
                self._stamps.move_to_end(name)

    def _drop_unused(self, name: str) -> bool:
        """Let a stamp go if there is no entry under it and no writer has marked it."""
        stamp = self._stamps.get(name)
        if stamp is None or stamp.uses or stamp.marks:
            return False
        del self._stamps[name]
        self.bytes -= stamp.weight
        return True

    def fill(self, key: str, entry: Entry, within: float = inf) -> FillOutcome:
        if entry.under is not None:
            return "fenced"  # of some other store: here there is one generation only
        taken = weight.entry(entry)
        with self._lock:
            held: list[Stamp] = []
            for name, _, nonce in entry.stamps:
                stamp = self._stamps.get(name)
                if stamp is None or stamp.nonce != nonce or (stamp.marks and self._alive(stamp.marks)):
                    return "fenced"  # it could never be hit, and must not displace one that can
                held.append(stamp)
            alone = taken + weight.key(key) + self._descriptions.weight(entry.description)
            if alone + sum([stamp.weight for stamp in held]) > self.max_bytes:
                return "too_large"
            if key in self._entries:
                self._remove(key, None)
            self._gone.pop(key, None)
            self._keep(key, entry, taken, held)
        if self.bytes > self.max_bytes:
            self._make_room()
        return "stored"

    def _keep(self, key: str, entry: Entry, taken: int, held: Sequence[Stamp]) -> None:
        for stamp, filled in zip(held, entry.stamps):
            stamp.uses += 1
            if stamp.filled != filled:
                stamp.filled = filled
        entry.weigh(taken, stamps=tuple([stamp.filled for stamp in held if stamp.filled]))
        self._entries[key] = entry
        self.bytes += taken + weight.key(key) + self._descriptions.take(entry.description)

    def _make_room(self) -> None:
        """Let entries and stamps go until what is here has room, but for the entry that came last."""
        dropped: dict[str, int] = {}
        with self._lock:
            while self.bytes > self.max_bytes:
                last = len(self._entries) <= 1
                for _ in range(len(self._stamps) if last else LOOKED):
                    name = next(iter(self._stamps), "")
                    if self.bytes > self.max_bytes and not self._drop_unused(name) and name:
                        self._stamps.move_to_end(name)
                if last:
                    break
                if self.bytes > self.max_bytes:
                    oldest = next(iter(self._entries))
                    table = oldest.split(":", 1)[0]
                    dropped[table] = dropped.get(table, 0) + 1
                    for name, _, _ in self._remove(oldest, "capacity_evicted").stamps:
                        self._drop_unused(name)
        if self._on_drop is not None:
            for table, entries in dropped.items():
                self._on_drop(table, entries)

    def _remove(self, key: str, reason: MissReason | None) -> Entry:
        entry = self._entries.pop(key)
        self.bytes -= entry.weight + weight.key(key) + self._descriptions.leave(entry.description)
        for name, _, _ in entry.stamps:
            stamp = self._stamps.get(name)
            if stamp is not None and stamp.uses:
                stamp.uses -= 1
        if reason is not None:
            self._gone[key] = reason
            if len(self._gone) > min(REMEMBERED, max(16, self.max_bytes // GONE)):
                self._gone.popitem(last=False)
        return entry

    def learn(self, key: str, entry: Entry, what: Any) -> None:
        with self._lock:
            if self._entries.get(key) is not entry:
                return
            self.bytes += weight.learn(entry, what)
        if self.bytes > self.max_bytes:
            self._make_room()

    def shapes(self, tables: Iterable[str]) -> Mapping[str, tuple[Hashable, tuple[Shape, ...]]]:
        with self._lock:
            return {
                table: (self._revisions.get(table, 0), tuple(self._shapes.get(table, {}).values()))
                for table in tables
            }

    def mark(
        self,
        token: str,
        touched: Mapping[str, TableTouch],
        revisions: Mapping[str, Hashable],
        causes: Mapping[str, Cause],
    ) -> dict[str, int] | None:
        with self._lock:
            if any(self._revisions.get(table, 0) != revision for table, revision in revisions.items()):
                return None
            until = time.monotonic() + self.lease
            replaced: dict[str, int] = {}
            for table, what in touched.items():
                self._writers.setdefault(table, {})[token] = until
                there = not self._stamps.keys().isdisjoint(what.names())
                replaced[table] = self._replace(what, causes[table], token, until) if there else 0
            return replaced

    def _replace(self, what: TableTouch, cause: Cause, token: str | None, until: float) -> int:
        """Replace the stamps that are there. An absent one stays absent: whatever was filled under it is dead, and
        whoever seeds it while the writer is under way may not fill."""
        found = [stamp for stamp in map(self._stamps.get, what.names()) if stamp is not None]
        part = weight.cause(cause) // len(found) if found else 0
        for stamp in found:
            stamp.version += 1
            stamp.nonce = secrets.randbits(63)
            stamp.cause = cause
            self.bytes += part - stamp.caused
            stamp.weight += part - stamp.caused
            stamp.caused = part
            if token is not None:
                if stamp.marks is UNMARKED:
                    stamp.marks = {}
                stamp.marks[token] = until
        return len(found)

    def settle(self, token: str, touched: Mapping[str, TableTouch], causes: Mapping[str, Cause]) -> None:
        with self._lock:
            again = token in self._settled
            for table, what in touched.items():
                if not self._stamps.keys().isdisjoint(what.names()):
                    self._replace(what, causes[table], None, 0)
                if what.scope != "table" and not again and token not in self._writers.get(table, ()):
                    # Its lease ended: readers may have registered shapes since that phase one did not touch.
                    self._replace(TableTouch(table, what.cause, "table"), causes[table], None, 0)
            self._release(token, touched)
            self._settled[token] = None
            if len(self._settled) > SETTLED:
                self._settled.popitem(last=False)

    def unmark(self, token: str, touched: Mapping[str, TableTouch]) -> None:
        with self._lock:
            self._release(token, touched)

    def begin_unread(self, token: str, tables: Iterable[str]) -> bool:
        with self._lock:
            if not self._revisions.keys().isdisjoint(tables):
                return False
            until = time.monotonic() + self.lease
            for table in tables:
                self._writers.setdefault(table, {})[token] = until
            return True

    def end_unread(self, token: str, tables: Iterable[str]) -> bool:
        with self._lock:
            for table in tables:
                self._come_back(token, table)
            return self._revisions.keys().isdisjoint(tables)

    def _come_back(self, token: str, table: str) -> None:
        writers = self._writers.get(table)
        if writers is not None:
            writers.pop(token, None)
            if not writers:
                del self._writers[table]

    def _release(self, token: str, touched: Mapping[str, TableTouch]) -> None:
        for table, what in touched.items():
            self._come_back(token, table)
            for name in what.names():
                stamp = self._stamps.get(name)
                if stamp is not None and stamp.marks:
                    stamp.marks.pop(token, None)
                    stamp.marks = stamp.marks or UNMARKED

    def replace_now(self, touched: Mapping[str, TableTouch], causes: Mapping[str, Cause]) -> dict[str, int]:
        """Replace stamps at once, for a write that already happened elsewhere; return how many, by table."""
        with self._lock:
            return {table: self._replace(what, causes[table], None, 0) for table, what in touched.items()}

    def is_being_written(self) -> bool:
        """Tell whether a writer is under way, or may be until its lease has ended."""
        with self._lock:
            return any(self._alive(writers) for writers in self._writers.values())

    def delete_everything(self) -> int:
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
            self._gone.clear()
            self._descriptions.clear()
            for stamp in self._stamps.values():
                stamp.uses = 0
            self.bytes = sum([stamp.weight for stamp in self._stamps.values()])
            return count

    def purge(self, tables: Iterable[str]) -> int:
        wanted = {table_stamp(table) for table in tables}
        with self._lock:
            found = [
                key
                for key, entry in self._entries.items()
                if any(name in wanted for name, _, _ in entry.stamps)
            ]
            for key in found:
                self._remove(key, None)
            return len(found)

    def end_leases(self) -> None:
        """End the lease of every writer under way (for tests of leases that do not wait)."""
        with self._lock:
            for tokens in (*self._writers.values(), *(stamp.marks for stamp in self._stamps.values())):
                for token in tokens:
                    tokens[token] = 0.0

    def with_expiry(self, key: str, expires_at: float) -> None:
        """Change when an entry expires (for tests of expiry that do not wait)."""
        with self._lock:
            self._entries[key] = replace(self._entries[key], expires_at=expires_at)
