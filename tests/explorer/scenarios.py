"""Who meets whom: the stories whose every order is explored, each with a longer form for ``make explore``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlacache.store.memory import MemoryStore
from tests.explorer.scheduler import DIES
from tests.explorer.standins import AFTER, BEFORE, CANCELLED, RAISES, REFUSED
from tests.explorer.world import LOST, SLOW, World


class Story(NamedTuple):
    """A world's beginning."""

    name: str
    begin: Callable[[Any, bool], World]
    """Takes the store and whether the story is to be long."""

    def on(self, kind: type[MemoryStore] = MemoryStore, *, long: bool = False) -> Callable[[], World]:
        """Return what makes the story's world with a store of this kind."""
        return lambda: self.begin(kind(max_bytes=1_000_000, lease=30), long)


STORIES: dict[str, Story] = {}
LONG = {"a writer outlives its lease while another is at it"}
"""Left to ``make explore``."""


def story(begin: Callable[[Any, bool], World]) -> Callable[[Any, bool], World]:
    name = begin.__name__.replace("_", " ")
    STORIES[name] = Story(name, begin)
    return begin


@story
def a_reader_meets_a_writer(store: Any, long: bool) -> World:
    world = World(store, budget={DIES: 1, LOST: 1})
    world.warm("A", "row")
    world.reader("R1", "A", "row", "row")
    if long:
        world.reader("R2", "A", "row")
    world.writer("W1", "A", "deposit")
    return world


@story
def two_writers_cross_each_other(store: Any, long: bool) -> World:
    world = World(store, budget={DIES: int(long), LOST: int(long)})
    world.warm("A", "row")
    world.reader("R1", "A", "row", *(["row"] if long else []))
    world.writer("W1", "A", "deposit")
    world.writer("W2", "A", "interest")
    return world


@story
def a_read_of_two_tables_meets_writers_of_each(store: Any, long: bool) -> World:
    world = World(store, budget={DIES: int(long), LOST: int(long)})
    world.looked_at = ("join",)
    world.warm("A", "join")
    world.reader("R1", "A", "join", *(["join"] if long else []))
    world.writer("W1", "A", "deposit")
    world.writer("W2", "A", "limit")
    return world


@story
def a_read_of_two_tables_meets_a_writer_of_both(store: Any, long: bool) -> World:
    world = World(store, budget={DIES: 1, LOST: int(long)})
    world.looked_at = ("join", "row")
    world.warm("A", "join")
    world.reader("R1", "A", "join", *(["row", "join"] if long else []))
    world.reader("R2", "A", "row")
    world.writer("W1", "A", "both")
    return world


@story
def a_new_shape_arrives(store: Any, long: bool) -> World:
    world = World(store, budget={DIES: 1, LOST: int(long)})
    world.looked_at = ("row", "list")
    world.warm("A", "row")
    world.reader("R1", "A", "list", "list")
    if long:
        world.reader("R2", "A", "row")
    world.writer("W1", "A", "deposit", *(["interest"] if long else []))
    return world


@story
def loads_are_shared(store: Any, long: bool) -> World:
    world = World(store, budget={CANCELLED: 1})
    world.warm("A", "list")
    world.reader("R1", "A", "row")
    world.reader("R2", "A", "row")
    if long:
        world.reader("R3", "A", "row")
    world.writer("W1", "A", "deposit", mortal=False)
    return world


@story
def the_server_is_away_between_the_phases(store: Any, long: bool) -> World:
    world = World(store, processes=("A", "B"), budget={BEFORE: 1, AFTER: 1}, faults=())
    world.processes["A"].binding.store.faults = (BEFORE, AFTER)
    world.decides_first = True
    world.warm("A", "row")
    world.reader("R1", "B", "row", *(["row"] if long else []))
    if long:
        world.reader("R2", "A", "row", "row")
    world.writer("W1", "A", "deposit", mortal=False)
    world.deliverer("the recovery", "A")
    return world


@story
def a_commit_of_unknown_outcome(store: Any, long: bool) -> World:
    world = World(store, budget={REFUSED: 1, RAISES: 1, CANCELLED: 1})
    world.warm("A", "row")
    world.reader("R1", "A", "row", *(["row"] if long else []))
    world.writer("W1", "A", "deposit", "deposit", mortal=False)
    return world


@story
def a_writer_outlives_its_lease(store: Any, long: bool) -> World:
    world = World(store, budget={SLOW: 1, LOST: int(long)})
    world.looked_at = ("row", "list")
    world.warm("A", "row")
    world.reader("R1", "A", "row")
    world.reader("R2", "A", "list", *(["list"] if long else []))
    world.writer("W1", "A", "deposit", mortal=False)
    return world


@story
def a_writer_outlives_its_lease_while_another_is_at_it(store: Any, long: bool) -> World:
    world = World(store, budget={SLOW: 1, DIES: int(long)})
    world.warm("A", "row")
    world.reader("R1", "A", "row", *(["row"] if long else []))
    world.writer("W1", "A", "deposit", mortal=False)
    world.writer("W2", "A", "deposit")
    return world


@story
def a_table_that_nobody_has_read_is_written(store: Any, long: bool) -> World:
    world = World(store, budget={DIES: 1, LOST: int(long)})
    world.reader("R1", "A", "row", *(["list"] if long else []))
    world.reader("R2", "A", "row")
    world.writer("W1", "A", "whole")
    return world


@story
def nobody_had_read_it_when_a_lease_ended(store: Any, long: bool) -> World:
    world = World(store, budget={SLOW: 1, REFUSED: 1})
    world.reader("R1", "A", "row", *(["list"] if long else []))
    world.writer("W1", "A", "whole", mortal=False)
    if long:
        world.writer("W2", "A", "whole", mortal=False)
    return world


# -- two faults --------------------------------------------------------------------------------------------------------


@story
def a_writer_dies_whose_lease_has_ended(store: Any, long: bool) -> World:
    world = World(store, budget={SLOW: 1, DIES: 1, LOST: int(long)})
    world.looked_at = ("row", "list")
    world.warm("A", "row")
    world.reader("R1", "A", "row", *(["row"] if long else []))
    world.reader("R2", "A", "list")
    world.writer("W1", "A", "deposit", *(["interest"] if long else []))
    return world


@story
def two_writers_die(store: Any, long: bool) -> World:
    world = World(store, budget={DIES: 2, LOST: int(long)})
    world.warm("A", "row")
    world.reader("R1", "A", "row", *(["list", "row"] if long else ["row"]))
    world.writer("W1", "A", "deposit")
    world.writer("W2", "A", "interest")
    return world


@story
def two_stamps_are_lost_and_a_writer_dies(store: Any, long: bool) -> World:
    world = World(store, budget={LOST: 2, DIES: 1})
    world.warm("A", "row")
    world.reader("R1", "A", "row", *(["row"] if long else []))
    if long:
        world.reader("R2", "A", "list")
    world.writer("W1", "A", "deposit")
    return world


@story
def a_process_dies_with_what_it_owes(store: Any, long: bool) -> World:
    world = World(store, processes=("A", "B"), budget={BEFORE: 1, AFTER: 1, DIES: 1}, faults=())
    world.processes["A"].binding.store.faults = (BEFORE, AFTER)
    world.warm("A", "row")
    world.reader("R1", "B", "row", *(["row"] if long else []))
    world.writer("W1", "A", "deposit")
    if long:
        world.writer("W2", "B", "interest")
    world.deliverer("the recovery", "A", mortal=True)
    return world
