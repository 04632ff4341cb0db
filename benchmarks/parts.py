"""What a part of the report is: each measures something of its own, and says it in text, data, charts and goals.

A part is a module with ``NAME`` (for ``--part``), ``TITLE`` and ``run(place, rounds=, quick=, progress=)``, which gives
a :class:`Part`. Parts know nothing of each other; the program runs them one after the other and writes one report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from .spread import Spread


@dataclass(frozen=True)
class Place:
    """The servers that every part measures on."""

    postgres: str
    """SQLAlchemy URL (asyncpg) of a server on which databases can be made."""
    redis: str
    """URL of a server whose keys are the benchmark's to make and remove."""


@dataclass(frozen=True)
class Goal:
    """A ratio that must be reached, and what it was: what the gate compares from run to run."""

    name: str
    """Stable: the committed figures are found by it."""
    text: str
    found: Spread
    bound: float
    at_least: bool
    """Whether more is better; else at most ``bound``."""
    over: Sequence[str] = ()
    """Of a goal that is the worst of several: which ones. The gate compares only what was found over the same."""

    @property
    def met(self) -> bool:
        """Whether the median reaches the bound."""
        return self.found.median >= self.bound if self.at_least else self.found.median <= self.bound


@dataclass(frozen=True)
class Chart:
    """One picture: bars for contenders, lines for growth."""

    name: str
    """File name, without ending."""
    title: str
    kind: Literal["bars", "lines"]
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[Any, Spread]]]
    """By name of the series: pairs of a place on the x axis (a text for bars, a number for lines) and a figure."""
    log_x: bool = False
    log_y: bool = False
    base: float = 0.0
    """What bars stand on: 1 for ratios on a logarithmic axis, where they hang below it if they are less."""


@dataclass(frozen=True)
class Part:
    """What was measured."""

    name: str
    title: str
    lines: Sequence[str]
    """For people, at most 160 characters each."""
    data: Mapping[str, Any]
    """For machines, as JSON takes it; times are seconds, sizes bytes. With all samples."""
    goals: Sequence[Goal] = ()
    charts: Sequence[Chart] = field(default=())


class Module(Protocol):
    """A module that measures a part."""

    NAME: str
    TITLE: str

    def run(self, place: Place, *, rounds: int | None, quick: bool, progress: Callable[[str], None]) -> Part:
        """Measure; ``rounds=None`` takes the part's own number, ``quick`` shows in seconds that it works."""
        ...
