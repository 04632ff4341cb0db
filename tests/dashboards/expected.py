"""What every query of the dashboard, and every alert, must say in which phase of :mod:`.workload`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy

from sqlacache_telemetry.version import library_version

from .workload import CROWD, SHOP

PHASES = (
    "warm_up",
    "read_heavy",
    "write_storm",
    "bulk_updates",
    "stopped_worker",
    "redis_outage",
    "recovery",
    "slow_redis",
    "full_redis",
    "written_behind",
)
ALWAYS = frozenset(PHASES)
LOOKED_UP = ALWAYS - {"redis_outage"}
SERVED = LOOKED_UP - {"full_redis"}
"""Phases with hits for sure; how many a full server leaves, depends on the machine."""
CHANGED = frozenset(("write_storm", "bulk_updates", "stopped_worker"))
MISSED = frozenset((*CHANGED, "warm_up", "recovery", "full_redis"))


@dataclass(frozen=True)
class Expected:
    """In which phases some series of a query is above zero, and in which none is."""

    query: str
    """A name as :attr:`.grafana.Asked.name` gives it."""
    above: frozenset[str]
    zero: frozenset[str] = frozenset()
    """Phases in which all series are 0, or have no value; nothing is said of the others."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Which series: those with these labels."""


def only(query: str, *phases: str, perhaps: tuple[str, ...] = (), **labels: str) -> Expected:
    """Say that a query is above zero in these phases, perhaps in some more, and zero in all others."""
    above = frozenset(phases)
    return Expected(query, above, ALWAYS - above - set(perhaps), labels)


def some(query: str, phases: frozenset[str], **labels: str) -> Expected:
    """Say that a query is above zero in these phases."""
    return Expected(query, phases, frozenset(), labels)


LAST = "written_behind"
"""The phase after the server was full, in which what it lost is read again; the crowd is at work then, too."""

QUERIES = (
    some("Hit ratio", SERVED),
    some("Lookups per second", LOOKED_UP),
    some("Database seconds saved per second", frozenset(("warm_up", "read_heavy", "bulk_updates"))),
    only("Evictions per second", *CHANGED, LAST, perhaps=("redis_outage", "recovery")),
    only("Stale reads found", LAST),
    some("Reads by decision: hit", SERVED),
    only("Reads by decision: miss", *MISSED, LAST, perhaps=("redis_outage", "slow_redis")),
    only("Reads by decision: bypass", "redis_outage", "recovery", LAST, perhaps=("slow_redis",)),
    some("Hits by tier", SERVED - {"recovery"}, tier="local"),
    some("Hits by tier", frozenset(("warm_up", "recovery")), tier="remote"),
    some("Lookups by operation: hit", SERVED, op="get"),
    some("Lookups by operation: hit", SERVED, op="fetch"),
    some("Lookups by operation: miss", MISSED, op="get"),
    only(
        "Misses by reason",
        "warm_up",
        "recovery",
        "write_storm",
        perhaps=("full_redis", LAST),
        reason="absent",
    ),
    only("Misses by reason", *CHANGED, perhaps=("redis_outage", "recovery", LAST), reason="row_invalidated"),
    only(
        "Misses by reason",
        "write_storm",
        "bulk_updates",
        perhaps=("stopped_worker", "redis_outage", "recovery", LAST),
        reason="condition_invalidated",
    ),
    only("Misses by reason", "recovery", perhaps=("full_redis", LAST), reason="generation_changed"),
    only("Misses by reason", "full_redis", perhaps=(LAST,), reason="backend_evicted"),
    only(
        "Bypasses by reason",
        "redis_outage",
        "recovery",
        perhaps=("slow_redis",),
        reason="backend_unavailable",
    ),
    only("Bypasses by reason", LAST, reason="disabled"),
    some("Hit ratio by table", SERVED, table="products"),
    some("Hit ratio by table", frozenset(("read_heavy",)), table="reviews"),
    some("Misses by table", MISSED, table="products"),
    some("Misses by table", frozenset((LAST,)), table="_other"),
    some("Fills by outcome", MISSED, outcome="stored"),
    only(
        "Table version bumps by table and cause",
        "bulk_updates",
        perhaps=("redis_outage", "recovery"),
        table="orders",
        cause="touched",
    ),
    only("Evictions by cause", "write_storm", "stopped_worker", perhaps=("recovery",), cause="row_update"),
    only("Evictions by cause", "bulk_updates", cause="bulk_write"),
    only("Evictions by cause", LAST, cause="size"),
    some("Churn: evictions per hit", CHANGED, table="products"),
    some("Lookup, 99th percentile by decision", SERVED, decision="hit"),
    some("Lookup, 99th percentile by decision", MISSED, decision="miss"),
    some("Lookup, median by decision", frozenset(("redis_outage",)), decision="bypass"),
    some("Load, 95th percentile by table", MISSED, table="products"),
    *(some("Phases, 95th percentile", CHANGED, phase=phase) for phase in ("one", "commit", "two")),
    only("Invalidations per second: invalidations", *CHANGED, perhaps=("redis_outage", "recovery")),
    only(
        "Lag of other processes' announcements: median",
        *CHANGED,
        perhaps=("redis_outage", "recovery", "slow_redis"),
    ),
    only(
        "Lag of other processes' announcements: 99th percentile",
        *CHANGED,
        perhaps=("redis_outage", "recovery", "slow_redis"),
    ),
    only("Owed invalidations", "redis_outage", perhaps=("recovery",)),
    some("Entries in processes", ALWAYS),
    some("Bytes in processes", ALWAYS),
    only("Entries dropped by processes", LAST, cause="size"),
    only(
        "Misses that memory or time caused",
        "recovery",
        perhaps=("full_redis", LAST),
        reason="generation_changed",
    ),
    only("Misses that memory or time caused", "full_redis", perhaps=(LAST,), reason="backend_evicted"),
    only(
        "Backend errors by command and error",
        "redis_outage",
        perhaps=("slow_redis",),
        operation="MGET",
        error="ConnectionError",
    ),
    only("Verified hits by outcome", LAST, outcome="mismatch"),
    only("Records without a label of their own", LAST, label="table"),
    only("Observer errors", LAST, observer="Grumbler"),
    *(
        some(
            "Versions and configured modes",
            ALWAYS,
            job=SHOP,
            mode=mode,
            version=library_version(),
            sqlalchemy=sqlalchemy.__version__,
        )
        for mode in ("on", "shadow")
    ),
    some("Deploys", frozenset(("warm_up",)), job=SHOP, version=library_version()),
    only("Mode switches", LAST, job=SHOP, cache="shop"),
    only(
        "Table-wide invalidations",
        "bulk_updates",
        perhaps=("redis_outage", "recovery"),
        table="orders",
        cause="touched",
    ),
)

