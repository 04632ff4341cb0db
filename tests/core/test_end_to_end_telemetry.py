"""Telemetry as configure() composes it by default: real sessions, the default registry, a real OpenTelemetry SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import prometheus_client
import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY, CollectorRegistry
from sqlalchemy import event, func, insert, select, text, update

from sqlacache import configure, testing
from tests.support import writes
from tests.support.databases import Database
from tests.support.gates import failing_select
from tests.support.models import AuditLog, Order, User
from tests.support.reading import UNCACHED
from tests.support.reads import entities, follow, get, scalar

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

listed = entities(lambda: select(User).order_by(User.id))
count = scalar(lambda: select(func.count()).select_from(User))


@asynccontextmanager
async def cached(database: Database, **options: Any) -> AsyncIterator[Any]:
    """A cache of a name of its own, so that its counters in the default registry are its own."""
    options.setdefault("name", f"e2e-{uuid4().hex[:8]}")
    cache = configure(**{"models": {"*": {"timeout": 60}, AuditLog: None}, **options})
    await cache.bind(database.engine, database="main")
    try:
        yield cache
    finally:
        await cache.disconnect()


async def read(database: Database, work: Any) -> Any:
    async with database.sessions() as session:
        return await work(session)


def total(cache: Any, name: str, registry: CollectorRegistry = REGISTRY, **labels: str) -> float:
    """The sum of a family's samples of this cache that have these labels."""
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
        and sample.labels.get("cache") == cache.name
        and labels.items() <= sample.labels.items()
    )


