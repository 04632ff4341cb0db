"""Recording rules: what alerts compare, by job and cache, over five minutes."""

from __future__ import annotations

from sqlacache_telemetry import names

from .pace import ORDINARY, Pace
from .queries import Chosen, ratio
from .rules import Recording
from .rules import written as _written

LOOKUPS = "job_cache:sqlacache_lookups:rate5m"
MISSES = "job_cache:sqlacache_misses:rate5m"
HIT_RATIO = "job_cache:sqlacache_hit_ratio:rate5m"
UNMEANT_BYPASSES = "job_cache:sqlacache_unmeant_bypasses:rate5m"
LOST_FOR_ROOM = "job_cache:sqlacache_misses_for_room:rate5m"
BACKEND_ERRORS = "job_cache:sqlacache_backend_errors:increase5m"
OWED = "job_cache:sqlacache_owed_invalidations:sum"
LOOKUP_SECONDS = "job_cache:sqlacache_hit_lookup_seconds:p99_5m"
LAG_SECONDS = "job_cache:sqlacache_invalidation_lag_seconds:p99_5m"
TABLE_HITS = "job_cache_table:sqlacache_hits:rate5m"
TABLE_EVICTIONS = "job_cache_table:sqlacache_evictions:rate5m"
TABLE_BUMPS = "job_cache_table:sqlacache_table_version_bumps:rate5m"

MEANT = ("not_configured", "opted_out")
"""Reasons of bypasses that the application's configuration asks for."""
ROOM = ("capacity_evicted", "backend_evicted")
"""Reasons of misses that would be hits if there were more memory."""

WRITES = tuple(cause for cause in names.EVICTIONS.labels["cause"] or () if cause not in ("size", "resync"))
"""Causes of evictions that are writes, or calls; the others are local entries dropped for room."""

HEAD = """\
Recording rules of sqlacache. Written by `make dashboards`: change dashboards/recording.py, not this file.
Each is of one cache of one job, over five minutes; alerts.rules.yaml needs them."""


def rules(pace: Pace = ORDINARY) -> list[Recording]:
    """Return the rules; with a quicker pace, their ranges are as much shorter, and their names the same."""
    recent = Chosen(pace.minutes(5), variables=False)
    place = ("job", "cache")
    table = (*place, "table")
    hits, misses = recent.rate(names.HITS, *place), recent.rate(names.MISSES, *place)
    unmeant = [reason for reason in names.BYPASSES.labels["reason"] or () if reason not in MEANT]
    return [
        Recording(LOOKUPS, recent.rate_of_all((names.HITS, names.MISSES), *place)),
        Recording(MISSES, misses),
        Recording(HIT_RATIO, ratio(f"({hits} or {misses} * 0)", LOOKUPS)),
        Recording(UNMEANT_BYPASSES, recent.rate(names.BYPASSES, *place, reason=unmeant)),
        Recording(LOST_FOR_ROOM, recent.rate(names.MISSES, *place, reason=ROOM)),
        Recording(BACKEND_ERRORS, recent.growth(names.BACKEND_ERRORS, *place)),
        Recording(OWED, recent.gauge(names.OWED, "sum", *place)),
        Recording(LOOKUP_SECONDS, recent.quantile(0.99, names.LOOKUP_SECONDS, *place, decision="hit")),
        Recording(LAG_SECONDS, recent.quantile(0.99, names.INVALIDATION_LAG, *place)),
        Recording(TABLE_HITS, recent.rate(names.HITS, *table)),
        Recording(TABLE_EVICTIONS, recent.rate(names.EVICTIONS, *table, cause=WRITES)),
        Recording(TABLE_BUMPS, recent.rate(names.BUMPS, *table)),
    ]


def written(pace: Pace = ORDINARY) -> str:
    """Return the file of these rules."""
    return _written(HEAD, "sqlacache.recording", rules(pace))
