"""Metrics: each counts what its name says, totals agree with each other, and labels stay few."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from sqlacache.decisions import (
    BYPASS_REASONS,
    EVICTION_CAUSES,
    FILL_OUTCOMES,
    MISS_REASONS,
    OPS,
    TIERS,
    Decision,
    Drop,
)
from sqlacache.observers import Observer, Observers
from sqlacache_telemetry import MetricsObserver, SpanObserver, names
from tests.telemetry.records import Scrape, bypass, change, hit, invalidation, load, miss, received


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def told(registry: CollectorRegistry) -> Iterator[Observers]:
    observers = Observers([MetricsObserver(registry)])
    yield observers
    assert not observers.errors


def _complete(told: Observers, decision: Decision) -> None:
    """Tell of a miss as the engine does: before its load, after it, and when it is decided."""
    scopes = told.load_started(load(cache=decision.cache, tables=decision.tables))
    told.load_finished(scopes, None)
    told.decided(decision, scopes)


def test_a_hit_counts_itself_its_lookup_and_the_time_it_saved(told, registry):
    told.decided(hit(lookup_seconds=0.0002, load_seconds=0.0052))
    told.decided(hit(lookup_seconds=0.0002, load_seconds=0.0001))
    told.decided(hit(lookup_seconds=0.0002, load_seconds=None))
    seen = Scrape(registry)
    assert seen.get("sqlacache_hits_total", cache="shop", table="users", op="get", tier="local") == 3
    assert seen.get("sqlacache_lookup_duration_seconds_count", cache="shop", decision="hit") == 3
    assert seen.get("sqlacache_lookup_duration_seconds_sum", cache="shop", decision="hit") == pytest.approx(
        0.0006
    )
    assert seen.get("sqlacache_saved_seconds_total", cache="shop", table="users") == pytest.approx(0.005)
    assert seen.total("sqlacache_misses_total") == 0


def test_a_miss_counts_its_reason_its_load_and_its_fill(told, registry):
    _complete(told, miss(op="fetch", reason="condition_invalidated", fill="fenced", load_seconds=0.004))
    seen = Scrape(registry)
    labels = {"cache": "shop", "table": "users", "op": "fetch", "reason": "condition_invalidated"}
    assert seen.get("sqlacache_misses_total", **labels) == 1
    assert seen.get("sqlacache_fills_total", cache="shop", outcome="fenced") == 1
    assert seen.get("sqlacache_load_duration_seconds_sum", cache="shop", table="users") == pytest.approx(
        0.004
    )
    assert seen.total("sqlacache_hits_total") == 0


def test_a_miss_whose_load_raised_has_no_load_and_no_fill(told, registry):
    told.decided(miss(fill=None, load_seconds=None))
    seen = Scrape(registry)
    assert seen.total("sqlacache_misses_total") == 1
    assert seen.total("sqlacache_fills_total") == 0
    assert seen.total("sqlacache_load_duration_seconds_count") == 0


def test_a_bypass_counts_its_reason_even_when_no_table_is_known(told, registry):
    told.decided(bypass(reason="raw_sql", tables=()))
    seen = Scrape(registry)
    assert seen.get("sqlacache_bypasses_total", cache="shop", reason="raw_sql") == 1
    assert seen.get("sqlacache_lookup_duration_seconds_count", cache="shop", decision="bypass") == 1


def test_an_invalidation_counts_evictions_bumps_and_the_phases_it_had(told, registry):
    told.invalidated(
        invalidation(
            change(evicted=2),
            change(table="orders", cause="bulk_write", scope="table", evicted=5, bumped=True),
        ),
        *told.invalidation_started("shop", ("users", "orders"))[:1],
    )
    scopes, _ = told.invalidation_started("shop", ("users",))
    explicit = change(cause="explicit", evicted=0)
    told.invalidated(invalidation(explicit, phase_one_seconds=None, commit_seconds=None), scopes)
    seen = Scrape(registry)
    assert seen.get("sqlacache_evictions_total", cache="shop", table="users", cause="row_update") == 2
    assert seen.get("sqlacache_evictions_total", cache="shop", table="orders", cause="bulk_write") == 5
    assert seen.get("sqlacache_evictions_total", cache="shop", table="users", cause="explicit") == 0
    bumps = seen.series("sqlacache_table_version_bumps_total")
    assert bumps == [{"cache": "shop", "table": "orders", "cause": "bulk_write"}]
    assert seen.total("sqlacache_table_version_bumps_total") == 1
    counts = {
        phase: seen.get("sqlacache_invalidation_duration_seconds_count", cache="shop", phase=phase)
        for phase in names.PHASES
    }
    assert counts == {"one": 1, "commit": 1, "two": 2}


def test_an_invalidation_that_came_to_nothing_counts_nothing(told, registry):
    scopes, _ = told.invalidation_started("shop", ("users",))
    told.invalidated(None, scopes)
    seen = Scrape(registry)
    assert seen.total("sqlacache_evictions_total") == 0
    assert seen.total("sqlacache_invalidation_duration_seconds_count") == 0


def test_entries_dropped_without_a_write_are_evictions_of_their_own_cause(told, registry):
    told.dropped(Drop("shop", "users", "size", 7))
    told.dropped(Drop("shop", "users", "resync", 2))
    seen = Scrape(registry)
    assert seen.get("sqlacache_evictions_total", cache="shop", table="users", cause="size") == 7
    assert seen.get("sqlacache_evictions_total", cache="shop", table="users", cause="resync") == 2


def test_a_commit_of_another_process_counts_its_lag(told, registry):
    told.received(received(lag=0.004))
    told.received(received(lag=0.3))
    seen = Scrape(registry)
    assert seen.get("sqlacache_invalidation_lag_seconds_count", cache="shop") == 2
    assert seen.get("sqlacache_invalidation_lag_seconds_sum", cache="shop") == pytest.approx(0.304)
    assert seen.get("sqlacache_invalidation_lag_seconds_bucket", cache="shop", le="0.005") == 1


def test_what_is_owed_and_what_is_in_memory_is_what_was_told_last(told, registry):
    for count in (1, 3, 2):
        told.owed("shop", count)
        told.capacity("shop", 10 * count, 1000 * count)
    seen = Scrape(registry)
    assert seen.get("sqlacache_owed_invalidations", cache="shop") == 2
    assert seen.get("sqlacache_entries", cache="shop") == 20
    assert seen.get("sqlacache_bytes", cache="shop") == 2000


def test_an_error_of_the_backend_counts_its_command_and_its_class(told, registry):
    told.backend_failed("shop", "MGET", TimeoutError("0.1 s"))
    told.backend_failed("shop", "MGET", TimeoutError("another text"))
    told.backend_failed("shop", "", ConnectionError())
    seen = Scrape(registry)
    name = "sqlacache_backend_errors_total"
    assert seen.get(name, cache="shop", operation="MGET", error="TimeoutError") == 2
    assert seen.get(name, cache="shop", operation="_other", error="ConnectionError") == 1


def test_commands_errors_and_observers_beyond_their_number_are_counted_as_other(told, registry):
    for number in range(names.MAX_WORDS + 2):
        error = type(f"Error{number}", (Exception,), {})()
        told.backend_failed("shop", f"COMMAND{number}", error)
        told._failed(type(f"Observer{number}", (Observer,), {})(), "decided", error)
    seen = Scrape(registry)
    for label, name in (
        ("operation", "sqlacache_backend_errors_total"),
        ("error", "sqlacache_backend_errors_total"),
        ("observer", "sqlacache_observer_errors_total"),
    ):
        values = {labels[label] for labels in seen.series(name)}
        assert len(values) == names.MAX_WORDS + 1
        assert seen.total(name, **{label: "_other"}) == 2
        assert seen.get("sqlacache_label_overflow_total", label=label) == 2
    told.errors.clear()


def test_an_observer_that_raises_is_counted_by_its_class(registry):
    class Broken(Observer):
        def decided(self, decision: Decision, scope: object) -> None:
            raise LookupError

    told = Observers([Broken(), MetricsObserver(registry)])
    told.decided(hit())
    told.decided(hit())
    assert Scrape(registry).get("sqlacache_observer_errors_total", observer="Broken") == 2
    assert told.errors == {"Broken": 2}


def test_totals_agree_with_each_other_and_labels_keep_to_their_vocabulary(told, registry):
    choose = random.Random(2)
    told.bound("shop", ["users", "orders"])
    truth = {"hit": 0, "miss": 0, "bypass": 0, "loaded": 0, "changed": 0}
    for _ in range(600):
        tables = (choose.choice(["users", "orders", "lines"]),)
        match choose.choice(["hit", "miss", "miss", "bypass", "write"]):
            case "hit":
                told.decided(hit(tables=tables, op=choose.choice(OPS), tier=choose.choice(TIERS)))
                truth["hit"] += 1
            case "miss":
                loaded = choose.random() < 0.9
                fill, seconds = (choose.choice(FILL_OUTCOMES), choose.random()) if loaded else (None, None)
                reason, op = choose.choice(MISS_REASONS), choose.choice(OPS)
                _complete(told, miss(tables=tables, op=op, reason=reason, fill=fill, load_seconds=seconds))
                truth["miss"] += 1
                truth["loaded"] += loaded
            case "bypass":
                told.decided(bypass(tables=tables, reason=choose.choice(BYPASS_REASONS)))
                truth["bypass"] += 1
            case _:
                cause, bumped = choose.choice(EVICTION_CAUSES), choose.random() < 0.5
                scopes, _ = told.invalidation_started("shop", tables)
                told.invalidated(invalidation(change(table=tables[0], cause=cause, bumped=bumped)), scopes)
                truth["changed"] += 1
    seen = Scrape(registry)
    hits, misses = seen.total("sqlacache_hits_total"), seen.total("sqlacache_misses_total")
    bypasses = seen.total("sqlacache_bypasses_total")
    assert (hits, misses, bypasses) == (truth["hit"], truth["miss"], truth["bypass"])
    for decision, total in (("hit", hits), ("miss", misses), ("bypass", bypasses)):
        assert seen.total("sqlacache_lookup_duration_seconds_count", decision=decision) == total
    assert seen.total("sqlacache_load_duration_seconds_count") == truth["loaded"]
    assert seen.total("sqlacache_fills_total") == truth["loaded"]
    assert 0 < seen.total("sqlacache_table_version_bumps_total") <= truth["changed"]
    for metric in names.METRICS:
        for sample in seen.samples:
            if sample.name != metric.name and not (
                metric.kind == "histogram" and sample.name.startswith(metric.name)
            ):
                continue
            assert set(metric.labels) == set(sample.labels) - {"le"}
            for label, vocabulary in metric.labels.items():
                assert vocabulary is None or sample.labels[label] in vocabulary


def test_series_start_at_zero_when_a_cache_is_bound(told, registry):
    told.bound("shop", ["users"])
    seen = Scrape(registry)
    assert seen.get("sqlacache_hits_total", cache="shop", table="users", op="count", tier="remote") == 0
    reason = "row_invalidated"
    assert seen.get("sqlacache_misses_total", cache="shop", table="users", op="get", reason=reason) == 0
    assert seen.get("sqlacache_evictions_total", cache="shop", table="users", cause="row_delete") == 0
    assert len(seen.series("sqlacache_bypasses_total")) == len(BYPASS_REASONS)
    assert len(seen.series("sqlacache_fills_total")) == len(FILL_OUTCOMES)
    for gauge in ("sqlacache_entries", "sqlacache_bytes", "sqlacache_owed_invalidations"):
        assert seen.get(gauge, cache="shop") == 0
    assert seen.get("sqlacache_invalidation_lag_seconds_count", cache="shop") == 0
    assert all(sample.value == 0 for sample in seen.samples if not sample.name.endswith("_created"))


def test_a_bound_table_costs_the_24_series_that_are_promised(told, registry):
    told.bound("shop", ["users"])
    of_users = [s for s in Scrape(registry).samples if s.labels.get("table") == "users"]
    assert len([s for s in of_users if not s.name.endswith("_created")]) == 24
    assert "24\n    per table" in (MetricsObserver.__doc__ or "")


def test_the_hundred_and_first_table_is_counted_as_other_and_the_overflow_is_counted(told, registry):
    for number in range(names.MAX_TABLES + 3):
        told.decided(hit(tables=(f"t{number}",)))
    told.decided(hit(tables=("t1",)))
    told.decided(hit(tables=("t101",)))
    _complete(told, miss(tables=("t102",)))
    scopes, _ = told.invalidation_started("shop", ("t102",))
    told.invalidated(invalidation(change(table="t102", bumped=True)), scopes)
    seen = Scrape(registry)
    tables = {labels["table"] for labels in seen.series("sqlacache_hits_total")}
    assert len(tables) == names.MAX_TABLES + 1
    assert seen.get("sqlacache_hits_total", cache="shop", table="_other", op="get", tier="local") == 4
    assert seen.get("sqlacache_hits_total", cache="shop", table="t1", op="get", tier="local") == 2
    assert seen.total("sqlacache_misses_total", table="_other") == 1
    assert seen.total("sqlacache_evictions_total", table="_other") == 2
    assert seen.get("sqlacache_label_overflow_total", label="table") == 6


def test_a_thousand_mapped_tables_leave_the_labels_to_those_that_are_used(told, registry):
    told.bound("shop", [f"t{number}" for number in range(1000)])
    told.decided(hit(tables=("t999",)))
    seen = Scrape(registry)
    assert [labels["table"] for labels in seen.series("sqlacache_hits_total")] == ["t999"]
    assert seen.get("sqlacache_label_overflow_total", label="table") == 0


@pytest.mark.parametrize(
    "table",
    ['say "hi"', "back\\slash", "two\nlines", "", "таблица", "\ud800", "{} 1e9 # x", "x" * 10_000, "\x00"],
)
def test_a_hostile_table_name_is_counted_and_the_registry_still_scrapes(told, registry, table):
    told.bound("shop", [table])
    told.decided(hit(tables=(table,)))
    _complete(told, miss(tables=(table,)))
    scopes, _ = told.invalidation_started("shop", (table,))
    told.invalidated(invalidation(change(table=table)), scopes)
    seen = Scrape(registry)
    assert seen.total("sqlacache_hits_total") == 1
    assert seen.total("sqlacache_evictions_total") == 2
    assert max(len(labels["table"]) for labels in seen.series("sqlacache_hits_total")) <= 128


def test_two_caches_on_one_registry_share_the_families_and_keep_their_own_series(registry):
    for cache in ("shop", "blog"):
        told = Observers([MetricsObserver(registry)])
        told.bound(cache, ["users"])
        told.decided(hit(cache=cache))
    seen = Scrape(registry)
    for cache in ("shop", "blog"):
        assert seen.get("sqlacache_hits_total", cache=cache, table="users", op="get", tier="local") == 1


def test_two_caches_on_the_default_registry_do_not_clash():
    name = "the default registry is used twice"
    for _ in range(2):
        Observers([MetricsObserver()]).decided(hit(cache=name))
    assert Scrape(REGISTRY).total("sqlacache_hits_total", cache=name) == 2


def test_a_registry_is_forgotten_with_its_last_user():
    registry = CollectorRegistry()
    MetricsObserver(registry)
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


def _exemplars(registry: CollectorRegistry) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for family in parse_openmetrics(openmetrics(registry).decode()):
        for sample in family.samples:
            if sample.exemplar:
                found[sample.name] = sample.exemplar.labels
    return found


def test_a_traced_misss_metrics_carry_the_span_of_its_lookup(registry):
    provider = TracerProvider()
    told = Observers([SpanObserver(provider), MetricsObserver(registry)])
    scopes = told.load_started(load())
    (span,) = [scope.span for _, scope in scopes if hasattr(scope, "span")]
    told.load_finished(scopes, None)
    told.decided(miss(), scopes)
    told.decided(hit())
    context = span.get_span_context()
    expected = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    assert _exemplars(registry) == {
        "sqlacache_misses_total": expected,
        "sqlacache_lookup_duration_seconds_bucket": expected,
        "sqlacache_load_duration_seconds_bucket": expected,
    }


def test_a_traced_invalidations_phases_carry_its_span(registry):
    told = Observers([SpanObserver(TracerProvider()), MetricsObserver(registry)])
    scopes, traceparent = told.invalidation_started("shop", ("users",))
    told.invalidated(invalidation(traceparent=traceparent), scopes)
    assert traceparent is not None
    _, trace_id, span_id, _ = traceparent.split("-")
    assert _exemplars(registry) == {
        "sqlacache_invalidation_duration_seconds_bucket": {"trace_id": trace_id, "span_id": span_id}
    }


def test_what_is_not_sampled_or_not_wanted_leaves_no_exemplar(registry):
    for spans, metrics in (
        (SpanObserver(TracerProvider(sampler=ALWAYS_OFF)), MetricsObserver(registry)),
        (SpanObserver(TracerProvider()), MetricsObserver(registry, exemplars=False)),
    ):
        told = Observers([spans, metrics])
        _complete(told, miss())
        scopes, traceparent = told.invalidation_started("shop", ("users",))
        told.invalidated(invalidation(traceparent=traceparent), scopes)
    assert Scrape(registry).total("sqlacache_misses_total") == 2
    assert _exemplars(registry) == {}
