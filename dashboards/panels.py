"""What a dashboard is made of, before it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["stat", "timeseries", "table", "traces"]


@dataclass(frozen=True)
class Query:
    """A query of a panel, in PromQL, or in TraceQL for a panel of traces."""

    expression: str
    legend: str = ""
    instant: bool = False
    exemplars: bool = False


@dataclass(frozen=True)
class Panel:
    """A panel: what it is called, what it asks, and what to do when it looks bad."""

    title: str
    unit: str
    description: str
    queries: Sequence[Query]
    kind: Kind = "timeseries"
    width: int = 8
    stacked: bool = False
    steps: Sequence[tuple[str, float | None]] = ()
    """Colours, each from a value on; the first from none."""
    most: float | None = None
    """The top of the axis, where it is known."""


@dataclass(frozen=True)
class Row:
    """Panels that answer one question."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Annotation:
    """Moments to be marked in every panel."""

    name: str
    expression: str
    colour: str
    title: str
    text: str
