"""A real OpenTelemetry SDK for tests to look into."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from sqlacache.observers import Observers
from sqlacache_telemetry import SpanObserver


class Traced:
    """A real SDK that keeps what it exports, and observers that make spans in it."""

    def __init__(self, sampler: Sampler | None = None, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("the application")
        self.told = Observers([SpanObserver(self.provider, **options)])

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Finished spans of ours, in the order they ended."""
        assert not self.told.errors
        finished = self.exporter.get_finished_spans()
        return tuple(
            s for s in finished if s.instrumentation_scope and s.instrumentation_scope.name == "sqlacache"
        )

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.spans
        return span


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})
