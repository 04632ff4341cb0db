"""The closed vocabulary of what the cache decides, and the records that carry it.

Every read ends in one :class:`Decision`, every commit (or explicit call) that touches the cache in one
:class:`Invalidation`. Dashboards, alerts and tests rely on these words; anything else is a defect. The words are
plain strings (``typing.Literal``), so that they are usable as metric labels without conversion, and
:data:`MISS_REASONS` and its siblings list them at run time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

Op = Literal["get", "fetch", "count", "exists"]
DecisionKind = Literal["hit", "miss", "bypass"]
Tier = Literal["local", "remote", "collapsed"]
MissReason = Literal[
    "absent",
    "expired",
    "row_invalidated",
    "condition_invalidated",
    "table_invalidated",
    "manual_invalidated",
    "write_in_flight",
    "generation_changed",
    "capacity_evicted",
    "backend_evicted",
    "corrupt",
    "unknown",
]
BypassReason = Literal[
    "disabled",
    "not_configured",
    "opted_out",
    "locking_read",
    "raw_sql",
    "untracked_source",
    "nondeterministic",
    "connection_state",
    "dirty_transaction",
    "isolation",
    "streaming",
    "refresh",
    "unkeyable_params",
    "rewritten",
    "writer_under_way",
    "protocol_mismatch",
    "backend_unavailable",
]
FillOutcome = Literal["stored", "fenced", "too_large", "unserializable", "not_selected", "backend_error"]
EvictionCause = Literal[
    "row_insert",
    "row_update",
    "row_delete",
    "bulk_write",
    "raw_write",
    "cascade",
    "trigger",
    "touched",
    "explicit",
    "flush",
    "size",
    "resync",
]
Scope = Literal["rows", "conditions", "table"]
Mode = Literal["on", "shadow", "write_only", "off"]
VerificationOutcome = Literal["match", "mismatch", "raced"]

OPS: tuple[Op, ...] = get_args(Op)
DECISIONS: tuple[DecisionKind, ...] = get_args(DecisionKind)
TIERS: tuple[Tier, ...] = get_args(Tier)
MISS_REASONS: tuple[MissReason, ...] = get_args(MissReason)
BYPASS_REASONS: tuple[BypassReason, ...] = get_args(BypassReason)
FILL_OUTCOMES: tuple[FillOutcome, ...] = get_args(FillOutcome)
EVICTION_CAUSES: tuple[EvictionCause, ...] = get_args(EvictionCause)
SCOPES: tuple[Scope, ...] = get_args(Scope)
MODES: tuple[Mode, ...] = get_args(Mode)
FLEET_MODES: tuple[Mode, ...] = ("on", "write_only", "off")
"""Modes that all processes can be switched to at once."""
VERIFICATION_OUTCOMES: tuple[VerificationOutcome, ...] = get_args(VerificationOutcome)


class CallSite(NamedTuple):
    """A line of the application, as ``debug=True`` has it."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


Parameters = Mapping[str, str]
"""Of a statement, as ``debug=True`` has them: bind names to values, or to their types where values stay hidden."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The write that replaced a stamp: what a miss names when it is asked why."""

    cause: EvictionCause
    table: str
    keys: tuple[str, ...] = ()
    """Tags of the rows written, such as ``users:42``; bounded, empty when the write was not by row."""
    columns: tuple[str, ...] | None = None
    """Columns written, sorted; ``None`` when the whole row was (insert, delete) or when it is not known."""
    statement: str = ""
    """Summary of the statement, such as ``UPDATE users``; never values."""
    at: float = 0.0
    """When the stamp was replaced: seconds since the epoch."""
    pid: int = 0
    host: str = ""
    traceparent: str | None = None
    """W3C ``traceparent`` of the span that committed the write, when there was one."""
    site: CallSite | None = field(default=None, compare=False)
    """With ``debug=True``, and in the process that wrote: where the statement was executed or flushed."""
    parameters: Parameters | None = field(default=None, compare=False)
    """With ``debug=True``, and in the process that wrote: the statement's, of its first row."""


class StampChange(NamedTuple):
    """A stamp that no longer is what an entry was filled under: ``v7 -> v8``."""

    stamp: str
    was: int
    now: int | None
    """``None`` when the stamp is gone (evicted or expired)."""


