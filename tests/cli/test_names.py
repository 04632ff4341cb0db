"""``names`` prints every metric, span and attribute that there is."""

from __future__ import annotations

import json

from sqlacache_telemetry import names

from .conftest import Command


def test_every_name_is_printed(cli: Command) -> None:
    words = cli("names", url=None).well.split()
    for one in (*names.METRICS, *names.SPANS, *names.ATTRIBUTES):
        assert one.name in words


def test_machines_get_all_that_is_known_of_them(cli: Command) -> None:
    found = json.loads(cli("names", "--json", url=None).well)
    metrics = {one["name"]: one for one in found["metrics"]}
    assert set(metrics) == {one.name for one in names.METRICS}
    assert metrics["sqlacache_misses_total"]["labels"]["reason"] == list(names.MISSES.labels["reason"] or ())
    assert [one["name"] for one in found["spans"]] == [one.name for one in names.SPANS]
    assert {one["name"]: one["type"] for one in found["attributes"]} == {
        one.name: one.type for one in names.ATTRIBUTES
    }
    assert found["relations"] == list(names.RELATIONS)
