"""Every metric, label, span and attribute of sqlacache, described once.

Observers take their names from here, ``telemetry/README.md`` is checked against :func:`markdown`, and
dashboards and rules are checked against the same tables. A name that is not in this module does not exist. To
print them all::

    python -c "from sqlacache_telemetry import names; print(names.markdown())"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlacache.decisions import (
    BYPASS_REASONS,
    DECISIONS,
    EVICTION_CAUSES,
    FILL_OUTCOMES,
    MISS_REASONS,
    MODES,
    OPS,
    TIERS,
    VERIFICATION_OUTCOMES,
)

SCOPE = "sqlacache"
"""Name of the instrumentation scope: what ``get_tracer`` is asked for."""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.33.0"
"""Semantic conventions of the ``db.*`` and ``error.*`` attributes: the first version with stable ``db.*`` names."""

MAX_TABLES = 100
"""Distinct values of the label ``table`` in one registry; others are counted under :data:`OTHER`."""

OTHER = "_other"
"""What stands for every further value of a label that has as many as it may have."""

MAX_WORDS = 30
"""Distinct values of the labels ``operation``, ``error`` and ``observer`` in one registry, each."""

BOUNDED = ("table", "operation", "error", "observer")
"""Labels whose values are not from a closed list, and are limited in number."""

MAX_LIST = 16
"""Longest list given as a span attribute (tags, tables, keys, columns)."""

MAX_TEXT = 256
"""Longest string inside such a list, in characters."""

MAX_SQL = 4096
"""Longest ``db.query.text`` in characters."""

MAX_SUMMARY = 255
"""Longest ``db.query.summary`` in characters, as the semantic conventions ask."""

PHASES = ("one", "commit", "two")
"""What an invalidation's time goes to: marking stamps before COMMIT, the COMMIT, replacing them after it."""

OUTCOMES = ("applied", "refused", "none")
"""How an invalidation ended: stamps replaced; COMMIT refused by the database after phase one; nothing to do."""


@dataclass(frozen=True)
class Metric:
    """One metric family: what it counts, in which unit, and when."""

    name: str
    """As scraped; a counter's ends in ``_total``."""
    kind: Literal["counter", "histogram", "gauge"]
    labels: Mapping[str, tuple[str, ...] | None]
    """Label names in order, each with its closed vocabulary; ``None`` where any text may stand."""
    unit: str
    help: str
    counts_when: str
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True)
class Span:
    """One kind of span. Its name is followed by a space and what it is about."""

    name: str
    about: str
    starts: str
    ends: str
    links: str


@dataclass(frozen=True)
class Attribute:
    """One span attribute; it is left out where it has no value."""

    name: str
    type: Literal["string", "string[]", "int", "double", "boolean"]
    spans: tuple[Span, ...]
    meaning: str


_CACHE: Mapping[str, tuple[str, ...] | None] = {"cache": None}
_TABLE: Mapping[str, tuple[str, ...] | None] = {"cache": None, "table": None}
_FAST = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_LOAD = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_LAG = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
_COMMIT = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)

