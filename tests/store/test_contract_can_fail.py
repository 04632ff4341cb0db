"""The contract notices a store that leaves out a rule: each of these is broken in one way, and named clauses fail."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Any
from unittest import SkipTest

import pytest

from sqlacache.store.marked import Stamp
from sqlacache.store.stamps import Entry
from sqlacache.tags import TableTouch
from sqlacache.testing.contract import StoreContract
from tests.store.samples import SAFE
from tests.store.stores import LosingContract, LosingStore, MemoryContract

BROKEN: dict[type, tuple[str, ...]] = {}


def noticed_by(*clauses: str) -> Any:
    def noted(kind: type) -> type:
        BROKEN[kind] = clauses
        return kind

    return noted


@noticed_by(
    "test_a_marked_stamp_is_in_flight_until_it_is_settled_and_each_phase_replaces_it",
    "test_story_of_the_fill_between_the_phases",
    "test_whatever_the_order_nothing_stale_is_read",
)
class MarksNothing(LosingStore):
    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        replaced = super().mark(token, touched, revisions, causes)
        if replaced is not None:
            self._release(token, touched)
        return replaced


@noticed_by(
    "test_a_fill_of_what_was_sampled_between_the_phases_is_never_a_hit",
    "test_story_of_rule_e_a_writer_that_settles_after_its_lease",
)
class ReplacesInPhaseOneOnly(LosingStore):
    def settle(self, token: str, touched: Any, causes: Any) -> None:
        self.unmark(token, touched)


@noticed_by(
    "test_unmarking_releases_and_replaces_nothing",
    "test_story_of_a_writer_killed_between_any_two_steps",
    "test_whatever_the_order_nothing_stale_is_read",
)
class ReplacesInPhaseTwoOnly(LosingStore):
    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        before = {name: (stamp.version, stamp.nonce) for name, stamp in self._stamps.items()}
        replaced = super().mark(token, touched, revisions, causes)
        for name, stamp in self._stamps.items():
            stamp.version, stamp.nonce = before[name]
        return replaced


@noticed_by(
    "test_settling_twice_releases_nobody_else",
    "test_story_of_rule_a_two_writers_and_the_first_done_releases_itself_only",
)
class CountsWriters(LosingStore):
    """Rule a left out: what is in flight is a number."""

    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        return super().mark(secrets.token_hex(8), touched, revisions, causes)

    def _release(self, token: str, touched: Mapping[str, TableTouch]) -> None:
        for table, what in touched.items():
            stamps = [self._stamps[name].marks for name in what.names() if name in self._stamps]
            for marks in (self._writers.get(table, {}), *stamps):
                marks.pop(next(iter(marks), ""), None)


@noticed_by(
    "test_while_a_writer_is_under_way_nothing_is_registered_and_nothing_seeded",
    "test_story_of_rule_b_seeding_during_a_commit",
    "test_story_of_a_stamp_lost_and_its_writer_crashed",
    "test_whatever_the_order_nothing_stale_is_read",
)
class SeedsDuringACommit(LosingStore):
    """Rules b and c left out."""

    def _busy(self, table: str) -> bool:
        return False


@noticed_by(
    "test_story_of_rule_c_a_shape_that_registers_during_a_commit",
    "test_touching_everything_kills_every_entry_and_stops_registering_everywhere",
)
class RegistersDuringACommit(LosingStore):
    """Rule c left out: what is missing is registered, and only seeding waits."""

    def sample(self, names: Any, tables: Any, shapes: Any, ttl: float) -> Any:
        if all(name in self._stamps for name in names[:2]):
            writers, self._writers = self._writers, {}
            try:
                return super().sample(names, tables, shapes, ttl)
            finally:
                self._writers = writers
        return super().sample(names, tables, shapes, ttl)


@noticed_by(
    "test_a_stamp_that_is_not_there_is_not_made_by_a_writer",
    "test_story_of_rule_b_a_stamp_that_a_second_writer_might_make",
)
class MakesStampsThatInheritNothing(LosingStore):
    """Rule b left out: a writer makes the stamps it does not find, and marks them by itself only."""

    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        for table, what in touched.items():
            if revisions.get(table) == self.revision(table):
                for name in what.names():
                    self._stamps.setdefault(name, Stamp(1, secrets.randbits(63), 2e9))
        return super().mark(token, touched, revisions, causes)


@noticed_by(
    "test_a_writer_who_does_not_know_of_a_new_shape_is_refused_and_looks_again",
    "test_story_of_rule_c_a_shape_that_registers_just_before_a_commit",
    "test_story_of_two_processes",
)
class DoesNotCheckRevisions(LosingStore):
    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        return super().mark(token, touched, {table: self.revision(table) for table in revisions}, causes)


@noticed_by(
    "test_a_writer_who_does_not_know_of_a_new_shape_is_refused_and_looks_again",
    "test_one_table_out_of_date_refuses_the_whole_commit",
)
class MarksBeforeItRefuses(LosingStore):
    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        current = {table: self.revision(table) for table in revisions}
        replaced = super().mark(token, touched, current, causes)
        return replaced if current == dict(revisions) else super().mark(token, touched, revisions, causes)


@noticed_by(
    "test_a_writer_in_another_process_learns_of_a_new_shape",
    "test_story_of_two_processes",
)
class NeverLearnsOfShapes(LosingStore):
    def shapes(self, tables: Any) -> Any:
        known = super().shapes(tables)
        return {
            table: self.__dict__.setdefault("first", {}).setdefault(table, known[table]) for table in known
        }


@noticed_by(
    "test_story_of_rule_d_the_registry_was_lost",
    "test_whatever_the_order_nothing_stale_is_read",
)
class KeepsTheTableStampWithoutARegistry(LosingStore):
    """Rule d left out, for writers."""

    def a_writer_that_finds_no_registry_replaces_the_table_stamp(self, *arguments: Any) -> None:
        pass


@noticed_by(
    "test_story_of_rule_d_the_registry_was_lost_and_another_shape_registered",
    "test_story_of_rule_d_the_registry_was_lost_while_a_reader_loads",
)
class KeepsTheTableStampWithANewRegistry(LosingStore):
    """Rule d left out, for the first to register again."""

    def a_new_registry_holds_under_a_new_table_stamp(self, table: str) -> None:
        pass


@noticed_by(
    "test_a_shape_whose_registry_was_lost_is_not_taken_for_registered_after_a_write",
    "test_story_of_rule_d_the_registry_was_lost_and_another_shape_registered",
)
class TakesAnyShapeForRegistered(LosingStore):
    """Rule d left out, for readers that registered before."""

    def registered(self, shapes: Any, names: Any, sample: Any) -> bool:
        return None not in sample.stamps


@noticed_by(
    "test_story_of_who_is_under_way_being_lost",
)
class SettlesAsIfItHadNotBeenForgotten(LosingStore):
    def settle(self, token: str, touched: Any, causes: Any) -> None:
        for table in touched:
            self._writers.setdefault(table, {}).setdefault(token, inf)
        super().settle(token, touched, causes)


@noticed_by(
    "test_phase_two_replaces_what_was_seeded_since_phase_one",
    "test_story_of_rule_e_a_writer_that_settles_after_its_lease",
)
class SettlesWhatItFoundInPhaseOne(LosingStore):
    """Rule e left out."""

    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        found = {name for what in touched.values() for name in what.names() if name in self._stamps}
        self.__dict__.setdefault("found", {})[token] = found
        return super().mark(token, touched, revisions, causes)

    def settle(self, token: str, touched: Any, causes: Any) -> None:
        found = self.__dict__.get("found", {}).get(token, set())
        known = {
            table: replace(what, stamps=dict.fromkeys(name for name in what.stamps if name in found))
            for table, what in touched.items()
        }
        for table in touched:
            self._writers.setdefault(table, {}).setdefault(token, inf)  # which would replace the table's
        super().settle(token, known, causes)
        self.unmark(token, touched)


@noticed_by(
    "test_a_writer_that_never_comes_back_is_in_the_way_until_its_lease_ends",
    "test_story_of_two_writers_one_crashed",
)
class NeverEndsALease(LosingStore):
    @staticmethod
    def _alive(tokens: dict[str, float]) -> bool:
        return bool(tokens)


@noticed_by(
    "test_no_nonce_comes_twice",
    "test_a_fill_under_a_stamp_that_was_lost_and_seeded_anew_is_never_a_hit",
)
class NumbersItsNonces(LosingStore):
    """A stamp that was lost starts again at the same number."""

    def sample(self, names: Any, tables: Any, shapes: Any, ttl: float) -> Any:
        sample, registered = super().sample(names, tables, shapes, ttl)
        return sample._replace(stamps=self._number(names)), registered

    def _replace(self, what: Any, cause: Any, token: Any, until: float) -> int:
        count = super()._replace(what, cause, token, until)
        self._number(what.names())
        return count

    def _number(self, names: Any) -> Any:
        for name in names:
            if name in self._stamps:
                self._stamps[name].nonce = self._stamps[name].version
        return self._view(names)


@noticed_by(
    "test_a_stamps_life_is_extended_and_never_shortened",
)
class ShortensTheLifeOfStamps(LosingStore):
    def sample(self, names: Any, tables: Any, shapes: Any, ttl: float) -> Any:
        for name in names:
            if name in self._stamps:
                self._stamps[name].expires_at = 0
        return super().sample(names, tables, shapes, ttl)


@noticed_by(
    "test_a_replaced_stamp_tells_the_whole_cause",
)
class ForgetsTheCause(LosingStore):
    def _replace(self, what: Any, cause: Any, token: Any, until: float) -> int:
        told = cause and replace(cause, columns=cause.columns or ())
        return super()._replace(what, told, token, until)


@noticed_by(
    "test_what_one_hit_does_to_its_rows_reaches_no_other",
)
class SharesMutableRows(LosingStore):
    def fill(self, key: str, entry: Entry) -> Any:
        if entry.data is not None:
            entry = replace(entry, rows=SAFE.decode_rows(entry.data).rows, data=None)
        return super().fill(key, entry)


@noticed_by(
    "test_times_and_sizes_come_back_exactly",
)
class RoundsTimes(LosingStore):
    def fill(self, key: str, entry: Entry) -> Any:
        return super().fill(key, replace(entry, stored_at=round(entry.stored_at, 6)))


@noticed_by(
    "test_an_entry_that_expired_on_its_way_is_never_a_hit",
)
class ServesWhatExpired(LosingStore):
    def fill(self, key: str, entry: Entry) -> Any:
        return super().fill(key, replace(entry, expires_at=2e9))


@noticed_by(
    "test_removing_everything_leaves_stamps_shapes_and_writers",
)
class DeletesStampsToo(LosingStore):
    def delete_everything(self) -> int:
        self._stamps.clear()
        return super().delete_everything()


@noticed_by(
    "test_an_entry_of_another_generation_is_never_a_hit",
    "test_when_the_generation_changes_nothing_from_before_is_a_hit",
)
class ServesEveryGeneration(LosingStore):
    def _under(self, sample: Any) -> Any:
        return sample._replace(under=self.server["generation"])

    def fill(self, key: str, entry: Entry) -> Any:
        return super().fill(key, replace(entry, under=self.server["generation"]))


@noticed_by(
    "test_names_may_have_any_character",
)
class EscapesNothing(LosingStore):
    """Stamps' names lose what a server's key may not hold."""

    def _view(self, names: Any) -> Any:
        return super()._view([name.replace("{", "").replace("}", "") for name in names])


@noticed_by("test_databases_and_prefixes_do_not_see_each_other")
class EveryDatabaseInOne(LosingContract):
    def open(self, database: str = "main", prefix: str = "contract") -> Any:
        return super().open()


def contract_of(kind: type) -> StoreContract:
    if issubclass(kind, StoreContract):
        return kind()
    return type(f"Contract{kind.__name__}", (LosingContract,), {"kind": kind})()


@pytest.mark.parametrize(
    ("kind", "clause"),
    [
        pytest.param(kind, clause, id=f"{kind.__name__}-{clause[5:]}")
        for kind, clauses in BROKEN.items()
        for clause in clauses
    ],
)
def test_a_store_that_leaves_out_a_rule_fails(kind: type, clause: str) -> None:
    with pytest.raises(AssertionError):
        getattr(contract_of(kind), clause)()


def test_what_the_others_leave_out_is_all_that_is_wrong_with_them() -> None:
    """The store that they derive from keeps every clause that notices one of them."""
    for clause in {clause for clauses in BROKEN.values() for clause in clauses}:
        getattr(contract_of(LosingStore), clause)()


def test_what_a_backend_cannot_do_is_skipped_with_the_name_of_the_hook() -> None:
    with pytest.raises(SkipTest, match=r"MemoryContract has no lose_registry\(\)"):
        MemoryContract().test_story_of_rule_d_the_registry_was_lost()


def test_the_contract_imports_neither_pytest_nor_a_backend() -> None:
    code = (
        "import sys, cashews, sqlacache.config; theirs = set(sys.modules); "  # cashews imports the redis it finds
        "import sqlacache.testing.contract; "
        "sys.exit(any(name.split('.')[0] in ('pytest', '_pytest', 'redis', 'cashews') "
        "for name in set(sys.modules) - theirs))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
