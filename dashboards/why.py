"""The rows that tell whether the cache helps, why it does not, and what evicted a key."""

from __future__ import annotations

from sqlacache_telemetry import names

from .panels import Panel, Query, Row
from .queries import RATE, Chosen, attribute, ratio
from .recording import WRITES

now = Chosen(RATE)

HITS = now.rate(names.HITS)
MISSES = now.rate(names.MISSES)
BYPASSES = now.rate(names.BYPASSES)
LOOKED_UP = (names.HITS, names.MISSES)
LOOKUPS = now.rate_of_all(LOOKED_UP)
HITS_BY_TABLE = now.rate(names.HITS, "table")
MISSES_BY_TABLE = now.rate(names.MISSES, "table")

OVERVIEW = Row(
    "Overview",
    (
        Panel(
            "Hit ratio",
            "percentunit",
            "Hits by lookups (hits and misses). Low: open the row below, which says why not a hit. A fall "
            "after a deploy that changed statements is normal and mends itself; one that stays is a new "
            "query that is read once, or a table that is written too much.",
            (Query(ratio(f"({HITS} or {MISSES} * 0)", LOOKUPS)),),
            kind="stat",
            width=4,
            steps=(("red", None), ("orange", 0.5), ("green", 0.8)),
            most=1,
        ),
        Panel(
            "Lookups per second",
            "reqps",
            "How often the cache is asked. None while the application has traffic: it is not bound, or its "
            "mode is off; see bypasses by reason, and ask the application's health().",
            (Query(LOOKUPS),),
            kind="stat",
            width=5,
        ),
        Panel(
            "Database seconds saved per second",
            "none",
            "How much longer the hits would have taken at the database: 2 is two connections that are not "
            "busy. Near zero with many hits: what is cached is cheap to load, and the cache costs about as "
            "much as it saves; cache fewer models, or only lists.",
            (Query(now.rate(names.SAVED_SECONDS)),),
            kind="stat",
            width=5,
        ),
        Panel(
            "Evictions per second",
            "cps",
            "Stamps that writes replaced, and local entries dropped. High beside a low hit ratio: open the "
            "row Why evicted.",
            (Query(now.rate(names.EVICTIONS)),),
            kind="stat",
            width=5,
        ),
        Panel(
            "Stale reads found",
            "short",
            "Hits that verification (mode shadow, or verify=) found to differ from the database without a "
            "write that explains it, in the time shown. Anything but 0: somebody writes past the cache "
            "(another program, a migration, a trigger that is not declared). The log has a full explanation "
            "of each; then call touched() or invalidate_all(). Without verification this says nothing.",
            (Query(now.increase(names.VERIFICATIONS, over="$__range", outcome="mismatch"), instant=True),),
            kind="stat",
            width=5,
            steps=(("green", None), ("red", 0.5)),
        ),
        Panel(
            "Reads by decision",
            "reqps",
            "All reads: answered from the cache (hit), looked up in vain (miss), or not looked up (bypass; "
            "of all tables, whichever is chosen). Mostly misses: row Why not a hit. Mostly bypasses: the "
            "panel Bypasses by reason.",
            (Query(HITS, "hit"), Query(MISSES, "miss"), Query(BYPASSES, "bypass")),
            width=12,
            stacked=True,
        ),
        Panel(
            "Hits by tier",
            "reqps",
            "Where hits came from: this process (local), the server (remote), or a load that another read "
            "had begun (collapsed). Few local ones with many processes: each has to fill its own; raise "
            "max_bytes if entries are dropped for room (row Capacity).",
            (Query(now.rate(names.HITS, "tier"), "{{tier}}"),),
            width=6,
            stacked=True,
        ),
        Panel(
            "Lookups by operation",
            "reqps",
            "get: by primary key; fetch: rows by any other statement; count and exists. Mostly fetch with "
            "few hits: lists whose conditions differ each time are seldom asked for twice; leave fetch out "
            "of the model's ops.",
            (
                Query(now.rate(names.HITS, "op"), "hit: {{op}}"),
                Query(now.rate(names.MISSES, "op"), "miss: {{op}}"),
            ),
            width=6,
            stacked=True,
        ),
    ),
)

