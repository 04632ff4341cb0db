"""The application's own ``/metrics``, read as Prometheus would, and the table made of it."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from typing import TextIO

from prometheus_client.parser import text_string_to_metric_families

from examples.shop.models import Base

HITS = "sqlacache_hits_total"
MISSES = "sqlacache_misses_total"
BYPASSES = "sqlacache_bypasses_total"
EVICTIONS = "sqlacache_evictions_total"
BUMPS = "sqlacache_table_version_bumps_total"
SELECTS = "shop_database_selects_total"
SHOWN = {HITS: "op", MISSES: "reason", BYPASSES: "reason", EVICTIONS: "cause", BUMPS: "cause", SELECTS: ""}
TIERS = {"local": "the worker's memory", "remote": "Redis", "collapsed": "a read under way"}
MODELS = {model.__tablename__: model.__name__ for model in Base.__subclasses__()}


class Figures:
    """The counters at one moment."""

    def __init__(self, exposition: str = "") -> None:
        self._samples: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                if sample.name in SHOWN:
                    self._samples[sample.name, frozenset(sample.labels.items())] += int(sample.value)

    def __add__(self, other: Figures) -> Figures:
        total = Figures()
        total._samples = self._samples + other._samples
        return total

    def __sub__(self, earlier: Figures) -> Figures:
        difference = Figures()
        difference._samples = Counter(self._samples)
        difference._samples.subtract(earlier._samples)
        return difference

    def total(self, name: str, **labels: str) -> int:
        wanted = labels.items()
        return sum(
            value for (metric, has), value in self._samples.items() if metric == name and wanted <= has
        )

    def by(self, name: str, label: str, **labels: str) -> dict[str, int]:
        """Totals by the values of one label, largest first, without zeros."""
        totals: Counter[str] = Counter()
        for (metric, has), value in self._samples.items():
            if metric == name and labels.items() <= has and value:
                totals[dict(has)[label]] += value
        return dict(totals.most_common())

    @property
    def lookups(self) -> int:
        """Decisions of any kind: one for each SELECT that a session asked for."""
        return self.total(HITS) + self.total(MISSES) + self.total(BYPASSES)

    @property
    def hit_ratio(self) -> float:
        """Hits among the reads that could have been hits."""
        return ratio(self.total(HITS), self.total(MISSES))


def ratio(hits: int, misses: int) -> float:
    return hits / (hits + misses) if hits + misses else 0.0


def words(totals: dict[str, int], nothing: str = "none") -> str:
    return ", ".join(f"{name} {number:,}" for name, number in totals.items()) or nothing


def table(figures: Figures) -> list[str]:
    """One line for each model (the statement's first table is what a read is counted under)."""
    lines = [
        f"{'model':<14}{'hits':>8}{'misses':>8}{'hit ratio':>11}{'evictions':>11}{'table bumps':>13}  why it missed"
    ]
    tables = {*figures.by(HITS, "table"), *figures.by(MISSES, "table"), *figures.by(EVICTIONS, "table")}
    order = [name for name in MODELS if name in tables] + sorted(tables - set(MODELS))
    for name in order:
        hits, misses = figures.total(HITS, table=name), figures.total(MISSES, table=name)
        share = f"{ratio(hits, misses):.0%}" if hits + misses else "-"
        reasons = words(figures.by(MISSES, "reason", table=name), "-")
        evictions, bumps = figures.total(EVICTIONS, table=name), figures.total(BUMPS, table=name)
        lines.append(
            f"{MODELS.get(name, name):<14}{hits:>8,}{misses:>8,}{share:>11}{evictions:>11,}{bumps:>13,}  {reasons}"
        )
    hits, misses = figures.total(HITS), figures.total(MISSES)
    evictions, bumps = figures.total(EVICTIONS), figures.total(BUMPS)
    lines.append(f"{'all':<14}{hits:>8,}{misses:>8,}{figures.hit_ratio:>11.0%}{evictions:>11,}{bumps:>13,}")
    lines.append(f"bypassed: {words(figures.by(BYPASSES, 'reason'))}")
    tiers = {TIERS.get(tier, tier): number for tier, number in figures.by(HITS, "tier").items()}
    lines.append(f"hits came from: {words(tiers)}")
    return lines


def counters(figures: Figures) -> list[str]:
    """The counters that are not zero, summed over all labels but the one that says most."""
    lines = []
    for name, label in SHOWN.items():
        if not label:
            lines.append(f"{name} {figures.total(name)}")
        for value, number in sorted(figures.by(name, label).items()) if label else ():
            lines.append(f'{name}{{{label}="{value}"}} {number}')
    return lines


class Board:
    """Where the table is shown: refreshed in place on a terminal, left out elsewhere until it is final."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._drawn: list[str] = []
        self.live = self._stream.isatty()

    def show(self, lines: list[str]) -> None:
        """Draw the lines over those drawn last."""
        if self.live:
            self._erase()
            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be drawn over
            self._drawn = [line[:width] for line in lines]
            self._stream.write("".join(f"{line}\n" for line in self._drawn))
            self._stream.flush()

    def say(self, line: str = "") -> None:
        """Print a line for good, above the table."""
        drawn = self._drawn
        self._erase()
        print(line, file=self._stream, flush=True)
        self.show(drawn)

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{len(self._drawn)}F\x1b[J")
            self._drawn = []
