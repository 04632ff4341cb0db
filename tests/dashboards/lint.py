"""The rules of github.com/grafana/dashboard-linter that concern a dashboard on Prometheus, written anew.

Each is named as there, and told by its documentation; the rules on LogQL have nothing to look at here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import promql_parser
import yaml

from dashboards.files import DASHBOARD

from .grafana import panels

EXCEPTIONS = DASHBOARD.parent / ".lint"
RATE_INTERVAL = "50s"
"""What stands for $__rate_interval, and for nothing else."""
GLOBALS = {"__rate_interval": RATE_INTERVAL, "__range": "3h", "__interval": "15s"}
DRAWN = ("stat", "gauge", "timeseries", "table")
UNITS = frozenset(
    ["none", "short", "percent", "percentunit", "bytes", "s", "ms", "ops", "cps", "reqps", "rps", "string"]
)
"""Of the units that Grafana knows, those that the dashboard may use."""
Board = Mapping[str, Any]
Found = Iterator[str]


class Finding(NamedTuple):
    rule: str
    panel: str
    """Title; empty where the dashboard itself is meant."""
    message: str


def findings(board: Board) -> list[Finding]:
    """Return what the rules find, without the exceptions in ``dashboards/.lint``."""
    excluded = yaml.safe_load(EXCEPTIONS.read_text())["exclusions"]
    found = [Finding(name, "", message) for name, rule in OF_DASHBOARDS.items() for message in rule(board)]
    for panel in panels(board):
        if panel["type"] in DRAWN:
            found += [
                Finding(name, panel["title"], message)
                for name, rule in OF_PANELS.items()
                for message in rule(board, panel)
            ]
            for target in panel.get("targets", ()):
                found += [
                    Finding(name, panel["title"], message)
                    for name, rule in OF_TARGETS.items()
                    for message in rule(board, target)
                ]
    return [
        one
        for one in found
        if not any(entry["panel"] == one.panel for entry in excluded.get(one.rule, {}).get("entries", ()))
    ]


# -- of the dashboard --------------------------------------------------------------------------------------------------


def _variables(board: Board, kind: str) -> list[dict[str, Any]]:
    return [one for one in board["templating"]["list"] if one["type"] == kind]


def _template_datasource(board: Board) -> Found:
    sources = _variables(board, "datasource")
    if not sources:
        yield "does not have a templated data source"
    for one in sources:
        if one["name"] != f"{one['query']}_datasource":
            yield f"the data source variable {one['name']} should be named after {one['query']}"
        if one["label"] != f"{one['query'].title()} data source":
            yield f"the data source variable {one['name']} should be labelled so"


def _template(name: str) -> Callable[[Board], Found]:
    def rule(board: Board) -> Found:
        found = [one for one in board["templating"]["list"] if one["name"] == name]
        if not found:
            yield f"is missing the {name} template"
            return
        one = found[0]
        wanted = {"type": "query", "label": name.title(), "multi": True, "allValue": ".+"}
        for key, value in wanted.items():
            if one.get(key) != value:
                yield f"{name}: {key} should be {value!r}, is {one.get(key)!r}"
        if one["datasource"]["uid"] != "${prometheus_datasource}":
            yield f"{name} should use the templated data source"

    return rule


def _template_label_promql(board: Board) -> Found:
    for one in _variables(board, "query"):
        asked = re.fullmatch(
            r"(label_names|label_values|metrics|query_result)\((.+), (\w+)\)", one["query"]["query"]
        )
        if asked is None:
            yield f"{one['name']}: {one['query']['query']} is not understood"
        elif (wrong := _unparsed(asked[2])) is not None:
            yield f"{one['name']}: {wrong}"


def _template_on_time_change_reload(board: Board) -> Found:
    for one in _variables(board, "query"):
        if one["refresh"] != 2:
            yield f"{one['name']} should be refreshed when the time range changes"


def _uneditable(board: Board) -> Found:
    if board.get("editable", False):
        yield "is editable"


# -- of panels ---------------------------------------------------------------------------------------------------------


def _panel_datasource(board: Board, panel: Board) -> Found:
    known = [f"${{{one['name']}}}" for one in _variables(board, "datasource")]
    if panel["datasource"]["uid"] not in known:
        yield f"does not use a templated data source, but {panel['datasource']['uid']}"


def _panel_title_description(board: Board, panel: Board) -> Found:
    if not panel.get("title") or not panel.get("description"):
        yield "has no title or no description"


def _panel_units(board: Board, panel: Board) -> Found:
    unit = panel["fieldConfig"]["defaults"].get("unit", "")
    if unit not in UNITS:
        yield f"has no or an unknown unit: {unit!r}"


def _panel_no_targets(board: Board, panel: Board) -> Found:
    if not panel.get("targets"):
        yield "has no targets"


# -- of queries --------------------------------------------------------------------------------------------------------


def expanded(expression: str) -> str:
    """Return a query with something that can be parsed for Grafana's own variables."""
    return re.sub(r"\$(\w+)", lambda found: GLOBALS.get(found[1], found[0]), expression)


