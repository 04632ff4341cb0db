"""PromQL and TraceQL made of the metrics, labels and attributes that :mod:`sqlacache_telemetry.names` describes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlacache_telemetry.names import Attribute, Metric

RATE = "$__rate_interval"
SCRAPED = ("job", "instance")
"""Labels that Prometheus itself gives to what it scrapes."""
CHOSEN = (*SCRAPED, "cache", "table")
"""Labels that a variable of the dashboard chooses values of."""


def closed(metric: Metric, label: str) -> tuple[str, ...]:
    """Return the words that a label may have. Raises :class:`ValueError` where it may have any, or there is none."""
    words = metric.labels.get(label)
    if words is None:
        raise ValueError(f"{metric.name} has no label {label!r} with a closed list of words")
    return words


def labelled(metric: Metric, *labels: str) -> str:
    """Return ``labels`` as a grouping. Raises :class:`ValueError` for one that the metric does not have."""
    for label in labels:
        if label not in (*SCRAPED, *metric.labels):
            raise ValueError(f"{metric.name} has no label {label!r}")
    return ", ".join(labels)


@dataclass(frozen=True)
class Chosen:
    """Writes selectors and rates: with the dashboard's variables in them, or, for rules, without any."""

    range: str
    """The range of rates: a variable of Grafana, or a duration."""
    variables: bool = True

    def select(self, metric: Metric, suffix: str = "", /, **words: Sequence[str] | str) -> str:
        """Return a selector of the metric's series with these words as labels: one, or any of several."""
        matchers = []
        if self.variables:
            matchers = [
                f'{label}=~"${label}"' for label in CHOSEN if label in SCRAPED or label in metric.labels
            ]
        for label, wanted in words.items():
            known = closed(metric, label)
            listed = (wanted,) if isinstance(wanted, str) else tuple(wanted)
            for word in listed:
                if word not in known:
                    raise ValueError(f"{metric.name}: {label} is never {word!r}")
            sign = "=" if len(listed) == 1 else "=~"
            matchers.append(f'{label}{sign}"{"|".join(listed)}"')
        return f"{metric.name}{suffix}{{{', '.join(matchers)}}}" if matchers else f"{metric.name}{suffix}"

    def rate(self, metric: Metric, *by: str, suffix: str = "", **words: Sequence[str] | str) -> str:
        """Return the rate per second of a counter, added up by some labels."""
        return self._added(metric, "rate", self.range, by, suffix, words)

    def increase(self, metric: Metric, *by: str, over: str = "", **words: Sequence[str] | str) -> str:
        """Return the increase of a counter, added up by some labels."""
        return self._added(metric, "increase", over or self.range, by, "", words)

    def _added(
        self,
        metric: Metric,
        function: str,
        over: str,
        by: Sequence[str],
        suffix: str,
        words: dict[str, Sequence[str] | str],
    ) -> str:
        if metric.kind == "gauge" or (metric.kind == "histogram" and not suffix):
            raise ValueError(f"{metric.name} is no counter")
        grouped = f" by ({labelled(metric, *by)})" if by else ""
        return f"sum{grouped} ({function}({self.select(metric, suffix, **words)}[{over}]))"

    def growth(self, metric: Metric, *by: str) -> str:
        """Return how much a counter grew within the range, that whose series begin there included.

        Series that do not start at zero, because their labels are not known before, appear with their first value,
        which rate() and increase() do not see: an outage that is counted twice and then waited for would be none.
        """
        labels = labelled(metric, *by)
        counted = self.select(metric)
        before = f"last_over_time({counted}[{self.range}] offset {self.range})"
        grown = f"({counted} unless {before}) or increase({counted}[{self.range}])"
        return f"sum by ({labels}) ({grown})"

    def quantile(self, quantile: float, metric: Metric, *by: str, **words: Sequence[str] | str) -> str:
        """Return a quantile of a histogram, of all series that share some labels together."""
        if metric.kind != "histogram":
            raise ValueError(f"{metric.name} is no histogram")
        labels = ", ".join(("le", labelled(metric, *by))) if by else "le"
        rate = f"rate({self.select(metric, '_bucket', **words)}[{self.range}])"
        return f"histogram_quantile({quantile}, sum by ({labels}) ({rate}))"

    def rate_of_all(self, metrics: Sequence[Metric], *by: str) -> str:
        """Return the rate of several counters together, also where one of them has no series."""
        first, *others = metrics
        grouped = f" by ({labelled(first, *by)})" if by else ""
        for one in others:
            labelled(one, *by)
        named = f'__name__=~"{"|".join(one.name for one in metrics)}"'
        matchers = self.select(first).removeprefix(first.name).strip("{}")
        return f"sum{grouped} (rate({{{', '.join(filter(None, (named, matchers)))}}}[{self.range}]))"

    def gauge(self, metric: Metric, function: str, *by: str) -> str:
        """Return a gauge, aggregated by some labels."""
        if metric.kind != "gauge":
            raise ValueError(f"{metric.name} is no gauge")
        grouped = f" by ({labelled(metric, *by)})" if by else ""
        return f"{function}{grouped} ({self.select(metric)})"


def ratio(part: str, whole: str) -> str:
    """Return a quotient that has no value where there is nothing to divide by."""
    return f"{part}\n  / ({whole} > 0)"


def attribute(one: Attribute) -> str:
    """Return what TraceQL calls a span attribute."""
    return f"span.{one.name}"
