"""What was scraped, once more with one name changed: a dashboard that does not notice looks at nothing.

The samples of a run are taken out of the Prometheus that scraped them, written down with a metric or one of its labels
renamed, and made blocks of a second Prometheus by ``promtool tsdb create-blocks-from openmetrics``. All mutants lie in
one: each is a pair of jobs of its own, with the families that share a query with the one that is changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from dashboards import alerts, recording
from sqlacache_telemetry.names import METRICS, OTHER, Metric
from tests.support.prometheus import PrometheusServer, prometheus_server, promtool

from . import grafana
from .expected import FIRING, QUERIES, TOLD, Expected
from .judging import wrong
from .workload import CROWD, LIMITS, PACE, SCRAPED_EVERY, SHOP, Phase, Run

BOARD = grafana.dashboard()
ASKED = grafana.metric_queries(BOARD)


def _conditions() -> list[tuple[str, str]]:
    """Return what alerts ask, one by one where several will do, with the recorded series written out.

    There is nobody to record those of the mutants.
    """
    recorded = {rule.name: rule.expression for rule in recording.rules(PACE)}
    every = f"{SCRAPED_EVERY * 1000:.0f}ms"

    def whole(expression: str) -> str:
        for name, meant in recorded.items():
            if name in expression:
                inner = f"({whole(meant)})"
                expression = re.sub(rf"{name}\[(\w+)\]", rf"{name}[\g<1>:{every}]", expression)
                expression = expression.replace(name, inner)
        return expression

    return [
        (rule.name, whole(part))
        for rule in alerts.rules(PACE, LIMITS)
        for part in rule.expression.split("\nor\n")
    ]


CONDITIONS = _conditions()


@dataclass(frozen=True)
class Mutation:
    """A metric, or one of its labels, that has another name."""

    number: int
    metric: Metric | None = None
    label: str = ""

    def __str__(self) -> str:
        return f"{self.metric.name} {self.label}".strip() if self.metric else "unchanged"

    @property
    def queries(self) -> list[grafana.Asked]:
        """Those that it could matter to."""
        return [one for one in ASKED if self.metric is None or self.metric.name in one.expression]

    @property
    def conditions(self) -> list[tuple[str, str]]:
        """Those of alerts that it could matter to."""
        return [
            (alert, condition)
            for alert, condition in CONDITIONS
            if self.metric is None
            or (self.metric.name in condition and re.search(rf"\b{self.label}\b", condition))
        ]

    @property
    def asked(self) -> str:
        """All that is asked of this mutant."""
        return " ".join((*(one.expression for one in self.queries), *(one for _, one in self.conditions)))

    def job(self, original: str) -> str:
        """Return what this mutant calls a job."""
        return f"{original}-{self.number}"

    def named(self, name: str) -> str:
        """Return what this mutant calls a series of that name."""
        return f"mutant_{name}" if self._is_of(name) and not self.label else name

    def labelled(self, name: str, labels: Mapping[str, str]) -> dict[str, str]:
        """Return the labels of a series in this mutant."""
        changed = {**labels, "job": self.job(labels["job"])}
        if self._is_of(name) and self.label in changed:
            changed[f"mutant_{self.label}"] = changed.pop(self.label)
        return changed

    def _is_of(self, name: str) -> bool:
        return self.metric is not None and family(name) == self.metric.name


def family(name: str) -> str:
    """Return the metric that a series' name is of."""
    known = {metric.name for metric in METRICS}
    parts = (name.removesuffix(suffix) for suffix in ("_bucket", "_count", "_sum"))
    return next((part for part in parts if part in known), name)


UNCHANGED = Mutation(0)
UNHEARD = frozenset((("sqlacache_hits_total", "table"),))
"""What no alert can notice by silence: a table without hits is what SqlacacheThrash is about."""
MUTATIONS = tuple(
    Mutation(number, metric, label)
    for number, (metric, label) in enumerate(
        ((metric, label) for metric in METRICS for label in ("", *metric.labels)), start=1
    )
)


class Mutated:
    """A Prometheus that has all mutants."""

    def __init__(self, prometheus: PrometheusServer, phases: Sequence[Phase]) -> None:
        self.prometheus = prometheus
        self.phases = phases

    def wrong(self, mutation: Mutation) -> list[str]:
        """Return in words what the dashboard does not show as expected, when it looks at this mutant."""
        chosen = {"job": [mutation.job(SHOP), mutation.job(CROWD)]}
        expected = [_of(mutation, one) for one in QUERIES]
        return wrong(self.prometheus, BOARD, mutation.queries, self.phases, chosen, expected)

    def alerts_wrong(self, mutation: Mutation) -> list[str]:
        """Return in words which conditions of alerts were never met where they should be, or name other labels."""
        return [
            f"{alert}: {condition}"
            for alert, condition in mutation.conditions
            if not any(
                self._is_met(condition, mutation, phase, alert, job)
                for phase in self.phases
                for fires, job in FIRING[phase.name]
                if fires == alert
            )
        ]

    def _is_met(self, condition: str, mutation: Mutation, phase: Phase, alert: str, job: str) -> bool:
        labels = {**TOLD[alert.removeprefix("Sqlacache"), job], "job": mutation.job(job)}
        return any(
            labels.items() <= one["metric"].items()
            and any(phase.begin <= at <= phase.after for at, _ in one["values"])
            for one in self._met[condition]
        )

    @cached_property
    def _met(self) -> dict[str, list[dict[str, Any]]]:
        begin, end = self.phases[0].begin, self.phases[-1].after
        return {
            condition: self.prometheus.query_range(condition, begin, end, SCRAPED_EVERY)
            for _, condition in CONDITIONS
        }


def _of(mutation: Mutation, one: Expected) -> Expected:
    job = one.labels.get("job")
    return replace(one, labels={**one.labels, "job": mutation.job(job)}) if job else one


@contextmanager
def replayed(run: Run, folder: Path) -> Iterator[Mutated]:
    """Make all mutants, and start a Prometheus that has them."""
    series = _scraped(run)
    text = folder / "samples"
    with text.open("w") as file:
        for mutation in (UNCHANGED, *MUTATIONS):
            _write(file, mutation, series)
        file.write("# EOF\n")
    made = promtool("tsdb", "create-blocks-from", "openmetrics", text, folder / "blocks")
    assert made.returncode == 0, made.stderr
    with prometheus_server({}, store=folder / "blocks") as prometheus:
        yield Mutated(prometheus, run.phases)


def _scraped(run: Run) -> list[dict[str, Any]]:
    begin, end = run.phases[0].begin - 5, run.phases[-1].after
    wanted = '{__name__=~"sqlacache_.+|process_start_time_seconds", __name__!~".+_created"}'
    found = run.prometheus.query(f"{wanted}[{end - begin:.0f}s]", at=end)
    # Most were zero all the time, or are of one of very many tables, and make no difference.
    return [
        one
        for one in found
        if any(value != "0" for _, value in one["values"])
        and not (one["metric"]["job"] == CROWD and one["metric"].get("table", OTHER) != OTHER)
    ]


def _write(file: TextIO, mutation: Mutation, series: Sequence[Mapping[str, Any]]) -> None:
    asked = mutation.asked
    for one in series:
        labels = dict(one["metric"])
        name = labels.pop("__name__")
        if family(name) in asked:
            written = ",".join(
                f'{label}="{value}"' for label, value in mutation.labelled(name, labels).items()
            )
            begun = f"{mutation.named(name)}{{{written}}}"
            file.writelines(f"{begun} {value} {at}\n" for at, value in one["values"])