class Decision(NamedTuple):
    """What was decided for one read, and why. Times are seconds; ``size`` is bytes of the encoded rows."""

    cache: str
    op: Op
    decision: DecisionKind
    reason: MissReason | BypassReason | None
    """``None`` exactly when ``decision`` is ``hit``."""
    tier: Tier | None
    """Where a hit came from; ``None`` for a miss or a bypass."""
    database: str
    tables: tuple[str, ...]
    """Every table the statement depends on, the statement's first table first; empty when it was not analysed."""
    key: str | None
    """Name of the entry; ``None`` for a bypass decided before a key was made."""
    tags: tuple[str, ...]
    """What the read depends on, such as ``users:42`` or ``users?active=true``."""
    fill: FillOutcome | None
    """What became of a miss's rows; ``None`` for hits and bypasses."""
    age: float | None
    """Seconds since the entry that was hit was stored."""
    size: int | None
    """Bytes of the entry hit or stored."""
    rows: int | None
    """Rows returned by the driver or replayed."""
    changed: tuple[StampChange, ...]
    """For a miss: the stamps that had changed since the entry was filled."""
    cause: Cause | None
    """For a miss caused by a write: that write."""
    at: float
    """When the read began: seconds since the epoch."""
    lookup_seconds: float
    load_seconds: float | None
    """How long the database took: of this miss's load or, for a hit, of the load that filled the entry."""
    sql: str | None = None
    """The statement as SQLAlchemy rendered it, with placeholders for its values; ``None`` when it was not analysed."""
    site: CallSite | None = None
    """With ``debug=True``: where the statement was executed."""
    parameters: Parameters | None = None
    """With ``debug=True``: the statement's."""

    @property
    def table(self) -> str:
        """The statement's first table, the one metrics are labelled with; empty when it was not analysed."""
        return self.tables[0] if self.tables else ""

    @property
    def summary(self) -> str:
        """Operation and tables, such as ``SELECT users orders``, as OpenTelemetry's ``db.query.summary``."""
        return " ".join(("SELECT", *self.tables))


@dataclass(frozen=True)
class TableChange:
    """What one commit (or call) did to the stamps of one table."""

    table: str
    cause: EvictionCause
    scope: Scope
    """``rows``: by key or by known conditions; ``conditions``: whole shapes; ``table``: everything on the table."""
    rows: int
    """Rows written as far as they are known one by one; 0 for a table-wide change."""
    tags: tuple[str, ...]
    """Tags touched, bounded to the first few."""
    tags_total: int
    columns: tuple[str, ...] | None
    evicted: int
    """Existing stamps replaced: the unit of an eviction."""
    bumped: bool
    """The change replaced the table's stamp or all of a shape: a table version bump."""
    site: CallSite | None = None
    """With ``debug=True``: where the statement was executed or flushed."""
    parameters: Parameters | None = None
    """With ``debug=True``: the statement's, of its first row."""


@dataclass(frozen=True)
class Invalidation:
    """One commit or one call that changed what may be served. Times are seconds."""

    cache: str
    database: str
    changes: tuple[TableChange, ...]
    statement: str
    at: float
    pid: int
    host: str
    traceparent: str | None
    phase_one_seconds: float | None
    """Time to mark the touched stamps before COMMIT; ``None`` for a call outside a transaction."""
    commit_seconds: float | None
    phase_two_seconds: float
    committed: bool = True
    """``False`` when phase one ran and the database then refused the COMMIT for certain."""

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables touched."""
        return tuple(dict.fromkeys(change.table for change in self.changes))


@dataclass(frozen=True)
class Received:
    """A commit of another process, as it was announced to this one. Times are seconds."""

    cache: str
    database: str
    origin: str
    """The process that committed: random, the same for all that it announces."""
    tables: tuple[str, ...]
    causes: tuple[Cause, ...]
    """Of each table that was written."""
    at: float
    """When it was announced, by the sender's clock: seconds since the epoch."""
    lag: float
    """Between then and its arrival, by both clocks."""
    evictions: tuple[Eviction, ...] = ()
    """One for each table that was written."""


@dataclass(frozen=True)
class Eviction:
    """A commit or call, here or elsewhere, that evicted what depends on one table: what ``on_evict`` hooks are told."""

    cache: str
    database: str
    table: str
    """``*`` for everything (``invalidate_all()``, a write that could not be understood)."""
    cause: Cause
    """The write: which, when, and by which process."""
    tags: tuple[str, ...]
    """Stamps replaced, bounded to the first few."""
    scope: Scope
    """``rows``: by key or by known conditions; ``conditions``: whole shapes; ``table``: everything on the table."""
    elsewhere: bool
    """Whether it was announced by another process (or by another cache of this one)."""
    lag: float | None
    """Seconds between the announcement and its arrival, by both clocks; ``None`` for what happened here."""


@dataclass(frozen=True)
class Verification:
    """A hit that was compared with the database (``mode="shadow"``, ``verify=``). Times are seconds since the epoch."""

    cache: str
    database: str
    tables: tuple[str, ...]
    key: str
    tags: tuple[str, ...]
    outcome: VerificationOutcome
    """``match``; ``mismatch``: a stale entry would have been served; ``raced``: they differ, but a write of what the
    read depends on came in between (or the backend could no longer say)."""
    cached_rows: int
    database_rows: int
    stored_at: float
    at: float
    """When the read began."""


@dataclass(frozen=True)
class Drop:
    """Entries that left this process's memory without a write: ``size`` or ``resync``."""

    cache: str
    table: str
    cause: EvictionCause
    entries: int


@dataclass(frozen=True)
class Load:
    """A miss about to be loaded from the database (handed to :meth:`Observer.load_started`)."""

    cache: str
    op: Op
    reason: MissReason
    database: str
    tables: tuple[str, ...]
    key: str
    tags: tuple[str, ...]
    changed: tuple[StampChange, ...]
    cause: Cause | None
    at: float
    sql: str | None = None
    """The statement as SQLAlchemy rendered it, with placeholders for its values."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Free for observers to leave things in between ``load_started`` and ``decided``.

    What an observer leaves as ``traceparent``, the W3C form of the span that it made of the load, is stored with the
    entry, so that an explanation can name the trace that the entry came from."""