class Traced:
    """A real SDK whose finished spans can be looked at."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("the application")

    def spans(self, start: str) -> list[Any]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(start)]


@pytest.fixture
def traced() -> Iterator[Traced]:
    made = Traced()
    yield made
    made.provider.shutdown()


async def some_traffic(database: Database) -> None:
    """Reads of every kind, writes of every kind."""
    for _ in range(3):
        for work in (
            get(User, 1),
            get(User, 100),
            listed,
            count,
            follow(User, 1, "orders"),
            get(AuditLog, 1),
        ):
            await read(database, work)
    await read(database, lambda session: session.execute(text("SELECT 1")))
    await writes.change(User, 1, name="new")(database)
    await read(database, get(User, 1))
    everybody = update(User).where(User.name.like("%")).values(plan="x")
    await writes.execute(lambda _: everybody.execution_options(synchronize_session=False))(database)
    await read(database, listed)
    await writes.execute(lambda _: insert(Order).values(id=100, user_id=1, created=func.now()))(database)
    await read(database, follow(User, 1, "orders"))


async def test_the_counters_of_the_default_registry_are_what_was_decided(database: Database) -> None:
    async with cached(database) as cache:
        with testing.record(cache) as seen:
            await some_traffic(database)
        assert total(cache, "sqlacache_hits_total") == len(seen.hits) > 0
        assert total(cache, "sqlacache_misses_total") == len(seen.misses) > 0
        assert total(cache, "sqlacache_bypasses_total") == len(seen.bypasses) > 0
        for decision in seen.misses:
            labels = {"table": decision.table, "op": decision.op, "reason": str(decision.reason)}
            same = [m for m in seen.misses if (m.table, m.op, m.reason) == tuple(labels.values())]
            assert total(cache, "sqlacache_misses_total", **labels) == len(same)
        for hit in seen.hits:
            labels = {"table": hit.table, "op": hit.op, "tier": str(hit.tier)}
            same = [h for h in seen.hits if (h.table, h.op, h.tier) == tuple(labels.values())]
            assert total(cache, "sqlacache_hits_total", **labels) == len(same)
        changes = [change for record in seen.invalidations for change in record.changes]
        assert total(cache, "sqlacache_evictions_total") == sum(change.evicted for change in changes) > 0
        bumped = [change for change in changes if change.bumped]
        assert total(cache, "sqlacache_table_version_bumps_total") == len(bumped) > 0
        assert total(cache, "sqlacache_table_version_bumps_total", cause="bulk_write", table="users") == 1


async def test_the_totals_are_related(database: Database) -> None:
    """Lookups are hits and misses; fills are misses that ended; loads are misses that reached the database."""
    async with cached(database) as cache:
        await some_traffic(database)
        with failing_select(database), pytest.raises(RuntimeError):
            await read(database, get(User, 3))
        hits, misses = total(cache, "sqlacache_hits_total"), total(cache, "sqlacache_misses_total")
        bypasses = total(cache, "sqlacache_bypasses_total")
        looked_up = "sqlacache_lookup_duration_seconds_count"
        assert total(cache, looked_up) == hits + misses + bypasses
        assert total(cache, looked_up, decision="hit") == hits
        assert total(cache, looked_up, decision="miss") == misses
        assert total(cache, "sqlacache_fills_total") == misses - 1
        assert total(cache, "sqlacache_load_duration_seconds_count") == misses - 1
        commits = total(cache, "sqlacache_invalidation_duration_seconds_count", phase="two")
        assert commits == 3
        assert total(cache, "sqlacache_saved_seconds_total") >= 0


async def test_likely_series_start_at_zero(database: Database) -> None:
    async with cached(database) as cache:
        text_of_all = prometheus_client.generate_latest().decode()
        for table in ("users", "orders"):
            assert (
                f'sqlacache_hits_total{{cache="{cache.name}",op="get",table="{table}",tier="local"}} 0.0'
                in text_of_all
            )
            labels = f'cache="{cache.name}",cause="row_update",table="{table}"'
            assert f"sqlacache_evictions_total{{{labels}}} 0.0" in text_of_all
        assert total(cache, "sqlacache_hits_total") == 0


async def test_two_caches_in_one_process_count_side_by_side(
    database: Database, other_database: Database
) -> None:
    async with cached(database) as first, cached(other_database) as second:
        for _ in range(3):
            await read(database, get(User, 1))
        await read(other_database, get(User, 1))
        assert (total(first, "sqlacache_hits_total"), total(first, "sqlacache_misses_total")) == (2, 1)
        assert (total(second, "sqlacache_hits_total"), total(second, "sqlacache_misses_total")) == (0, 1)


async def test_two_calls_of_the_same_name_do_not_clash(database: Database) -> None:
    for _ in range(2):
        async with cached(database, name="e2e-same"):
            await read(database, get(User, 1))
    configure(name="e2e-same")


async def test_metrics_are_served_by_prometheus_clients_own_application(database: Database) -> None:
    async with cached(database) as cache:
        app = FastAPI()
        app.mount("/metrics", prometheus_client.make_asgi_app())
        await read(database, get(User, 1))
        await read(database, get(User, 1))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/metrics/")
        assert answer.status_code == 200
        hit = f'sqlacache_hits_total{{cache="{cache.name}",op="get",table="users",tier="local"}} 1.0'
        miss = f'sqlacache_misses_total{{cache="{cache.name}",op="get",reason="absent",table="users"}} 1.0'
        assert hit in answer.text
        assert miss in answer.text
        assert "# HELP sqlacache_hits_total" in answer.text


async def test_a_registry_of_ones_own_is_used_instead(database: Database) -> None:
    registry = CollectorRegistry()
    async with cached(database, telemetry={"registry": registry}) as cache:
        await read(database, get(User, 1))
        assert total(cache, "sqlacache_misses_total", registry) == 1
        assert total(cache, "sqlacache_misses_total") == 0


async def test_without_telemetry_nothing_is_counted(database: Database) -> None:
    async with cached(database, telemetry=None) as cache:
        await read(database, get(User, 1))
        assert total(cache, "sqlacache_misses_total") == 0


async def test_a_miss_caused_by_a_write_links_the_span_that_committed_it(
    database: Database, traced: Traced
) -> None:
    async with cached(database, telemetry={"tracer_provider": traced.provider}):
        await read(database, get(User, 1))
        await read(database, get(User, 1))
        with traced.tracer.start_as_current_span("the request that writes") as request:
            await writes.change(User, 1, name="new")(database)
        await read(database, get(User, 1))
        (invalidated,) = traced.spans("sqlacache.invalidate")
        assert invalidated.name == "sqlacache.invalidate users"
        assert invalidated.parent.span_id == request.get_span_context().span_id
        lookups = [span for span in traced.spans("sqlacache.lookup") if not span.parent]
        assert [span.name for span in lookups] == ["sqlacache.lookup SELECT users"] * 3
        decided = [span.attributes["sqlacache.decision"] for span in lookups]
        assert decided == ["miss", "hit", "miss"]
        last = lookups[-1]
        assert last.attributes["sqlacache.reason"] == "row_invalidated"
        assert last.attributes["sqlacache.cause.statement"] == "UPDATE users"
        (link,) = last.links
        assert link.context.span_id == invalidated.context.span_id
        assert link.context.trace_id == request.get_span_context().trace_id
        assert not lookups[0].links
        assert not lookups[1].links


async def test_spans_say_what_happened_and_never_fail_for_us(database: Database, traced: Traced) -> None:
    async with cached(database, telemetry={"tracer_provider": traced.provider}) as cache:
        with testing.record(cache) as seen:
            await some_traffic(database)
        assert not cache.observers.errors
        lookups = traced.spans("sqlacache.lookup")
        assert len(lookups) == len(seen.decisions)
        assert len(traced.spans("sqlacache.invalidate")) == len(seen.invalidations)
        assert {span.status.is_unset for span in traced.exporter.get_finished_spans()} == {True}
        kinds = sorted(span.attributes["sqlacache.decision"] for span in lookups)
        assert kinds == sorted(decision.decision for decision in seen.decisions)
        for span in traced.exporter.get_finished_spans():
            assert "db.system.name" not in span.attributes


async def test_loads_lie_inside_the_span_of_their_miss(database: Database, traced: Traced) -> None:
    current: list[Any] = []

    def on_statement(*args: Any) -> None:
        current.append(trace.get_current_span().get_span_context().span_id)

    event.listen(database.engine.sync_engine, "before_cursor_execute", on_statement)
    async with cached(database, telemetry={"tracer_provider": traced.provider}):
        current.clear()
        await read(database, get(User, 1))
    (lookup,) = traced.spans("sqlacache.lookup")
    assert current == [lookup.context.span_id]


async def test_a_rollback_leaves_no_invalidation_behind(database: Database, traced: Traced) -> None:
    async with cached(database, telemetry={"tracer_provider": traced.provider}) as cache:
        async with database.sessions() as session:
            (await session.get(User, 1)).name = "never"
            await session.flush()
            await session.rollback()
        assert traced.spans("sqlacache.invalidate") == []
        assert total(cache, "sqlacache_evictions_total") == 0


async def test_explanations_are_neither_counted_nor_traced(database: Database, traced: Traced) -> None:
    async with cached(database, telemetry={"tracer_provider": traced.provider}) as cache:
        async with database.sessions() as session:
            await cache.explain_get(session, User, 1)
            await cache.explain(session, select(User))
        assert traced.exporter.get_finished_spans() == ()
        assert total(cache, "sqlacache_lookup_duration_seconds_count") == 0
