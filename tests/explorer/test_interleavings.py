"""Every order in which a few readers and writers may meet, with what may befall them: nothing stale, no mark left."""

from __future__ import annotations

from typing import Any

import pytest

from sqlacache.store.memory import MemoryStore
from tests.explorer import mutants
from tests.explorer.reducing import both_ways, kinds_of
from tests.explorer.scenarios import LONG, STORIES
from tests.explorer.scheduler import Actor, explore, follow, pause
from tests.explorer.world import World

pytestmark = pytest.mark.usefixtures("explorer")


@pytest.mark.parametrize("name", [name for name in STORIES if name not in LONG])
def test_in_every_order_reads_are_current_and_may_hit_again(name: str) -> None:
    report = explore(STORIES[name].on())
    assert report.found is None, f"{name}:\n{report}"
    assert report.complete and report.states > 50 and report.ends > 1, report


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=f"{kind.__name__}-{name}")
        for kind, names in mutants.found_by().items()
        for name in names
    ],
)
def test_a_store_that_leaves_out_a_rule_is_found_out(kind: type[MemoryStore], name: str) -> None:
    report = explore(STORIES[name].on(kind), most=3000)
    assert report.found is not None, report
    assert "   1. " in str(report) and "=>" in str(report)
    assert follow(STORIES[name].on(kind), report.found.steps) is not None, "it happens again"
    if kind is not mutants.NeverEndsALease:
        assert "stale" in report.found.what
    assert follow(STORIES[name].on(), report.found.steps) is None, (
        "the store as it is survives the same steps"
    )


@pytest.mark.parametrize(
    "kind",
    [MemoryStore, mutants.RegistersNothing],
    ids=lambda kind: kind.__name__,
)
@pytest.mark.parametrize(
    "name",
    [
        "two writers cross each other",
        "a read of two tables meets writers of each",
        "nobody had read it when a lease ended",
    ],
)
def test_what_is_left_out_makes_no_difference_to_what_is_found(kind: type[MemoryStore], name: str) -> None:
    """In few stories here, and in all of them with all stores in ``make explore``."""
    fewer, all_of_them = both_ways(STORIES[name], kind)
    assert fewer.complete and all_of_them.complete and fewer.states < all_of_them.states
    assert kinds_of(fewer.violations) == kinds_of(all_of_them.violations)
    assert kind is not MemoryStore or not fewer.violations
    assert fewer.violations or name not in mutants.found_by().get(kind, ())


def test_what_is_in_flight_is_no_number() -> None:
    """Rule a: found by the long form of the story, in 4,000 states; here are the steps that it came to.

    W1's lease has ended, and its mark is gone with it. Settling, it takes one from the number, which is that of W2.
    """
    story = STORIES["a writer outlives its lease while another is at it"]
    steps = [
        "W2 marks",
        "W1 marks",
        "the lease of W1 ends too early",
        "R1 looks up",
        "R1 reads the database",
        "W1 commits",
        "W1 settles",
        "R1 looks up",
        "R1 reads the database",
        "R1 fills",
        "W2 commits",
        "W2 dies before it settles",
    ]
    wrong = follow(story.on(mutants.CountsWriters, long=True), steps)
    assert wrong is not None and wrong[0] == steps
    assert wrong[1].startswith("stale")
    assert follow(story.on(long=True), steps) is None


def test_a_run_that_is_taken_again_comes_to_the_same() -> None:
    counts = {str(explore(STORIES["a new shape arrives"].on())) for _ in range(2)}
    assert len(counts) == 1, counts


def test_somebody_who_waits_for_ever_is_found() -> None:
    def make() -> World:
        world = STORIES["a reader meets a writer"].on()()
        sleeper = Actor("S", lambda: pause("wakes up", ready=lambda: False))
        world.actors = [sleeper]
        sleeper.go_on()
        return world

    found = explore(make).found
    assert found is not None and "nobody goes on: S wakes up" in found.what


def test_what_was_never_committed_is_found() -> None:
    def make() -> World:
        world = STORIES["a reader meets a writer"].on()()
        world.data.read = lambda tables: (world.data.versions["accounts"] + 1,)  # type: ignore[method-assign]  # dirty
        return world

    found = explore(make).found
    assert found is not None and "never committed" in found.what


def test_a_reader_that_goes_back_in_time_is_found() -> None:
    def make() -> World:
        world = STORIES["a reader meets a writer"].on()()
        world.acknowledge = lambda *given: None  # type: ignore[method-assign]  # that it is stale is another matter
        read, answers = world.data.read, iter([(1,)])

        def forgetful(tables: Any) -> Any:
            return read(tables) if world.data.versions["accounts"] == 0 else next(answers, (0,))

        world.data.read = forgetful  # type: ignore[method-assign]  # a replica, say, that is behind
        return world

    found = explore(make).found
    assert found is not None and "backwards" in found.what
