"""Hits are counted a few at a time, so that counting does not show beside a hit.

The three increments of prometheus_client take two microseconds in a loop, and several times as much in the midst of a
query, which has put other things into the processor's caches. So a hit is only noted; hits are counted when 16 of them
are noted, and whenever one of their metrics is collected, so that whoever asks the registry sees them all. Under
``PROMETHEUS_MULTIPROC_DIR`` other processes read the counts without asking this one: there each hit is counted at once.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter as Counted
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Counter, Histogram, Metric, values

from sqlacache.decisions import Decision
from sqlacache.forks import renew

from . import names

TOGETHER = 16
"""How many are counted together."""


class _WhenCollected:
    """A metric that has something done before it is collected."""

    before: Callable[[], None] | None = None

    def collect(self) -> Iterable[Metric]:
        if self.before is not None:
            self.before()
        found: Iterable[Metric] = super().collect()  # type: ignore[misc]  # of the metric that this is mixed into
        return found


class HitCounter(_WhenCollected, Counter):
    """A counter of hits."""


class HitHistogram(_WhenCollected, Histogram):
    """A histogram that hits are observed in, among others."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """Observe each of ``amounts``, which costs little more than to observe one.

        prometheus_client has nothing for it. Its ``_sum``, ``_buckets`` and ``_upper_bounds`` have been what
        they are since its first releases; where they are not, each is observed by itself.
        """
        try:
            total, buckets, bounds = self._sum, self._buckets, self._upper_bounds
        except AttributeError:
            for amount in amounts:
                self.observe(amount)
            return
        for at, many in Counted(bisect_left(bounds, amount) for amount in amounts).items():
            buckets[at].inc(many)
        total.inc(sum(amounts))


class _Series:
    """Hits with the same labels, and what they are counted in."""

    __slots__ = ("lookup", "noted", "saved", "times")

    def __init__(self, times: Counter, lookup: HitHistogram, saved: Counter) -> None:
        self.times, self.lookup, self.saved = times, lookup, saved
        self.noted: deque[tuple[float, float | None]] = deque()
        """Seconds that a lookup took, and that the load of its entry had taken."""

    def count(self) -> None:
        """Count every hit that was noted."""
        lookups, saved = [], 0.0
        while self.noted:
            lookup_seconds, load_seconds = self.noted.popleft()
            lookups.append(lookup_seconds)
            if load_seconds is not None and load_seconds > lookup_seconds:
                saved += load_seconds - lookup_seconds
        if lookups:
            self.times.inc(len(lookups))
            self.lookup.observe_all(lookups)
            self.saved.inc(saved)


class Hits:
    """Counts hits in three metrics, which are collected with all that was noted."""

    def __init__(
        self, times: HitCounter, lookup: HitHistogram, saved: HitCounter, table: Callable[[str], str]
    ) -> None:
        self._times, self._lookup, self._saved, self._table = times, lookup, saved, table
        self._series: dict[tuple[str, str, str, str | None], _Series] = {}
        self._together = TOGETHER if values.ValueClass is values.MutexValue else 1
        for metric in (times, lookup, saved):
            metric.before = self.count
        self.forked()
        renew(self)

    def forked(self) -> None:
        self._lock = threading.RLock()  # a finalizer that reads may run while it is held

    def note(self, hit: Decision) -> None:
        """Take a hit, to be counted soon. Its labels are given at once: the first to come have one of their own."""
        table = hit.tables[0] if hit.tables else ""
        series = self._series.get((hit.cache, table, hit.op, hit.tier))
        if series is None:
            series = self.series(hit.cache, table, hit.op, hit.tier)
        series.noted.append((hit.lookup_seconds, hit.load_seconds))
        if len(series.noted) >= self._together:
            with self._lock:
                series.count()

    def count(self) -> None:
        """Count every hit that was noted."""
        with self._lock:
            for series in tuple(self._series.values()):
                series.count()

    def series(self, cache: str, table: str, op: str, tier: str | None) -> _Series:
        """Return what hits with these labels are counted in, starting at zero.

        ::

            1. Two threads have the first hit with these labels, and each makes a series for them.
            2. The second takes the place of the first, where somebody has noted a hit already: it is never counted.

        Hence one at a time.
        """
        label = self._table(table)
        with self._lock:
            series = self._series.get((cache, label, op, tier))
            if series is None:
                series = _Series(
                    self._times.labels(cache, label, op, tier or ""),
                    self._lookup.labels(cache, "hit"),
                    self._saved.labels(cache, label),
                )
            # Not under the name of a table that has no label of its own: those names are not bounded.
            return self._series.setdefault(
                (cache, label if label == names.OTHER else table, op, tier), series
            )