HITS = Metric(
    "sqlacache_hits_total",
    "counter",
    {**_TABLE, "op": OPS, "tier": TIERS},
    "reads",
    "Reads answered from the cache.",
    "a read's decision is `hit`",
)
MISSES = Metric(
    "sqlacache_misses_total",
    "counter",
    {**_TABLE, "op": OPS, "reason": MISS_REASONS},
    "reads",
    "Reads looked up and not found usable, by the reason why.",
    "a read's decision is `miss`",
)
BYPASSES = Metric(
    "sqlacache_bypasses_total",
    "counter",
    {**_CACHE, "reason": BYPASS_REASONS},
    "reads",
    "Reads that went to the database without the cache being asked, or being trusted.",
    "a read's decision is `bypass`",
)
FILLS = Metric(
    "sqlacache_fills_total",
    "counter",
    {**_CACHE, "outcome": FILL_OUTCOMES},
    "fills",
    "What became of the rows that misses loaded.",
    "a miss has loaded its rows",
)
EVICTIONS = Metric(
    "sqlacache_evictions_total",
    "counter",
    {**_TABLE, "cause": EVICTION_CAUSES},
    "stamps (entries for `size` and `resync`)",
    "Existing stamps replaced by a write or a call, or local entries dropped without one.",
    "a commit or a call is done (by the stamps it replaced), or entries are dropped",
)
BUMPS = Metric(
    "sqlacache_table_version_bumps_total",
    "counter",
    {**_TABLE, "cause": EVICTION_CAUSES},
    "commits or calls",
    "Commits or calls that replaced a table's stamp or all of a shape.",
    "a commit or a call has replaced a table's stamp or a whole shape's, once per table",
)
LOOKUP_SECONDS = Metric(
    "sqlacache_lookup_duration_seconds",
    "histogram",
    {**_CACHE, "decision": DECISIONS},
    "seconds",
    "Time to decide a read, without the load.",
    "a read is decided",
    _FAST,
)
LOAD_SECONDS = Metric(
    "sqlacache_load_duration_seconds",
    "histogram",
    _TABLE,
    "seconds",
    "Time that the database took to answer a miss.",
    "a miss has loaded its rows",
    _LOAD,
)
SAVED_SECONDS = Metric(
    "sqlacache_saved_seconds_total",
    "counter",
    _TABLE,
    "seconds",
    "Time saved by hits: what the entry's load took less what the lookup took, where that is positive.",
    "a hit was faster than the load that filled its entry",
)
INVALIDATION_SECONDS = Metric(
    "sqlacache_invalidation_duration_seconds",
    "histogram",
    {**_CACHE, "phase": PHASES},
    "seconds",
    "Time of an invalidation's phases: marking stamps before COMMIT, the COMMIT, replacing them after it.",
    "a commit or a call is done, once for each phase it had",
    _COMMIT,
)
INVALIDATION_LAG = Metric(
    "sqlacache_invalidation_lag_seconds",
    "histogram",
    _CACHE,
    "seconds",
    "Time from a commit's announcement by another process to its arrival here, by both clocks.",
    "the announcement of a commit of another process arrives (a large one, and one in a cluster, has several)",
    _LAG,
)
ENTRIES = Metric(
    "sqlacache_entries",
    "gauge",
    _CACHE,
    "entries",
    "Entries in this process's memory: those of mem://, or of the local tier.",
    "it has changed: at a fill, a hit that brought an entry here, or a call",
)
BYTES = Metric(
    "sqlacache_bytes",
    "gauge",
    _CACHE,
    "bytes",
    "Memory that they take of this process, with stamps and keys, as `max_bytes` counts it.",
    "as `sqlacache_entries`",
)
OWED = Metric(
    "sqlacache_owed_invalidations",
    "gauge",
    _CACHE,
    "invalidations",
    "Invalidations that the backend could not be told of yet.",
    "a commit could not be announced, and when what is owed is delivered",
)
BACKEND_ERRORS = Metric(
    "sqlacache_backend_errors_total",
    "counter",
    {**_CACHE, "operation": None, "error": None},
    "errors",
    "Errors of the backend, by command and class of the exception.",
    "a command fails; not while the breaker is open, when none is sent but probes",
)
OBSERVER_ERRORS = Metric(
    "sqlacache_observer_errors_total",
    "counter",
    {"observer": None},
    "errors",
    "Exceptions raised by observers and `on_evict` hooks, by the observer's class.",
    "an observer or a hook raises",
)
VERIFICATIONS = Metric(
    "sqlacache_verifications_total",
    "counter",
    {"cache": None, "outcome": VERIFICATION_OUTCOMES},
    "hits",
    "Hits compared with the database: `match`, `mismatch` (a stale entry) or `raced` (a write came in between).",
    "a read in mode `shadow`, or one of the fraction `verify`, has been loaded as well",
)
LABEL_OVERFLOW = Metric(
    "sqlacache_label_overflow_total",
    "counter",
    {"label": BOUNDED},
    "records",
    "Records counted under _other because a label has as many values as it may have.",
    "a decision, an invalidation's table, a drop or an error finds no free value of the label",
)
BUILD_INFO = Metric(
    "sqlacache_build_info",
    "gauge",
    {"version": None, "sqlalchemy": None, "mode": MODES},
    "1",
    "Versions of sqlacache and SQLAlchemy, and the mode the cache was configured with; always 1.",
    "a cache is configured",
)

