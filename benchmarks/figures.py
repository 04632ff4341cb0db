"""From samples to figures: medians, spread, ratios within a round, and what is required of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .contenders import (
    HIT,
    HIT_TELEMETRY,
    INSTANT,
    NO_CACHE,
    PUSHED,
    REDIS,
    UNCONFIGURED,
    UNCONFIGURED_TELEMETRY,
    VALIDATED,
)
from .measure import Samples


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return {"median": self.median, "q1": self.low, "q3": self.high}


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of ``values``."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def seconds(samples: Samples, work: str, contender: str) -> Spread:
    """Return how long one operation took."""
    return spread(samples[work][contender])


def ratio(samples: Samples, work: str, slow: str, fast: str) -> Spread:
    """Return how many times as long ``slow`` took as ``fast``: the median over rounds of the ratio within a round.

    What slows the machine down for a while slows both down, so that ratios spread less than times do.
    """
    pairs = zip(samples[work][slow], samples[work][fast])
    return spread([one / other for one, other in pairs])


@dataclass(frozen=True)
class Requirement:
    """A ratio that must be reached."""

    text: str
    work: str
    slow: str
    fast: str
    bound: float
    at_least: bool

    def judge(self, samples: Samples) -> tuple[bool, Spread]:
        """Return whether it is met, and the ratio."""
        found = ratio(samples, self.work, self.slow, self.fast)
        met = found.median >= self.bound if self.at_least else found.median <= self.bound
        return met, found


def _faster(work: str, hit: str, bound: float) -> Requirement:
    text = f"{work}: a {hit} at least {bound:g} times as fast as PostgreSQL"
    return Requirement(text, work, NO_CACHE, hit, bound, True)


def _unconfigured(work: str, contender: str = UNCONFIGURED) -> Requirement:
    text = f"{work}: {contender}, at most 1.10 of no cache"
    return Requirement(text, work, contender, NO_CACHE, 1.10, False)


def required(samples: Samples) -> list[Requirement]:
    """Return the requirements on what was measured."""
    return [requirement for requirement in REQUIREMENTS if requirement.work in samples]


REQUIREMENTS = (
    _faster("list of 1,000", HIT, 2.0),
    _faster("list of 1,000", HIT_TELEMETRY, 2.0),
    _faster("get", HIT, 1.6),
    _faster("get", HIT_TELEMETRY, 1.6),
    _unconfigured("get"),
    _unconfigured("get", UNCONFIGURED_TELEMETRY),
    _unconfigured("list of 1,000"),
    _unconfigured("list of 1,000", UNCONFIGURED_TELEMETRY),
    _unconfigured("commit of 1 row"),
    Requirement("get: a hit on Redis, not slower than PostgreSQL", "get", NO_CACHE, REDIS, 1.0, True),
    _faster("list of 1,000", VALIDATED, 2.0),
    Requirement("get: a pushed hit, at most 1.3 of one on mem://", "get", PUSHED, HIT, 1.3, False),
)


def report(samples: Samples, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything, for ``--json``. Times are seconds."""
    works: dict[str, Any] = {}
    for work, runs in samples.items():
        works[work] = {
            name: {
                "seconds": seconds(samples, work, name).as_dict(),
                "no_cache_over_this": ratio(samples, work, NO_CACHE, name).as_dict(),
                "samples": found,
            }
            for name, found in runs.items()
        }
        if INSTANT in runs:
            works[work][HIT]["own_work"] = own_work(samples, work, HIT).as_dict()
            works[work][HIT_TELEMETRY]["own_work"] = own_work(samples, work, HIT_TELEMETRY).as_dict()
    judged = []
    for requirement in required(samples):
        met, found = requirement.judge(samples)
        judged.append(
            {"text": requirement.text, "met": met, "ratio": found.as_dict(), "bound": requirement.bound}
        )
    return {"about": dict(about), "works": works, "requirements": judged}


def own_work(samples: Samples, work: str, hit: str) -> Spread:
    """Return what a hit costs beyond SQLAlchemy with a driver that answers at once, as a part of the latter."""
    found = ratio(samples, work, hit, INSTANT)
    return Spread(found.median - 1, found.low - 1, found.high - 1)
