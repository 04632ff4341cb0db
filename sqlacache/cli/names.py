"""``names``: every metric, span and attribute that there is."""

from __future__ import annotations

from typing import Any

from .show import as_json, console, line, table


def names(*, json: bool) -> None:
    """Print what :mod:`sqlacache_telemetry.names` describes."""
    from sqlacache_telemetry import names as known

    if json:
        as_json(_plain(known))
        return
    screen = console()
    screen.print(
        table(
            {"metric": False, "kind": False, "labels": False, "unit": False, "meaning": False},
            ((one.name, one.kind, " ".join(one.labels), one.unit, one.help) for one in known.METRICS),
        )
    )
    screen.print(
        table(
            {"span": False, "starts": False, "ends": False, "links": False},
            ((f"{one.name} {one.about}", one.starts, one.ends, one.links) for one in known.SPANS),
        )
    )
    screen.print(
        table(
            {"attribute": False, "type": False, "on": False, "meaning": False},
            (
                (one.name, one.type, " ".join(span.name for span in one.spans), one.meaning)
                for one in known.ATTRIBUTES
            ),
        )
    )
    for relation in known.RELATIONS:
        line(relation)


def _plain(known: Any) -> dict[str, Any]:
    return {
        "metrics": [
            {
                "name": one.name,
                "kind": one.kind,
                "labels": dict(one.labels),
                "unit": one.unit,
                "meaning": one.help,
                "counts_when": one.counts_when,
            }
            for one in known.METRICS
        ],
        "spans": [
            {
                "name": one.name,
                "about": one.about,
                "starts": one.starts,
                "ends": one.ends,
                "links": one.links,
            }
            for one in known.SPANS
        ],
        "attributes": [
            {
                "name": one.name,
                "type": one.type,
                "spans": [span.name for span in one.spans],
                "meaning": one.meaning,
            }
            for one in known.ATTRIBUTES
        ],
        "relations": list(known.RELATIONS),
    }
