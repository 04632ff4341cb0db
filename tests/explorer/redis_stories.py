"""The stories that need a server, and the rules that only its scripts and its tiers keep, each left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlacache.store import redis as redis_module
from sqlacache.store import redis_commit
from sqlacache.store.local import LocalTier
from sqlacache.store.pushed import PushedTier
from sqlacache.store.scripts import MARK, SAMPLE, SETTLE, Script
from tests.explorer.on_redis import BOUND, CUT, PINGS, TIME, RedisWorld
from tests.explorer.scheduler import DIES
from tests.explorer.server import Server
from tests.explorer.standins import AFTER, BEFORE
from tests.explorer.world import LOST

ROOM = 1_000_000

Begin = Callable[..., RedisWorld]
STORIES: dict[str, Begin] = {}
"""By name; each takes the server and whether it is to be long."""
LONG = {
    "time passes in the pushed tier",
    "a registry and who is under way are lost",
    "two writers die",
    "the pushed tier is cut off and the writer dies",
    "the pushed tier when the server is emptied",
}
"""Left to ``make explore``."""


def story(begin: Begin) -> Begin:
    STORIES[begin.__name__.replace("_", " ")] = begin
    return begin


def validated() -> LocalTier:
    return LocalTier(ROOM)


def pushed() -> PushedTier:
    return PushedTier(ROOM, BOUND)


@story
def a_reader_meets_a_writer(server: Server, long: bool) -> RedisWorld:
    world = RedisWorld(server, budget={DIES: int(long), LOST: 1})
    world.warm("A", "row")
    world.reader("R1", "A", "row", *(["row"] if long else []))
    world.writer("W1", "A", "deposit")
    return world


@story
def a_new_shape_arrives_in_another_process(server: Server, long: bool) -> RedisWorld:
    world = RedisWorld(server, processes=("A", "B"), budget={DIES: 1})
    world.looked_at = ("list", "row") if long else ("list",)
    world.warm("A", "row")
    world.reader("R1", "A", "list", *(["list"] if long else []))
    world.writer("W1", "B", "deposit", *(["interest"] if long else []))
    return world


@story
def a_registry_is_lost(server: Server, long: bool) -> RedisWorld:
    world = RedisWorld(server, processes=("A", "B"), budget={LOST: 1, DIES: int(long)}, loses=("registry",))
    world.looked_at = ("list", "row") if long else ("list",)
    world.warm("A", "list")
    world.reader("R1", "B", "row", *(["list"] if long else []))
    world.writer("W1", "B", "deposit")
    return world


@story
def who_is_under_way_is_lost(server: Server, long: bool) -> RedisWorld:
    world = RedisWorld(server, processes=("A", "B"), budget={LOST: 1}, loses=("writers",))
    world.looked_at = ("list",)
    world.warm("A", "row")
    world.reader("R1", "A", "list", *(["row"] if long else []))
    world.writer("W1", "B", "deposit")
    return world


@story
def the_server_is_emptied(server: Server, long: bool) -> RedisWorld:
    world = RedisWorld(
        server,
        processes=("A", "B"),
        budget={LOST: 1},
        loses=("everything",),
        tiers={"A": validated} if long else {},
    )
    world.warm("A", "row")
    world.reader("R1", "A", "row", *(["row"] if long else []))
    world.writer("W1", "B", "deposit", mortal=False)
    return world


@story
def a_read_of_two_tables_meets_a_writer_of_both(server: Server, long: bool) -> RedisWorld:
    world = RedisWorld(server, processes=("A", "B") if long else ("A",), budget={DIES: 1})
    world.looked_at = ("join",)
    world.warm("A", "join")
    world.reader("R1", "A", "join", *(["row"] if long else []))
    world.writer("W1", "B" if long else "A", "both")
    return world


@story
def an_outage_between_the_phases(server: Server, long: bool) -> RedisWorld:
    world = RedisWorld(server, processes=("A", "B"), budget={}, faults=(BEFORE, AFTER))
    world.warm("A", "row")
    world.warm("B", "row")
    world.budget.update({BEFORE: 1, AFTER: int(long)})
    world.decides_first = long
    world.granted = {}
    world.reader("R1", "B", "row")
    if long:
        world.reader("R2", "A", "row")
    world.writer("W1", "A", "deposit", mortal=False)
    world.deliverer("the recovery", "A")
    return world


@story
def the_pushed_tier(server: Server, long: bool, tier: Callable[[], LocalTier] = pushed) -> RedisWorld:
    world = RedisWorld(
        server,
        processes=("A", "B"),
        budget={TIME: int(long), PINGS: int(long), LOST: int(long)},
        loses=("registry",),
        tiers={"A": tier},
    )
    world.warm("B", "row")
    if long:
        world.warm("A", "row")
    world.reader("R1", "A", "row", *(["row"] if long else []))
    world.writer("W1", "B", "deposit", mortal=False)
    return world


@story
def the_pushed_tier_of_the_writer(
    server: Server, long: bool, tier: Callable[[], LocalTier] = pushed
) -> RedisWorld:
    world = RedisWorld(
        server, processes=("A",), budget={TIME: int(long), PINGS: int(long)}, tiers={"A": tier}
    )
    world.warm("A", "row")
    world.reader("R1", "A", "row", *(["row"] if long else []))
    world.writer("W1", "A", "deposit", mortal=False)
    return world


@story
def time_passes_in_the_pushed_tier(
    server: Server, long: bool, tier: Callable[[], LocalTier] = pushed
) -> RedisWorld:
    world = RedisWorld(server, processes=("A", "B"), budget={TIME: 1, PINGS: 1}, tiers={"A": tier})
    world.warm("A", "row")
    if not long:
        world.ping_of("A")
    world.reader("R1", "A", "row", *(["row"] if long else []))
    world.writer("W1", "B", "deposit", mortal=False)
    return world


# -- two faults --------------------------------------------------------------------------------------------------------


@story
def the_server_is_emptied_and_the_writer_dies(server: Server, long: bool) -> RedisWorld:
    world = RedisWorld(
        server,
        processes=("A", "B"),
        budget={LOST: 1, DIES: 1},
        loses=("everything",),
        tiers={"A": validated} if long else {},
    )
    world.warm("A", "row")
    world.reader("R1", "A", "row", *(["row"] if long else []))
    world.writer("W1", "B", "deposit", *(["interest"] if long else []))
    return world


@story
def who_is_under_way_is_lost_and_the_writer_dies(server: Server, long: bool) -> RedisWorld:
    world = RedisWorld(server, processes=("A", "B"), budget={LOST: 1, DIES: 1}, loses=("writers",))
    world.looked_at = ("list", "row") if long else ("list",)
    world.warm("A", "row")
    world.reader("R1", "A", "list", *(["row"] if long else []))
    world.writer("W1", "B", "deposit")
    if long:
        world.writer("W2", "A", "interest", mortal=False)
    return world


@story
def a_registry_and_who_is_under_way_are_lost(server: Server, long: bool) -> RedisWorld:
    world = RedisWorld(
        server,
        processes=("A", "B"),
        budget={LOST: 2, DIES: int(long)},
        loses=("registry", "writers", *(("stamp",) if long else ())),
    )
    world.looked_at = ("list", "row") if long else ("list",)
    world.warm("A", "list")
    world.reader("R1", "B", "list", *(["list"] if long else []))
    world.writer("W1", "A", "deposit")
    return world


@story
def two_writers_die(server: Server, long: bool) -> RedisWorld:
    world = RedisWorld(server, processes=("A", "B"), budget={DIES: 2, LOST: int(long)})
    world.warm("A", "row")
    world.reader("R1", "A", "row", *(["list"] if long else []))
    world.writer("W1", "A", "deposit")
    world.writer("W2", "B", "interest")
    return world


@story
def the_pushed_tier_is_cut_off_and_the_writer_dies(
    server: Server, long: bool, tier: Callable[[], LocalTier] = pushed
) -> RedisWorld:
    world = RedisWorld(
        server,
        processes=("A", "B"),
        budget={CUT: 1, DIES: 1, TIME: int(long), PINGS: 1},
        tiers={"A": tier},
    )
    world.warm("A", "row")
    if not long:
        world.ping_of("A")
    world.reader("R1", "A", "row", *(["row"] if long else []))
    world.writer("W1", "B", "deposit")
    return world


@story
def the_pushed_tier_when_the_server_is_emptied(
    server: Server, long: bool, tier: Callable[[], LocalTier] = pushed
) -> RedisWorld:
    world = RedisWorld(
        server,
        processes=("A", "B"),
        budget={LOST: 1, DIES: 1, TIME: int(long), PINGS: int(long)},
        loses=("everything",),
        tiers={"A": tier},
    )
    world.warm("B", "row")
    world.warm("A", "row")
    world.reader("R1", "A", "row", *(["list"] if long else []))
    world.writer("W1", "B", "deposit")
    return world


# -- rules left out ----------------------------------------------------------------------------------------------------


class DropsOnArrival(PushedTier):
    """What was sampled before an announcement arrived may be kept after it."""

    def touch(self, names: Any) -> None:
        names = set(names)
        super().touch(names)
        touched = [
            key
            for key, entry in self._entries.items()
            if names.intersection(name for name, _, _ in entry.stamps)
        ]
        self.drop(touched)

    def _is_current(self, entry: Any) -> bool:
        return True


class BelievesThePong(PushedTier):
    """Serves for the bound from when the PONG arrived, and not from when the PING was sent."""

    def proved(self, sent_at: float) -> None:
        from sqlacache.store import pushed as module

        super().proved(module.time.monotonic())


def made(kind: type[PushedTier]) -> Callable[[], LocalTier]:
    return lambda: kind(ROOM, BOUND)


TIERS: dict[str, tuple[Begin, type[PushedTier]]] = {
    "what was sampled before an announcement is kept": (the_pushed_tier, DropsOnArrival),
    "a PONG proves what came before it arrived": (time_passes_in_the_pushed_tier, BelievesThePong),
}

SCRIPTS: dict[str, tuple[Begin, Script, str, str]] = {
    "seeds while a writer is under way (rule b)": (
        lambda server, long: a_reader_meets_a_writer(server, True),
        SAMPLE,
        "if under_way and (#missing > 0 or #absent > 0)",
        "if under_way and #missing > 0",
    ),
    "registers while a writer is under way (rule c)": (
        a_new_shape_arrives_in_another_process,
        SAMPLE,
        "if under_way and (#missing > 0 or #absent > 0)",
        "if false",
    ),
    "does not look whether the registry has changed (rule c)": (
        a_new_shape_arrives_in_another_process,
        MARK,
        "then again = true end",
        "then again = false end",
    ),
    "finds no registry and keeps the table stamp (rule d)": (
        a_registry_is_lost,
        MARK,
        "if ARGV[7 + 3 * i] == '' then",
        "if false then",
    ),
    "begins a registry under the same table stamp (rule d)": (
        a_registry_is_lost,
        SAMPLE,
        "if replace(table_stamp, '', nil) > 0 then unnamed() end",
        "",
    ),
    "settles as if it had not been forgotten": (
        who_is_under_way_is_lost,
        SETTLE,
        "if forgotten then",
        "if false then",
    ),
    "does not release what it marked": (
        a_new_shape_arrives_in_another_process,
        SETTLE,
        "tokens, latest = alive(tokens, ARGV[4])",
        "tokens, latest = alive(tokens, '')",
    ),
}
"""What a script does, with the text in it that keeps it from that, and what stands there instead."""


@contextmanager
def changed(server: Server, script: Script, text: str, instead: str) -> Iterator[None]:
    """Let one of the scripts be another."""
    source = script.source.decode()
    assert text in source, f"{script.name}.lua has no {text!r}"
    source = source.replace(text, instead)
    digest = server.client.script_load(source)
    other = Script(script.name, source.encode(), digest if isinstance(digest, bytes) else digest.encode())
    server.names[other.digest] = script.name
    name = script.name.upper()
    module: Any = redis_module if hasattr(redis_module, name) else redis_commit
    before = getattr(module, name)
    setattr(module, name, other)
    try:
        yield
    finally:
        setattr(module, name, before)
