"""Whether leaving out orders (:class:`.World`) and details (:mod:`.pictures`) leaves out anything that is found."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlacache.store.memory import MemoryStore
from tests.explorer.scenarios import Story
from tests.explorer.scheduler import Report, explore
from tests.explorer.world import World


def both_ways(story: Story, kind: type[MemoryStore], *, most: int | None = None) -> tuple[Report, Report]:
    """Explore all of a story, whatever is found: with what may be left out left out, and without."""

    def everything() -> World:
        world = story.on(kind)()
        world.reduces = False
        return world

    return explore(story.on(kind), most=most, stops=False), explore(everything, most=most, stops=False)


def kinds_of(violations: Iterable[str]) -> set[str]:
    """Return what was found, whichever of the readers found it and whatever else it could have known."""
    return {re.sub(r"\bR\d", "R", re.split(r"; |, after|: W", text)[0]) for text in violations}
