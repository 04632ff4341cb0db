"""Alerts: when somebody should look, and at what. The thresholds are in :class:`Thresholds`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlacache_telemetry import names

from . import recording
from .pace import ORDINARY, Pace
from .queries import Chosen
from .rules import Alert
from .rules import written as _written


@dataclass(frozen=True)
class Thresholds:
    """Above or below what somebody is told; change them here, and run ``make dashboards``."""

    traffic: float = 1.0
    """Lookups (or reads) per second below which no ratio is looked at."""
    hit_ratio_low: float = 0.5
    """Hit ratio below which a cache is said to help little."""
    hit_ratio_drop: float = 0.7
    """Part of the last hour's hit ratio below which it has dropped."""
    storm: float = 3.0
    """Times the last hour's misses that are a storm."""
    storm_misses: float = 10.0
    """Misses per second below which nothing is a storm."""
    lag_seconds: float = 0.5
    """99th percentile of the lag of announcements: half of the pushed tier's usual bound."""
    table_bumps: float = 0.1
    """Table-wide invalidations per second of one table: one in ten seconds."""
    churn: float = 1.0
    """Evictions per hit of one table."""
    churn_evictions: float = 1.0
    """Evictions per second of one table below which nothing is thrash."""
    room_share: float = 0.05
    """Part of the lookups that miss for want of memory."""
    drops: float = 1.0
    """Local entries dropped per second for want of memory."""
    backend_errors: float = 2
    """Commands that failed within five minutes: two in a row open the breaker of a process."""
    unavailable: float = 0.1
    """Reads per second that bypass the cache because the backend is away."""
    bypass_share: float = 0.5
    """Part of all reads that bypass the cache, other than as configured."""
    lookup_seconds: float = 0.05
    """99th percentile of the time to look up a hit."""


USUAL = Thresholds()

HEAD = """\
Alerts of sqlacache. Written by `make dashboards`: change the thresholds in dashboards/alerts.py, not this file.
Needs recording.rules.yaml. Each alert is explained in docs/runbook.md: put your own address before runbook_url."""

OF = "{{ $labels.job }}, cache {{ $labels.cache }}"


