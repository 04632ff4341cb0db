"""MemoryStore: room, expiry, leases, sweeping and threads; tests/store holds it against the contract of all stores."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from threading import Thread
from typing import Any

import pytest

from sqlacache.decisions import Cause
from sqlacache.store import memory, weight
from sqlacache.store.memory import MemoryStore
from sqlacache.store.stamps import Entry, decide
from sqlacache.tags import EVERYTHING, Shape, TableTouch

ROW = Shape("users", ("id",), None, keyed=True)
ACTIVE = Shape("users", ("active",), None)
NAMES = [EVERYTHING, "users#table", "users:key", "users:1"]
TTL = 100.0
ROOM = 20_000
PLENTY = 1 << 20
CAUSES = {"users": Cause("row_update", "users"), EVERYTHING: Cause("flush", EVERYTHING)}


class FakeTime:
    """Stands for the module ``time`` in the store."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(memory, "time", fake)
    return fake


@pytest.fixture
def drops() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def store(drops: list[tuple[str, int]], clock: FakeTime) -> MemoryStore:
    return MemoryStore(
        max_bytes=ROOM, lease=30, on_drop=lambda table, entries: drops.append((table, entries))
    )


def seed(store: MemoryStore, names: Any = NAMES, shapes: Any = (ROW,)) -> Any:
    sample, registered = store.sample(names, ["users"], shapes, TTL)
    assert registered
    return sample


def entry_of(sample: Any, names: Any = NAMES, *, size: int = 10, expires: float = 2_000_000.0) -> Entry:
    """An entry of one row, whose value has ``size`` bytes."""
    stamps = tuple((name, view.version, view.nonce) for name, view in zip(names, sample.stamps))
    return Entry(stamps, (("id", None),), ((bytes(size),),), None, 0.0, expires, 0.1, size, 1)


def held(store: MemoryStore) -> int:
    """What the store holds, counted anew."""
    entries = sum(weight.key(key) + weight.entry(entry) for key, entry in store._entries.items())
    descriptions = {id(entry.description): entry.description for entry in store._entries.values()}
    stamps = sum(weight.stamp(name, stamp) + stamp.caused for name, stamp in store._stamps.items())
    return entries + sum(map(weight.Shared().weight, descriptions.values())) + stamps


def filled(store: MemoryStore, key: str = "users:get:a", **options: Any) -> Entry:
    entry = entry_of(seed(store), **options)
    assert store.fill(key, entry) == "stored"
    return entry


def row(*stamps: str) -> dict[str, TableTouch]:
    return {"users": TableTouch("users", "row_update", stamps=dict.fromkeys(stamps))}


def revisions(store: MemoryStore) -> dict[str, int]:
    return {table: revision for table, (revision, _) in store.shapes(["users"]).items()}


def mark(store: MemoryStore, token: str, touched: Any) -> Any:
    return store.mark(token, touched, revisions(store), CAUSES)


def decided(store: MemoryStore, key: str = "users:get:a", names: Any = NAMES) -> Any:
    return decide(names, frozenset({"users:1"}), store.lookup(key, names))


def test_what_is_filled_under_seeded_stamps_is_found(store: MemoryStore) -> None:
    assert decided(store).reason == "absent"
    entry = filled(store)
    assert decided(store).entry is entry
    assert len(store) == 1
    assert store.bytes == held(store)


def test_a_fill_of_what_was_sampled_before_the_write_is_fenced(store: MemoryStore) -> None:
    sample = seed(store)
    mark(store, "w", row("users:1"))
    assert store.fill("users:get:a", entry_of(sample)) == "fenced"
    store.settle("w", row("users:1"), CAUSES)
    assert store.fill("users:get:a", entry_of(sample)) == "fenced"
    assert len(store) == 0


def test_a_fill_of_what_was_sampled_between_the_phases_is_fenced(store: MemoryStore) -> None:
    seed(store)
    mark(store, "w", row("users:1"))
    between = store.lookup("users:get:a", NAMES)
    assert store.fill("users:get:a", entry_of(between)) == "fenced"
    store.settle("w", row("users:1"), CAUSES)
    assert store.fill("users:get:a", entry_of(between)) == "fenced"


