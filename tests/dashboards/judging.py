"""Asks a Prometheus every query of the dashboard over a whole run, and compares the answers with what is expected."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.prometheus import PrometheusServer

from .expected import FIRING, PERHAPS, QUERIES, Alerts, Expected
from .grafana import ALL, Asked, substituted
from .workload import SCRAPED_EVERY, Phase

RATE_INTERVAL = 4 * SCRAPED_EVERY
"""Grafana's own choice for what is scraped so often."""
SETTLED = RATE_INTERVAL + 2 * SCRAPED_EVERY
"""Seconds into a phase, after which nothing of the one before it is seen any more."""


Chosen = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Sample:
    at: float
    labels: Mapping[str, str]
    value: float


def values(chosen: Chosen | None = None) -> dict[str, str | Sequence[str]]:
    """Return what stands for variables: these, and Grafana's own."""
    rate = f"{RATE_INTERVAL * 1000:.0f}ms"
    return {"__rate_interval": rate, "__range": rate, "job": ALL, **(chosen or {})}


def ask(
    prometheus: PrometheusServer,
    board: Mapping[str, Any],
    asked: Asked,
    phases: Sequence[Phase],
    chosen: Chosen | None = None,
) -> list[Sample]:
    """Return all samples of a query over the phases that are numbers."""
    expression = substituted(board, asked.expression, values(chosen))
    matrix = prometheus.query_range(expression, phases[0].begin, phases[-1].after, SCRAPED_EVERY)
    return [
        Sample(at, one["metric"], float(value))
        for one in matrix
        for at, value in one["values"]
        if value != "NaN"
    ]


def above(samples: Iterable[Sample], phase: Phase, labels: Mapping[str, str]) -> bool:
    """Tell whether a series with these labels was above zero in a phase."""
    return any(
        sample.value > 0
        for sample in samples
        if phase.begin <= sample.at <= phase.after and labels.items() <= sample.labels.items()
    )


def zero(samples: Iterable[Sample], phase: Phase, labels: Mapping[str, str]) -> bool:
    """Tell whether no series with these labels was above zero in a phase, once that had settled."""
    return not any(
        sample.value > 0
        for sample in samples
        if phase.begin + SETTLED <= sample.at <= phase.end and labels.items() <= sample.labels.items()
    )


def wrong(
    prometheus: PrometheusServer,
    board: Mapping[str, Any],
    queries: Iterable[Asked],
    phases: Sequence[Phase],
    chosen: Chosen | None = None,
    expected: Collection[Expected] = QUERIES,
) -> list[str]:
    """Return in words what these queries do not say as expected."""
    found = []
    for asked in queries:
        samples = ask(prometheus, board, asked, phases, chosen)
        for one in expected:
            if one.query != asked.name:
                continue
            for phase in phases:
                of = f"{one.query} {dict(one.labels) or ''} in {phase.name}"
                if phase.name in one.above and not above(samples, phase, one.labels):
                    found.append(f"{of} has nothing above zero")
                if phase.name in one.zero and not zero(samples, phase, one.labels):
                    found.append(f"{of} is above zero")
    return found


def alerts_wrong(prometheus: PrometheusServer, phases: Sequence[Phase]) -> list[str]:
    """Return in words which alerts did not fire in their phase, or fired in another one."""
    matrix = prometheus.query_range(
        'ALERTS{alertstate="firing"}', phases[0].begin, phases[-1].after, SCRAPED_EVERY
    )
    found: list[str] = []
    before: Alerts = frozenset()
    for phase in phases:
        fired = {
            (one["metric"]["alertname"], one["metric"]["job"])
            for one in matrix
            if any(phase.begin <= at <= phase.after for at, _ in one["values"])
        }
        expected = FIRING[phase.name]
        allowed = expected | PERHAPS.get(phase.name, frozenset())
        found += [f"{alert} of {job} did not fire in {phase.name}" for alert, job in expected - fired]
        found += [f"{alert} of {job} fired in {phase.name}" for alert, job in fired - allowed - before]
        before = allowed
    return found
