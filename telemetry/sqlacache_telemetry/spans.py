"""Decisions and invalidations as OpenTelemetry spans. Only the API is needed; without an SDK nothing is made.

**The gate**, asked before anything else is built, in this order:

1. A tracer. One is taken from the provider that was given, or from the global one as soon as it is no longer
   the API's ``ProxyTracerProvider`` (its way of saying that nobody set one); this is looked at anew for each
   decision until then, so that it does not matter whether ``configure()`` or ``set_tracer_provider()`` comes
   first. After the first time, only a variable of the API is looked at: ``get_tracer_provider()`` looks into the
   environment, which takes as long as the rest of a hit's telemetry. A no-op tracer (``NoOpTracerProvider``,
   ``OTEL_SDK_DISABLED=true``) closes the gate for good.
2. ``suppress_instrumentation`` is not in the context (the key that ``opentelemetry.instrumentation.utils``
   sets).
3. The current span records, or is no local one that was dropped: a valid parent without the sampled flag
   closes the gate, because its children would be dropped with it. Without a parent the span is a root and the
   sampler decides. One that says of itself that it drops every root (``always_off``, ``parentbased_always_off``) is
   asked only where other spans may be inside, which are to share its decision: asking takes as long as all the rest.

After the gate a span is started with what a sampler may look at (cache, operation, decision); all other
attributes are built only if it records. Spans are never marked ERROR: a database error is the database
instrumentation's to report.

What other processes announce arrives in a task of its own, which began in ``bind()`` and still has the context of
that moment. Its spans are roots, and of the gate only the tracer counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextvars import Token
from datetime import datetime, timezone
from functools import lru_cache

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NoOpTracer,
    ProxyTracerProvider,
    Span,
    Tracer,
    TracerProvider,
    format_span_id,
    format_trace_id,
    get_current_span,
    get_tracer_provider,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from sqlacache.decisions import SCOPES, CallSite, Cause, Decision, Invalidation, Load, Received
from sqlacache.observers import Observer

from . import names
from .version import library_version

Attributes = dict[str, AttributeValue]

SUPPRESSED = "suppress_instrumentation"
"""Context key by which instrumentations are asked to make no spans."""

_API = vars(trace)
_DROPS_ROOTS = ("AlwaysOffSampler", "ParentBased{root:AlwaysOffSampler,")
"""How the description of a sampler begins that samples no root: the first by OpenTelemetry's specification."""

_LATER = re.compile(r"__\[POSTCOMPILE_\S+?(~~.+?~~)?\]")
"""What SQLAlchemy writes for parameters that it expands when the statement is executed."""

_TRACE_CONTEXT = TraceContextTextMapPropagator()
_CACHE = names.CACHE.name
_OP = names.OP.name
_DECISION = names.DECISION.name
_REASON = names.REASON.name
_TIER = names.TIER.name
_KEY = names.KEY.name
_FILL = names.FILL.name
_AGE = names.AGE.name
_SIZE = names.SIZE.name
_TAGS = names.TAGS.name
_DB_SUMMARY = names.DB_SUMMARY.name
_DB_COLLECTION = names.DB_COLLECTION.name


class LookupScope:
    """A miss's span while its load is under way."""

    __slots__ = ("ended", "span", "token")

    def __init__(self, span: Span, token: Token[Context]) -> None:
        self.span = span
        self.token = token
        self.ended = False


