"""Decisions and invalidations as Prometheus metrics.

The children of each label set are made once and kept, and hits are counted a few at a time (:mod:`.hits`).
Everything goes through prometheus_client's own counters, so that ``PROMETHEUS_MULTIPROC_DIR`` works (it drops
exemplars: a limitation of prometheus_client).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from opentelemetry.trace import TraceFlags, format_span_id, format_trace_id, get_current_span
from prometheus_client import REGISTRY, CollectorRegistry

from sqlacache.decisions import (
    BYPASS_REASONS,
    DECISIONS,
    FILL_OUTCOMES,
    OPS,
    VERIFICATION_OUTCOMES,
    Decision,
    Drop,
    Invalidation,
    Load,
    Received,
    Verification,
)
from sqlacache.observers import Observer

from . import names
from .families import families

Exemplar = dict[str, str]

LIKELY_TIERS = ("local", "remote")
LIKELY_MISSES = (
    *((op, "absent") for op in OPS),
    ("get", "row_invalidated"),
    ("fetch", "condition_invalidated"),
    ("fetch", "table_invalidated"),
    ("count", "condition_invalidated"),
)
LIKELY_EVICTIONS = ("row_insert", "row_update", "row_delete", "bulk_write", "explicit")
LIKELY_BUMPS = ("bulk_write", "explicit")


class _Add(Protocol):
    def __call__(self, amount: float = 1, exemplar: Exemplar | None = None) -> None: ...


class _Observe(Protocol):
    def __call__(self, amount: float, exemplar: Exemplar | None = None) -> None: ...


class _Miss(NamedTuple):
    add: _Add
    lookup: _Observe
    load: Callable[[], _Observe]
    """Made at its first use: a histogram for each mapped table would be 16 series that most never need."""


class MetricsObserver(Observer):
    """Counts what happens in a registry, under the names and units of :mod:`.names`.

    :meth:`bound` makes the likely series of each table start at zero, so that a rate over a first increment
    is right: 8 of hits, 8 of misses, 5 of evictions, 2 of version bumps and 1 of saved seconds, which is 24
    per table (with prometheus_client's ``_created`` series 48), and for each cache 26 counters, 7
    histograms and 3 gauges. If the mapped tables do not all fit in the 100 values of the label ``table``, none
    starts at zero, and those that are used get them.

    Raises:
        ConfigError: the registry has a metric of one of our names that is not ours.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, exemplars: bool = True) -> None:
        self._families = families(REGISTRY if registry is None else registry)
        self._note_hit = self._families.counted_hits.note
        self._exemplars = exemplars
        self._misses: dict[tuple[str, str, str, str], _Miss] = {}
        self._bypasses: dict[tuple[str, str], tuple[_Add, _Observe]] = {}
        self._fills: dict[tuple[str, str], _Add] = {}
        self._phases: dict[tuple[str, str], _Observe] = {}

    def built(self, version: str, sqlalchemy: str, mode: str) -> None:
        """Tell which versions run, and the mode that the cache was configured with."""
        self._families.build_info.labels(version, sqlalchemy, mode).set(1)

    def bound(self, cache: str, tables: Sequence[str]) -> None:
        for decision in DECISIONS:
            self._families.lookup_seconds.labels(cache, decision)
        for bypass in BYPASS_REASONS:
            self._bypass(cache, bypass)
        for outcome in FILL_OUTCOMES:
            self._fill(cache, outcome)
        for phase in names.PHASES:
            self._phase(cache, phase)
        for verified in VERIFICATION_OUTCOMES:
            self._families.verifications.labels(cache, verified)
        self._families.lag_seconds.labels(cache)
        for gauge in (self._families.entries, self._families.bytes, self._families.owed):
            gauge.labels(cache)
        if not self._families.tables.room(frozenset(tables)):
            return
        for table in tables:
            for op in OPS:
                for tier in LIKELY_TIERS:
                    self._families.counted_hits.series(cache, table, op, tier)
            for op, reason in LIKELY_MISSES:
                self._miss(cache, table, op, reason)
            label = self._families.table(table)
            for cause in LIKELY_EVICTIONS:
                self._families.evictions.labels(cache, label, cause)
            for cause in LIKELY_BUMPS:
                self._families.bumps.labels(cache, label, cause)

    def load_started(self, load: Load) -> Exemplar | None:
        """Remember the span that is current around the load: the lookup's, when that is traced."""
        return self._current_exemplar() if self._exemplars else None

    def decided(self, decision: Decision, scope: Exemplar | None) -> None:
        kind = decision.decision
        if kind == "hit":
            self._note_hit(decision)
            return
        table = decision.tables[0] if decision.tables else ""
        lookup_seconds = decision.lookup_seconds
        reason = decision.reason or ""
        if kind == "miss":
            miss = self._misses.get((decision.cache, table, decision.op, reason))
            if miss is None:
                miss = self._miss(decision.cache, table, decision.op, reason)
            miss.add(1, scope)
            miss.lookup(lookup_seconds, scope)
            if decision.load_seconds is not None:
                miss.load()(decision.load_seconds, scope)
            if decision.fill is not None:
                self._fill(decision.cache, decision.fill)()
        else:
            add, lookup = self._bypass(decision.cache, reason)
            add()
            lookup(lookup_seconds)

    def invalidated(self, invalidation: Invalidation | None, scope: object) -> None:
        if invalidation is None:
            return
        cache = invalidation.cache
        for change in invalidation.changes:
            label = self._families.table(change.table)
            self._families.evictions.labels(cache, label, change.cause).inc(change.evicted)
            if change.bumped:
                self._families.bumps.labels(cache, label, change.cause).inc()
        exemplar = _exemplar_of(invalidation.traceparent) if self._exemplars else None
        for phase, seconds in (
            ("one", invalidation.phase_one_seconds),
            ("commit", invalidation.commit_seconds),
            ("two", invalidation.phase_two_seconds),
        ):
            if seconds is not None:
                self._phase(cache, phase)(seconds, exemplar)

    def dropped(self, drop: Drop) -> None:
        label = self._families.table(drop.table)
        self._families.evictions.labels(drop.cache, label, drop.cause).inc(drop.entries)

    def verified(self, verification: Verification) -> None:
        self._families.verifications.labels(verification.cache, verification.outcome).inc()

    def received(self, received: Received) -> None:
        self._families.lag_seconds.labels(received.cache).observe(received.lag)

    def backend_failed(self, cache: str, operation: str, error: BaseException) -> None:
        told = self._families
        told.backend_errors.labels(
            cache, told.operations.of(operation), told.errors.of(type(error).__name__)
        ).inc()

    def owed(self, cache: str, count: int) -> None:
        self._families.owed.labels(cache).set(count)

    def capacity(self, cache: str, entries: int, size: int) -> None:
        self._families.entries.labels(cache).set(entries)
        self._families.bytes.labels(cache).set(size)

    def observer_failed(self, observer: str) -> None:
        self._families.observer_errors.labels(self._families.observers.of(observer)).inc()

    def _miss(self, cache: str, table: str, op: str, reason: str) -> _Miss:
        label = self._families.table(table)
        miss = self._misses.get((cache, label, op, reason))
        if miss is None:
            miss = _Miss(
                self._families.misses.labels(cache, label, op, reason).inc,
                self._families.lookup_seconds.labels(cache, "miss").observe,
                lambda: self._families.load_seconds.labels(cache, label).observe,
            )
        self._misses[cache, label if label == names.OTHER else table, op, reason] = miss
        return miss

    def _bypass(self, cache: str, reason: str) -> tuple[_Add, _Observe]:
        found = self._bypasses.get((cache, reason))
        if found is None:
            found = self._bypasses[cache, reason] = (
                self._families.bypasses.labels(cache, reason).inc,
                self._families.lookup_seconds.labels(cache, "bypass").observe,
            )
        return found

    def _fill(self, cache: str, outcome: str) -> _Add:
        found = self._fills.get((cache, outcome))
        if found is None:
            found = self._fills[cache, outcome] = self._families.fills.labels(cache, outcome).inc
        return found

    def _phase(self, cache: str, phase: str) -> _Observe:
        found = self._phases.get((cache, phase))
        if found is None:
            found = self._families.invalidation_seconds.labels(cache, phase).observe
            self._phases[cache, phase] = found
        return found

    @staticmethod
    def _current_exemplar() -> Exemplar | None:
        context = get_current_span().get_span_context()
        if not context.is_valid or not context.trace_flags.sampled:
            return None
        return {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}


def _exemplar_of(traceparent: str | None) -> Exemplar | None:
    """Return the ids in a W3C ``traceparent`` (``version-trace-span-flags``) of a sampled span."""
    parts = traceparent.split("-") if traceparent else []
    if len(parts) != 4 or not int(parts[3], 16) & TraceFlags.SAMPLED:
        return None
    return {"trace_id": parts[1], "span_id": parts[2]}
