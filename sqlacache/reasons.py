"""What each reason means, and what would have made the read a hit: the words that explanations are made of.

The tables are closed: every reason of :mod:`sqlacache.decisions` has its words here, and a test says so.
"""

from __future__ import annotations

from typing import NamedTuple

from .decisions import BypassReason, MissReason


class Words(NamedTuple):
    """What is said of a reason."""

    means: str
    """Continues "The read misses, because ..." or "The read goes past the cache, because ...", also on its own."""
    hit_if: str
    """Continues "It would be a hit, if ..."; ``{changed}`` stands for the stamps that have changed."""


MISSES: dict[MissReason, Words] = {
    "absent": Words("nothing is stored for it yet", "it were read again: the next read stores it"),
    "expired": Words(
        "the entry's time is over",
        "it had been read within its timeout (the model's `timeout`, or `sqlacache_timeout`)",
    ),
    "row_invalidated": Words(
        "a row that it reads by primary key was written", "nobody had written {changed} since it was stored"
    ),
    "condition_invalidated": Words(
        "a row was written that meets or met its conditions, or might",
        "nobody had written {changed} since it was stored",
    ),
    "table_invalidated": Words(
        "a table that it reads was written in a way that could not be narrowed",
        "nobody had written {changed} since it was stored, or the write had been one of rows by primary key or by "
        "conditions that can be understood",
    ),
    "manual_invalidated": Words(
        "it was invalidated by a call",
        "nobody had called invalidate(), touched() or asked for sqlacache_refresh since it was stored",
    ),
    "write_in_flight": Words(
        "a writer of what it reads is between its two phases", "the writer between its two phases were done"
    ),
    "generation_changed": Words(
        "the backend lost its data since: it was restarted, restored, failed over or emptied",
        "the backend had kept its data; the next read stores it anew",
    ),
    "capacity_evicted": Words(
        "the entry had to make room for others",
        "there were more room in this process (`max_bytes`), or fewer and smaller results were cached",
    ),
    "backend_evicted": Words(
        "the store no longer has it, or a stamp of it, so that nobody can say what changed",
        "the backend had kept it: look at its memory and its eviction policy (`maxmemory`, `maxmemory-policy`)",
    ),
    "corrupt": Words(
        "its bytes cannot be read: they are damaged, or were written by something else",
        "its bytes could be read; the next read stores it anew, and if this goes on, look who else writes there",
    ),
    "unknown": Words(
        "why is not known: the entry was stored under other stamps than the read asks for",
        "it were read again: the next read stores it; if this goes on, compare the versions of the processes",
    ),
}

BYPASSES: dict[BypassReason, Words] = {
    "disabled": Words(
        "the cache is switched off (mode, bypassed() or a read outside a greenlet)",
        "the mode were `on` (set_mode(), `SQLACACHE_MODE`, `sqlacache mode`) and the read not inside bypassed()",
    ),
    "not_configured": Words(
        "no model of its tables is configured for this operation",
        "`models` in configure() named the model (or `*`) with this operation among its `ops`, and the engine were "
        "bound; cache.execute() caches without that",
    ),
    "opted_out": Words(
        "a model of its tables is never cached, or the execution asked to skip the cache",
        "no model of it were `None` in `models`, and `sqlacache_skip` were not set",
    ),
    "locking_read": Words(
        "it locks rows (FOR UPDATE)", "it did not lock: take with_for_update() off where no lock is needed"
    ),
    "raw_sql": Words(
        "it contains text that the cache cannot read",
        "it were written with select() and columns in place of text() and literal_column()",
    ),
    "untracked_source": Words(
        "it reads from something that is not a known table",
        "`depends_on` in configure(), or `sqlacache_depends_on`, said which tables the view or function reads",
    ),
    "nondeterministic": Words(
        "it calls a function that is not known to be pure",
        "the function were left to the application, or declared in `functions` because its result depends on nothing "
        "but its arguments",
    ),
    "connection_state": Words(
        "the connection was told to see rows differently (SET)",
        "`vary` in configure() gave what decides which rows a session sees, or the connection were reset",
    ),
    "dirty_transaction": Words(
        "its transaction has written to what it reads",
        "its transaction had ended, or had not written to these tables before it read",
    ),
    "isolation": Words(
        "its transaction's isolation level promises a snapshot that the cache cannot give",
        "it ran at READ COMMITTED (on SQLite: before the transaction's first statement), or `isolation` were `relaxed`",
    ),
    "streaming": Words(
        "its result is streamed", "it were executed without yield_per, stream() and stream_results"
    ),
    "refresh": Words(
        "it asks for the database's state anew", "it were no refresh() and had no populate_existing"
    ),
    "unkeyable_params": Words(
        "its parameters cannot be made part of a key",
        "its parameters, and what `vary` returns, were of types that a key can be made of",
    ),
    "rewritten": Words(
        "a listener changes it after the cache has seen it, or its session chooses a database by itself",
        "the listener were added before bind(), or get_bind() returned the bind that it is given",
    ),
    "writer_under_way": Words(
        "a writer of its tables is between its two phases",
        "it were read again when the writer has committed; writers that hang end with their `lease`",
    ),
    "protocol_mismatch": Words(
        "the stored format belongs to another version",
        "the processes of the other version and the lease of their last writer had ended",
    ),
    "backend_unavailable": Words(
        "the backend cannot be reached, or is owed an invalidation of its tables",
        "the backend answered and what it is owed were delivered: health() says what is amiss",
    ),
}
