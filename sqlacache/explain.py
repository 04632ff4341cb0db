"""Why: what the cache would do with a read, without doing it.

An explanation runs the first steps of the way of a read (what is it, may it be cached, what does the store have) and
stops before anything is loaded, flushed, stored or counted.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.orm import Session, object_mapper
from sqlalchemy.sql.expression import TextClause

from .decisions import OPS, BypassReason, Cause, DecisionKind, MissReason, Op, StampChange
from .errors import CacheError
from .events import binding_of
from .history import History, Past
from .read.path import Explained
from .read.replay import Rewritten
from .read.statement import selects
from .store.stamps import Verdict, decide
from .tags import EVERYTHING, is_key, table_stamp

if TYPE_CHECKING:
    from .binding import Binding

_BYPASSES: dict[BypassReason, str] = {
    "disabled": "the cache is switched off (mode, bypassed() or a read outside a greenlet)",
    "not_configured": "no model of its tables is configured for this operation",
    "opted_out": "a model of its tables is never cached, or the execution asked to skip the cache",
    "locking_read": "it locks rows (FOR UPDATE)",
    "raw_sql": "it contains text that the cache cannot read",
    "untracked_source": "it reads from something that is not a known table",
    "nondeterministic": "it calls a function that is not known to be pure",
    "connection_state": "the connection was told to see rows differently (SET)",
    "dirty_transaction": "its transaction has written to what it reads",
    "isolation": "its transaction's isolation level promises a snapshot that the cache cannot give",
    "streaming": "its result is streamed",
    "refresh": "it asks for the database's state anew",
    "unkeyable_params": "its parameters cannot be made part of a key",
    "rewritten": "a listener changes it after the cache has seen it",
    "writer_under_way": "a writer of its tables is between its two phases",
    "protocol_mismatch": "the stored format belongs to another version",
    "backend_unavailable": "the backend cannot be reached",
}


@dataclass(frozen=True)
class Explanation:
    """What would happen to a read, and why. ``str()`` is written for people, :meth:`to_dict` for machines."""

    decision: DecisionKind
    reason: MissReason | BypassReason | None
    detail: str
    op: Op | None
    key: str | None
    tables: tuple[str, ...]
    dependencies: tuple[str, ...]
    changed: tuple[StampChange, ...]
    cause: Cause | None
    age: float | None
    """Seconds since the entry was stored, for a hit."""
    expires_in: float | None
    """Seconds until the entry expires, for a hit."""
    rows: int | None
    load_seconds: float | None
    """What the database took when the entry was filled."""
    size: int | None = None
    """Bytes of the entry, encoded."""
    advice: str = ""
    """What would make it a hit."""
    past: str = ""
    """What this process remembers of earlier reads of it, and whether that is all there was."""

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain data."""
        return asdict(self) | {"changed": [change._asdict() for change in self.changed]}

    def __str__(self) -> str:
        lines = [
            f"{self.decision.upper()}"
            + (f" ({self.reason})" if self.reason else "")
            + f": {self._sentence()}"
        ]
        if self.key is not None:
            lines.append(f"  entry       {self.key}")
        if self.dependencies:
            lines.append(f"  depends on  {', '.join(self.dependencies)}")
        for change in self.changed:
            now = f"v{change.now}" if change.now is not None else "gone"
            lines.append(f"  changed     {change.stamp}: v{change.was} -> {now}")
        if self.cause is not None:
            lines.append(f"  cause       {_told(self.cause)}")
        if self.age is not None and self.expires_in is not None and self.load_seconds is not None:
            what = "" if self.size is None else f"{self.rows} row(s) in {self.size} bytes "
            lines.append(
                f"  stored      {what}{self.age:.1f} s ago, expires in {self.expires_in:.0f} s; "
                f"the database took {self.load_seconds * 1000:.1f} ms"
            )
        if self.advice:
            lines.append(f"  hit if      {self.advice}")
        if self.past:
            lines.append(f"  before      {self.past}")
        return "\n".join(lines)

    def _sentence(self) -> str:
        if self.decision == "hit":
            return f"{self.rows} row(s) would be served from the cache"
        if self.decision == "bypass":
            sentence = _BYPASSES.get(self.reason, "")  # type: ignore[arg-type]  # a bypass has a bypass reason
            return f"{sentence}: {self.detail}" if self.detail else sentence
        if self.cause is not None:
            return f"the entry is no longer valid since {self.cause.statement or self.cause.cause}"
        return {
            "absent": "nothing is stored for it yet",
            "expired": "the entry's time is over",
            "capacity_evicted": "the entry had to make room for others",
            "write_in_flight": "a writer of what it reads is between its two phases",
            "backend_evicted": "the store no longer has a stamp of it, so that nobody can say what changed",
        }.get(self.reason or "", "why is not known")


