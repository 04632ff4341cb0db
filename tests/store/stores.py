"""Stores to be held against the contract: the memory store, and one that loses what a server can lose."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from sqlacache.decisions import Cause
from sqlacache.store.memory import MemoryBackend, MemoryStore
from sqlacache.store.stamps import Entry, Sample
from sqlacache.tags import Shape, TableTouch, table_stamp
from sqlacache.testing.contract import StoreContract
from tests.store.samples import VALUES


class MemoryContract(StoreContract):
    values = VALUES

    def open(self, database: str = "main", prefix: str = "contract") -> Any:
        backends = self.__dict__.setdefault("backends", defaultdict(MemoryBackend))
        return backends[prefix].open(database, max_bytes=10_000_000, lease=30, on_drop=lambda *dropped: None)

    def another(self, store: Any) -> Any:
        return store

    def end_leases(self, store: Any) -> None:
        store.end_leases()

    def lose(self, store: Any, name: str) -> None:
        store._stamps.pop(name, None)

    def expire(self, store: Any, key: str) -> None:
        store.with_expiry(key, time.time() - 1)

    def stamp_ttl(self, store: Any, name: str) -> float:
        return float(store._stamps[name].expires_at - time.time())


class LosingStore(MemoryStore):
    """A process's view of a server that may lose its registries and its lists of writers, and be replaced by another.

    The rules of DESIGN section 5 for that are the methods named after them, so that a test can leave one out.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.server = {"generation": 1}
        self.forget_what_is_local()

    def forget_what_is_local(self) -> None:
        self._seen: dict[str, tuple[str, tuple[Shape, ...]]] = {}
        self._registered: dict[str, int] = {}

    def another(self) -> LosingStore:
        other = copy(self)  # of the object only: all that is on the server is shared
        other.forget_what_is_local()
        return other

    def revision(self, table: str) -> str:
        return f"{self._revisions[table]}:{len(self._shapes[table])}" if table in self._shapes else ""

    def a_new_registry_holds_under_a_new_table_stamp(self, table: str) -> None:
        self._replace_table(table, None, None)

    def a_writer_that_finds_no_registry_replaces_the_table_stamp(
        self, table: str, token: str, cause: Cause
    ) -> None:
        self._replace_table(table, cause, token)

    def _replace_table(self, table: str, cause: Cause | None, token: str | None) -> None:
        touched = TableTouch(table, "resync", scope="table")
        until = time.monotonic() + self.lease
        self._replace(touched, cause or Cause("resync", table), token, until)
        stamp = self._stamps.get(table_stamp(table))
        if cause is None and stamp is not None:  # it is nobody's write
            stamp.cause = None

    def lookup(self, key: str, names: Sequence[str]) -> Sample:
        return self._under(super().lookup(key, names))

    def peek(self, key: str, names: Sequence[str]) -> Sample:
        return self._under(super().peek(key, names))

    def _under(self, sample: Sample) -> Sample:
        generation = self.server["generation"]
        if sample.entry is not None and sample.entry.under != generation:
            sample = sample._replace(entry=None, gone="generation_changed")
        return sample._replace(under=generation)

    def sample(
        self, names: Sequence[str], tables: Iterable[str], shapes: Iterable[Shape], ttl: float
    ) -> tuple[Sample, bool]:
        shapes = tuple(shapes)
        if not (any(map(self._busy, tables)) or self._busy("*")):
            for table in {shape.table for shape in shapes} - set(self._shapes):
                self._shapes[table] = {}
                self._revisions[table] = secrets.randbits(63)
                self.a_new_registry_holds_under_a_new_table_stamp(table)
        created = dict(self._revisions)
        sample, registered = super().sample(names, tables, shapes, ttl)
        self._revisions.update(created)
        if registered:
            under = dict(zip(names, sample.stamps))
            for shape in shapes:
                stamp = under.get(table_stamp(shape.table))
                if stamp is not None:
                    self._registered[shape.name] = stamp.nonce
        return self._under(sample), registered

    def registered(self, shapes: Iterable[Shape], names: Sequence[str], sample: Sample) -> bool:
        under = {name: stamp.nonce for name, stamp in zip(names, sample.stamps) if stamp is not None}
        return all(
            self._registered.get(shape.name, 0) == under.get(table_stamp(shape.table)) for shape in shapes
        )

    def fill(self, key: str, entry: Entry) -> Any:
        if entry.under != self.server["generation"]:
            return "fenced"
        outcome = super().fill(key, replace(entry, under=None))
        if outcome == "stored":
            self._entries[key] = replace(self._entries[key], under=entry.under)
        return outcome

    def shapes(self, tables: Iterable[str]) -> Mapping[str, tuple[str, tuple[Shape, ...]]]:
        return {table: self._seen.get(table, ("", ())) for table in tables}

    def mark(self, token: str, touched: Any, revisions: Mapping[str, Any], causes: Any) -> Any:
        if any(revision != self.revision(table) for table, revision in revisions.items()):
            for table in revisions:
                self._seen[table] = (self.revision(table), tuple(self._shapes.get(table, {}).values()))
            return None
        for table in touched:
            if table not in self._shapes and table != "*":
                self.a_writer_that_finds_no_registry_replaces_the_table_stamp(table, token, causes[table])
        return super().mark(token, touched, {}, causes)

    def _release(self, token: str, touched: Mapping[str, TableTouch]) -> None:
        super()._release(token, touched)
        super()._release(
            token, {table: TableTouch(table, "resync", scope="table") for table in touched if table != "*"}
        )


class LosingContract(MemoryContract):
    kind: type[LosingStore] = LosingStore

    def open(self, database: str = "main", prefix: str = "contract") -> Any:
        stores = self.__dict__.setdefault("stores", {})
        key = (database, prefix)
        if key not in stores:
            stores[key] = self.kind(max_bytes=10_000_000, lease=30)
        return stores[key]

    def another(self, store: Any) -> Any:
        return store.another()

    def lose_registry(self, store: Any, table: str) -> None:
        store._shapes.pop(table, None)

    def lose_writers(self, store: Any, table: str) -> None:
        store._writers.pop(table, None)

    def change_generation(self, store: Any) -> None:
        store.server["generation"] += 1
