"""What a store knows of shapes, and what it keeps apart: tables, databases, prefixes, names of every kind."""

from __future__ import annotations

from ...store.port import Store
from ...tags import Shape, table_stamp
from .actors import (
    ACTIVE,
    ALL,
    NAMES,
    ORDER,
    OTHER_ROW,
    ROW,
    TABLE,
    Query,
    causes,
    decided,
    fillable,
    filled,
    look,
    mark,
    rows,
    seed,
    settle,
    shapes,
)
from .hooks import StoreHooks, clause

AWKWARD = (
    "Ünïcode 表 😀",
    "two words",
    "a:b",
    "a",
    "{tag}",
    "{}",
    "}{",
    "a*",
    "a?b=c",
    "[ab]",
    "per%cent\\s",
    "'quoted\"",
    "line\nbreak\ttab",
    "nul\x00",
    "pipe|d,e;f",
    "#table",
    "l" * 300,
)


class ShapeClauses(StoreHooks):
    """Clauses about registries, and about what must not be mixed up."""

    @clause
    def test_a_writer_who_does_not_know_of_a_new_shape_is_refused_and_looks_again(self, store: Store) -> None:
        seed(store, ROW)
        known = {table: revision for table, (revision, _) in store.shapes([TABLE]).items()}
        seed(store, ACTIVE, ROW)
        before = look(store, ROW)
        refused = store.mark("aa", rows(ROW.tag), known, causes([TABLE]))
        assert refused is None
        assert look(store, ROW).stamps == before.stamps, "a refused mark has done nothing"
        seed(store, OTHER_ROW)  # nor is the writer under way
        revision, registered = store.shapes([TABLE])[TABLE]
        assert set(registered) == {ROW.shape, ACTIVE.shape}
        assert store.mark("aa", rows(ROW.tag), {TABLE: revision}, causes([TABLE])) == {TABLE: 1}

    @clause
    def test_a_writer_in_another_process_learns_of_a_new_shape(self, store: Store) -> None:
        other = self._do("another", store)
        seed(other, ROW)
        assert shapes(store) == shapes(other) == {ROW.shape}
        seed(other, ACTIVE)
        seed(store, NAMES)
        assert shapes(store) == shapes(other) == {ROW.shape, ACTIVE.shape, NAMES.shape}

    @clause
    def test_one_table_out_of_date_refuses_the_whole_commit(self, store: Store) -> None:
        seed(store, ROW, ORDER)
        touched = {**rows(ORDER.tag, table="orders"), **rows(ROW.tag)}
        known = {table: revision for table, (revision, _) in store.shapes(touched).items()}
        seed(store, ACTIVE)
        assert store.mark("aa", touched, known, causes(touched)) is None
        assert fillable(look(store, ROW)) and fillable(look(store, ORDER))
        assert mark(store, "aa", touched) == {TABLE: 1, "orders": 1}
        assert not fillable(look(store, ROW)) and not fillable(look(store, ORDER))

    @clause
    def test_a_shape_registered_twice_is_one_and_changes_no_revision(self, store: Store) -> None:
        seed(store, ROW, ACTIVE)
        shapes(store)
        before = store.shapes([TABLE])
        seed(store, ROW, ACTIVE)
        shapes(store)
        assert store.shapes([TABLE])[TABLE][0] == before[TABLE][0]
        assert store.shapes(["orders"])["orders"][1] == ()

    @clause
    def test_shapes_come_back_as_they_were_registered(self, store: Store) -> None:
        given = {
            ROW.shape,
            ACTIVE.shape,
            NAMES.shape,
            Shape(TABLE, ("größe", "表 é"), frozenset({"a,b", "größe", "x|y", "{z}"})),
            Shape(TABLE, ("id", "zone"), frozenset({"id", "zone"}), keyed=True),
            Shape(TABLE, (), frozenset()),
        }
        for shape in given:
            seed(store, Query(shape))
        assert shapes(store) == given

    @clause
    def test_a_shape_is_known_to_be_registered_once_it_was_sampled(self, store: Store) -> None:
        found = seed(store, ROW)
        assert store.registered([ROW.shape], ROW.names, found)
        assert store.registered([ROW.shape], ROW.names, look(store))
        mark(store, "aa", rows(ROW.tag))
        settle(store, "aa", rows(ROW.tag))
        assert store.registered([ROW.shape], ROW.names, look(store)), "the table's stamp is the same"

    @clause
    def test_a_shape_whose_registry_was_lost_is_not_taken_for_registered_after_a_write(
        self, store: Store
    ) -> None:
        seed(store, ACTIVE)
        self._do("lose_registry", store, TABLE)
        mark(store, "aa", rows(ROW.tag))
        settle(store, "aa", rows(ROW.tag))
        assert not store.registered([ACTIVE.shape], ACTIVE.names, look(store, ACTIVE))
        seed(store, ACTIVE)
        assert store.registered([ACTIVE.shape], ACTIVE.names, look(store, ACTIVE))
        assert ACTIVE.shape in shapes(store)

    @clause
    def test_databases_and_prefixes_do_not_see_each_other(self, store: Store) -> None:
        names = (("other", "contract"), ("main", "other"), ("b:c", "a"), ("c", "a:b"), ("c:b", "a"))
        stores = [store, *(self.open(database, prefix) for database, prefix in names)]
        for number, one in enumerate(stores):
            assert look(one).entry is None and look(one).stamps[0] is None, "seen from elsewhere"
            assert shapes(one) == set()
            filled(one)
            assert [decided(other).entry is not None for other in stores] == [
                place <= number for place in range(len(stores))
            ]
        mark(store, "aa", rows(ROW.tag))
        mark(store, "bb", ALL)
        for one in stores[1:]:
            assert decided(one).entry is not None
            seed(one, ACTIVE)
        settle(store, "bb", ALL)
        settle(store, "aa", rows(ROW.tag))
        mark(stores[1], "aa", ALL)
        settle(stores[1], "aa", ALL)
        stores[1].delete_everything()
        stores[2].purge([TABLE])
        assert [decided(one).entry is not None for one in stores] == [False, False, False, True, True, True]

    @clause
    def test_names_may_have_any_character(self, store: Store) -> None:
        queries = [
            Query(Shape(table, (column,), None), (value,))
            for table, column, value in zip(AWKWARD, AWKWARD[::-1], AWKWARD[3:] + AWKWARD[:3])
        ]
        for query in queries:
            filled(store, query)
        for place, query in enumerate(queries):
            touched = rows(query.tag, table=query.shape.table)
            assert shapes(store, query.shape.table) == {query.shape}
            assert mark(store, "aa", touched) == {query.shape.table: 1}
            settle(store, "aa", touched)
            assert [decided(store, other).entry is not None for other in queries] == [
                other > place for other in range(len(queries))
            ]
        for table in AWKWARD:
            assert look(store, Query(Shape(table, (), None))).stamps[1] is not None, table_stamp(table)
