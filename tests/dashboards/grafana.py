"""What Grafana does with the dashboard before it asks Prometheus: finds the queries, and puts values for variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.files import DASHBOARD

ALL = "$__all"
SPECIAL = re.compile(r"[$^*{}\[\]'+?.()|\\]")
VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)")


@dataclass(frozen=True)
class Asked:
    """A query of a panel or an annotation, as the JSON has it."""

    panel: str
    expression: str
    legend: str = ""

    @property
    def name(self) -> str:
        """What to call it: the panel's title, and the legend as far as that is no label."""
        fixed = re.sub(r"\{\{.*?\}\}", "", self.legend).strip(" :")
        return f"{self.panel}: {fixed}" if fixed else self.panel


def dashboard() -> dict[str, Any]:
    """Return the committed dashboard."""
    read: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return read


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the panels, without the rows' headings."""
    for panel in board["panels"]:
        yield from panel.get("panels", ())
        if panel["type"] != "row":
            yield panel


def metric_queries(board: Mapping[str, Any]) -> list[Asked]:
    """Return what is asked of Prometheus: by panels, and by annotations."""
    asked = [
        Asked(panel["title"], target["expr"], target.get("legendFormat", ""))
        for panel in panels(board)
        for target in panel["targets"]
        if "expr" in target
    ]
    return asked + [Asked(one["name"], one["expr"]) for one in board["annotations"]["list"]]


def trace_queries(board: Mapping[str, Any]) -> list[Asked]:
    """Return what is asked of Tempo."""
    return [
        Asked(panel["title"], target["query"])
        for panel in panels(board)
        for target in panel["targets"]
        if target["datasource"]["type"] == "tempo"
    ]


def substituted(board: Mapping[str, Any], expression: str, values: Mapping[str, str | Sequence[str]]) -> str:
    """Return a query as it is sent, when ``values`` are chosen, one or several; :data:`ALL` is the choice "All".

    Raises :class:`KeyError` for a variable that the dashboard does not have and Grafana does not know.
    """
    known = {one["name"]: one for one in board["templating"]["list"]}

    def put(found: re.Match[str]) -> str:
        name = found[1] or found[3]
        value = values[name] if name.startswith("__") else values.get(name, ALL)
        if name.startswith("__") and isinstance(value, str):
            return value
        variable = known[name]
        if value == ALL and variable["includeAll"]:
            return str(variable["allValue"])
        if not variable["multi"]:
            return str(value)
        # Where several may be chosen, Grafana escapes each for Prometheus, as for a regular expression in a string.
        chosen = [value] if isinstance(value, str) else value
        escaped = [
            SPECIAL.sub(lambda found: "\\" * (3 if found[0] == "\\" else 2) + found[0], one) for one in chosen
        ]
        return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"

    return VARIABLE.sub(put, expression)
