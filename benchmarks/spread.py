"""A figure with its spread, and how both are shown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


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


def ratios(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """Return how many times as long ``slow`` took as ``fast``: the median over rounds of the ratio within a round.

    What slows the machine down for a while slows both down, so that ratios spread less than times do.
    """
    return spread([one / other for one, other in zip(slow, fast)])


def milliseconds(found: Spread) -> str:
    """Show seconds as milliseconds, with the quartiles."""
    digits = 3 if found.median < 0.01 else 1
    low, high = f"{found.low * 1000:.{digits}f}", f"{found.high * 1000:.{digits}f}"
    return f"{found.median * 1000:.{digits}f} ({low}-{high})"


def microseconds(found: Spread) -> str:
    """Show seconds as microseconds, with the quartiles."""
    return f"{found.median * 1e6:,.0f} ({found.low * 1e6:,.0f}-{found.high * 1e6:,.0f})"


def times(found: Spread) -> str:
    """Show a ratio, with the quartiles."""
    return f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})"
