"""The gate: no span is started, and nothing is built for one, where it would reach nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import RandomIdGenerator, TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from sqlacache.observers import Observers
from sqlacache_telemetry import SpanObserver
from tests.telemetry.records import bypass, hit, invalidation, load, miss
from tests.telemetry.traced import Traced


def test_misses_only_leaves_out_hits_and_bypasses():
    traced = Traced(only_misses=True)
    traced.told.decided(hit())
    traced.told.decided(bypass())
    traced.told.decided(miss())
    scopes, traceparent = traced.told.invalidation_started("shop", ("users",))
    traced.told.invalidated(invalidation(), scopes)
    assert [span.name for span in traced.spans] == [
        "sqlacache.lookup SELECT users",
        "sqlacache.invalidate users",
    ]
    assert traceparent


def _all_kinds(told: Observers) -> str | None:
    told.decided(hit())
    told.decided(bypass())
    scopes = told.load_started(load())
    told.load_finished(scopes, None)
    told.decided(miss(), scopes)
    scopes, traceparent = told.invalidation_started("shop", ("users",))
    told.invalidated(invalidation(), scopes)
    return traceparent


def test_suppressed_instrumentation_makes_no_span():
    traced = Traced()
    token = otel_context.attach(otel_context.set_value("suppress_instrumentation", True))
    try:
        assert _all_kinds(traced.told) is None
    finally:
        otel_context.detach(token)
    assert traced.spans == ()
    assert _all_kinds(traced.told)
    assert len(traced.spans) == 4


class Asked(Sampler):
    """Drops everything and keeps what it was asked with."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def should_sample(
        self, parent_context, trace_id, name, kind=None, attributes=None, links=None, trace_state=None
    ):
        self.asked.append(dict(attributes or {}))
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        return "Asked"


def test_a_root_is_offered_to_the_sampler_with_what_it_can_decide_by():
    sampler = Asked()
    traced = Traced(sampler)
    assert _all_kinds(traced.told) is None
    assert traced.spans == ()
    assert [asked.get("sqlacache.decision") for asked in sampler.asked] == ["hit", "bypass", "miss", None]
    assert all(asked["sqlacache.cache"] == "shop" for asked in sampler.asked)


def test_spans_inside_an_unsampled_misss_load_are_not_sampled_either():
    traced = Traced(ParentBased(ALWAYS_OFF))
    application = Traced()
    scopes = traced.told.load_started(load())
    with application.tracer.start_as_current_span("the database's own span"):
        pass
    traced.told.load_finished(scopes, None)
    traced.told.decided(miss(), scopes)
    assert application.exporter.get_finished_spans() == ()


class Numbered(RandomIdGenerator):
    """Counts the spans that were started, sampled or not."""

    started = 0

    def generate_span_id(self) -> int:
        self.started += 1
        return super().generate_span_id()


@pytest.mark.parametrize(
    ("sampler", "started"),
    [
        pytest.param(ALWAYS_OFF, 0, id="always_off"),
        pytest.param(ParentBased(ALWAYS_OFF), 0, id="parentbased_always_off"),
        pytest.param(ParentBased(TraceIdRatioBased(0)), 2, id="parentbased_traceidratio"),
        pytest.param(ParentBased(Asked()), 2, id="another"),
    ],
)
def test_hits_without_a_parent_do_not_ask_a_sampler_that_drops_every_root(sampler, started):
    numbers = Numbered()
    told = Observers([SpanObserver(TracerProvider(sampler, id_generator=numbers))])
    told.decided(hit())
    told.decided(bypass())
    assert numbers.started == started


def test_what_drops_every_root_samples_a_hit_whose_parent_is_sampled():
    traced = Traced(ParentBased(ALWAYS_OFF))
    flags = TraceFlags(TraceFlags.SAMPLED)
    with trace.use_span(
        NonRecordingSpan(SpanContext(trace_id=1, span_id=2, is_remote=True, trace_flags=flags))
    ):
        traced.told.decided(hit())
    assert traced.span.name == "sqlacache.lookup SELECT users"


@pytest.mark.parametrize(("sampled", "asked"), [(False, 0), (True, 4)])
def test_under_a_parent_from_elsewhere_its_sampled_flag_decides(sampled, asked):
    sampler = Asked()
    traced = Traced(sampler)
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    parent = NonRecordingSpan(SpanContext(trace_id=1, span_id=2, is_remote=True, trace_flags=flags))
    with trace.use_span(parent):
        _all_kinds(traced.told)
    assert len(sampler.asked) == asked


def _in_a_process(source: str, **environment: str) -> Any:
    """Run ``source`` in a new process, where the global tracer provider is not yet set; return what it prints."""
    ours = [path for path in sys.path if path]
    prelude = f"import sys, json; sys.path[:0] = {ours!r}\n"
    ran = subprocess.run(
        [sys.executable, "-c", prelude + source], capture_output=True, text=True, env=environment, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


LATER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlacache.observers import Observers
from sqlacache_telemetry import SpanObserver
from tests.telemetry.records import hit
told = Observers([SpanObserver()])
told.decided(hit())
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
told.decided(hit())
print(json.dumps([len(exporter.get_finished_spans()), dict(told.errors)]))
"""


def test_a_global_provider_set_after_configure_is_used_from_then_on():
    assert _in_a_process(LATER) == [1, {}]


ASKED = """
from opentelemetry import trace
from sqlacache.observers import Observers
from sqlacache_telemetry import SpanObserver, spans
from tests.telemetry.records import hit
asked, given = [], spans.get_tracer_provider
spans.get_tracer_provider = lambda: asked.append(1) or given()
told = Observers([SpanObserver()])
for _ in range(5):
    told.decided(hit())
once = len(asked)
del trace._TRACER_PROVIDER  # as an API would be that has no such variable
spans.get_tracer_provider = lambda: asked.append(1) or trace.ProxyTracerProvider()
for _ in range(5):
    told.decided(hit())
print(json.dumps([once, len(asked), dict(told.errors)]))
"""


def test_while_there_is_no_provider_the_api_is_asked_once_or_every_time_if_it_has_no_such_variable():
    assert _in_a_process(ASKED) == [1, 6, {}]


def test_an_sdk_that_is_disabled_gets_no_spans():
    assert _in_a_process(LATER, OTEL_SDK_DISABLED="true") == [0, {}]


def test_without_an_sdk_nothing_is_started_and_nothing_is_imported():
    source = """
import cashews  # loads an SDK by itself when redis-py is installed with one beside it
before = {name for name in sys.modules if name.startswith("opentelemetry.sdk")}
from sqlacache.observers import Observers
from sqlacache_telemetry import SpanObserver
from tests.telemetry.records import hit, load
told = Observers([SpanObserver()])
told.decided(hit())
((_, scope),) = told.load_started(load())
scopes, traceparent = told.invalidation_started("shop", ("users",))
sdk = any(name.startswith("opentelemetry.sdk") and name not in before for name in sys.modules)
print(json.dumps([scope, scopes[0][1], traceparent, sdk, dict(told.errors)]))
"""
    assert _in_a_process(source) == [None, None, None, False, {}]


def test_a_provider_that_does_nothing_closes_the_gate():
    told = Observers([SpanObserver(trace.NoOpTracerProvider())])
    with Traced().tracer.start_as_current_span("recording"):
        ((_, scope),) = told.load_started(load())
    assert scope is None
