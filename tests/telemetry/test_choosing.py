"""``configure(telemetry=...)``: what it takes, and what it says about anything else."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, Counter

from sqlacache.errors import ConfigError
from sqlacache_telemetry import MetricsObserver, SpanObserver, Telemetry, observers
from tests.telemetry.records import Scrape, hit


def _kinds(telemetry: Any) -> list[type]:
    return [type(observer) for observer in observers(telemetry)]


def test_by_default_spans_and_metrics_are_on_spans_first():
    assert _kinds(True) == [SpanObserver, MetricsObserver]
    assert [type(observer) for observer in observers()] == [SpanObserver, MetricsObserver]


@pytest.mark.parametrize("nothing", [None, False])
def test_none_and_false_are_no_telemetry(nothing):
    assert _kinds(nothing) == []


def test_each_half_can_be_left_out():
    assert _kinds({"metrics": False}) == [SpanObserver]
    assert _kinds(Telemetry(trace="off", registry=CollectorRegistry())) == [MetricsObserver]
    assert _kinds({"metrics": False, "trace": "off"}) == []


def test_a_mapping_and_the_dataclass_mean_the_same():
    registry = CollectorRegistry()
    for telemetry in (Telemetry(trace="off", registry=registry), {"trace": "off", "registry": registry}):
        (metrics,) = observers(telemetry)
        metrics.decided(hit(), None)
    assert Scrape(registry).total("sqlacache_hits_total") == 2


@pytest.mark.parametrize(
    ("telemetry", "says"),
    [
        ("yes", "telemetry: got 'yes', takes True, False, None, sqlacache_telemetry.Telemetry or a mapping"),
        (1, "telemetry: got 1, takes True"),
        (
            {"tracer": None},
            "telemetry: got the unknown key 'tracer', takes tracer_provider, registry, trace, query_text, metrics, "
            "exemplars",
        ),
        ({"trace": "sometimes"}, 'telemetry.trace: got \'sometimes\', takes "all", "misses" or "off"'),
        ({"trace": ["all"]}, "telemetry.trace: got ['all'], takes"),
        ({"query_text": "SELECT"}, "telemetry.query_text: got 'SELECT', takes True or False"),
        ({"metrics": 1}, "telemetry.metrics: got 1, takes True or False"),
        ({"exemplars": "no"}, "telemetry.exemplars: got 'no', takes True or False"),
        (
            {"registry": "default"},
            "telemetry.registry: got 'default', takes a prometheus_client CollectorRegistry",
        ),
        (
            {"tracer_provider": 5},
            "telemetry.tracer_provider: got 5, takes an OpenTelemetry TracerProvider or None",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_taken(telemetry, says):
    with pytest.raises(ConfigError) as raised:
        observers(telemetry)
    assert str(raised.value).startswith(says)


def test_the_dataclass_itself_refuses_wrong_values():
    with pytest.raises(ConfigError, match=r"telemetry\.trace"):
        Telemetry(trace="none")  # type: ignore[arg-type]  # the wrong value is the point
    assert Telemetry(tracer_provider=TracerProvider()).trace == "all"


def test_a_registry_with_someone_elses_metric_of_our_name_is_refused_and_left_as_it_was():
    registry = CollectorRegistry()
    Counter("sqlacache_fills", "someone else's", registry=registry)
    with pytest.raises(ConfigError, match=r"telemetry\.registry: .*sqlacache_fills"):
        observers({"registry": registry})
    assert [family.name for family in registry.collect()] == ["sqlacache_fills"]


def test_the_build_information_is_set_when_the_mode_is_told():
    registry = CollectorRegistry()
    observers({"registry": registry})
    assert Scrape(registry).series("sqlacache_build_info") == []
    observers({"registry": registry}, mode="write_only")
    (labels,) = Scrape(registry).series("sqlacache_build_info")
    assert labels["mode"] == "write_only"
    assert set(labels) == {"version", "sqlalchemy", "mode"}