METRICS = (
    HITS,
    MISSES,
    BYPASSES,
    FILLS,
    EVICTIONS,
    BUMPS,
    LOOKUP_SECONDS,
    LOAD_SECONDS,
    SAVED_SECONDS,
    INVALIDATION_SECONDS,
    INVALIDATION_LAG,
    ENTRIES,
    BYTES,
    OWED,
    BACKEND_ERRORS,
    OBSERVER_ERRORS,
    VERIFICATIONS,
    LABEL_OVERFLOW,
    BUILD_INFO,
)

RELATIONS = (
    "lookups = `sqlacache_hits_total` + `sqlacache_misses_total`",
    "reads = lookups + `sqlacache_bypasses_total`",
    "`sqlacache_lookup_duration_seconds_count` by `decision` = hits, misses, bypasses",
    "`sqlacache_load_duration_seconds_count` = misses that came back from the database",
    "`sqlacache_fills_total` = misses that came back from the database with rows to offer",
    "SELECTs that sessions send to the database = misses + bypasses (beside locking ones, by which the cache reads old "
    "rows back)",
    "`sqlacache_table_version_bumps_total` <= tables changed by commits and calls",
    "`sqlacache_invalidation_lag_seconds_count` = `sqlacache.receive` spans, where all of them are sampled",
)
"""What the totals have to do with each other, within one cache."""

LOOKUP = Span(
    "sqlacache.lookup",
    "{summary}",
    "when the read began; a hit's and a bypass's span is made afterwards with that time",
    "when the read is decided; a miss's span is current around the load, and ends there if the load raised",
    "a miss caused by a write: the span that committed the write",
)
INVALIDATE = Span(
    "sqlacache.invalidate",
    "{table|multiple}",
    "before phase one, so that stamps carry it; never current",
    "after phase two",
    "none",
)
RECEIVE = Span(
    "sqlacache.receive",
    "{table|multiple}",
    "when the announcement of a commit of another process arrives; always a root",
    "at once",
    "the span that committed the write, in the other process",
)
SPANS = (LOOKUP, INVALIDATE, RECEIVE)

_ALL = (LOOKUP, INVALIDATE, RECEIVE)
_BOTH = (LOOKUP, INVALIDATE)
_READ = (LOOKUP,)
_WRITE = (INVALIDATE,)
_WRITTEN = (INVALIDATE, RECEIVE)
_HEARD = (RECEIVE,)

