"""Traces of the shop, where an OpenTelemetry SDK is installed: a span of each request, and one of each statement.

The cache asks for none of this: it makes its spans with whatever the application has set up. An application would call
``set_tracer_provider()`` and its instrumentations here; this file does by hand the little that the demonstration shows.

Finished spans are exported where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says, if the package of the exporter is installed
(``opentelemetry-exporter-otlp-proto-http``). The last ones are also served as ``/traces``, for the demonstration to
print; an application needs no such page.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from typing import Any

from fastapi import APIRouter
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

try:
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    INSTALLED = True
except ImportError:  # the SDK is no dependency of the library
    INSTALLED = False

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
KEPT = 2000
LEFT_OUT = ("/metrics", "/traces", "/sqlacache", "/health")

logger = logging.getLogger("uvicorn.error")


def set_up() -> Tracing | None:
    """Return what makes and keeps spans, or ``None`` where there is no SDK or it is switched off."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return Tracing() if INSTALLED and not disabled else None


class Tracing:
    """The shop's spans, and the cache's among them."""

    def __init__(self) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME", "shop")
        self.provider = TracerProvider(
            resource=Resource.create({"service.name": name}),
            sampler=ParentBased(ALWAYS_ON),
            shutdown_on_exit=False,
        )
        self.kept = Kept()
        self.provider.add_span_processor(self.kept)
        exporter = _exporter()
        if exporter is not None:
            self.provider.add_span_processor(exporter)
        self.tracer = self.provider.get_tracer("examples.shop")
        self.router = APIRouter()
        self.router.add_api_route("/traces", self.kept.told)

    def watch(self, engine: AsyncEngine) -> None:
        """Make a span of each statement that is sent to the database."""
        told = engine.sync_engine

        @event.listens_for(told, "before_cursor_execute")
        def begin(
            connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
        ) -> None:
            words = statement.split(None, 1)
            by = "of the cache" if context.execution_options.get("sqlacache_read_back") else "database"
            context.shop_span = self.tracer.start_span(
                f"{words[0].upper() if words else '?'} ({by})",
                kind=SpanKind.CLIENT,
                attributes={"db.system.name": told.dialect.name, "db.query.text": statement},
            )

        @event.listens_for(told, "after_cursor_execute")
        def end(
            connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
        ) -> None:
            context.shop_span.end()

        @event.listens_for(told, "handle_error")
        def failed(context: Any) -> None:
            span = getattr(context.execution_context, "shop_span", None)
            if span is not None:
                span.set_status(Status(StatusCode.ERROR))
                span.end()

    def shut_down(self) -> None:
        """Export what is left."""
        self.provider.shutdown()


def _exporter() -> Any:
    if not os.environ.get(ENDPOINT):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        logger.warning("%s is set, but spans cannot be exported: %s", ENDPOINT, error)
        return None
    return BatchSpanProcessor(OTLPSpanExporter())


class Requests:
    """ASGI middleware: a span of each request, child of the caller's if that sent a ``traceparent``."""

    def __init__(self, app: Any, tracer: Any) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"].startswith(LEFT_OUT):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self._tracer.start_as_current_span(
            scope["method"],
            context=TraceContextTextMapPropagator().extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "url.path": scope["path"]},
        ) as span:
            await self._app(scope, receive, send)
            route = scope.get("route")
            if route is not None:
                span.update_name(f"{scope['method']} {route.path}")


if INSTALLED:

    class Kept(SpanProcessor):
        """Keeps the last spans that ended."""

        def __init__(self) -> None:
            self._spans: deque[ReadableSpan] = deque(maxlen=KEPT)

        def on_end(self, span: ReadableSpan) -> None:
            self._spans.append(span)

        async def told(self, trace_id: str | None = None) -> Any:
            """The last spans that ended, of one trace or of all."""
            every = [_plain(span) for span in self._spans]
            return [span for span in every if trace_id in (None, span["trace_id"])]


def _plain(span: ReadableSpan) -> dict[str, Any]:
    def ids(context: Any) -> dict[str, str]:
        return {
            "trace_id": trace.format_trace_id(context.trace_id),
            "span_id": trace.format_span_id(context.span_id),
        }

    return {
        **ids(span.context),
        "parent_id": None if span.parent is None else trace.format_span_id(span.parent.span_id),
        "name": span.name,
        "start": span.start_time,
        "end": span.end_time,
        "attributes": dict(span.attributes or {}),
        "links": [ids(link.context) for link in span.links],
    }
