"""Says which of many series grow: each is compared over the thirds of a run that follow its warm-up.

A resource that leaks grows as long as the run lasts, by little at a time; one that is bounded fills up, and then goes
up and down. So the median of the last third is held against that of the first one: no single sample decides, and what
has not filled up when the warm-up ends is found, too, and told as growth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from statistics import median
from typing import NamedTuple

Series = Sequence[tuple[float, float]]
"""Operations done, and how much there was then."""
WARMED = 0.25
"""Share of the operations after which the first third begins."""
FEWEST = 3
"""Samples of each third, with fewer of which nothing can be said."""


class Allowed(NamedTuple):
    """What the last third may have beyond the first."""

    share: float
    least: float
    """That much in any case."""


RULES: Mapping[str, Allowed] = {
    "memory": Allowed(0.08, 12.0),
    "used": Allowed(0.02, 2.0),
    "blocks": Allowed(0.08, 30_000.0),
    "tasks": Allowed(0.0, 4.0),
    "threads": Allowed(0.0, 4.0),
    "files": Allowed(0.0, 6.0),
    "connections": Allowed(0.0, 4.0),
    "keys": Allowed(0.4, 300.0),
    "undying": Allowed(0.1, 20.0),
    "bytes": Allowed(0.3, 2_000_000.0),
    "objects": Allowed(0.3, 100.0),
    "held": Allowed(0.3, 100.0),
    "metrics": Allowed(0.1, 500.0),
}
"""By the first word of a series' name. ``memory``, what is resident, and ``used``, what is in use of it, in MB;
``held``: what is in a container of ours; ``undying``: keys of Redis that never expire."""
TOLD = ("free",)
"""Kinds that are told and not judged: what allocators have and nobody uses, which ``memory`` has in it."""


class Growth(NamedTuple):
    """A series, and what it was in the first and the last third."""

    what: str
    first: float
    last: float
    grows: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.first:,.1f} in the first third, {self.last:,.1f} in the last"


def judge(series: Mapping[str, Series], operations: float) -> list[Growth]:
    """Compare the thirds of every series. Raises :class:`KeyError` for one whose kind has no rule."""
    begin = WARMED * operations
    third = (operations - begin) / 3
    found = []
    for what, samples in series.items():
        kind = what.split()[0]
        share, least = (0.0, inf) if kind in TOLD else RULES[kind]
        parts: list[list[float]] = [[], [], []]
        for at, much in samples:
            if at > begin:
                parts[min(int((at - begin) / third), 2)].append(much)
        if min(map(len, parts)) < FEWEST:
            raise ValueError(f"{what}: {[len(part) for part in parts]} samples by third are too few to tell")
        first, last = median(parts[0]), median(parts[2])
        found.append(Growth(what, first, last, last > first * (1 + share) + least))
    return found
