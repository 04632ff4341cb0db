"""A worker process that is traced as an application is: the SDK, its OTLP exporter, and spans of its own.

Each command in ``traced`` runs inside a span of kind SERVER, and each statement that reaches the database is one of
kind CLIENT, as instrumentations of web frameworks and of SQLAlchemy make them. Where to export to, and the service's
name, are in the environment (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``).
"""

from __future__ import annotations

from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from sqlalchemy import event

from tests.support.worker import Process, serve


class Exporting(Process):
    async def do_start(self, **given: Any) -> None:
        await super().do_start(**given)
        self.provider = TracerProvider()
        self.provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=3_600_000)
        )
        trace.set_tracer_provider(self.provider)
        self.tracer = trace.get_tracer("the application")
        instrument(self.engine.sync_engine, trace.get_tracer("the database's instrumentation"))

    async def do_traced(self, request: str, command: str, suppressed: bool = False, **given: Any) -> Any:
        """Do a command as a request to a server, or as one whose spans are not wanted."""
        with self.tracer.start_as_current_span(request, kind=SpanKind.SERVER):
            if not suppressed:
                return await getattr(self, f"do_{command}")(**given)
            token = otel_context.attach(otel_context.set_value("suppress_instrumentation", True))
            try:
                return await getattr(self, f"do_{command}")(**given)
            finally:
                otel_context.detach(token)

    async def do_export(self) -> bool:
        """Send the spans that have ended."""
        return self.provider.force_flush()


def instrument(engine: Any, tracer: trace.Tracer) -> None:
    """Make a span of each statement that is sent, where one is not suppressed."""

    @event.listens_for(engine, "before_cursor_execute")
    def before(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        if not otel_context.get_value("suppress_instrumentation"):
            context.span = tracer.start_span(statement.split()[0], kind=SpanKind.CLIENT)

    @event.listens_for(engine, "after_cursor_execute")
    def after(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        if hasattr(context, "span"):
            context.span.end()


if __name__ == "__main__":
    serve(Exporting())
