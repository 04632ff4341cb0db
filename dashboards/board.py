"""Draws the rows as a Grafana dashboard, in the classic JSON that is imported and provisioned as it is."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from sqlacache_telemetry import names

from . import sdk
from .panels import Annotation, Panel, Query
from .rows import ANNOTATIONS, ROWS

UID = "sqlacache"
METRICS = sdk.common.DataSourceRef(type_val="prometheus", uid="${prometheus_datasource}")
TRACES = sdk.common.DataSourceRef(type_val="tempo", uid="${tempo_datasource}")
HEIGHT = {"stat": 5, "timeseries": 8, "table": 8, "traces": 10}
EVERYTHING = ".+"
"""What the choice "All" stands for: any value, but one there must be."""


def written() -> str:
    """Return the dashboard as JSON text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        drawn = json.loads(sdk.JSONEncoder().encode(_dashboard().build()))
    return json.dumps(drawn, indent=2, ensure_ascii=False) + "\n"


def _dashboard() -> Any:
    board = (
        sdk.dashboard.Dashboard("sqlacache")
        .uid(UID)
        .description(
            "Whether the cache helps, why it does not, why a key was evicted, and what to do. Made by `make "
            "dashboards`."
        )
        .tags(["sqlacache", "sqlalchemy", "cache"])
        .readonly()
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(sdk.models.DashboardCursorSync.CROSSHAIR)
    )
    for variable in _variables():
        board.with_variable(variable)
    for annotation in ANNOTATIONS:
        board.annotation(_annotation(annotation))
    number = 0
    for row in ROWS:
        number += 1
        board.with_row(sdk.dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            board.with_panel(_panel(panel).id(number))
    return board


def _variables() -> Iterator[Any]:
    yield (
        sdk.dashboard.DatasourceVariable("prometheus_datasource")
        .label("Prometheus data source")
        .type("prometheus")
    )
    yield sdk.dashboard.DatasourceVariable("tempo_datasource").label("Tempo data source").type("tempo")
    asked = {
        "job": names.BUILD_INFO,
        "instance": names.BUILD_INFO,
        "cache": names.OWED,
        "table": names.HITS,
    }
    chosen: list[str] = []
    for label, metric in asked.items():
        known = [one for one in chosen if one in ("job", "instance") or one in metric.labels]
        matchers = ", ".join(f'{one}=~"${one}"' for one in known)
        selector = f"{metric.name}{{{matchers}}}" if matchers else metric.name
        if label not in ("job", "instance") and label not in metric.labels:
            raise ValueError(f"{metric.name} has no label {label!r}")
        query = f"label_values({selector}, {label})"
        yield (
            sdk.dashboard.QueryVariable(label)
            .label(label.title())
            .datasource(METRICS)
            .query({"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
            .definition(query)
            .refresh(sdk.models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(sdk.models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(EVERYTHING)
            .current(sdk.models.VariableOption(selected=True, text="All", value="$__all"))
        )
        chosen.append(label)
    yield (
        sdk.dashboard.TextBoxVariable("key")
        .label("Key or table")
        .description("A part of a cache key or of a table's name: what the tables of traces look for.")
        .default_value("")
    )


def _annotation(one: Annotation) -> Any:
    return (
        sdk.dashboard.AnnotationQuery()
        .name(one.name)
        .datasource(METRICS)
        .enable(True)
        .icon_color(one.colour)
        .expr(one.expression)
        .title_format(one.title)
        .text_format(one.text)
        .step("30s")
    )


def _panel(one: Panel) -> Any:
    make: dict[str, Callable[[], Any]] = {
        "stat": _stat,
        "timeseries": lambda: _lines(one),
        "table": _table,
        "traces": _traces,
    }
    panel = (
        make[one.kind]()
        .title(one.title)
        .description(one.description)
        .datasource(TRACES if one.kind == "traces" else METRICS)
        .unit(one.unit)
        .span(one.width)
        .height(HEIGHT[one.kind])
    )
    if one.kind == "timeseries":
        panel.min(0)
    if one.most is not None:
        panel.min(0).max(one.most)
    if one.steps:
        steps = [sdk.models.Threshold(color=colour, value=value) for colour, value in one.steps]
        thresholds = sdk.dashboard.ThresholdsConfig().mode(sdk.models.ThresholdsMode.ABSOLUTE).steps(steps)
        panel.thresholds(thresholds)
    for letter, query in zip("ABCDEFGH", one.queries, strict=False):
        panel.with_target((_spans if one.kind == "traces" else _samples)(query).ref_id(letter))
    return panel


def _stat() -> Any:
    return (
        sdk.stat.Panel()
        .graph_mode(sdk.common.BigValueGraphMode.AREA)
        .reduce_options(sdk.parts.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    )


def _lines(one: Panel) -> Any:
    mode = sdk.common.StackingMode.NORMAL if one.stacked else sdk.common.StackingMode.NONE
    return (
        sdk.timeseries.Panel()
        .fill_opacity(20 if one.stacked else 0)
        .line_width(1)
        .show_points(sdk.common.VisibilityMode.NEVER)
        .stacking(sdk.parts.StackingConfig().mode(mode).group("A"))
        .legend(
            sdk.parts.VizLegendOptions()
            .display_mode(sdk.common.LegendDisplayMode.LIST)
            .placement(sdk.common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            sdk.parts.VizTooltipOptions()
            .mode(sdk.common.TooltipDisplayMode.MULTI)
            .sort(sdk.common.SortOrder.DESCENDING)
        )
    )


def _table() -> Any:
    hidden = {"Time": True}
    return sdk.table.Panel().with_transformation(
        sdk.models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})
    )


def _traces() -> Any:
    return sdk.table.Panel()


def _samples(query: Query) -> Any:
    asked = sdk.prometheus.Dataquery().expr(query.expression).datasource(METRICS)
    if query.legend:
        asked.legend_format(query.legend)
    if query.exemplars:
        asked.exemplar(True)
    return asked.instant().format("table") if query.instant and not query.legend else asked.range()


def _spans(query: Query) -> Any:
    return (
        sdk.tempo.Dataquery()
        .datasource(TRACES)
        .query_type(sdk.traces.TempoQueryType.TRACEQL)
        .query(query.expression)
        .limit(50)
        .spss(10)
        .table_type(sdk.traces.SearchTableType.SPANS)
    )
