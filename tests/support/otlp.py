"""A receiver of OpenTelemetry's traces over HTTP, as a collector is one: OTLP/protobuf at ``/v1/traces``.

::

    with otlp_receiver() as receiver:
        ...                                     # a program with OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, which flushes
        (span,) = receiver.spans("sqlacache.lookup")
        assert receiver.parent(span).name == "GET /users/1"

What an exporter has flushed is here when the flush returns: nothing has to be waited for. With :meth:`Receiver.refuse`
it answers as one that is down does, with :meth:`Receiver.hang` not at all.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Received:
    """One span as it came over the wire."""

    name: str
    kind: str
    """``INTERNAL``, ``SERVER``, ``CLIENT``, ..."""
    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    start: int
    """Nanoseconds since the epoch."""
    end: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    """Trace and span ids."""
    events: tuple[str, ...]
    status: str
    """``UNSET``, ``OK`` or ``ERROR``."""
    resource: dict[str, Any]
    scope: tuple[str, str]
    """The instrumentation scope's name and version."""
    schema_url: str

    @property
    def place(self) -> tuple[str, str]:
        """Trace and span id, as links have them."""
        return self.trace_id, self.span_id


@dataclass
class Receiver:
    """What came; made by :func:`otlp_receiver`."""

    url: str = ""
    """For ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
    received: list[Received] = field(default_factory=list)
    """Every span, in the order it came."""
    requests: int = 0
    """How often an exporter has come, whatever it was answered."""
    _status: int = 200
    _open: threading.Event = field(default_factory=threading.Event)

    def spans(self, start: str = "", service: str | None = None) -> list[Received]:
        """Return the spans whose name starts so, of one service or of all, by the time at which they began."""
        found = [
            span
            for span in self.received
            if span.name.startswith(start) and service in (None, span.resource["service.name"])
        ]
        return sorted(found, key=lambda span: span.start)

    def parent(self, span: Received) -> Received | None:
        """Return a span's parent; ``None`` for a root."""
        if not span.parent_id:
            return None
        (found,) = [one for one in self.received if one.place == (span.trace_id, span.parent_id)]
        return found

    def children(self, span: Received) -> list[Received]:
        """Return the spans in a span, by the time at which they began."""
        return [one for one in self.spans() if (one.trace_id, one.parent_id) == span.place]

    def refuse(self, status: int = 503) -> None:
        """Answer exporters with an error from now on; 200 for no longer."""
        self._status = status

    def hang(self) -> None:
        """Answer nobody from now on, until the end."""
        self._open.clear()

    def _take(self, body: bytes) -> int:
        self.requests += 1
        self._open.wait()
        if self._status == 200:
            self.received += _spans(ExportTraceServiceRequest.FromString(body))
        return self._status


@contextmanager
def otlp_receiver() -> Iterator[Receiver]:
    """Receive for the time of the block, on a port of its own."""
    receiver = Receiver()
    receiver._open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            status = receiver._take(body) if self.path == "/v1/traces" else 404
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver._status = 503
        receiver._open.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Received(
                    name=span.name,
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    events=tuple(event.name for event in span.events),
                    status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
                    resource=resource,
                    scope=(of_scope.scope.name, of_scope.scope.version),
                    schema_url=of_scope.schema_url,
                )


def _attributes(given: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in given}


def _value(given: AnyValue) -> Any:
    kind = given.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in given.array_value.values]
    return getattr(given, kind) if kind else None