class SpanObserver(Observer):
    """Makes a span of every read, every invalidation and every commit that another process announced.

    With ``only_misses``, of misses and invalidations alone; with ``query_text``, those of reads carry the SQL.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        only_misses: bool = False,
        query_text: bool = False,
    ) -> None:
        self._only_misses = only_misses
        self._query_text = query_text
        self._tracer: Tracer | None = None
        self._settled = self._asked = self._drops_roots = False
        if tracer_provider is not None:
            self._settle(tracer_provider)

    def load_started(self, load: Load) -> LookupScope | None:
        tracer = self._gate()
        if tracer is None:
            return None
        summary, name = _lookup_name(load.tables)
        span = tracer.start_span(
            name,
            attributes={_CACHE: load.cache, _OP: load.op, _DECISION: "miss"},
            links=_links(load.cause),
            start_time=_nanoseconds(load.at),
        )
        if span.is_recording():
            attributes: Attributes = {_REASON: load.reason, _KEY: load.key, _DB_SUMMARY: summary}
            _add_what(attributes, load.tables, load.tags, load.cause)
            if self._query_text and load.sql:
                attributes[names.DB_TEXT.name] = _shown(load.sql)
            span.set_attributes(attributes)
            load.extra["traceparent"] = _traceparent(span)
        # Current even when it does not record: the spans inside must share the sampler's decision.
        return LookupScope(span, otel_context.attach(set_span_in_context(span)))

    def load_finished(self, scope: LookupScope | None, error: BaseException | None) -> None:
        if scope is None:
            return
        otel_context.detach(scope.token)
        if error is not None:
            # A read that raised may never be decided.
            scope.span.set_attribute(names.ERROR_TYPE.name, _class_name(error))
            scope.span.end()
            scope.ended = True

    def decided(self, decision: Decision, scope: LookupScope | None) -> None:
        if scope is not None:
            if not scope.ended:
                self._end_lookup(scope.span, decision)
            return
        kind = decision.decision
        if kind != "miss" and self._only_misses:
            return
        tracer = self._gate(alone=True)
        if tracer is None:
            return
        summary, name = _lookup_name(decision.tables)
        span = tracer.start_span(
            name,
            attributes={_CACHE: decision.cache, _OP: decision.op, _DECISION: kind},
            links=_links(decision.cause),
            start_time=_nanoseconds(decision.at),
        )
        if span.is_recording():
            attributes: Attributes = {_DB_SUMMARY: summary}
            _add_what(attributes, decision.tables, decision.tags, decision.cause)
            if self._query_text and decision.sql:
                attributes[names.DB_TEXT.name] = _shown(decision.sql)
            _add_decision(attributes, decision)
            span.set_attributes(attributes)
            span.end()

    def invalidation_started(self, cache: str, tables: Sequence[str]) -> tuple[Span | None, str | None]:
        tracer = self._gate()
        if tracer is None:
            return None, None
        span = tracer.start_span(_name_of(names.INVALIDATE, tables), attributes={_CACHE: cache})
        if not span.is_recording():
            return None, None
        return span, _traceparent(span)

    def invalidated(self, invalidation: Invalidation | None, scope: Span | None) -> None:
        if scope is None:
            return
        if invalidation is None:
            scope.set_attribute(names.OUTCOME.name, "none")
        else:
            # The ledger may know more tables than it did when phase one began.
            scope.update_name(_name_of(names.INVALIDATE, invalidation.tables))
            scope.set_attributes(_invalidation_attributes(invalidation))
        scope.end()

    def received(self, received: Received) -> None:
        tracer = None if self._only_misses else self._settled_tracer()
        if tracer is None:
            return
        tables = received.tables
        span = tracer.start_span(
            _name_of(names.RECEIVE, tables),
            Context(),
            attributes={_CACHE: received.cache},
            links=_links(next((cause for cause in received.causes if cause.traceparent), None)),
        )
        if span.is_recording():
            attributes: Attributes = {
                names.TABLES.name: _bounded(tables),
                names.CAUSES.name: tuple(dict.fromkeys(cause.cause for cause in received.causes)),
                names.LAG.name: received.lag,
                names.ORIGIN.name: received.origin,
            }
            if len(tables) == 1:
                attributes[_DB_COLLECTION] = tables[0]
            span.set_attributes(attributes)
            span.end()

    @staticmethod
    def _end_lookup(span: Span, decision: Decision) -> None:
        if span.is_recording():
            attributes: Attributes = {_DECISION: decision.decision}
            _add_decision(attributes, decision)
            span.set_attributes(attributes)
            span.end()

    def _gate(self, *, alone: bool = False) -> Tracer | None:
        """Return the tracer to use, or ``None`` when a span would reach nobody; ``alone``: no other will be inside."""
        if self._settled_tracer() is None:
            return None
        context = otel_context.get_current()
        if context.get(SUPPRESSED):
            return None
        parent = get_current_span(context)
        if not parent.is_recording():
            parent_context = parent.get_span_context()
            if not parent_context.is_valid:
                return None if alone and self._drops_roots else self._tracer
            if not parent_context.trace_flags.sampled:
                return None
        return self._tracer

    def _settled_tracer(self) -> Tracer | None:
        """Return the tracer, if there is one by now."""
        if not self._settled:
            if self._asked and _API.get("_TRACER_PROVIDER", _API) is None:
                return None
            provider = get_tracer_provider()
            if isinstance(provider, ProxyTracerProvider):
                self._asked = True
                return None
            self._settle(provider)
        return self._tracer

    def _settle(self, provider: TracerProvider) -> None:
        tracer = provider.get_tracer(names.SCOPE, library_version(), names.SCHEMA_URL)
        self._tracer = None if isinstance(tracer, NoOpTracer) else tracer
        sampler = getattr(tracer, "sampler", None)
        self._drops_roots = sampler is not None and sampler.get_description().startswith(_DROPS_ROOTS)
        self._settled = True


def _add_what(
    attributes: Attributes, tables: tuple[str, ...], tags: tuple[str, ...], cause: Cause | None
) -> None:
    if len(tables) == 1:
        attributes[_DB_COLLECTION] = tables[0]
    if tags:
        attributes[_TAGS] = _bounded(tags)
    if cause is None:
        return
    attributes[names.CAUSE_KIND.name] = cause.cause
    attributes[names.CAUSE_TABLE.name] = cause.table
    if cause.keys:
        attributes[names.CAUSE_KEYS.name] = _bounded(cause.keys)
    if cause.columns:
        attributes[names.CAUSE_COLUMNS.name] = _bounded(cause.columns)
    if cause.statement:
        attributes[names.CAUSE_STATEMENT.name] = cause.statement
    if cause.at:
        at = datetime.fromtimestamp(cause.at, timezone.utc)
        attributes[names.CAUSE_AT.name] = at.isoformat(timespec="milliseconds")
    if cause.pid:
        attributes[names.CAUSE_PID.name] = cause.pid
    if cause.host:
        attributes[names.CAUSE_HOST.name] = cause.host
    if cause.traceparent:
        attributes[names.CAUSE_TRACE.name] = cause.traceparent


def _add_decision(attributes: Attributes, decision: Decision) -> None:
    if decision.reason is not None:
        attributes[_REASON] = decision.reason
    if decision.tier is not None:
        attributes[_TIER] = decision.tier
    if decision.key is not None:
        attributes[_KEY] = decision.key
    if decision.fill is not None:
        attributes[_FILL] = decision.fill
    if decision.age is not None:
        attributes[_AGE] = decision.age
    if decision.size is not None:
        attributes[_SIZE] = decision.size
    if decision.site is not None:
        attributes.update(_code(decision.site))


def _code(site: CallSite) -> Attributes:
    return {
        names.CODE_FILE.name: site.file,
        names.CODE_LINE.name: site.line,
        names.CODE_FUNCTION.name: site.function,
    }


def _invalidation_attributes(invalidation: Invalidation) -> Attributes:
    changes = invalidation.changes
    tables = invalidation.tables
    attributes: Attributes = {
        names.OUTCOME.name: "applied" if invalidation.committed else "refused",
        names.TABLES.name: _bounded(tables),
        names.ROWS.name: sum(change.rows for change in changes),
        names.TAGS.name: _bounded(tuple(tag for change in changes for tag in change.tags)),
        names.TAGS_TOTAL.name: sum(change.tags_total for change in changes),
        names.CAUSES.name: tuple(dict.fromkeys(change.cause for change in changes)),
        names.EVICTED.name: sum(change.evicted for change in changes),
        names.BUMPED.name: any(change.bumped for change in changes),
        names.PHASE_TWO.name: invalidation.phase_two_seconds,
    }
    site = next((change.site for change in changes if change.site is not None), None)
    if site is not None:
        attributes.update(_code(site))
    if changes:
        attributes[names.CHANGE_SCOPE.name] = max((change.scope for change in changes), key=SCOPES.index)
    if len(tables) == 1:
        attributes[_DB_COLLECTION] = tables[0]
    if invalidation.statement:
        attributes[_DB_SUMMARY] = invalidation.statement[: names.MAX_SUMMARY]
    if invalidation.phase_one_seconds is not None:
        attributes[names.PHASE_ONE.name] = invalidation.phase_one_seconds
    if invalidation.commit_seconds is not None:
        attributes[names.COMMIT.name] = invalidation.commit_seconds
    return attributes


def _traceparent(span: Span) -> str | None:
    """Return what stamps and entries carry of a span; nothing of one that is not exported."""
    context = span.get_span_context()
    if not context.is_valid or not context.trace_flags.sampled:
        return None
    return (
        f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"
    )


def _links(cause: Cause | None) -> tuple[Link, ...]:
    """Return a link to the span that committed the write; none where it was not traced."""
    if cause is None or not cause.traceparent:
        return ()
    context = _TRACE_CONTEXT.extract({"traceparent": cause.traceparent}, context=Context())
    writer = get_current_span(context).get_span_context()
    return (Link(writer),) if writer.is_valid else ()


@lru_cache(maxsize=1024)
def _shown(sql: str) -> str:
    """Return a statement with ``IN (...)`` for lists that are written out only when it is sent."""
    text = _LATER.sub("...", sql)
    return text if len(text) <= names.MAX_SQL else f"{text[: names.MAX_SQL - 1]}…"


@lru_cache(maxsize=1024)
def _lookup_name(tables: tuple[str, ...]) -> tuple[str, str]:
    """Return ``db.query.summary`` and the span's name; a table that does not fit in whole is left out."""
    summary = "SELECT"
    for table in tables:
        if len(summary) + 1 + len(table) > names.MAX_SUMMARY:
            break
        summary = f"{summary} {table}"
    return summary, f"{names.LOOKUP.name} {summary}"


def _name_of(span: names.Span, tables: Sequence[str]) -> str:
    return f"{span.name} {tables[0][: names.MAX_TEXT] if len(tables) == 1 else 'multiple'}"


def _bounded(texts: tuple[str, ...]) -> tuple[str, ...]:
    most = names.MAX_TEXT
    return tuple(text if len(text) <= most else f"{text[: most - 1]}…" for text in texts[: names.MAX_LIST])


def _nanoseconds(at: float) -> int:
    return int(at * 1e9)


def _class_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
