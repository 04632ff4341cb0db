"""From samples to figures: times, ratios within a round, and a hit's own work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .spread import Spread, ratios, spread

Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""Seconds per operation: by work, by contender, one figure per round."""


def seconds(samples: Samples, work: str, contender: str) -> Spread:
    """Return how long one operation took."""
    return spread(samples[work][contender])


def ratio(samples: Samples, work: str, slow: str, fast: str) -> Spread:
    """Return how many times as long ``slow`` took as ``fast``: the median over rounds of the ratio within a round."""
    return ratios(samples[work][slow], samples[work][fast])


def own_work(samples: Samples, work: str, hit: str, instant: str) -> Spread:
    """Return what a hit costs beyond SQLAlchemy with a driver that answers at once, as a part of the latter."""
    found = ratio(samples, work, hit, instant)
    return Spread(found.median - 1, found.low - 1, found.high - 1)


def told(samples: Samples, compared_with: str) -> dict[str, Any]:
    """Return every work's figures, for JSON."""
    works: dict[str, Any] = {}
    for work, runs in samples.items():
        works[work] = {}
        for name, found in runs.items():
            works[work][name] = {"seconds": spread(found).as_dict()}
            if compared_with in runs:
                key = f"{compared_with.replace(' ', '_')}_over_this"
                works[work][name][key] = ratio(samples, work, compared_with, name).as_dict()
            works[work][name]["samples"] = list(found)
    return works


__all__ = ["Samples", "Spread", "own_work", "ratio", "seconds", "spread", "told"]
