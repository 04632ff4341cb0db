"""The dashboard keeps the rules of grafana/dashboard-linter, with the exceptions in ``dashboards/.lint``."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

pytest.importorskip("promql_parser")
pytest.importorskip("yaml")

from . import grafana, lint

BOARD = grafana.dashboard()


def test_the_dashboard_keeps_the_rules() -> None:
    assert lint.findings(BOARD) == []


def test_every_exception_is_needed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {
        (rule, entry["panel"])
        for rule, one in lint.yaml.safe_load(lint.EXCEPTIONS.read_text())["exclusions"].items()
        for entry in one["entries"]
    }
    (tmp_path / "none").write_text("exclusions: {}")
    monkeypatch.setattr(lint, "EXCEPTIONS", tmp_path / "none")
    assert {(one.rule, one.panel) for one in lint.findings(BOARD)} == listed


def _variable(board: Any, name: str) -> Any:
    return next(one for one in board["templating"]["list"] if one["name"] == name)


def _target(board: Any) -> Any:
    return next(one for one in board["panels"] if one["title"] == "Reads by decision")["targets"][0]


def _panel(board: Any) -> Any:
    return board["panels"][1]


def _replaced(old: str, new: str) -> Callable[[Any], None]:
    def change(board: Any) -> None:
        target = _target(board)
        assert old in target["expr"]
        target["expr"] = target["expr"].replace(old, new)

    return change


BROKEN: dict[str, Callable[[Any], Any]] = {
    "template-datasource-rule": lambda board: _variable(board, "tempo_datasource").update(name="traces"),
    "template-job-rule": lambda board: _variable(board, "job").update(allValue=".*"),
    "template-instance-rule": lambda board: _variable(board, "instance").update(multi=False),
    "template-label-promql-rule": lambda board: _variable(board, "cache")["query"].update(
        query="label_values(a{, b)"
    ),
    "template-on-time-change-reload-rule": lambda board: _variable(board, "table").update(refresh=1),
    "uneditable-dashboard": lambda board: board.update(editable=True),
    "panel-datasource-rule": lambda board: _panel(board)["datasource"].update(uid="P1234"),
    "panel-title-description-rule": lambda board: _panel(board).update(description=""),
    "panel-units-rule": lambda board: _panel(board)["fieldConfig"]["defaults"].update(unit="parsecs"),
    "panel-no-targets-rule": lambda board: _panel(board).update(targets=[]),
    "target-promql-rule": _replaced(")", ""),
    "target-job-rule": _replaced('job=~"$job"', 'job="$job"'),
    "target-instance-rule": _replaced('instance=~"$instance", ', ""),
    "target-rate-interval-rule": _replaced("$__rate_interval", "5m"),
    "target-counter-agg-rule": _replaced("rate(", "last_over_time("),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_what_breaks_a_rule_is_found(rule: str) -> None:
    board = deepcopy(BOARD)
    BROKEN[rule](board)
    assert rule in {one.rule for one in _findings(board)}


def _findings(board: Any) -> list[lint.Finding]:
    try:
        return lint.findings(board)
    except ValueError:  # a query that cannot be parsed, which is the one rule's to say
        rule = "target-promql-rule"
        return [lint.Finding(rule, "", one) for one in lint.OF_TARGETS[rule](board, _target(board))]


def test_every_rule_is_broken_once() -> None:
    assert set(BROKEN) == {*lint.OF_DASHBOARDS, *lint.OF_PANELS, *lint.OF_TARGETS}