NOT_OF_THE_FIRST = frozenset(
    (
        "Stale reads found",
        "Verified hits by outcome",
        "Mode switches",
        "Records without a label of their own",
        "Observer errors",
    )
)
"""Queries that say nothing of the first worker: another one compares, and the crowd is another job."""
NOT_OF_PRODUCTS = frozenset(
    ("Entries dropped by processes", "Table version bumps by table and cause", "Table-wide invalidations")
)
"""Queries that say nothing of that table."""

Alerts = frozenset[tuple[str, str]]


def of(job: str, *names: str) -> Alerts:
    """Return alerts of a job."""
    return frozenset((f"Sqlacache{name}", job) for name in names)


FIRING: Mapping[str, Alerts] = {
    "warm_up": of(SHOP),
    "read_heavy": of(SHOP),
    "write_storm": of(SHOP, "HitRatioLow", "HitRatioDropped", "Thrash"),
    "bulk_updates": of(SHOP, "TableWideInvalidation"),
    "stopped_worker": of(SHOP, "InvalidationLag"),
    "redis_outage": of(SHOP, "BackendErrors", "BypassDominating", "OwedInvalidations"),
    "recovery": of(SHOP, "MissStorm"),
    "slow_redis": of(SHOP, "LookupSlow"),
    "full_redis": of(SHOP, "CapacityPressure"),
    "written_behind": of(SHOP, "StaleRead") | of(CROWD, "LabelOverflow", "CapacityPressure"),
}
PERHAPS: Mapping[str, Alerts] = {
    # What is cold is full of misses; how long, depends on the machine.
    "warm_up": of(SHOP, "HitRatioLow", "HitRatioDropped", "MissStorm"),
    "recovery": of(SHOP, "HitRatioLow", "HitRatioDropped"),
    # Whoever waits for a server that is held may give up.
    "slow_redis": of(SHOP, "BackendErrors", "BypassDominating"),
    # What does not fit is a miss.
    "full_redis": of(SHOP, "HitRatioLow", "HitRatioDropped", "MissStorm"),
    "written_behind": of(CROWD, "HitRatioLow", "HitRatioDropped", "MissStorm"),
}
"""What may fire as well, for the same reason; a phase may also begin with what the one before it ended with."""

TOLD: Mapping[tuple[str, str], Mapping[str, str]] = {
    **{
        (alert.removeprefix("Sqlacache"), SHOP): {"cache": "shop"}
        for firing in FIRING.values()
        for alert, _ in firing
    },
    ("Thrash", SHOP): {"cache": "shop", "table": "products"},
    ("TableWideInvalidation", SHOP): {"cache": "shop", "table": "orders"},
    ("CapacityPressure", CROWD): {"cache": "crowd"},
    ("LabelOverflow", CROWD): {"label": "table"},
}
"""By which labels an alert that fires names what it is about."""
