"""What a store does with entries: whole or not at all, and never under stamps that have moved on."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from ...store.codec import encode_values
from ...store.port import Store
from ...store.stamps import Entry
from .actors import (
    ALL,
    CODEC,
    COLUMN,
    ORDER,
    OTHER_ROW,
    ROW,
    TABLE,
    TTL,
    decided,
    entry_of,
    fillable,
    filled,
    look,
    mark,
    nonces,
    rows,
    rows_of,
    seed,
    settle,
)
from .hooks import StoreHooks, clause


def exactly(found: Entry | None) -> Any:
    """Return everything of an entry that must come back, comparable to the last bit and type; but for its size."""
    assert found is not None, "no entry came back"
    values = [encode_values(row) for row in rows_of(found)]
    kept = (found.stamps, found.stored_at, found.load_seconds, found.count, found.under, found.trace)
    return kept, CODEC.encode_rows(found.description, ()), values


class EntryClauses(StoreHooks):
    """Clauses about entries."""

    @clause
    def test_what_is_filled_under_seeded_stamps_is_a_hit(self, store: Store) -> None:
        assert decided(store).reason == "absent"
        entry = filled(store)
        assert exactly(decided(store).entry) == exactly(entry)
        assert exactly(store.peek(ROW.key, ROW.names).entry) == exactly(entry)
        assert decided(store, ORDER).reason == "absent"

    @clause
    def test_every_value_comes_back_exactly(self, store: Store) -> None:
        sample = seed(store, ROW)
        for name, value in self.values.items():
            entry = entry_of(ROW.names, sample, [(value,), (None,), (value,)])
            assert store.fill(f"users:get:{name}", entry) == "stored", name
            found = store.lookup(f"users:get:{name}", ROW.names).entry
            assert exactly(found) == exactly(entry), name

    @clause
    def test_results_of_every_size_come_back_exactly(self, store: Store) -> None:
        sample = seed(store, ROW)
        wide = tuple((f"größe {n}", n, None, 8, -1, True, "text") for n in range(50))
        for description, result in (
            ((), ()),
            ((), ((), ())),
            (COLUMN, ()),
            (COLUMN, ((None,),)),
            (COLUMN, tuple((f"row {n}" * 10,) for n in range(3000))),
            (wide, (tuple(range(50)),) * 3),
        ):
            entry = entry_of(ROW.names, sample, result, description)
            assert store.fill(ROW.key, entry) == "stored"
            assert exactly(look(store).entry) == exactly(entry)
            assert entry.count == len(result)

    @clause
    def test_times_and_sizes_come_back_exactly(self, store: Store) -> None:
        entry = replace(
            entry_of(ROW.names, seed(store, ROW)), stored_at=1_700_000_000.1234567, load_seconds=1 / 3
        )
        assert store.fill(ROW.key, entry) == "stored"
        found = look(store).entry
        assert exactly(found) == exactly(entry)
        assert found is not None and found.size == entry.size, "as the decision that stored it has told"

    @clause
    def test_what_one_hit_does_to_its_rows_reaches_no_other(self, store: Store) -> None:
        entry = entry_of(ROW.names, seed(store, ROW), [([1, {"a": bytearray(b"x")}],)])
        assert store.fill(ROW.key, entry) == "stored"
        for _ in range(2):
            found = look(store).entry
            assert found is not None
            [(value,)] = rows_of(found)
            assert value == [1, {"a": bytearray(b"x")}]
            value[1]["a"] += b"y"
            value.clear()

    @clause
    def test_filling_a_key_again_replaces_what_it_held(self, store: Store) -> None:
        filled(store)
        second = entry_of(ROW.names, look(store), [("second",)])
        assert store.fill(ROW.key, second) == "stored"
        assert exactly(decided(store).entry) == exactly(second)

    @clause
    def test_a_fill_of_what_was_sampled_before_a_write_is_never_a_hit(self, store: Store) -> None:
        late = entry_of(ROW.names, seed(store, ROW))
        mark(store, "aa", rows(ROW.tag))
        assert store.fill(ROW.key, late) in ("stored", "fenced")
        assert decided(store).entry is None
        settle(store, "aa", rows(ROW.tag))
        assert decided(store).entry is None
        assert store.fill(ROW.key, late) in ("stored", "fenced")
        assert decided(store).entry is None

    @clause
    def test_a_fill_of_what_was_sampled_between_the_phases_is_never_a_hit(self, store: Store) -> None:
        seed(store, ROW)
        mark(store, "aa", rows(ROW.tag))
        between = entry_of(ROW.names, look(store))
        assert store.fill(ROW.key, between) in ("stored", "fenced")
        assert decided(store).entry is None
        settle(store, "aa", rows(ROW.tag))
        assert decided(store).entry is None
        assert store.fill(ROW.key, between) in ("stored", "fenced")
        assert decided(store).entry is None

    @clause
    def test_a_fill_under_a_stamp_that_was_lost_and_seeded_anew_is_never_a_hit(self, store: Store) -> None:
        late = entry_of(ROW.names, seed(store, ROW))
        for name in ROW.names:
            self._do("lose", store, name)
            assert store.fill(ROW.key, late) in ("stored", "fenced")
            assert decided(store).entry is None
            seed(store, ROW)
            assert store.fill(ROW.key, late) in ("stored", "fenced")
            assert decided(store).entry is None
            late = filled(store)

    @clause
    def test_an_entry_expires(self, store: Store) -> None:
        filled(store)
        filled(store, ORDER)
        self._do("expire", store, ROW.key)
        assert store.peek(ROW.key, ROW.names).entry is None
        for _ in range(2):
            found = decided(store)
            assert (found.entry, found.fillable) == (None, True)
            assert found.reason in ("expired", "absent", "backend_evicted")
        assert decided(store, ORDER).entry is not None
        filled(store)
        assert decided(store).entry is not None

    @clause
    def test_an_entry_that_expired_on_its_way_is_never_a_hit(self, store: Store) -> None:
        entry = entry_of(ROW.names, seed(store, ROW), timeout=-1.0)
        assert entry.expires_at < time.time()
        store.fill(ROW.key, entry)
        assert decided(store).entry is None
        filled(store)
        assert decided(store).entry is not None
        store.fill(ROW.key, entry)
        found = decided(store).entry
        assert found is None or found.expires_at > time.time()

    @clause
    def test_removing_everything_leaves_stamps_shapes_and_writers(self, store: Store) -> None:
        filled(store, ROW)
        filled(store, ORDER)
        mark(store, "aa", rows(ROW.tag))
        before = look(store)
        assert store.delete_everything() >= 0
        assert store.delete_everything() == 0
        assert look(store).stamps == before.stamps
        assert not store.sample([*ROW.names, "users:new"], [TABLE], [ROW.shape], TTL)[1], "still under way"
        settle(store, "aa", rows(ROW.tag))
        assert nonces(look(store))[:3] == nonces(before)[:3]
        assert store.registered([ROW.shape], ROW.names, look(store))
        filled(store, ROW)
        assert decided(store, ROW).entry is not None

    @clause
    def test_after_an_invalidation_of_everything_nothing_is_a_hit(self, store: Store) -> None:
        filled(store, ROW)
        filled(store, ORDER)
        mark(store, "aa", ALL)
        settle(store, "aa", ALL)
        store.delete_everything()
        assert (decided(store, ROW).entry, decided(store, ORDER).entry) == (None, None)
        filled(store, ROW)
        assert (decided(store, ROW).entry is not None, decided(store, ORDER).entry) == (True, None)

    @clause
    def test_purging_a_table_deletes_its_entries_and_no_others(self, store: Store) -> None:
        for query in (ROW, OTHER_ROW, ORDER):
            filled(store, query)
        before = look(store)
        assert store.purge([TABLE]) == 2
        assert store.purge([TABLE]) == 0
        assert (look(store).entry, look(store).stamps) == (None, before.stamps)
        assert look(store, OTHER_ROW).entry is None
        assert decided(store, ORDER).entry is not None
        filled(store)
        assert decided(store).entry is not None

    @clause
    def test_an_entry_of_another_generation_is_never_a_hit(self, store: Store) -> None:
        sample = seed(store, ROW)
        store.fill(ROW.key, replace(entry_of(ROW.names, sample), under="of another server"))
        assert decided(store).entry is None
        filled(store)
        assert decided(store).entry is not None

    @clause
    def test_when_the_generation_changes_nothing_from_before_is_a_hit(self, store: Store) -> None:
        late = filled(store)
        filled(store, ORDER)
        self._do("change_generation", store)
        found = decided(store)
        assert (found.entry, found.reason) == (None, "generation_changed")
        store.fill(ROW.key, late)
        assert decided(store).entry is None
        filled(store)
        assert decided(store).entry is not None
        assert decided(store, ORDER).entry is None
        filled(store, ORDER)
        assert fillable(look(store, ORDER)) and decided(store, ORDER).entry is not None

    @clause
    def test_another_process_hits_what_one_filled_and_kills_what_it_writes(self, store: Store) -> None:
        other = self._do("another", store)
        entry = filled(store)
        assert exactly(decided(other).entry) == exactly(entry)
        mark(other, "aa", rows(ROW.tag))
        assert decided(store).entry is None
        settle(other, "aa", rows(ROW.tag))
        assert decided(store).entry is None
        entry = filled(other)
        assert exactly(decided(store).entry) == exactly(entry)
