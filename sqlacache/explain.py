"""Why: what the cache would do with a read, without doing it.

An explanation runs the first steps of the way of a read (what is it, may it be cached, what does the store have) and
stops before anything is loaded, flushed, stored or counted. :mod:`.explanation` has the words for what it finds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.orm import Session, object_mapper
from sqlalchemy.sql.expression import TextClause

from .backend import masked
from .decisions import OPS, BypassReason, Cause, Decision
from .errors import CacheError, TransportError
from .events import binding_of
from .explanation import Explanation, KeyParts, StampState, moment
from .history import History, Past
from .read.path import Explained
from .read.replay import Rewritten
from .read.statement import selects
from .reasons import BYPASSES, MISSES
from .store.stamps import Entry, Sample, Verdict, decide
from .tags import EVERYTHING, is_key, table_stamp

if TYPE_CHECKING:
    from .binding import Binding
    from .read.identify import Read

__all__ = ["Explanation", "explain", "explain_get", "explain_key"]


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
        return _of_read(session, explained)
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
    return _bypass("not_configured", f"no cache is bound to {masked(str(bind.engine.url))}")


def _pending(session: Any, read: Read) -> str:
    """Name what a real read would flush first, to read then what its own transaction has written."""
    assert read.plan is not None  # it may be looked up
    tables = set(read.plan.tables)
    if session.autoflush:
        for pending in (
            *session.new,
            *session.deleted,
            *(o for o in session.dirty if session.is_modified(o)),
        ):
            if not tables.isdisjoint(table.fullname for table in object_mapper(pending).tables):
                return type(pending).__name__
    return ""


def _of_read(session: Session, asked: Explained) -> Explanation:
    """Explain a read of which it is known what it is and whether it may be looked up."""
    binding, read = asked.binding, asked.read
    plan, debug, history = read.plan, binding.debug, binding.manager.history
    told = Explanation(
        "bypass",
        read.reason,
        read.why,
        op=plan.op if plan is not None else None,
        key=read.key,
        tables=plan.tables if plan is not None else (),
        dependencies=read.tags(),
        parameters=debug.parameters(read.parameters) if debug is not None and read.key is not None else None,
    )
    if read.key is None or plan is None:
        return _finished(told)
    dialect = binding.engine.dialect
    parts = _parts(read.key)._replace(
        database=binding.database,
        dialect=f"{dialect.name}+{dialect.driver}",
        sql=plan.sql,
        values=tuple(plan.order),
        varies=binding.settings.vary is not None,
    )
    told = _remembered(replace(told, parts=parts), history)
    if read.reason is not None:
        return _finished(told)
    pending = _pending(session, read)
    if pending:
        detail = f"the session would first flush its {pending}"
        return _finished(replace(told, reason="dirty_transaction", detail=detail))
    if binding.owed.meets(plan.tables):
        detail = "an invalidation of these tables is owed"
        return _finished(replace(told, reason="backend_unavailable", detail=detail))
    try:
        sample = binding.store.peek(read.key, read.names)
    except TransportError as error:
        return _finished(replace(told, reason="backend_unavailable", detail=str(error)))
    if sample.bypass is not None:
        return _finished(replace(told, reason=sample.bypass, detail=sample.why))
    verdict = decide(read.names, read.keys, sample)
    if asked.refresh and verdict.entry is not None:
        verdict = Verdict(None, "manual_invalidated", (), None, True)
    told = _found(told, binding, read.names, sample, verdict, history)
    if told.decision == "hit" and binding.manager.mode == "shadow":
        detail = "in mode shadow, what would have been a hit is compared with the database and not served"
        return _finished(replace(told, decision="bypass", reason="disabled", detail=detail))
    if None in sample.stamps and verdict.reason == "absent":
        writers = "whether a writer of its tables is between its two phases; if so, the read bypasses"
        told = replace(told, unknown=(*told.unknown, f"{writers} (writer_under_way)"))
    return told


def _bypass(reason: BypassReason, detail: str) -> Explanation:
    return _finished(Explanation("bypass", reason, detail))


def _finished(told: Explanation) -> Explanation:
    """Return a bypass with what would end it."""
    words = BYPASSES.get(told.reason)  # type: ignore[arg-type]  # a bypass has a bypass reason
    return replace(told, advice=words.hit_if if words is not None else "")


def explain_key(binding: Binding, key: str, history: History | None) -> Explanation | None:
    """Explain what a read of the entry ``key`` would find now; ``None`` if nothing is stored or known of it.

    Raises :class:`~sqlacache.errors.TransportError` when the backend does not answer, and
    :class:`~sqlacache.errors.CacheError` for what is no key of an entry.
    """
    parts = _parts(key)
    store = binding.store
    sample = store.peek(key, (EVERYTHING, table_stamp(parts.table)))
    told = Explanation("bypass", sample.bypass, sample.why, parts.op, key, (parts.table,), parts=parts)
    if sample.bypass is not None:
        return _finished(told)
    told = _remembered(told, history)
    if sample.entry is None:
        decisions = history.of(key).decisions if history is not None else ()
        if sample.gone is None and not decisions:
            return None
        told = replace(told, dependencies=decisions[-1].tags if decisions else ())
        return _found(
            told, binding, (), sample, Verdict(None, sample.gone or "absent", (), None, False), history
        )
    names = [name for name, _, _ in sample.entry.stamps]
    told = replace(told, dependencies=tuple(name for name in names if name != EVERYTHING and "#" not in name))
    sample = store.peek(key, names)
    if sample.bypass is not None:  # since a moment ago
        return _finished(replace(told, reason=sample.bypass, detail=sample.why))
    verdict = decide(names, frozenset(filter(is_key, names)), sample)
    return _found(told, binding, names, sample, verdict, history)


def _parts(key: str) -> KeyParts:
    table, op, digest = ("", "", "", *key.rsplit(":", 2))[-3:]
    if op not in OPS or not table:
        raise CacheError(
            f"explain_key: takes an entry's key such as 'users:get:0123...' (table, operation, digest), got {key!r}"
        )
    return KeyParts(table, op, digest)


def _found(
    told: Explanation,
    binding: Binding,
    names: Sequence[str],
    sample: Sample,
    verdict: Verdict,
    history: History | None,
) -> Explanation:
    """Return an explanation completed with what the store has, what that means, and what is remembered."""
    told = replace(
        told,
        decision="hit" if verdict.entry is not None else "miss",
        reason=verdict.reason,
        detail="",
        changed=verdict.changed,
        cause=_completed(verdict.cause, history),
        advice=_advice(verdict),
        stamps=_states(names, sample),
        unknown=tuple(_unknown(binding, verdict)),
    )
    if told.cause is not None and told.cause.site is None and getattr(binding, "debug", None) is not None:
        told = replace(
            told, unknown=(*told.unknown, f"which line wrote it: at most process {told.cause.pid} knows")
        )
    return told if sample.entry is None else _with_entry(told, sample.entry, history)


def _remembered(told: Explanation, history: History | None) -> Explanation:
    """Return an explanation completed with what this process remembers of earlier reads."""
    if history is None or told.key is None:
        return replace(told, past=_said(None))
    past = history.of(told.key)
    told = replace(told, past=_said(past), complete=past.complete)
    if not past.decisions:
        return told
    last = past.decisions[-1]
    return replace(told, site=last.site, parameters=told.parameters or last.parameters)


def _with_entry(told: Explanation, entry: Entry, history: History | None) -> Explanation:
    now = time.time()
    told = replace(
        told,
        age=now - entry.stored_at,
        expires_in=entry.expires_at - now,
        rows=entry.count,
        load_seconds=entry.load_seconds,
        size=entry.size,
        stored_at=entry.stored_at,
        stored_by=entry.trace,
    )
    if history is None or told.key is None:
        return told
    hits = [one for one in history.of(told.key).decisions if one.decision == "hit" and _is_of(one, entry)]
    if not hits:
        return replace(told, hits=0)
    took = sum(one.lookup_seconds for one in hits)
    saved = len(hits) * entry.load_seconds - took
    return replace(told, hits=len(hits), hit_seconds=took / len(hits), saved_seconds=saved)


def _is_of(hit: Decision, entry: Entry) -> bool:
    """Tell whether it was this entry that was hit, and not one that was stored under its key before."""
    return hit.age is not None and abs(hit.at - hit.age - entry.stored_at) < 1e-3


def _completed(cause: Cause | None, history: History | None) -> Cause | None:
    return cause if cause is None or cause.site is not None or history is None else history.completed(cause)


def _states(names: Sequence[str], sample: Sample) -> tuple[StampState, ...]:
    filled = {name: version for name, version, _ in sample.entry.stamps} if sample.entry is not None else {}
    return tuple(
        StampState(
            name,
            filled.get(name),
            stamp.version if stamp is not None else None,
            stamp is not None and stamp.in_flight,
        )
        for name, stamp in zip(names, sample.stamps)
    )


def _advice(verdict: Verdict) -> str:
    words = MISSES.get(verdict.reason)  # type: ignore[arg-type]  # None for a hit
    changed = ", ".join(change.stamp for change in verdict.changed)
    return "" if words is None else words.hit_if.format(changed=changed)


def _unknown(binding: Binding, verdict: Verdict) -> list[str]:
    """Say what the decision leaves open."""
    open_ = []
    if verdict.changed and verdict.cause is None:
        open_.append("which write it was: what is stored of the stamps names none")
    if verdict.reason == "absent" and binding.store.tier == "remote":
        open_.append(
            "whether another process had stored it: what expires or is evicted in the backend leaves no trace there"
        )
    return open_


def _said(past: Past | None) -> str:
    if past is None:
        return "this process keeps no history"
    all_of_it = "complete" if past.complete else "older decisions are forgotten"
    counted = Counter(one.decision + (f" ({one.reason})" if one.reason else "") for one in past.decisions)
    reads = ", ".join(f"{count} {what}" for what, count in counted.items()) or "no read of it"
    last = f"; the last {time.time() - past.decisions[-1].at:.1f} s ago" if past.decisions else ""
    return f"{reads} by this process since {moment(past.since)}{last} ({all_of_it})"