WHY_NOT = Row(
    "Why not a hit",
    (
        Panel(
            "Misses by reason",
            "reqps",
            "absent: never read before, or long ago; expired: lengthen the timeout; *_invalidated: a write, "
            "see Why evicted; write_in_flight: a commit was under way; generation_changed: the server "
            "restarted or failed over; capacity_evicted and backend_evicted: too little memory, see "
            "Capacity; corrupt: somebody else writes under the prefix.",
            (Query(now.rate(names.MISSES, "reason"), "{{reason}}"),),
            width=12,
            stacked=True,
        ),
        Panel(
            "Bypasses by reason",
            "reqps",
            "Reads that did not ask the cache. backend_unavailable: bring the server back; disabled: "
            "somebody switched the mode; not_configured and opted_out: as configured; raw_sql, "
            "nondeterministic, untracked_source: statements that cannot be cached as they are written; "
            "isolation: see the README. Of all tables.",
            (Query(now.rate(names.BYPASSES, "reason"), "{{reason}}"),),
            width=12,
            stacked=True,
        ),
        Panel(
            "Hit ratio by table",
            "percentunit",
            "Tables at the bottom gain the least. One that is written as often as it is read does not "
            "belong in the cache: configure its model as None.",
            (
                Query(
                    ratio(
                        f"({HITS_BY_TABLE} or {MISSES_BY_TABLE} * 0)",
                        now.rate_of_all(LOOKED_UP, "table"),
                    ),
                    "{{table}}",
                ),
            ),
            width=12,
            most=1,
        ),
        Panel(
            "Misses by table",
            "reqps",
            "Which tables the database is asked for. The first one is where to look: its statements, its "
            "timeout, who writes it.",
            (Query(f"topk(10, {MISSES_BY_TABLE})", "{{table}}"),),
            width=6,
        ),
        Panel(
            "Fills by outcome",
            "ops",
            "What became of what misses loaded. fenced: a write came in between (harmless); too_large: "
            "raise max_entry_bytes or read less; unserializable: a type that cannot be stored; "
            "backend_error: the server refuses writes (full with noeviction, read-only, without rights).",
            (Query(now.rate(names.FILLS, "outcome"), "{{outcome}}"),),
            width=6,
            stacked=True,
        ),
    ),
)

_MATCHES = "=~ `.*${key:regex}.*`"
ASKED_FOR = " && ".join(
    (
        f"name =~ `{names.LOOKUP.name}.*`",
        f'{attribute(names.DECISION)} != "hit"',
        f"({attribute(names.KEY)} {_MATCHES} || {attribute(names.CAUSE_TABLE)} {_MATCHES} "
        f"|| {attribute(names.DB_COLLECTION)} {_MATCHES})",
    )
)
SHOWN = (
    names.REASON,
    names.KEY,
    names.CAUSE_KIND,
    names.CAUSE_TABLE,
    names.CAUSE_STATEMENT,
    names.CAUSE_AT,
    names.CAUSE_HOST,
    names.CAUSE_PID,
    names.CAUSE_TRACE,
)
WRITTEN = (names.DB_SUMMARY, names.CHANGE_SCOPE, names.CAUSES, names.ROWS, names.EVICTED, names.OUTCOME)

WHY_EVICTED = Row(
    "Why evicted",
    (
        Panel(
            "Table version bumps by table and cause",
            "ops",
            "Commits and calls that invalidated a whole table, or all of one way of reading it. bulk_write: an "
            "UPDATE or DELETE whose rows are not known, narrow it by primary key or write through the session; "
            "raw_write: SQL as text, use the ORM or Core; trigger: declare it with writes_also=; touched, "
            "explicit: somebody called for it.",
            (Query(now.rate(names.BUMPS, "table", "cause"), "{{table}}: {{cause}}"),),
            stacked=True,
        ),
        Panel(
            "Evictions by cause",
            "cps",
            "Stamps replaced by writes, and local entries dropped (size: max_bytes is too small; resync: "
            "the connection to the server was lost). Many more evictions than writes: many conditions of "
            "the table are read; the trace table below names the write.",
            (Query(now.rate(names.EVICTIONS, "cause"), "{{cause}}"),),
            stacked=True,
        ),
        Panel(
            "Churn: evictions per hit",
            "none",
            "By table. Above 1, more is invalidated than is ever used: the cache costs more than it brings "
            "there. Configure the model as None, or make its writes narrower.",
            (
                Query(
                    ratio(now.rate(names.EVICTIONS, "table", cause=WRITES), HITS_BY_TABLE),
                    "{{table}}",
                ),
            ),
            steps=(("green", None), ("red", 1)),
        ),
        Panel(
            "Misses of a key or table, and the write behind each",
            "string",
            "Type a part of a key, or a table, above: the reads that were no hits, and the write that "
            "caused each, with its trace. Nothing here: no traces of misses arrive (trace=), or the sampler "
            "dropped them; `sqlacache explain KEY` knows as well.",
            (Query(f"{{ {ASKED_FOR} }} | select({', '.join(map(attribute, SHOWN))})"),),
            kind="traces",
            width=12,
        ),
        Panel(
            "Writes of a table",
            "string",
            "Type a table above: the commits that invalidated it, each with its trace and the time it took. "
            "A scope of `table` where you expect `rows` is what to mend first. Commits of several tables "
            "are called `multiple`.",
            (
                Query(
                    f"{{ name =~ `{names.INVALIDATE.name} .*${{key:regex}}.*` }} "
                    f"| select({', '.join(map(attribute, WRITTEN))})"
                ),
            ),
            kind="traces",
            width=12,
        ),
    ),
)
