"""Races, told as numbered steps of readers (R) and writers (W): the rules (a) to (e) of DESIGN section 5 at work.

A :class:`.actors.Reader` asserts by itself that it never reads what is older than what a read or a commit has
told before. Each story is one that a store without the rule gets wrong, found by exhaustive search.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from random import Random

from ...store.port import Store
from ...tags import EVERYTHING, table_stamp
from .actors import (
    ACTIVE,
    NAMES,
    OTHER_ROW,
    ROW,
    ROW_WRITTEN,
    TABLE,
    Data,
    Reader,
    Row,
    Writer,
    Written,
)
from .hooks import StoreHooks, clause

MOVED = Written(rows=(Row({"id": "1", "active": "true"}, {"id": "1", "active": "false"}),))
BULK = Written(columns=frozenset({"name"}))


def well(data: Data, *stores: Store) -> None:
    """Assert that every read is fresh, in every process, and soon a hit again."""
    for store in stores:
        for query in (ROW, ACTIVE, NAMES):
            Reader(store, data, query).read()
            again = Reader(store, data, query)
            assert again.look(), f"{query.tag}: no hit although nobody writes"
            assert data.told == data.value


class StoryClauses(StoreHooks):
    """Clauses about what happens at the same time."""

    @clause
    def test_story_of_reading_and_writing_in_turn(self, store: Store) -> None:
        data = Data()
        for turn in range(3):
            well(data, store)
            Writer(store, data, (ROW_WRITTEN, MOVED, BULK)[turn]).write()
        well(data, store)

    @clause
    def test_story_of_two_processes(self, store: Store) -> None:
        other, data = self._do("another", store), Data()
        for turn in range(3):
            well(data, store, other)
            Writer(other if turn % 2 else store, data).write()
        well(data, other, store)

    @clause
    def test_story_of_the_late_fill(self, store: Store) -> None:
        data = Data()
        reader, writer = Reader(store, data), Writer(store, data)
        reader.look()  # 1. R samples the stamps; nobody writes.
        reader.load()  # 2. R reads the old value.
        writer.write()  # 3. W marks, commits and settles; both phases replace the stamp.
        reader.fill()  # 4. R fills under the stamp of step 1, which nobody will ever meet again.
        assert not Reader(store, data).look()
        well(data, store)

    @clause
    def test_story_of_the_fill_between_the_phases(self, store: Store) -> None:
        data = Data()
        well(data, store)
        reader, writer = Reader(store, data), Writer(store, data)
        writer.mark()  # 1. W marks: the entry is dead.
        reader.look()  # 2. R misses and may not fill.
        reader.load()  # 3. R reads the old value.
        writer.commit()  # 4. The database commits.
        assert (
            reader.fill() == "fenced"
        )  # 5. R does not fill, so that nobody hits on it before step 6 or after.
        Reader(store, data).read()
        writer.settle()  # 6. W settles.
        well(data, store)

    @clause
    def test_story_of_rule_a_two_writers_and_the_first_done_releases_itself_only(self, store: Store) -> None:
        data = Data()
        well(data, store)
        first, second, reader = Writer(store, data), Writer(store, data), Reader(store, data)
        first.mark()  # 1. W1 marks.
        second.mark()  # 2. W2 marks.
        first.commit()
        first.settle()  # 3. W1 is done; were the mark a number, a settling repeated after a lost answer
        first.settle()  # 4. would now have released W2 as well.
        reader.look()
        reader.load()  # 5. R reads W1's value.
        second.commit()  # 6. The database commits W2.
        assert reader.fill() == "fenced"  # 7. R may not fill.
        second.settle()
        well(data, store)

    @clause
    def test_story_of_two_writers_one_crashed(self, store: Store) -> None:
        data = Data()
        well(data, store)
        crashed, writer, reader = Writer(store, data), Writer(store, data), Reader(store, data)
        crashed.mark()  # 1. W1 marks,
        writer.mark()
        writer.commit()
        writer.settle()  # 2. W2 does all of it,
        reader.look()
        reader.load()  # 3. R reads W2's value,
        crashed.commit()  # 4. the database commits W1, which is killed before it can settle.
        assert reader.fill() == "fenced"  # 5. W1's token is still on the stamp.
        Reader(store, data).read()
        self._do("end_leases", store)  # 6. The lease ends.
        well(data, store)

    @clause
    def test_story_of_rule_b_seeding_during_a_commit(self, store: Store) -> None:
        data = Data()
        Reader(store, data, OTHER_ROW).read()  # The shape is known, the stamp of row 1 is not there.
        reader, writer = Reader(store, data), Writer(store, data)
        writer.mark()  # 1. W marks what is there; the stamp of row 1 is not.
        reader.look()  # 2. R misses; seeding a stamp now would make one that is not in flight.
        reader.load()  # 3. R reads the old value.
        writer.commit()  # 4. The database commits; W is killed before it can replace anything.
        assert reader.fill() == "fenced"  # 5. R may not fill.
        self._do("end_leases", store)
        data.told = data.value  # 6. Its lease ends: from here on, W's value counts as told.
        assert not Reader(store, data).read()
        well(data, store)

    @clause
    def test_story_of_rule_b_a_stamp_that_a_second_writer_might_make(self, store: Store) -> None:
        data = Data()
        well(data, store)
        first, second, reader = Writer(store, data), Writer(store, data), Reader(store, data)
        first.mark()  # 1. W1 marks.
        self._do("lose", store, ROW.tag)  # 2. The stamp of row 1 is lost, with W1's token on it.
        second.mark()  # 3. W2 marks. Were it to make the stamp, it would have to put W1's token on it.
        second.commit()
        second.settle()  # 4. W2 is done.
        reader.look()
        reader.load()  # 5. R reads W2's value; W1 is still under way.
        first.commit()  # 6. The database commits W1, which is killed.
        assert reader.fill() == "fenced"  # 7. R may not fill.
        self._do("end_leases", store)
        data.told = data.value
        assert not Reader(store, data).read()
        well(data, store)

    @clause
    def test_story_of_rule_c_a_shape_that_registers_during_a_commit(self, store: Store) -> None:
        data = Data()
        Reader(store, data, ROW).read()
        reader, writer = Reader(store, data, ACTIVE), Writer(store, data)
        writer.mark()  # 1. W looks at the shapes and marks; nobody reads by `active` yet.
        reader.look()  # 2. R would be the first: it may not register now.
        reader.load()  # 3. R reads the old value.
        writer.commit()
        writer.settle()  # 4. W replaces what it marked; it still does not know of R's shape.
        assert reader.fill() == "fenced"  # 5. R may not fill.
        well(data, store)

    @clause
    def test_story_of_rule_c_a_shape_that_registers_just_before_a_commit(self, store: Store) -> None:
        other, data = self._do("another", store), Data()
        Reader(store, data, ROW).read()
        reader, writer = Reader(other, data, ACTIVE), Writer(store, data)
        writer.look()  # 1. W looks at the shapes: nobody reads by `active`.
        reader.look()  # 2. R registers, in another process.
        reader.load()  # 3. R reads the old value
        reader.fill()  # 4. and fills.
        writer.mark()  # 5. W is refused, looks again and marks.
        assert writer.refused
        assert ACTIVE.tag in writer.touched[TABLE].stamps
        Reader(store, data, ACTIVE).read()
        writer.commit()
        writer.settle()
        well(data, store, other)

    @clause
    def test_story_of_rule_d_the_registry_was_lost(self, store: Store) -> None:
        other, data = self._do("another", store), Data()
        well(data, store)  # 1. Shapes are registered and entries filled.
        self._do("lose_registry", store, TABLE)  # 2. The registry is lost.
        writer = Writer(other, data)
        writer.write()  # 3. W cannot know who reads by `active`: it replaces the table's stamp.
        well(data, store, other)
        Writer(other, data).write()  # 4. Whoever had registered before registered again: W knows it.
        well(data, store, other)

    @clause
    def test_story_of_rule_d_the_registry_was_lost_and_another_shape_registered(self, store: Store) -> None:
        other, third = self._do("another", store), self._do("another", store)
        data = Data()
        Reader(store, data, ACTIVE).read()  # 1. R1 reads by `active`.
        self._do("lose_registry", store, TABLE)  # 2. The registry is lost.
        Reader(
            other, data, NAMES
        ).read()  # 3. R2 registers the shape of another read: there is a registry again.
        Writer(third, data).write()  # 4. W finds a registry, in which `active` is not.
        well(data, store, other)  # 5. R1 may not hit: a registration holds under one table stamp.
        for _ in range(2):
            Writer(third, data).write()
            well(data, third, other, store)

    @clause
    def test_story_of_rule_d_the_registry_was_lost_while_a_reader_loads(self, store: Store) -> None:
        other, data = self._do("another", store), Data()
        reader = Reader(store, data, ACTIVE)
        reader.look()  # 1. R registers and samples.
        reader.load()  # 2. R reads the old value.
        self._do("lose_registry", store, TABLE)  # 3. The registry is lost, and made anew by another shape.
        Reader(other, data, NAMES).read()
        Writer(other, data).write()  # 4. W finds it, in which `active` is not.
        reader.fill()  # 5. R fills under the table's stamp of step 1.
        well(data, other, store)

    @clause
    def test_story_of_rule_d_the_registry_is_lost_between_the_phases(self, store: Store) -> None:
        other, data = self._do("another", store), Data()
        well(data, store)
        reader, writer = Reader(other, data, ACTIVE), Writer(store, data)
        writer.mark()  # 1. W marks.
        self._do("lose_registry", store, TABLE)  # 2. The registry is lost; W is still under way.
        reader.look()  # 3. R may not register
        reader.load()
        writer.commit()
        assert reader.fill() == "fenced"  # 4. nor fill.
        writer.settle()
        well(data, store, other)

    @clause
    def test_story_of_rule_e_a_writer_that_settles_after_its_lease(self, store: Store) -> None:
        data = Data()
        Reader(store, data, OTHER_ROW).read()
        writer = Writer(store, data)
        writer.mark()  # 1. W marks; the stamp of row 1 is not there.
        self._do("end_leases", store)  # 2. W is stopped for longer than its lease.
        Reader(store, data).read()  # 3. R seeds the stamp, reads the old value and fills.
        writer.commit()
        writer.settle()  # 4. W goes on: phase two replaces the stamp, although phase one did not find it.
        assert not Reader(store, data).look()
        well(data, store)

    @clause
    def test_story_of_a_stamp_lost_between_the_phases(self, store: Store) -> None:
        for name in (ROW.tag, ROW.shape.name, table_stamp(TABLE), EVERYTHING):
            data = Data()
            data.value = data.told = 100
            Writer(store, data).write()
            well(data, store)
            reader, writer = Reader(store, data), Writer(store, data)
            writer.mark()  # 1. W marks.
            self._do("lose", store, name)  # 2. A stamp is lost, and its mark with it.
            reader.look()  # 3. R may not seed it now.
            reader.load()
            writer.commit()
            assert reader.fill() == "fenced"  # 4. Nor fill.
            writer.settle()
            well(data, store)

    @clause
    def test_story_of_a_stamp_lost_and_its_writer_crashed(self, store: Store) -> None:
        data = Data()
        well(data, store)
        reader, writer = Reader(store, data), Writer(store, data)
        writer.mark()
        self._do("lose", store, ROW.tag)
        reader.look()
        reader.load()  # R reads the old value.
        writer.commit()  # The database commits; W is killed.
        assert reader.fill() == "fenced"
        self._do("end_leases", store)
        data.told = data.value
        assert not Reader(store, data).read()
        well(data, store)

    @clause
    def test_story_of_a_writer_killed_between_any_two_steps(self, store: Store) -> None:
        data = Data()
        for steps in range(1, 4):
            well(data, store)
            reader, writer = Reader(store, data), Writer(store, data)
            for step in (writer.look, writer.mark, writer.commit)[:steps]:
                step()
            reader.read()
            assert reader.fillable == (steps == 1)
            self._do("end_leases", store)
            data.told = data.value
            assert steps == 1 or not Reader(store, data).look(), "what was filled before the mark is dead"
            well(data, store)

    @clause
    def test_story_of_a_rollback(self, store: Store) -> None:
        data = Data()
        well(data, store)
        reader, writer = Reader(store, data), Writer(store, data, BULK)
        writer.mark()
        reader.read()
        assert not reader.fillable
        writer.roll_back()
        well(data, store)

    @clause
    def test_story_of_who_is_under_way_being_lost(self, store: Store) -> None:
        other, data = self._do("another", store), Data()
        Reader(store, data, OTHER_ROW).read()
        readers, writer = [Reader(other, data, query) for query in (ROW, ACTIVE)], Writer(store, data)
        writer.mark()  # 1. W marks.
        self._do("lose_writers", store, TABLE)  # 2. That it is under way is lost.
        for reader in readers:
            reader.look()  # 3. R1 seeds the stamp of row 1, R2 registers a shape:
            reader.load()  # 4. they read the old value
            reader.fill()  # 5. and fill.
        writer.commit()
        writer.settle()  # 6. W finds out that it was not under way, and replaces the table's stamp.
        well(data, store, other)

    @clause
    def test_whatever_the_order_nothing_stale_is_read(self, store: Store) -> None:
        """Readers, writers (some of which crash) and losses in random order; the seed of one that fails is told."""
        for number in range(self.orders):
            store = self.open(f"order-{number}")
            try:
                self._in_some_order(store, Random(number))
            except AssertionError as error:
                raise AssertionError(f"order {number}: {error}") from error

    def _in_some_order(self, store: Store, random: Random) -> None:
        other, data = self.another(store), Data()
        stores = [store] if other is NotImplemented else [store, other]
        crashes = self._can("end_leases", store)
        actors: list[Iterator[None]] = [
            *(self._reads(random, stores, data) for _ in range(3)),
            *(self._writes(random, stores, data, crashes=crashes) for _ in range(2)),
        ]
        if random.random() < 0.7:
            actors.append(self._loses(random, store))
        while actors:
            actor = random.choice(actors)
            if next(actor, self) is self:
                actors.remove(actor)
        if crashes:
            self.end_leases(store)
            data.told = data.value
        well(data, *stores)

    def _reads(self, random: Random, stores: list[Store], data: Data) -> Iterator[None]:
        for _ in range(3):
            reader = Reader(random.choice(stores), data, random.choice((ROW, ROW, ACTIVE, NAMES)))
            if not reader.look():
                yield
                reader.load()
                yield
                reader.fill()
            yield

    def _writes(self, random: Random, stores: list[Store], data: Data, *, crashes: bool) -> Iterator[None]:
        for _ in range(2):
            writer = Writer(random.choice(stores), data, random.choice((ROW_WRITTEN, MOVED, BULK)))
            ends = random.choice(("settles", "settles", "settles", "rolls back", "crashes", "crashes late"))
            for step in (writer.look, writer.mark):
                step()
                yield
            if ends == "crashes" and crashes:
                return
            if ends == "rolls back":
                writer.roll_back()
                continue
            writer.commit()
            yield
            if ends == "crashes late" and crashes:
                return
            writer.settle()
            yield

    def _loses(self, random: Random, store: Store) -> Iterator[None]:
        names = [*ROW.names, *ACTIVE.names, *NAMES.names]
        for _ in range(2):
            lose = random.choice(
                (partial(self.lose_registry, store, TABLE), partial(self.lose, store, random.choice(names)))
            )
            lose()
            yield