def _told(cause: Cause) -> str:
    when = datetime.fromtimestamp(cause.at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    what = cause.statement or cause.cause
    keys = f" of {', '.join(cause.keys)}" if cause.keys else f" on {cause.table}"
    columns = f" ({', '.join(cause.columns)})" if cause.columns else ""
    trace = f", trace {cause.traceparent.split('-')[1]}" if cause.traceparent else ""
    return f"{cause.cause}: {what}{keys}{columns} at {when} UTC by {cause.pid}@{cause.host}{trace}"


def explain(session: Session, statement: Any, parameters: Any = None) -> Explanation:
    """Explain what ``session.execute(statement, parameters)`` would do."""
    return _explain(session, statement, parameters, {}, {})


def explain_get(session: Session, model: type, key: Any) -> Explanation:
    """Explain what ``session.get(model, key)`` would do, if the session does not hold the object already."""
    asked: list[tuple[Any, Any, Any, Any]] = []
    with _Asking(asked, bind=session.get_bind(mapper=model)) as throwaway:
        with suppress(Rewritten):
            throwaway.get(model, key)
    statement, parameters, options, arguments = asked[0]
    return _explain(session, statement, parameters, options, arguments)


class _Asking(Session):
    """Notes the statement that ``get`` would execute, and executes nothing."""

    def __init__(self, asked: list[Any], bind: Any) -> None:
        super().__init__(bind=bind, future=True)
        self._asked = asked

    def execute(self, statement: Any, params: Any = None, **kw: Any) -> Any:
        self._asked.append((statement, params, kw.get("execution_options", {}), kw.get("bind_arguments", {})))
        raise Rewritten("asked")


def _explain(session: Session, statement: Any, parameters: Any, options: Any, arguments: Any) -> Explanation:
    if not selects(statement) and not isinstance(getattr(statement, "element", statement), TextClause):
        # Executing it dry is not possible: SQLAlchemy begins a bulk write before anybody is asked.
        return _bypass("raw_sql", "it is no SELECT; explain() is for reads")
    asked = {**dict(options), "sqlacache_explain": True}
    event.listen(session, "do_orm_execute", _stop)
    try:
        with session.no_autoflush:
            session.execute(
                statement, parameters or {}, execution_options=asked, bind_arguments=dict(arguments or {})
            )
    except Explained as explained:
        return _with_pending(session, explained.outcome) or _told_of(explained.outcome)
    except _Stopped as stopped:
        return _of_nobody(stopped.state)
    finally:
        event.remove(session, "do_orm_execute", _stop)
    raise AssertionError("unreachable: one of the two listeners raises")


class _Stopped(Exception):
    """Ends a dry read that no cache has answered, before SQLAlchemy executes it."""

    def __init__(self, state: Any) -> None:
        super().__init__("stopped")
        self.state = state


def _stop(state: Any) -> None:
    # The session's own listeners come after those of the class: whoever is bound has spoken by now.
    if state.execution_options.get("sqlacache_explain"):
        raise _Stopped(state)


def _of_nobody(state: Any) -> Explanation:
    arguments = {name: value for name, value in state.bind_arguments.items() if name != "_sa_skip_events"}
    bind = state.session.get_bind(**arguments)
    if binding_of(bind.dialect) is not None:
        return _bypass("raw_sql", "the statement is not a read as far as the cache can tell")
    return _bypass("not_configured", f"no cache is bound to {bind.engine.url!r}")


def _with_pending(session: Any, read: Any) -> Explanation | None:
    """Say that a real read would flush first, and then read what its own transaction has written."""
    if read.reason is not None or not session.autoflush:
        return None
    tables = set(read.plan.tables)
    for pending in (*session.new, *session.deleted, *(o for o in session.dirty if session.is_modified(o))):
        if not tables.isdisjoint(table.fullname for table in object_mapper(pending).tables):
            return replace(
                _told_of(read),
                decision="bypass",
                reason="dirty_transaction",
                detail=f"the session would first flush its {type(pending).__name__}",
                changed=(),
                cause=None,
                age=None,
                expires_in=None,
                rows=None,
                load_seconds=None,
            )
    return None


def _bypass(reason: BypassReason, detail: str) -> Explanation:
    return Explanation("bypass", reason, detail, None, None, (), (), (), None, None, None, None, None)


def _told_of(read: Any) -> Explanation:
    plan, verdict = read.plan, read.verdict
    tables = plan.tables if plan is not None else ()
    op = plan.op if plan is not None else None
    if read.reason is not None or verdict is None:
        return Explanation(
            "bypass",
            read.reason,
            read.why,
            op,
            read.key,
            tables,
            read.tags(),
            (),
            None,
            None,
            None,
            None,
            None,
        )
    entry = verdict.entry
    now = time.time()
    return Explanation(
        "hit" if entry is not None else "miss",
        verdict.reason,
        "",
        op,
        read.key,
        tables,
        read.tags(),
        verdict.changed,
        verdict.cause,
        now - entry.stored_at if entry is not None else None,
        entry.expires_at - now if entry is not None else None,
        entry.count if entry is not None else None,
        entry.load_seconds if entry is not None else None,
    )


def explain_key(binding: Binding, key: str, history: History | None) -> Explanation | None:
    """Explain what a read of the entry ``key`` would find now; ``None`` if nothing is stored or known of it.

    Raises :class:`~sqlacache.errors.TransportError` when the backend does not answer, and
    :class:`~sqlacache.errors.CacheError` for what is no key of an entry.
    """
    table, op = _parts(key)
    store = binding.store
    home = (EVERYTHING, table_stamp(table))
    found = store.peek(key, home)
    if found.bypass is not None:
        return replace(_bypass(found.bypass, found.why), op=op, key=key, tables=(table,))
    entry, gone = found.entry, found.gone
    past = history.of(key) if history is not None else None
    if entry is None:
        if gone is None and (past is None or not past.decisions):
            return None
        return Explanation(
            "miss",
            gone or "absent",
            "",
            op,
            key,
            (table,),
            past.decisions[-1].tags if past is not None and past.decisions else (),
            (),
            None,
            None,
            None,
            None,
            None,
            advice="it were read again: the next read stores it",
            past=_said(past),
        )
    names = [name for name, _, _ in entry.stamps]
    verdict = decide(names, frozenset(filter(is_key, names)), store.peek(key, names))
    now = time.time()
    return Explanation(
        "hit" if verdict.entry is not None else "miss",
        verdict.reason,
        "",
        op,
        key,
        (table,),
        tuple(name for name in names if name != EVERYTHING and "#" not in name),
        verdict.changed,
        verdict.cause,
        now - entry.stored_at,
        entry.expires_at - now,
        entry.count,
        entry.load_seconds,
        entry.size,
        "" if verdict.entry is not None else _advice(verdict),
        _said(past),
    )


def _parts(key: str) -> tuple[str, Op]:
    table, _, rest = key.rpartition(":")[0].rpartition(":")
    if rest not in OPS or not table:
        raise CacheError(
            f"explain_key: takes an entry's key such as 'users:get:0123...' (table, operation, digest), got {key!r}"
        )
    return table, rest


def _advice(verdict: Verdict) -> str:
    if verdict.reason == "write_in_flight":
        return "the writer between its two phases were done"
    changed = ", ".join(change.stamp for change in verdict.changed)
    return f"nobody had written {changed} since it was stored" if changed else ""


def _said(past: Past | None) -> str:
    if past is None:
        return "this process keeps no history"
    since = datetime.fromtimestamp(past.since, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    all_of_it = "complete" if past.complete else "older decisions are forgotten"
    counted = Counter(one.decision + (f" ({one.reason})" if one.reason else "") for one in past.decisions)
    reads = ", ".join(f"{count} {what}" for what, count in counted.items()) or "no read of it"
    last = f"; the last {time.time() - past.decisions[-1].at:.1f} s ago" if past.decisions else ""
    return f"{reads} by this process since {since}{last} ({all_of_it})"
