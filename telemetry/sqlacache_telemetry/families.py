"""The metric families of one registry, made once and shared by every cache that counts there."""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sqlacache.errors import ConfigError

from . import names

MAX_LABEL = 128
"""Longest label value in characters: databases allow 63 to 128 in a table's name."""

_shared: WeakKeyDictionary[CollectorRegistry, Families] = WeakKeyDictionary()
_lock = threading.Lock()


class Families:
    """The families described in :mod:`.names`, registered in ``registry``; get them with :func:`families`.

    Raises:
        ConfigError: the registry has a metric of one of these names that is not ours.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        made: list[Counter | Histogram | Gauge] = []

        def counter(metric: names.Metric) -> Counter:
            made.append(family := Counter(metric.name, metric.help, tuple(metric.labels), registry=registry))
            return family

        def histogram(metric: names.Metric) -> Histogram:
            labels = tuple(metric.labels)
            family = Histogram(metric.name, metric.help, labels, buckets=metric.buckets, registry=registry)
            made.append(family)
            return family

        try:
            self.hits = counter(names.HITS)
            self.misses = counter(names.MISSES)
            self.bypasses = counter(names.BYPASSES)
            self.fills = counter(names.FILLS)
            self.evictions = counter(names.EVICTIONS)
            self.bumps = counter(names.BUMPS)
            self.lookup_seconds = histogram(names.LOOKUP_SECONDS)
            self.load_seconds = histogram(names.LOAD_SECONDS)
            self.saved_seconds = counter(names.SAVED_SECONDS)
            self.invalidation_seconds = histogram(names.INVALIDATION_SECONDS)
            overflow = counter(names.LABEL_OVERFLOW)
            # "max": under PROMETHEUS_MULTIPROC_DIR all processes together are one series, not one per pid.
            self.build_info = Gauge(
                names.BUILD_INFO.name,
                names.BUILD_INFO.help,
                tuple(names.BUILD_INFO.labels),
                registry=registry,
                multiprocess_mode="max",
            )
        except ValueError as error:
            for family in made:
                registry.unregister(family)
            raise ConfigError(
                f"telemetry.registry: got one with metrics of the same name ({error}), takes one without"
            ) from error
        self._overflow = overflow.labels("table")
        self._tables: dict[str, str] = {}
        self._free = names.MAX_TABLES
        self._lock = threading.Lock()

    def table(self, table: str) -> str:
        """Return the label value of ``table``: its own while values are left, else ``_other``, counted."""
        label = self._tables.get(table)
        if label is None:
            if not table:
                return names.OTHER_TABLE
            with self._lock:
                label = self._tables.get(table)
                if label is None:
                    if not self._free:
                        self._overflow.inc()
                        return names.OTHER_TABLE
                    # A lone surrogate would make every later scrape fail.
                    label = table[:MAX_LABEL].encode("utf-8", "replace").decode("utf-8")
                    self._tables[table] = label
                    self._free -= 1
        return label

    def room(self, tables: frozenset[str]) -> bool:
        """Tell whether every one of ``tables`` has a label value of its own, or could get one."""
        return len(tables - self._tables.keys()) <= self._free


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
