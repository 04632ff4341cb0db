"""Our metrics as a process exposes them at ``/metrics``, read back by table, for those without a Prometheus."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from . import names


@dataclass
class Totals:
    """What was counted for one table of one cache."""

    hits: float = 0.0
    misses: float = 0.0
    evictions: float = 0.0
    saved_seconds: float = 0.0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.hits + other.hits,
            self.misses + other.misses,
            self.evictions + other.evictions,
            self.saved_seconds + other.saved_seconds,
        )

    def since(self, before: Totals) -> Totals:
        """Return what was counted since ``before``; a counter that is lower now began anew, with its process."""
        return Totals(
            _since(self.hits, before.hits),
            _since(self.misses, before.misses),
            _since(self.evictions, before.evictions),
            _since(self.saved_seconds, before.saved_seconds),
        )


_FIELDS = {
    names.HITS.name: "hits",
    names.MISSES.name: "misses",
    names.EVICTIONS.name: "evictions",
    names.SAVED_SECONDS.name: "saved_seconds",
}


def totals(text: str) -> dict[tuple[str, str], Totals]:
    """Return the totals by cache and table of a scrape.

    Raises:
        ValueError: The text is no scrape, or has none of our metrics.
    """
    found: dict[tuple[str, str], Totals] = {}
    is_ours = False
    for family in text_string_to_metric_families(text):
        is_ours = is_ours or family.name.startswith(f"{names.SCOPE}_")
        for sample in family.samples:
            field = _FIELDS.get(sample.name)
            if field is not None:
                place = sample.labels.get("cache", ""), sample.labels.get("table", "")
                one = found.setdefault(place, Totals())
                setattr(one, field, getattr(one, field) + sample.value)
    if not is_ours:
        raise ValueError("it has no metric of sqlacache")
    return found


def _since(now: float, before: float) -> float:
    return now - before if now >= before else now
