"""Records as the engine would send them, and a reader of what a registry exposes."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sqlacache.decisions import Cause, Decision, Invalidation, Load, Received, TableChange

AT = 1_700_000_000.25

SQL = "SELECT users.id FROM users WHERE users.id = ?"

CAUSE = Cause(
    cause="row_update",
    table="users",
    keys=("users:42",),
    columns=("plan",),
    statement="UPDATE users",
    at=1_699_999_999.5,
    pid=7,
    host="web-1",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)


def hit(**changes: Any) -> Decision:
    return Decision(
        cache="shop",
        op="get",
        decision="hit",
        reason=None,
        tier="local",
        database="main",
        tables=("users",),
        key="k1",
        tags=("users:42",),
        fill=None,
        age=3.5,
        size=120,
        rows=1,
        changed=(),
        cause=None,
        at=AT,
        lookup_seconds=0.0002,
        load_seconds=0.0052,
        sql=SQL,
    )._replace(**changes)


def miss(**changes: Any) -> Decision:
    made = hit(decision="miss", reason="absent", tier=None, fill="stored", age=None, load_seconds=0.004)
    return made._replace(**changes)


def bypass(**changes: Any) -> Decision:
    made = hit(
        decision="bypass", reason="raw_sql", tier=None, key=None, tags=(), age=None, size=None, rows=None
    )
    return made._replace(load_seconds=None, **changes)


def load(**changes: Any) -> Load:
    values: dict[str, Any] = {
        "cache": "shop",
        "op": "get",
        "reason": "absent",
        "database": "main",
        "tables": ("users",),
        "key": "k1",
        "tags": ("users:42",),
        "changed": (),
        "cause": None,
        "at": AT,
        "sql": SQL,
    }
    return Load(**{**values, **changes})


def change(**changes: Any) -> TableChange:
    values: dict[str, Any] = {
        "table": "users",
        "cause": "row_update",
        "scope": "rows",
        "rows": 1,
        "tags": ("users:42", "users?active=true"),
        "tags_total": 2,
        "columns": ("plan",),
        "evicted": 2,
        "bumped": False,
    }
    return TableChange(**{**values, **changes})


def invalidation(*changes: TableChange, **values: Any) -> Invalidation:
    given: dict[str, Any] = {
        "cache": "shop",
        "database": "main",
        "changes": changes or (change(),),
        "statement": "UPDATE users",
        "at": AT,
        "pid": 7,
        "host": "web-1",
        "traceparent": None,
        "phase_one_seconds": 0.001,
        "commit_seconds": 0.002,
        "phase_two_seconds": 0.0005,
    }
    return Invalidation(**{**given, **values})


def received(**changes: Any) -> Received:
    values: dict[str, Any] = {
        "cache": "shop",
        "database": "main",
        "origin": "0123456789abcdef",
        "tables": ("users",),
        "causes": (CAUSE,),
        "at": AT,
        "lag": 0.004,
    }
    return Received(**{**values, **changes})


class Scrape:
    """What a registry exposes, parsed by prometheus_client's own parser."""

    def __init__(self, registry: CollectorRegistry | str) -> None:
        text = registry if isinstance(registry, str) else generate_latest(registry).decode()
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def get(self, name: str, **labels: str) -> float | None:
        """Return the value of exactly one series, ``None`` if there is none."""
        return next((s.value for s in self.samples if s.name == name and s.labels == labels), None)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over all series that have these labels."""
        return sum(s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items())

    def series(self, name: str) -> list[dict[str, str]]:
        return [sample.labels for sample in self.samples if sample.name == name]

    def counted(self, name: str) -> list[dict[str, str]]:
        """Return the labels of those series that are not at zero."""
        return [sample.labels for sample in self.samples if sample.name == name and sample.value]