def _unparsed(expression: str) -> str | None:
    try:
        promql_parser.parse(expanded(expression))
    except ValueError as error:
        return f"{expression} is not PromQL: {error}"
    return None


def _target_promql(board: Board, target: Board) -> Found:
    wrong = _unparsed(target.get("expr", ""))
    if wrong is not None:
        yield wrong


def selectors(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Return every vector selector in a query, and what it stands in, from the outside inwards."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node, above
        return
    inner = (*above, node)
    if isinstance(node, promql_parser.MatrixSelector):
        yield from selectors(node.vector_selector, inner)
    for name in ("expr", "lhs", "rhs", "param"):
        part = getattr(node, name, None)
        if part is not None and not isinstance(part, str | float | int):
            yield from selectors(part, inner)
    for part in getattr(node, "args", None) or ():
        yield from selectors(part, inner)


def _target_label(label: str) -> Callable[[Board, Board], Found]:
    def rule(board: Board, target: Board) -> Found:
        for selector, _ in _selected(target):
            matchers = [
                (one.name, one.op, one.value) for one in selector.matchers.matchers if one.name == label
            ]
            if matchers != [(label, promql_parser.MatchOp.Re, f"${label}")]:
                yield f"{target['expr']}: {selector} does not match {label} by its variable"

    return rule


def _selected(target: Board) -> list[tuple[Any, tuple[Any, ...]]]:
    if "expr" not in target:
        return []
    return list(selectors(promql_parser.parse(expanded(target["expr"]))))


def _target_rate_interval(board: Board, target: Board) -> Found:
    for _, above in _selected(target):
        ranges = [one for one in above if isinstance(one, promql_parser.MatrixSelector)]
        calls = [one for one in above if isinstance(one, promql_parser.Call)]
        is_rate = calls and calls[-1].func.name in ("rate", "irate")
        if ranges and is_rate and ranges[0].range.total_seconds() != int(RATE_INTERVAL[:-1]):
            yield f"{target['expr']} should use $__rate_interval"


def _target_counter_agg(board: Board, target: Board) -> Found:
    """Stricter than there: how often a counter has begun to be there may be asked, which has no range."""
    for selector, above in _selected(target):
        name = str(selector).partition("{")[0]
        ranged = any(isinstance(one, promql_parser.MatrixSelector) for one in above)
        begins = any(isinstance(one, promql_parser.BinaryExpr) and "unless" in str(one.op) for one in above)
        calls = {one.func.name for one in above if isinstance(one, promql_parser.Call)}
        if name.endswith("_total") and not (ranged and calls & {"rate", "irate", "increase"}) and not begins:
            yield f"{target['expr']}: {name} is not aggregated with rate, irate or increase"


OF_DASHBOARDS: dict[str, Callable[[Board], Found]] = {
    "template-datasource-rule": _template_datasource,
    "template-job-rule": _template("job"),
    "template-instance-rule": _template("instance"),
    "template-label-promql-rule": _template_label_promql,
    "template-on-time-change-reload-rule": _template_on_time_change_reload,
    "uneditable-dashboard": _uneditable,
}
OF_PANELS: dict[str, Callable[[Board, Board], Found]] = {
    "panel-datasource-rule": _panel_datasource,
    "panel-title-description-rule": _panel_title_description,
    "panel-units-rule": _panel_units,
    "panel-no-targets-rule": _panel_no_targets,
}
OF_TARGETS: dict[str, Callable[[Board, Board], Found]] = {
    "target-promql-rule": _target_promql,
    "target-job-rule": _target_label("job"),
    "target-instance-rule": _target_label("instance"),
    "target-rate-interval-rule": _target_rate_interval,
    "target-counter-agg-rule": _target_counter_agg,
}
