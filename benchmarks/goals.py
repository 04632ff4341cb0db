"""What is demanded of the part ``one``: ratios between contenders that do the same work.

A goal is about what was measured: one whose contenders or work are not there is left out. What is demanded beside
sqlacache 0.1.3 is in :mod:`.apart`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .contenders import (
    DECORATOR,
    DECORATOR_REDIS,
    DIRECT,
    DIRECT_PUSHED,
    DIRECT_VALIDATED,
    HIT,
    HIT_SAMPLED,
    HIT_TELEMETRY,
    INSTANT,
    NO_CACHE,
    PUSHED,
    REDIS,
    UNCONFIGURED,
    UNCONFIGURED_TELEMETRY,
    VALIDATED,
)
from .figures import Samples, ratio
from .parts import Goal
from .spread import Spread
from .work import READS

HITS = (HIT, HIT_TELEMETRY, HIT_SAMPLED, REDIS, VALIDATED, PUSHED, DIRECT, DIRECT_PUSHED, DIRECT_VALIDATED)
"""Ours of which every read is a hit."""
READ_NAMES = tuple(work.name for work in READS)
COMPARABLE = tuple(name for name in READ_NAMES if "JSON" not in name)
"""Where a driver that answers at once does what a driver does: of JSON, it hands out the same dictionaries every time,
which a cache must not (:mod:`.instant`)."""


@dataclass(frozen=True)
class Demand:
    """A ratio of times that must be reached, in one work or in the worst of several."""

    name: str
    text: str
    works: Sequence[str]
    slow: str
    fast: str
    bound: float
    at_least: bool = True

    def goal(self, samples: Samples) -> Goal | None:
        """Return what was found; ``None`` where nothing of it was measured."""
        found: dict[str, Spread] = {}
        for work in self.works:
            runs = samples.get(work, {})
            if runs.get(self.slow) and runs.get(self.fast):
                found[work] = ratio(samples, work, self.slow, self.fast)
        if not found:
            return None
        worst = (min if self.at_least else max)(found, key=lambda work: found[work].median)
        text = self.text + (f" Worst: {worst}." if len(self.works) > 1 else "")
        return Goal(self.name, text, found[worst], self.bound, self.at_least, over=tuple(found))


def goals(samples: Samples) -> list[Goal]:
    """Return the goals on what was measured."""
    return [goal for demand in DEMANDS if (goal := demand.goal(samples)) is not None]


def _every_hit() -> Iterator[Demand]:
    for hit in HITS:
        text = f"A hit ({hit}) against no cache, every read."
        yield Demand(f"every read faster, {hit}", text, READ_NAMES, NO_CACHE, hit, 1.0)


def _own_work() -> Iterator[Demand]:
    text = "A hit against SQLAlchemy with a driver that answers at once, every read but JSON: own work is beyond 1."
    yield Demand("own work", text, COMPARABLE, HIT, INSTANT, 1.25, at_least=False)


def _direct() -> Iterator[Demand]:
    text = "session.get() in the opt-in session class against the hand-written decorator."
    yield Demand("direct get", text, ["get"], DIRECT, DECORATOR, 2.0, at_least=False)
    text = "The same on Redis, with the tier that there is by default, against the decorator on Redis."
    yield Demand("direct get, Redis", text, ["get"], DIRECT_VALIDATED, DECORATOR_REDIS, 2.0, at_least=False)


def _further() -> Iterator[Demand]:
    for work, bound in (("list of 1,000", 2.0), ("get", 1.6)):
        for hit in (HIT, HIT_TELEMETRY):
            text = f"{work}: a hit ({hit}) against no cache."
            yield Demand(f"{work}, {hit}", text, [work], NO_CACHE, hit, bound)
    text = "list of 1,000: a hit (redis, validated) against no cache."
    yield Demand(f"list of 1,000, {VALIDATED}", text, ["list of 1,000"], NO_CACHE, VALIDATED, 2.0)
    text = "get: a pushed hit against one on mem://."
    yield Demand("get, pushed against hit", text, ["get"], PUSHED, HIT, 1.3, at_least=False)
    for work in ("get", "list of 1,000", "commit of 1 row"):
        for unconfigured in (UNCONFIGURED, UNCONFIGURED_TELEMETRY):
            if work != "commit of 1 row" or unconfigured == UNCONFIGURED:
                text = f"{work}: models that are not configured against no cache."
                yield Demand(
                    f"{work}, {unconfigured}", text, [work], unconfigured, NO_CACHE, 1.10, at_least=False
                )


def _all(groups: Iterable[Iterable[Demand]]) -> tuple[Demand, ...]:
    return tuple(demand for group in groups for demand in group)


DEMANDS = _all((_every_hit(), _own_work(), _direct(), _further()))