def rules(pace: Pace = ORDINARY, limits: Thresholds = USUAL) -> list[Alert]:
    """Return the alerts; with a quicker pace, their ranges and the time they must last are as much shorter."""
    minutes = pace.minutes
    plain = Chosen(minutes(5), variables=False)
    hour = f"[{minutes(60)}] offset {minutes(10)}"
    busy = f"and {recording.LOOKUPS} > {limits.traffic:g}"
    unmeant = recording.UNMEANT_BYPASSES
    reads = f"(({recording.LOOKUPS} or {unmeant} * 0) + {unmeant})"
    evicted = recording.TABLE_EVICTIONS
    away = plain.rate(names.BYPASSES, "job", "cache", reason="backend_unavailable")
    drops = Chosen(minutes(10), variables=False).rate(names.EVICTIONS, "job", "cache", cause="size")
    return [
        Alert(
            "SqlacacheStaleRead",
            "critical",
            Chosen(minutes(10), variables=False).increase(
                names.VERIFICATIONS, "job", "cache", outcome="mismatch"
            )
            + " > 0",
            "",
            f"{OF}: a cached read was stale",
            "Verification found {{ $value | humanize }} hits in ten minutes that differ from the database "
            "without a write that explains it.",
        ),
        Alert(
            "SqlacacheHitRatioLow",
            "warning",
            f"{recording.HIT_RATIO} < {limits.hit_ratio_low:g}\n{busy}",
            minutes(10),
            f"{OF}: few reads are hits",
            "{{ $value | humanizePercentage }} of the lookups are hits.",
        ),
        Alert(
            "SqlacacheHitRatioDropped",
            "warning",
            f"{recording.HIT_RATIO} < {limits.hit_ratio_drop:g} * avg_over_time({recording.HIT_RATIO}{hour})\n{busy}",
            minutes(5),
            f"{OF}: the hit ratio has dropped",
            "{{ $value | humanizePercentage }} of the lookups are hits, much less than in the hour before.",
        ),
        Alert(
            "SqlacacheMissStorm",
            "warning",
            f"{recording.MISSES} > {limits.storm:g} * avg_over_time({recording.MISSES}{hour})\n"
            f"and {recording.MISSES} > {limits.storm_misses:g}",
            minutes(2),
            f"{OF}: many more misses than usual",
            "{{ $value | humanize }} misses per second reach the database, several times as many as in the "
            "hour before.",
        ),
        Alert(
            "SqlacacheInvalidationLag",
            "warning",
            f"{recording.LAG_SECONDS} > {limits.lag_seconds:g}",
            minutes(1),
            f"{OF}: announcements of commits arrive late",
            "One in a hundred takes {{ $value | humanizeDuration }} to another process.",
        ),
        Alert(
            "SqlacacheOwedInvalidations",
            "critical",
            f"{recording.OWED} > 0",
            minutes(1),
            f"{OF}: commits could not be announced",
            "{{ $value | humanize }} invalidations are owed; other processes may serve what those commits "
            "changed.",
        ),
        Alert(
            "SqlacacheTableWideInvalidation",
            "warning",
            f"{recording.TABLE_BUMPS} > {limits.table_bumps:g}",
            minutes(5),
            f"{OF}: all of {{{{ $labels.table }}}} is invalidated again and again",
            "{{ $value | humanize }} times per second, a write invalidates the whole table or a whole way "
            "of reading it.",
        ),
        Alert(
            "SqlacacheThrash",
            "warning",
            f"{evicted} > {limits.churn:g} * ({recording.TABLE_HITS} or {evicted} * 0)\n"
            f"and {evicted} > {limits.churn_evictions:g}",
            minutes(10),
            f"{OF}: {{{{ $labels.table }}}} is invalidated more than it is used",
            "{{ $value | humanize }} evictions per second, more than there are hits.",
        ),
        Alert(
            "SqlacacheCapacityPressure",
            "warning",
            f"({recording.LOST_FOR_ROOM} > {limits.room_share:g} * {recording.LOOKUPS}\n{busy})\n"
            f"or\n{drops} > {limits.drops:g}",
            minutes(5),
            f"{OF}: the cache has too little memory",
            "{{ $value | humanize }} entries per second are lost for want of memory, on the server or in a "
            "process.",
        ),
        Alert(
            "SqlacacheBackendErrors",
            "warning",
            f"{recording.BACKEND_ERRORS} > {limits.backend_errors:g}\nor\n{away} > {limits.unavailable:g}",
            minutes(2),
            f"{OF}: the backend fails",
            "Commands failed in the last five minutes, or reads bypass the cache because the backend is away "
            "({{ $value | humanize }}); the database carries everything.",
        ),
        Alert(
            "SqlacacheBypassDominating",
            "warning",
            f"{unmeant} / {reads} > {limits.bypass_share:g}\nand {reads} > {limits.traffic:g}",
            minutes(5),
            f"{OF}: most reads bypass the cache",
            "{{ $value | humanizePercentage }} of the reads do not ask the cache, and not because of its "
            "configuration.",
        ),
        Alert(
            "SqlacacheLookupSlow",
            "warning",
            f"{recording.LOOKUP_SECONDS} > {limits.lookup_seconds:g}\n{busy}",
            minutes(5),
            f"{OF}: lookups are slow",
            "One hit in a hundred takes {{ $value | humanizeDuration }} to look up.",
        ),
        Alert(
            "SqlacacheLabelOverflow",
            "info",
            plain.rate(names.LABEL_OVERFLOW, "job", "label") + " > 0",
            minutes(5),
            "{{ $labels.job }}: more values of the label {{ $labels.label }} than there is room for",
            "{{ $value | humanize }} records per second are counted under _other; totals are right, the "
            "figures of single values are not.",
        ),
    ]


def written(pace: Pace = ORDINARY, limits: Thresholds = USUAL) -> str:
    """Return the file of these rules."""
    return _written(HEAD, "sqlacache.alerts", rules(pace, limits))
