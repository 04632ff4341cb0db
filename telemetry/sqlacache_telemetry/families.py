"""The metric families of one registry, made once and shared by every cache that counts there."""

from __future__ import annotations

import threading
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sqlacache.errors import ConfigError

from . import names
from .hits import HitCounter, HitHistogram, Hits

F = TypeVar("F", Counter, HitCounter, Histogram, HitHistogram, Gauge)

MAX_LABEL = 128
"""Longest label value in characters: databases allow 63 to 128 in a table's name."""

_shared: WeakKeyDictionary[CollectorRegistry, Families] = WeakKeyDictionary()
_lock = threading.Lock()


class Words:
    """The values of a label that may be any text: the first ``limit`` of them have their own, others are ``_other``."""

    def __init__(self, limit: int, overflow: Counter) -> None:
        self._labels: dict[str, str] = {}
        self._free = limit
        self._overflow = overflow
        self._lock = threading.Lock()

    def of(self, text: str) -> str:
        """Return the label value of ``text``; one that finds no room is counted."""
        label = self._labels.get(text)
        if label is None:
            if not text:
                return names.OTHER
            with self._lock:
                label = self._labels.get(text)
                if label is None:
                    if not self._free:
                        self._overflow.inc()
                        return names.OTHER
                    # A lone surrogate would make every later scrape fail.
                    label = text[:MAX_LABEL].encode("utf-8", "replace").decode("utf-8")
                    self._labels[text] = label
                    self._free -= 1
        return label

    def room(self, texts: frozenset[str]) -> bool:
        """Tell whether every one of ``texts`` has a value of its own, or could get one."""
        return len(texts - self._labels.keys()) <= self._free


class Families:
    """The families described in :mod:`.names`, registered in ``registry``; get them with :func:`families`.

    Raises:
        ConfigError: the registry has a metric of one of these names that is not ours.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        made: list[Counter | Histogram | Gauge] = []

        def made_of(kind: type[F], metric: names.Metric, **more: Any) -> F:
            family = kind(metric.name, metric.help, tuple(metric.labels), registry=registry, **more)
            made.append(family)
            return family

        def counter(metric: names.Metric) -> Counter:
            return made_of(Counter, metric)

        def histogram(metric: names.Metric) -> Histogram:
            return made_of(Histogram, metric, buckets=metric.buckets)

        def gauge(metric: names.Metric, together: Literal["livesum", "max"]) -> Gauge:
            return made_of(Gauge, metric, multiprocess_mode=together)

        try:
            self.hits = made_of(HitCounter, names.HITS)
            self.misses = counter(names.MISSES)
            self.bypasses = counter(names.BYPASSES)
            self.fills = counter(names.FILLS)
            self.evictions = counter(names.EVICTIONS)
            self.bumps = counter(names.BUMPS)
            self.lookup_seconds = made_of(
                HitHistogram, names.LOOKUP_SECONDS, buckets=names.LOOKUP_SECONDS.buckets
            )
            self.load_seconds = histogram(names.LOAD_SECONDS)
            self.saved_seconds = made_of(HitCounter, names.SAVED_SECONDS)
            self.invalidation_seconds = histogram(names.INVALIDATION_SECONDS)
            self.lag_seconds = histogram(names.INVALIDATION_LAG)
            # Under PROMETHEUS_MULTIPROC_DIR all processes together are one series, not one per pid: what each of those
            # alive holds and owes adds up.
            self.entries = gauge(names.ENTRIES, "livesum")
            self.bytes = gauge(names.BYTES, "livesum")
            self.owed = gauge(names.OWED, "livesum")
            self.backend_errors = counter(names.BACKEND_ERRORS)
            self.observer_errors = counter(names.OBSERVER_ERRORS)
            self.verifications = counter(names.VERIFICATIONS)
            overflow = counter(names.LABEL_OVERFLOW)
            self.build_info = gauge(names.BUILD_INFO, "max")
        except ValueError as error:
            for family in made:
                registry.unregister(family)
            raise ConfigError(
                f"telemetry.registry: got one with metrics of the same name ({error}), takes one without"
            ) from error
        limits = {"table": names.MAX_TABLES}
        words = {
            label: Words(limits.get(label, names.MAX_WORDS), overflow.labels(label))
            for label in names.BOUNDED
        }
        self.tables = words["table"]
        self.operations = words["operation"]
        self.errors = words["error"]
        self.observers = words["observer"]
        self.table = self.tables.of
        self.counted_hits = Hits(self.hits, self.lookup_seconds, self.saved_seconds, self.table)


def families(registry: CollectorRegistry) -> Families:
    """Return the families of ``registry``, registering them there the first time.

    Raises:
        ConfigError: the registry has a metric of one of these names that is not ours.
    """
    with _lock:
        found = _shared.get(registry)
        if found is None:
            found = _shared[registry] = Families(registry)
        return found
