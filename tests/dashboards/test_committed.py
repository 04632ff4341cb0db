"""What is committed is what the code makes, and the code takes every name from ``sqlacache_telemetry.names``."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from dashboards import alerts, recording
from dashboards.files import ALERTS, DASHBOARD, RECORDING, ROOT
from dashboards.queries import Chosen
from sqlacache_telemetry import names

from . import grafana

BOARD = grafana.dashboard()
ATTRIBUTES = {attribute.name for attribute in names.ATTRIBUTES}


def test_the_dashboard_is_what_the_code_makes() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="there is none for Python 3.10")
    from dashboards import board

    assert DASHBOARD.read_text() == board.written(), "run: make dashboards"


def test_the_rules_are_what_the_code_makes() -> None:
    assert RECORDING.read_text() == recording.written(), "run: make dashboards"
    assert ALERTS.read_text() == alerts.written(), "run: make dashboards"


def test_no_metric_is_spelled_in_the_code_of_the_dashboard() -> None:
    """Names of recorded series, which have a colon before, are the rules' own."""
    families = re.compile(rf"(?<![\w:])(?:{'|'.join(metric.name for metric in names.METRICS)})")
    for path in (ROOT / "dashboards").glob("*.py"):
        assert families.findall(path.read_text()) == [], path


def test_every_metric_is_on_the_dashboard() -> None:
    text = " ".join(asked.expression for asked in grafana.metric_queries(BOARD))
    assert [metric.name for metric in names.METRICS if metric.name not in text] == []


def test_queries_of_traces_use_attributes_that_there_are() -> None:
    for asked in grafana.trace_queries(BOARD):
        used = re.findall(r"span\.([\w.]+)", asked.expression)
        assert used
        assert set(used) <= ATTRIBUTES
        names_of_spans = [span.name for span in names.SPANS]
        assert any(f"`{name}" in asked.expression for name in names_of_spans)


def test_every_variable_in_a_query_is_one_of_the_dashboard() -> None:
    some = {"__rate_interval": "1m", "__range": "1h", "key": "products:42"}
    for asked in (*grafana.metric_queries(BOARD), *grafana.trace_queries(BOARD)):
        expression = asked.expression.replace(":regex}", "}")
        assert "$" not in grafana.substituted(BOARD, expression, some), asked


def test_what_was_asked_for_is_there() -> None:
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Overview",
        "Why not a hit",
        "Why evicted",
        "Latency",
        "Invalidation",
        "Capacity",
        "Health",
    ]
    assert [one["name"] for one in BOARD["templating"]["list"]] == [
        "prometheus_datasource",
        "tempo_datasource",
        "job",
        "instance",
        "cache",
        "table",
        "key",
    ]
    assert [one["name"] for one in BOARD["annotations"]["list"]] == [
        "Deploys",
        "Mode switches",
        "Table-wide invalidations",
    ]


def test_panels_lie_side_by_side_within_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    identifiers = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)


def test_it_can_be_read_back_as_grafana_models_it() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="there is none for Python 3.10")
    from dashboards import sdk

    read = sdk.models.Dashboard.from_json(BOARD)
    assert read.uid == "sqlacache"
    assert len(read.panels or ()) == len(BOARD["panels"])
    again: Any = json.loads(sdk.JSONEncoder().encode(read))
    assert again["templating"] == BOARD["templating"]


def test_points_of_latency_lead_to_traces() -> None:
    with_exemplars = {
        panel["title"]
        for panel in grafana.panels(BOARD)
        if any(target.get("exemplar") for target in panel["targets"])
    }
    assert with_exemplars == {
        "Lookup, 99th percentile by decision",
        "Lookup, median by decision",
        "Load, 95th percentile by table",
        "Phases, 95th percentile",
    }


WRONG = {
    "a label that the metric does not have": lambda: Chosen("5m").rate(names.FILLS, "table"),
    "a word that the label never has": lambda: Chosen("5m").rate(names.MISSES, reason="bored"),
    "a label without a list of words": lambda: Chosen("5m").rate(names.HITS, table="products"),
    "a rate of a gauge": lambda: Chosen("5m").rate(names.OWED),
    "a quantile of a counter": lambda: Chosen("5m").quantile(0.9, names.HITS),
}


@pytest.mark.parametrize("mistake", WRONG, ids=str)
def test_a_query_that_cannot_be_meant_is_not_made(mistake: str) -> None:
    with pytest.raises(ValueError, match="sqlacache_"):
        WRONG[mistake]()
