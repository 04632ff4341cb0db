"""One module names everything: the registry, the spans and the README say the same."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from sqlacache_telemetry import MetricsObserver, names

README = (Path(__file__).parents[2] / "telemetry" / "README.md").read_text("utf-8")


def _rows(text: str) -> set[str]:
    """Return the rows of the tables in ``text`` that describe a metric, a span or an attribute."""
    return {line for line in text.splitlines() if line.startswith("| `")}


def test_the_readme_has_the_row_of_every_metric_span_and_attribute_and_no_other():
    assert _rows(README) == _rows(names.markdown())


def test_the_readme_states_every_relation_between_totals():
    assert all(f"- {relation}" in README.splitlines() for relation in names.RELATIONS)


def test_every_name_in_the_readmes_prose_exists():
    known = {item.name for item in (*names.METRICS, *names.SPANS, *names.ATTRIBUTES)}
    known |= {f"{metric.name}_count" for metric in names.METRICS if metric.kind == "histogram"}
    mentioned = set(re.findall(r"`(sqlacache_(?!telemetry)\w+|(?:sqlacache|db|error)\.[a-z_.]+)`", README))
    assert mentioned - known == set()


def test_names_are_unique():
    for described in (names.METRICS, names.SPANS, names.ATTRIBUTES):
        assert len({item.name for item in described}) == len(described)


def test_a_registry_gets_exactly_the_metrics_that_are_described():
    registry = CollectorRegistry()
    MetricsObserver(registry)
    registered = {
        f"{family.name}_total" if family.type == "counter" else family.name: (
            family.type,
            family.documentation,
        )
        for family in registry.collect()
    }
    assert registered == {metric.name: (metric.kind, metric.help) for metric in names.METRICS}


def test_no_attribute_is_named_like_the_namespace_of_another():
    all_names = {attribute.name for attribute in names.ATTRIBUTES}
    assert not [name for name in all_names if any(other.startswith(f"{name}.") for other in all_names)]


def test_nothing_says_which_database_system_it_was_because_a_hit_is_no_database_call():
    assert "db.system.name" not in {attribute.name for attribute in names.ATTRIBUTES}