def test_a_fill_of_another_generation_is_fenced(store: MemoryStore) -> None:
    entry = entry_of(seed(store))
    assert store.fill("users:get:a", replace(entry, under="another server's")) == "fenced"
    assert store.lookup("users:get:a", NAMES).under is None


def test_a_writer_that_never_comes_back_is_taken_for_dead_after_its_lease(
    store: MemoryStore, clock: FakeTime
) -> None:
    seed(store)
    mark(store, "w", row("users:1"))
    clock.now += 29.9
    assert decided(store).fillable is False
    assert store.sample(["users?active"], ["users"], [ACTIVE], TTL)[1] is False
    clock.now += 0.2
    assert decided(store).fillable is True
    assert store.sample(["users?active"], ["users"], [ACTIVE], TTL)[1] is True
    entry = entry_of(store.lookup("k", NAMES))
    assert store.fill("users:get:a", entry) == "stored"
    store.settle("w", row("users:1"), CAUSES)  # it comes after all: what was filled meanwhile dies
    assert decided(store).entry is None


def test_an_invalidation_from_elsewhere_is_one_step(store: MemoryStore) -> None:
    filled(store)
    assert store.replace_now(row("users:1"), CAUSES) == {"users": 1}
    found = decided(store)
    assert (found.entry, found.fillable) == (None, True)


def test_room_is_bounded_in_bytes_and_the_least_recently_used_leave(
    store: MemoryStore, drops: list[tuple[str, int]]
) -> None:
    entry = entry_of(seed(store), size=5000)
    for key in ("users:get:a", "users:get:b", "orders:get:c"):
        assert store.fill(key, entry) == "stored"
    assert decided(store, "users:get:a").entry is entry  # used just now
    store.fill("users:get:d", entry)
    assert (len(store), drops) == (3, [("users", 1)])
    assert 15_000 < store.bytes == held(store) <= ROOM
    assert decided(store, "users:get:b").reason == "capacity_evicted"
    assert decided(store, "users:get:a").entry is entry
    store.fill("users:get:b", entry)
    assert store.lookup("users:get:b", NAMES).gone is None


def test_a_look_without_use_keeps_nothing_from_leaving(store: MemoryStore) -> None:
    entry = entry_of(seed(store), size=7000)
    store.fill("users:get:a", entry)
    store.fill("users:get:b", entry)
    assert store.peek("users:get:a", NAMES).entry is entry
    store.fill("users:get:c", entry)
    assert decided(store, "users:get:a").reason == "capacity_evicted"


def test_what_is_larger_than_all_room_is_refused_and_displaces_nothing(store: MemoryStore) -> None:
    filled(store)
    assert store.fill("users:get:b", entry_of(seed(store), size=ROOM - 1000)) == "too_large"
    assert decided(store).entry is not None
    assert store.bytes == held(store)


def test_filling_a_key_again_replaces_what_it_held(store: MemoryStore) -> None:
    filled(store)
    second = entry_of(seed(store), size=25)
    assert store.fill("users:get:a", second) == "stored"
    assert len(store) == 1
    assert store.bytes == held(store)
    assert decided(store).entry is second


def test_an_entry_expires_without_anybody_waiting(store: MemoryStore, clock: FakeTime) -> None:
    filled(store)
    store.with_expiry("users:get:a", clock.now + 5)
    assert decided(store).entry is not None
    clock.now += 5
    assert store.peek("users:get:a", NAMES).gone == "expired"
    assert len(store) == 1, "a look without use removes nothing"
    assert decided(store).reason == "expired"
    assert len(store) == 0
    assert store.bytes == held(store)
    assert decided(store).reason == "expired"