CACHE = Attribute("sqlacache.cache", "string", _ALL, "name of the cache")
OP = Attribute("sqlacache.op", "string", _READ, "`get`, `fetch`, `count` or `exists`")
DECISION = Attribute("sqlacache.decision", "string", _READ, "`hit`, `miss` or `bypass`")
REASON = Attribute("sqlacache.reason", "string", _READ, "why not a hit")
TIER = Attribute("sqlacache.tier", "string", _READ, "where a hit came from: `local`, `remote` or `collapsed`")
KEY = Attribute("sqlacache.key", "string", _READ, "name of the entry")
FILL = Attribute("sqlacache.fill", "string", _READ, "what became of a miss's rows")
AGE = Attribute("sqlacache.age_s", "double", _READ, "seconds since the entry that was hit was stored")
SIZE = Attribute("sqlacache.size", "int", _READ, "bytes of the entry hit or stored, in encoded form")
TAGS = Attribute("sqlacache.tags", "string[]", _BOTH, "what was read or touched; the first 16")
CAUSE_KIND = Attribute("sqlacache.cause.kind", "string", _READ, "eviction cause of the write behind the miss")
CAUSE_TABLE = Attribute("sqlacache.cause.table", "string", _READ, "table it wrote")
CAUSE_KEYS = Attribute("sqlacache.cause.keys", "string[]", _READ, "rows it wrote, as tags; the first 16")
CAUSE_COLUMNS = Attribute("sqlacache.cause.columns", "string[]", _READ, "columns it wrote; the first 16")
CAUSE_STATEMENT = Attribute("sqlacache.cause.statement", "string", _READ, "its summary: `UPDATE users`")
CAUSE_AT = Attribute("sqlacache.cause.at", "string", _READ, "when it replaced the stamp: ISO 8601, UTC")
CAUSE_PID = Attribute("sqlacache.cause.pid", "int", _READ, "process that wrote")
CAUSE_HOST = Attribute("sqlacache.cause.host", "string", _READ, "host that wrote")
CAUSE_TRACE = Attribute("sqlacache.cause.traceparent", "string", _READ, "`traceparent` of its span")
TABLES = Attribute("sqlacache.tables", "string[]", _WRITTEN, "tables touched; the first 16")
CHANGE_SCOPE = Attribute("sqlacache.scope", "string", _WRITE, "the widest of `rows`, `conditions`, `table`")
ROWS = Attribute("sqlacache.rows", "int", _WRITE, "rows written, as far as they are known one by one")
TAGS_TOTAL = Attribute("sqlacache.tags_total", "int", _WRITE, "how many tags were touched in all")
CAUSES = Attribute("sqlacache.causes", "string[]", _WRITTEN, "eviction causes of the tables touched")
EVICTED = Attribute("sqlacache.evicted", "int", _WRITE, "existing stamps replaced")
BUMPED = Attribute("sqlacache.bumped", "boolean", _WRITE, "whether any change was a table version bump")
OUTCOME = Attribute("sqlacache.outcome", "string", _WRITE, "`applied`, `refused` (by the database) or `none`")
PHASE_ONE = Attribute("sqlacache.phase_one_s", "double", _WRITE, "seconds to mark the stamps before COMMIT")
COMMIT = Attribute("sqlacache.commit_s", "double", _WRITE, "seconds that COMMIT took")
PHASE_TWO = Attribute("sqlacache.phase_two_s", "double", _WRITE, "seconds to replace the stamps after COMMIT")
ORIGIN = Attribute(
    "sqlacache.origin", "string", _HEARD, "the cache that committed: random, for all it announces"
)
LAG = Attribute(
    "sqlacache.lag_s", "double", _HEARD, "seconds between announcement and arrival, by both clocks"
)
DB_SUMMARY = Attribute("db.query.summary", "string", _BOTH, "operation and tables: `SELECT users orders`")
DB_TEXT = Attribute(
    "db.query.text", "string", _READ, "the SQL, with placeholders for values; only with `query_text=True`"
)
DB_COLLECTION = Attribute("db.collection.name", "string", _ALL, "the table, if there is exactly one")
ERROR_TYPE = Attribute("error.type", "string", _READ, "class of what the load raised")
CODE_FILE = Attribute("code.file.path", "string", _BOTH, "the application's file; only with `debug=True`")
CODE_LINE = Attribute("code.line.number", "int", _BOTH, "its line that read, or wrote first")
CODE_FUNCTION = Attribute("code.function.name", "string", _BOTH, "the function which that line is in")

ATTRIBUTES = (
    CACHE,
    OP,
    DECISION,
    REASON,
    TIER,
    KEY,
    FILL,
    AGE,
    SIZE,
    TAGS,
    CAUSE_KIND,
    CAUSE_TABLE,
    CAUSE_KEYS,
    CAUSE_COLUMNS,
    CAUSE_STATEMENT,
    CAUSE_AT,
    CAUSE_PID,
    CAUSE_HOST,
    CAUSE_TRACE,
    TABLES,
    CHANGE_SCOPE,
    ROWS,
    TAGS_TOTAL,
    CAUSES,
    EVICTED,
    BUMPED,
    OUTCOME,
    PHASE_ONE,
    COMMIT,
    PHASE_TWO,
    ORIGIN,
    LAG,
    DB_SUMMARY,
    DB_TEXT,
    DB_COLLECTION,
    ERROR_TYPE,
    CODE_FILE,
    CODE_LINE,
    CODE_FUNCTION,
)


def markdown() -> str:
    """Return all of this module as the Markdown tables that ``telemetry/README.md`` contains."""
    lines = ["| metric | kind | labels | unit | counts when | meaning |", "|---|---|---|---|---|---|"]
    for metric in METRICS:
        labels = " ".join(f"`{label}`" for label in metric.labels)
        cells = (f"`{metric.name}`", metric.kind, labels, metric.unit, metric.counts_when, metric.help)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| span | starts | ends | links |", "|---|---|---|---|"]
    for span in SPANS:
        about = span.about.replace("|", "\\|")
        lines.append(f"| `{span.name}` {about} | {span.starts} | {span.ends} | {span.links} |")
    lines += ["", "| attribute | type | on | meaning |", "|---|---|---|---|"]
    for attribute in ATTRIBUTES:
        on = ", ".join(span.name.removeprefix("sqlacache.") for span in attribute.spans)
        lines.append(f"| `{attribute.name}` | {attribute.type} | {on} | {attribute.meaning} |")
    lines += ["", *(f"- {relation}" for relation in RELATIONS)]
    return "\n".join(lines)
