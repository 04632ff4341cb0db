"""Draws charts as SVG and PNG, with matplotlib: the only module that imports it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot

from .parts import Chart

matplotlib.rcParams["svg.hashsalt"] = "sqlacache"  # the same figures give the same file
LEAST = 1e-9
"""What a logarithmic axis shows of nothing."""


def draw(chart: Chart, folder: Path) -> Sequence[Path]:
    """Draw ``chart`` into ``folder``; return the files written."""
    places = list(dict.fromkeys(str(x) for figures in chart.series.values() for x, _ in figures))
    width = max(7.0, 0.12 * len(places) * len(chart.series) + 3) if chart.kind == "bars" else 7.0
    figure, axes = pyplot.subplots(figsize=(min(width, 24.0), 4.8), layout="constrained")
    try:
        if chart.kind == "bars":
            _bars(axes, chart, places)
        else:
            _lines(axes, chart)
        axes.set_title(chart.title, loc="left", fontsize=11)
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        if chart.log_x and chart.kind == "lines":
            axes.set_xscale("log")
        if chart.log_y:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if len(chart.series) > 1:
            axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        written = [folder / f"{chart.name}.{kind}" for kind in ("svg", "png")]
        figure.savefig(written[0], metadata={"Date": None, "Creator": None})
        figure.savefig(written[1], dpi=110)
    finally:
        pyplot.close(figure)
    return written


def _bars(axes: Any, chart: Chart, places: Sequence[str]) -> None:
    """Draw a group of bars per place, one bar per series; the thin line is from quartile to quartile."""
    room = 0.8 / len(chart.series)
    for number, (name, figures) in enumerate(chart.series.items()):
        at = [places.index(str(x)) + (number - (len(chart.series) - 1) / 2) * room for x, _ in figures]
        heights = [found.median for _, found in figures]
        above = [height - chart.base for height in heights]
        axes.bar(at, above, room * 0.95, chart.base, label=name, color=_color(number))
        axes.errorbar(at, heights, yerr=_errors(figures), fmt="none", ecolor="#333333", elinewidth=0.7)
    if chart.base:
        axes.axhline(chart.base, color="#333333", linewidth=0.7)
    slanted = {"rotation": 30, "ha": "right"} if len(places) > 4 else {}
    axes.set_xticks(range(len(places)), places, fontsize=8, **slanted)


def _lines(axes: Any, chart: Chart) -> None:
    """Draw a line per series, and a band from quartile to quartile."""
    for number, (name, figures) in enumerate(chart.series.items()):
        at = [x for x, _ in figures]
        axes.plot(at, [found.median for _, found in figures], "o-", label=name, color=_color(number), ms=4)
        low = [max(found.low, LEAST) for _, found in figures]
        axes.fill_between(
            at, low, [found.high for _, found in figures], color=_color(number), alpha=0.15, lw=0
        )


def _errors(figures: Sequence[tuple[Any, Any]]) -> list[list[float]]:
    return [
        [max(0.0, found.median - found.low) for _, found in figures],
        [max(0.0, found.high - found.median) for _, found in figures],
    ]


def _color(number: int) -> Any:
    return pyplot.colormaps["tab20"](number % 20)