def test_what_is_remembered_of_entries_gone_is_bounded(
    store: MemoryStore, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "REMEMBERED", 2)
    for key in "abc":
        filled(store, f"users:get:{key}", expires=clock.now)
        assert decided(store, f"users:get:{key}").reason == "expired"
    assert decided(store, "users:get:a").reason == "absent"
    assert decided(store, "users:get:c").reason == "expired"


def test_stamps_outlive_the_entries_under_them(store: MemoryStore, clock: FakeTime) -> None:
    store.max_bytes = PLENTY
    seed(store)
    clock.now += TTL / 2
    seed(store)
    clock.now += TTL / 2 + 1
    for number in range(memory.SWEEP * 3):
        seed(store, [f"users:{1000 + number}"])
    assert all(view is not None for view in store.lookup("k", NAMES).stamps)


def test_stamps_that_nobody_needs_any_more_are_swept(store: MemoryStore, clock: FakeTime) -> None:
    store.max_bytes = PLENTY
    for number in range(50):
        seed(store, [f"users:{number}"])
    mark(store, "w", row("users:3"))
    clock.now += TTL + 1
    for number in range(memory.SWEEP * 4):
        seed(store, [f"orders:{number}"], [])
    left = [name for name in store._stamps if name.startswith("users:")]
    assert left == ["users:3"], "all but the one that a writer marked"


def test_the_stamps_of_an_entry_that_had_to_make_room_leave_with_it(store: MemoryStore) -> None:
    for number in range(40):
        names = [*NAMES[:3], f"users:{number}"]
        entry = entry_of(seed(store, names), names, size=3000)
        assert store.fill(f"users:get:{number}", entry) == "stored"
        assert store.bytes == held(store) <= ROOM
    tags = {name for name, _, _ in chain.from_iterable(one.stamps for one in store._entries.values())}
    assert set(store._stamps) == tags
    assert len(store) < 7


def test_stamps_of_reads_that_store_nothing_have_no_more_room_than_there_is(store: MemoryStore) -> None:
    filled(store)
    for number in range(1000):
        seed(store, [*NAMES[:3], f"users:{number}"])
        assert store.bytes < ROOM + 2000, "what one read seeds"
    assert store.bytes == held(store)
    assert decided(store).entry is not None, "stamps that nobody uses leave first"


def test_stamps_that_a_writer_has_marked_stay_whatever_room_there_is(store: MemoryStore) -> None:
    seed(store)
    mark(store, "w", row("users:1"))
    for number in range(1000):
        store.sample([f"orders:{number}"], ["orders"], (), TTL)
    assert decided(store).fillable is False
    store.unmark("w", row("users:1"))
    for number in range(1000):
        store.sample([f"orders:{number}"], ["orders"], (), TTL)
    assert store.lookup("k", ["users:1"]).stamps == [None]


def test_causes_are_counted_and_given_back(store: MemoryStore) -> None:
    seed(store)
    before = store.bytes
    long = {"users": Cause("bulk_write", "users", keys=tuple(f"users:{number}" for number in range(30)))}
    store.replace_now(row("users:1", "users:key"), long)
    assert store.bytes == held(store) > before + 1500
    store.replace_now(row("users:1", "users:key"), CAUSES)
    assert before < store.bytes == held(store) < before + 1000


def test_removing_everything_counts_it_and_forgets_why_others_had_gone(store: MemoryStore) -> None:
    filled(store)
    filled(store, "users:get:b")
    assert store.delete_everything() == 2
    assert len(store) == 0
    assert store.bytes == held(store)
    assert decided(store).reason == "absent"


def test_threads_may_use_one_store(store: MemoryStore) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(200):
                key = f"users:get:{turn % 7}"
                sample, may = store.sample(NAMES, ["users"], [ROW], TTL)
                if may and all(sample.stamps):
                    store.fill(key, entry_of(sample, size=5000))
                if mark(store, f"{number}", row("users:1")) is not None:
                    store.settle(f"{number}", row("users:1"), CAUSES)
                store.lookup(key, NAMES)
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.bytes == held(store) <= store.max_bytes
    assert store._writers == {}
