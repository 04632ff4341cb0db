"""The rows that tell how it runs: latency, invalidation, capacity and health."""

from __future__ import annotations

from sqlacache_telemetry import names

from .panels import Panel, Query, Row
from .queries import RATE, Chosen

now = Chosen(RATE)

GONE_WITHOUT_WRITES = ("capacity_evicted", "backend_evicted", "expired", "generation_changed")
"""Reasons of misses that no write caused."""
DROPS = ("size", "resync")
"""Eviction causes that are no writes: local entries that were dropped."""

LATENCY = Row(
    "Latency",
    (
        Panel(
            "Lookup, 99th percentile by decision",
            "s",
            "Time to decide, without the load. Hits above some milliseconds: the server or the network is "
            "slow, or the event loop is busy; a local tier saves the decoding. The dots are traces: click "
            "one.",
            (
                Query(
                    now.quantile(0.99, names.LOOKUP_SECONDS, "decision"),
                    "{{decision}}",
                    exemplars=True,
                ),
            ),
        ),
        Panel(
            "Lookup, median by decision",
            "s",
            "The usual lookup. Compare with Load: a hit should be far below it, otherwise the cache does "
            "not pay.",
            (Query(now.quantile(0.5, names.LOOKUP_SECONDS, "decision"), "{{decision}}", exemplars=True),),
        ),
        Panel(
            "Load, 95th percentile by table",
            "s",
            "What the database takes to answer a miss. High: the database's matter (indexes, locks, "
            "connections); the dots open traces with its statement. Such tables are worth caching most.",
            (Query(now.quantile(0.95, names.LOAD_SECONDS, "table"), "{{table}}", exemplars=True),),
        ),
    ),
)

INVALIDATION = Row(
    "Invalidation",
    (
        Panel(
            "Phases, 95th percentile",
            "s",
            "one: marking stamps before COMMIT; commit: the database's COMMIT; two: replacing stamps after "
            "it. one or two high: a slow server, or commits with very many stamps (see evicted in the "
            "traces). commit near the lease (30 s): raise lease.",
            (
                Query(
                    now.quantile(0.95, names.INVALIDATION_SECONDS, "phase"),
                    "{{phase}}",
                    exemplars=True,
                ),
            ),
            width=6,
        ),
        Panel(
            "Invalidations per second",
            "ops",
            "Commits and calls that touched what is cached. Much more than you write: something touches "
            "more tables than you think; see Why evicted.",
            (Query(now.rate(names.INVALIDATION_SECONDS, suffix="_count", phase="two"), "invalidations"),),
            width=6,
        ),
        Panel(
            "Lag of other processes' announcements",
            "s",
            "From a commit's announcement to its arrival elsewhere, by both clocks. High: a busy event "
            "loop, a slow network, or clocks that differ. Only local=pushed can serve something that old, "
            "up to its bound.",
            (
                Query(now.quantile(0.5, names.INVALIDATION_LAG), "median"),
                Query(now.quantile(0.99, names.INVALIDATION_LAG), "99th percentile"),
            ),
            width=6,
        ),
        Panel(
            "Owed invalidations",
            "short",
            "Commits that the server could not be told of yet. Not 0 for more than a minute: other "
            "processes may serve what those commits changed; bring the server back, or switch the fleet to "
            "write_only. Do not restart the processes that owe: they deliver when the server answers.",
            (Query(now.gauge(names.OWED, "sum", "instance", "cache"), "{{instance}} {{cache}}"),),
            width=6,
            steps=(("green", None), ("red", 1)),
        ),
    ),
)

CAPACITY = Row(
    "Capacity",
    (
        Panel(
            "Entries in processes",
            "short",
            "Entries that each process holds: the local tier, or all of mem://. Compare with max_bytes in "
            "the next panel.",
            (Query(now.gauge(names.ENTRIES, "sum", "instance", "cache"), "{{instance}} {{cache}}"),),
            width=6,
        ),
        Panel(
            "Bytes in processes",
            "bytes",
            "Memory that these entries take, stamps and keys included; max_bytes (64 MiB with Redis unless "
            "configured, for each database) is the most. Flat at the top, with evictions by size: raise "
            "max_bytes if the process has memory.",
            (Query(now.gauge(names.BYTES, "sum", "instance", "cache"), "{{instance}} {{cache}}"),),
            width=6,
        ),
        Panel(
            "Entries dropped by processes",
            "cps",
            "size: no room (max_bytes); resync: the pushed tier emptied itself after a gap in the "
            "announcements. Steady size: raise max_bytes. Steady resync: the connection to the server is "
            "unstable.",
            (Query(now.rate(names.EVICTIONS, "cause", cause=DROPS), "{{cause}}"),),
            width=6,
        ),
        Panel(
            "Misses that memory or time caused",
            "reqps",
            "backend_evicted: the server had no room, give it more or shorten timeouts; capacity_evicted: "
            "this process had none; expired: the timeout is over; generation_changed: the server lost or "
            "changed everything.",
            (Query(now.rate(names.MISSES, "reason", reason=GONE_WITHOUT_WRITES), "{{reason}}"),),
            width=6,
            stacked=True,
        ),
    ),
)

HEALTH = Row(
    "Health",
    (
        Panel(
            "Backend errors by command and error",
            "short",
            "Errors in the interval of a point. While the server is away, reads go to the database and commits are "
            "owed. TimeoutError: slower than `timeout`; ConnectionError: gone; OutOfMemoryError, ReadOnlyError, "
            "NoPermissionError: refused. Two in a row open the breaker of a process, and nothing is counted until it "
            "closes: see bypasses by reason.",
            (Query(now.growth(names.BACKEND_ERRORS, "operation", "error"), "{{operation}}: {{error}}"),),
            width=6,
        ),
        Panel(
            "Verified hits by outcome",
            "reqps",
            "match: the cache said what the database says; raced: a write came in between; mismatch: stale, "
            "see the overview. Nothing: verification is off (verify=0.001 costs next to nothing).",
            (Query(now.rate(names.VERIFICATIONS, "outcome"), "{{outcome}}"),),
            width=6,
            stacked=True,
        ),
        Panel(
            "Records without a label of their own",
            "cps",
            "Counted under _other, because a label has as many values as it may have (100 tables). Figures "
            "by table are then incomplete; totals are right.",
            (Query(now.rate(names.LABEL_OVERFLOW, "label"), "{{label}}"),),
            width=4,
        ),
        Panel(
            "Observer errors",
            "short",
            "Errors in the interval of a point: an observer or an on_evict hook of yours raises. Queries do "
            "not notice; the log has the first error of each kind.",
            (Query(now.growth(names.OBSERVER_ERRORS, "observer"), "{{observer}}"),),
            width=4,
        ),
        Panel(
            "Versions and configured modes",
            "short",
            "How many processes run which version, and the mode they were configured with. More than one "
            "line for longer than a deploy: something old is still running.",
            (
                Query(
                    now.gauge(names.BUILD_INFO, "count", "job", "version", "sqlalchemy", "mode"),
                    instant=True,
                ),
            ),
            kind="table",
            width=4,
        ),
    ),
)
