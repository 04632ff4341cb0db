"""What a store does with stamps, call by call."""

from __future__ import annotations

from dataclasses import replace

from ...decisions import Cause
from ...store.port import Store
from ...tags import EVERYTHING
from .actors import (
    ACTIVE,
    ALL,
    ORDER,
    OTHER_ROW,
    ROW,
    TABLE,
    TTL,
    decided,
    fillable,
    filled,
    look,
    mark,
    nonces,
    rows,
    seed,
    settle,
    shapes,
    whole,
)
from .hooks import StoreHooks, clause


class StampClauses(StoreHooks):
    """Clauses about stamps and registries."""

    @clause
    def test_a_lookup_finds_nothing_in_an_empty_store_and_makes_nothing(self, store: Store) -> None:
        for ask in (store.lookup, store.peek, store.lookup):
            found = ask(ROW.key, ROW.names)
            assert (found.entry, list(found.stamps), found.gone) == (None, [None] * 4, None)
            assert found.bypass is None
        assert not store.registered([ROW.shape], ROW.names, found)

    @clause
    def test_stamps_are_seeded_once_and_come_back_in_the_order_asked(self, store: Store) -> None:
        first = seed(store, ROW)
        assert nonces(seed(store, ROW)) == nonces(first), "seeding again replaces nothing"
        backwards = store.lookup(ROW.key, ROW.names[::-1])
        assert nonces(backwards) == nonces(first)[::-1]
        assert all(stamp is not None and stamp.cause is None for stamp in first.stamps)

    @clause
    def test_a_marked_stamp_is_in_flight_until_it_is_settled_and_each_phase_replaces_it(
        self, store: Store
    ) -> None:
        before = seed(store, ROW, ACTIVE)
        assert mark(store, "aa", rows(ROW.tag)) == {TABLE: 1}
        between = look(store)
        settle(store, "aa", rows(ROW.tag))
        after = look(store)
        for one, two, three in zip(before.stamps[:3], between.stamps, after.stamps):
            assert one == two == three, "not touched"
        one, two, three = before.stamps[3], between.stamps[3], after.stamps[3]
        assert one is not None and two is not None and three is not None
        assert [one.in_flight, two.in_flight, three.in_flight] == [False, True, False]
        assert [two.version, three.version] == [one.version + 1, one.version + 2]
        assert len({one.nonce, two.nonce, three.nonce}) == 3
        assert fillable(look(store, ACTIVE))

    @clause
    def test_a_stamp_that_is_not_there_is_not_made_by_a_writer(self, store: Store) -> None:
        seed(store, ROW)
        assert mark(store, "aa", rows(ROW.tag, OTHER_ROW.tag)) == {TABLE: 1}
        assert look(store, OTHER_ROW).stamps[3] is None
        settle(store, "aa", rows(ROW.tag, OTHER_ROW.tag))
        assert look(store, OTHER_ROW).stamps[3] is None

    @clause
    def test_unmarking_releases_and_replaces_nothing(self, store: Store) -> None:
        filled(store)
        mark(store, "aa", rows(ROW.tag))
        marked = look(store).stamps[3]
        store.unmark("aa", rows(ROW.tag))
        assert marked is not None and look(store).stamps[3] == marked._replace(in_flight=False)
        found = decided(store)
        assert (found.entry, found.fillable) == (None, True), "what was filled before stays dead"

    @clause
    def test_releasing_what_was_never_marked_is_harmless(self, store: Store) -> None:
        before = seed(store, ROW)
        store.unmark("aa", rows(ROW.tag, OTHER_ROW.tag))
        assert look(store).stamps == before.stamps
        settle(store, "aa", rows(ROW.tag))
        assert fillable(look(store)) and look(store).stamps[3] != before.stamps[3]

    @clause
    def test_a_stamp_is_in_flight_until_every_writer_of_it_is_gone(self, store: Store) -> None:
        seed(store, ROW)
        for token in ("aa", "bb", "cc"):
            mark(store, token, rows(ROW.tag))
        settle(store, "bb", rows(ROW.tag))
        assert not fillable(look(store))
        store.unmark("aa", rows(ROW.tag))
        assert not fillable(look(store))
        settle(store, "cc", rows(ROW.tag))
        assert fillable(look(store))

    @clause
    def test_settling_twice_releases_nobody_else(self, store: Store) -> None:
        seed(store, ROW)
        mark(store, "aa", rows(ROW.tag))
        mark(store, "bb", rows(ROW.tag))
        for _ in range(3):
            settle(store, "aa", rows(ROW.tag))
            store.unmark("aa", rows(ROW.tag))
            assert not fillable(look(store))
            assert not store.sample(OTHER_ROW.names, [TABLE], [OTHER_ROW.shape], TTL)[1]
        settle(store, "bb", rows(ROW.tag))
        assert fillable(look(store))

    @clause
    def test_while_a_writer_is_under_way_nothing_is_registered_and_nothing_seeded(self, store: Store) -> None:
        seed(store, ROW)
        mark(store, "aa", rows(OTHER_ROW.tag))
        for query in (OTHER_ROW, ACTIVE):
            found, registered = store.sample(query.names, [TABLE], [query.shape], TTL)
            assert not registered
            assert found.stamps[3] is None
            assert look(store, query).stamps[3] is None
        settle(store, "aa", rows(OTHER_ROW.tag))
        assert shapes(store) == {ROW.shape}
        assert store.sample(ACTIVE.names, [TABLE], [ACTIVE.shape], TTL)[1]
        assert shapes(store) == {ROW.shape, ACTIVE.shape}

    @clause
    def test_while_a_writer_is_under_way_what_is_there_can_be_sampled(self, store: Store) -> None:
        seed(store, ROW, OTHER_ROW)
        mark(store, "aa", rows(ROW.tag))
        found, registered = store.sample(ROW.names, [TABLE], [ROW.shape], TTL)
        assert registered
        assert [stamp.in_flight for stamp in found.stamps if stamp] == [False, False, False, True]
        found, registered = store.sample(OTHER_ROW.names, [TABLE], [OTHER_ROW.shape], TTL)
        assert registered and fillable(found)

    @clause
    def test_a_writer_of_another_table_is_in_nobodys_way(self, store: Store) -> None:
        mark(store, "aa", rows(ORDER.tag, table="orders"))
        seed(store, ROW)
        assert not store.sample(ORDER.names, ["orders"], [ORDER.shape], TTL)[1]
        both = [*ROW.names, *ORDER.names]
        assert not store.sample(both, [TABLE, "orders"], [ROW.shape, ORDER.shape], TTL)[1]

    @clause
    def test_a_writer_that_touches_no_stamp_is_under_way_all_the_same(self, store: Store) -> None:
        seed(store, ROW)
        assert mark(store, "aa", rows()) == {TABLE: 0}
        assert not store.sample(ACTIVE.names, [TABLE], [ACTIVE.shape], TTL)[1]
        settle(store, "aa", rows())
        seed(store, ACTIVE)

    @clause
    def test_phase_two_replaces_what_was_seeded_since_phase_one(self, store: Store) -> None:
        seed(store, ROW)
        touched = rows(ROW.tag, OTHER_ROW.tag)
        mark(store, "aa", touched)
        self._do("end_leases", store)
        filled(store, OTHER_ROW)
        settle(store, "aa", touched)
        assert decided(store, OTHER_ROW).entry is None
        assert fillable(look(store, OTHER_ROW))

    @clause
    def test_a_writer_that_never_comes_back_is_in_the_way_until_its_lease_ends(self, store: Store) -> None:
        seed(store, ROW)
        mark(store, "aa", rows(ROW.tag))
        assert not fillable(look(store))
        self._do("end_leases", store)
        filled(store)
        assert decided(store).entry is not None
        seed(store, ACTIVE)

    @clause
    def test_a_replaced_stamp_tells_the_whole_cause(self, store: Store) -> None:
        cause = Cause(
            "row_update",
            TABLE,
            ("users:1", "naïve:表", "a|b\x00c"),
            ("größe", "表", 'a"b'),
            "UPDATE Ünïcode SET größe",
            1_700_000_000.123456,
            2**22 - 1,
            "höst.example",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        seed(store, ROW, ORDER)
        others = (replace(cause, columns=None, keys=(), traceparent=None), Cause("raw_write", TABLE))
        for given in (cause, *others):
            touched = {**rows(ROW.tag), **rows(ORDER.tag, table="orders")}
            mark(store, "aa", touched, given)
            assert [stamp.cause for stamp in look(store).stamps if stamp] == [None, None, None, given]
            settle(store, "aa", touched, given)
            assert [stamp.cause for stamp in look(store).stamps if stamp] == [None, None, None, given]
            found = look(store, ORDER).stamps[3]
            assert found is not None and found.cause == replace(given, table="orders")

    @clause
    def test_no_nonce_comes_twice(self, store: Store) -> None:
        seen = nonces(seed(store, ROW))
        for turn in range(30):
            mark(store, "aa", rows(ROW.tag))
            seen += nonces(look(store))[3:]
            settle(store, "aa", rows(ROW.tag))
            seen += nonces(look(store))[3:]
            if turn % 2 and self._can("lose", store, ROW.tag):
                assert look(store).stamps[3] is None
                seen += nonces(seed(store, ROW))[3:]
        assert len(set(seen)) == len(seen)

    @clause
    def test_a_stamps_life_is_extended_and_never_shortened(self, store: Store) -> None:
        seed(store, ROW, ttl=1000)
        self._do("stamp_ttl", store, ROW.tag)
        seed(store, ROW, ttl=10)
        mark(store, "aa", rows(ROW.tag))
        store.unmark("aa", rows(ROW.tag))
        mark(store, "bb", rows(ROW.tag))
        settle(store, "bb", rows(ROW.tag))
        for name in ROW.names:
            assert 900 < self.stamp_ttl(store, name) <= 1001
        seed(store, ROW, ttl=2000)
        for name in ROW.names:
            assert 1900 < self.stamp_ttl(store, name) <= 2001

    @clause
    def test_touching_a_table_kills_all_its_entries_and_no_others(self, store: Store) -> None:
        for query in (ROW, OTHER_ROW, ACTIVE, ORDER):
            filled(store, query)
        assert mark(store, "aa", whole()) == {TABLE: 1}
        assert decided(store).entry is None
        settle(store, "aa", whole())
        for query in (ROW, OTHER_ROW, ACTIVE):
            assert (decided(store, query).entry, decided(store, query).reason) == (None, "table_invalidated")
        assert decided(store, ORDER).entry is not None

    @clause
    def test_touching_everything_kills_every_entry_and_stops_registering_everywhere(
        self, store: Store
    ) -> None:
        filled(store, ROW)
        filled(store, ORDER)
        assert mark(store, "aa", ALL, Cause("flush", EVERYTHING)) == {EVERYTHING: 1}
        for query in (ACTIVE, OTHER_ROW):
            assert not store.sample(query.names, [TABLE], [query.shape], TTL)[1]
        settle(store, "aa", ALL, Cause("flush", EVERYTHING))
        for query in (ROW, ORDER):
            found = decided(store, query)
            assert (found.entry, found.reason, found.fillable) == (None, "manual_invalidated", True)
            filled(store, query)

    @clause
    def test_two_thousand_stamps_are_replaced_in_one_commit(self, store: Store) -> None:
        names = [ROW.shape.tag([str(number)]) for number in range(2000)]
        seed(store, ROW)
        assert store.sample(names, [TABLE], [ROW.shape], TTL)[1]
        before = nonces(store.lookup("users:get:many", names))
        assert None not in before
        assert mark(store, "aa", rows(*names)) == {TABLE: 2000}
        between = store.lookup("users:get:many", names)
        assert all(stamp is not None and stamp.in_flight for stamp in between.stamps)
        settle(store, "aa", rows(*names))
        after = store.lookup("users:get:many", names)
        assert fillable(after)
        assert len({*before, *nonces(between), *nonces(after)}) == 6000
