"""Hits are counted a few at a time: nobody who asks can tell."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sqlacache.observers import Observers
from sqlacache_telemetry import MetricsObserver
from sqlacache_telemetry.hits import TOGETHER, HitHistogram
from tests.telemetry.records import Scrape, hit, miss


@pytest.mark.parametrize("many", [1, TOGETHER - 1, TOGETHER, TOGETHER + 1, 3 * TOGETHER + 5])
def test_a_scrape_sees_every_hit_so_far(many: int):
    registry = CollectorRegistry()
    told = Observers([MetricsObserver(registry)])
    for number in range(many):
        told.decided(
            hit(tables=("users" if number % 3 else "orders",), lookup_seconds=0.001, load_seconds=0.003)
        )
    seen = Scrape(registry)
    assert seen.total("sqlacache_hits_total") == many
    assert seen.total("sqlacache_lookup_duration_seconds_count", decision="hit") == many
    assert seen.total("sqlacache_lookup_duration_seconds_sum", decision="hit") == pytest.approx(many * 0.001)
    assert seen.total("sqlacache_saved_seconds_total") == pytest.approx(many * 0.002)


@pytest.mark.parametrize(
    "metric",
    ["sqlacache_hits_total", "sqlacache_lookup_duration_seconds_count", "sqlacache_saved_seconds_total"],
)
def test_each_of_their_metrics_asked_for_alone_has_them_all(metric: str):
    registry = CollectorRegistry()
    told = Observers([MetricsObserver(registry)])
    told.decided(hit(lookup_seconds=0.5, load_seconds=1.5))
    text = generate_latest(registry.restricted_registry([metric])).decode()
    samples = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric
    ]
    assert 1 in samples


def test_many_observed_at_once_fall_where_each_would_have_fallen():
    amounts = [0.0, 0.00005, 0.0001, 0.00011, 0.004, 0.5, 1.0, 1.0000001, 99.0, -1.0]
    one, other = CollectorRegistry(), CollectorRegistry()
    bounds = (0.0001, 0.001, 0.01, 1.0)
    each = HitHistogram("seconds", "-", ("cache",), buckets=bounds, registry=one).labels("shop")
    for amount in amounts:
        each.observe(amount)
    HitHistogram("seconds", "-", ("cache",), buckets=bounds, registry=other).labels("shop").observe_all(
        amounts
    )
    assert _samples(other) == _samples(one)


def test_where_prometheus_client_keeps_its_sums_otherwise_each_is_observed():
    class Elsewhere(HitHistogram):
        def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
            observed.append(amount)

    observed: list[float] = []
    histogram = Elsewhere("seconds", "-", registry=CollectorRegistry())
    del histogram._sum
    histogram.observe_all([1.0, 2.0])
    assert observed == [1.0, 2.0]


def test_threads_that_hit_and_scrape_at_the_same_time_lose_no_hit():
    registry = CollectorRegistry()
    told = Observers([MetricsObserver(registry)])
    seen: list[float] = []
    start = threading.Barrier(5)

    def hits() -> None:
        start.wait()
        for _ in range(500):
            told.decided(hit())

    def scrapes() -> None:
        start.wait()
        while not seen or seen[-1] < 2000:
            seen.append(Scrape(registry).total("sqlacache_hits_total"))

    threads = [threading.Thread(target=work) for work in (hits, hits, hits, hits, scrapes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen[-1] == 2000 and seen == sorted(seen)
    assert not told.errors


def test_the_first_tables_to_be_hit_are_those_with_a_label_of_their_own():
    registry = CollectorRegistry()
    told = Observers([MetricsObserver(registry)])
    told.decided(hit(tables=("hit",)))
    for number in range(99):
        told.decided(miss(tables=(f"missed{number}",)))
    told.decided(miss(tables=("late",)))
    seen = Scrape(registry)
    assert seen.total("sqlacache_hits_total", table="hit") == 1
    assert seen.total("sqlacache_misses_total", table="_other") == 1


def _samples(registry: CollectorRegistry) -> list[Any]:
    return [
        (sample.name, sample.labels, sample.value)
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
