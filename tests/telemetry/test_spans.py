"""Spans: what they are called, where they hang, what they carry, and when none is made."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags
from prometheus_client import CollectorRegistry
from sqlalchemy import event, literal, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import ORMExecuteState

from sqlacache.decisions import CallSite
from sqlacache_telemetry import names
from tests.support.databases import Database
from tests.support.fronts import configure
from tests.support.models import User
from tests.telemetry.records import AT, CAUSE, SQL, bypass, change, hit, invalidation, load, miss, received
from tests.telemetry.traced import Traced, attributes_of

SITE = CallSite("/app/shop.py", 7, "rename")


@pytest.fixture
def traced() -> Traced:
    return Traced()


def test_a_hit_is_one_internal_span_that_began_with_the_read(traced):
    traced.told.decided(hit(tables=("users", "orders")))
    span = traced.span
    assert span.name == "sqlacache.lookup SELECT users orders"
    assert span.kind is SpanKind.INTERNAL
    assert span.status.status_code is StatusCode.UNSET
    assert span.parent is None
    assert span.start_time == int(AT * 1e9)
    assert not span.events
    assert attributes_of(span) == {
        "sqlacache.cache": "shop",
        "sqlacache.op": "get",
        "sqlacache.decision": "hit",
        "sqlacache.tier": "local",
        "sqlacache.key": "k1",
        "sqlacache.age_s": 3.5,
        "sqlacache.size": 120,
        "sqlacache.tags": ("users:42",),
        "db.query.summary": "SELECT users orders",
    }


def test_spans_come_from_the_scope_sqlacache_with_version_and_schema(traced):
    traced.told.decided(hit())
    scope = traced.span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == (names.SCOPE, names.SCHEMA_URL)
    assert scope.version


def test_a_read_of_one_table_names_the_collection(traced):
    traced.told.decided(hit())
    assert attributes_of(traced.span)["db.collection.name"] == "users"


def test_a_bypass_is_a_span_with_its_reason_and_no_key(traced):
    traced.told.decided(bypass(reason="locking_read"))
    attributes = attributes_of(traced.span)
    assert (attributes["sqlacache.decision"], attributes["sqlacache.reason"]) == ("bypass", "locking_read")
    assert "sqlacache.key" not in attributes


def test_a_misss_span_is_current_around_the_load_and_only_there(traced):
    with traced.tracer.start_as_current_span("request") as request:
        scopes = traced.told.load_started(load())
        with traced.tracer.start_as_current_span("the database's own span"):
            pass
        traced.told.load_finished(scopes, None)
        assert trace.get_current_span() is request
        traced.told.decided(miss(), scopes)
    by_name = {span.name: span for span in traced.exporter.get_finished_spans()}
    lookup = by_name["sqlacache.lookup SELECT users"]
    database = by_name["the database's own span"]
    assert database.parent is not None
    assert lookup.parent is not None
    assert database.parent.span_id == lookup.context.span_id
    assert lookup.parent.span_id == request.get_span_context().span_id
    assert lookup.start_time == int(AT * 1e9)
    assert attributes_of(lookup)["sqlacache.reason"] == "absent"
    assert attributes_of(lookup)["sqlacache.fill"] == "stored"
    assert attributes_of(lookup)["sqlacache.size"] == 120


def test_a_miss_caused_by_a_write_names_the_write_and_links_to_its_span(traced):
    scopes = traced.told.load_started(load(reason="row_invalidated", cause=CAUSE))
    traced.told.load_finished(scopes, None)
    traced.told.decided(miss(reason="row_invalidated", cause=CAUSE), scopes)
    span = traced.span
    (link,) = span.links
    assert f"{link.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{link.context.span_id:016x}" == "b7ad6b7169203331"
    assert {k: v for k, v in attributes_of(span).items() if k.startswith("sqlacache.cause.")} == {
        "sqlacache.cause.kind": "row_update",
        "sqlacache.cause.table": "users",
        "sqlacache.cause.keys": ("users:42",),
        "sqlacache.cause.columns": ("plan",),
        "sqlacache.cause.statement": "UPDATE users",
        "sqlacache.cause.at": "2023-11-14T22:13:19.500+00:00",
        "sqlacache.cause.pid": 7,
        "sqlacache.cause.host": "web-1",
        "sqlacache.cause.traceparent": CAUSE.traceparent,
    }


@pytest.mark.parametrize("traceparent", [None, "", "rubbish", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_cause_without_a_usable_traceparent_has_no_link(traced, traceparent):
    cause = CAUSE.__class__(cause="bulk_write", table="users", traceparent=traceparent)
    traced.told.decided(miss(reason="table_invalidated", cause=cause))
    assert traced.span.links == ()
    assert attributes_of(traced.span)["sqlacache.cause.kind"] == "bulk_write"


def test_the_writers_span_is_the_one_a_later_miss_links_to(traced):
    with traced.tracer.start_as_current_span("writer"):
        scopes, traceparent = traced.told.invalidation_started("shop", ("users",))
        traced.told.invalidated(invalidation(traceparent=traceparent), scopes)
    cause = CAUSE.__class__(cause="row_update", table="users", traceparent=traceparent)
    traced.told.decided(miss(reason="row_invalidated", cause=cause))
    write, read = traced.spans
    assert [link.context.span_id for link in read.links] == [write.context.span_id]
    assert [link.context.trace_id for link in read.links] == [write.context.trace_id]


def test_a_load_that_raised_ends_its_span_with_the_errors_type_and_no_error_status(traced):
    scopes = traced.told.load_started(load())
    traced.told.load_finished(scopes, asyncio.CancelledError())
    traced.told.decided(miss(fill=None, load_seconds=None), scopes)
    span = traced.span
    assert attributes_of(span)["error.type"] == "asyncio.exceptions.CancelledError"
    assert attributes_of(span)["sqlacache.decision"] == "miss"
    assert span.status.status_code is StatusCode.UNSET
    assert not span.events
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_read_that_turned_out_otherwise_after_its_load_says_so(traced):
    scopes = traced.told.load_started(load())
    traced.told.load_finished(scopes, None)
    traced.told.decided(bypass(reason="rewritten"), scopes)
    attributes = attributes_of(traced.span)
    assert (attributes["sqlacache.decision"], attributes["sqlacache.reason"]) == ("bypass", "rewritten")


def test_loads_of_two_tasks_at_once_keep_their_own_parents(traced):
    async def read(key: str, started: asyncio.Event, other: asyncio.Event) -> None:
        with traced.tracer.start_as_current_span(f"request {key}"):
            scopes = traced.told.load_started(load(key=key))
            started.set()
            await other.wait()
            with traced.tracer.start_as_current_span(f"database {key}"):
                pass
            traced.told.load_finished(scopes, None)
            traced.told.decided(miss(key=key), scopes)

    async def both() -> None:
        one, two = asyncio.Event(), asyncio.Event()
        await asyncio.gather(read("one", one, two), read("two", two, one))

    asyncio.run(both())
    finished = {span.name: span for span in traced.exporter.get_finished_spans()}
    lookups = {attributes_of(span)["sqlacache.key"]: span for span in traced.spans}
    for key in ("one", "two"):
        assert finished[f"database {key}"].parent.span_id == lookups[key].context.span_id
        assert lookups[key].parent.span_id == finished[f"request {key}"].context.span_id


async def test_a_misss_span_is_the_parent_of_what_an_async_session_sends_to_the_database(traced):
    engine = create_async_engine("sqlite+aiosqlite://")

    def cached_read(state: ORMExecuteState) -> Any:
        scopes = traced.told.load_started(load())
        result = state.invoke_statement()
        traced.told.load_finished(scopes, None)
        traced.told.decided(miss(), scopes)
        return result

    def sent(*_: Any) -> None:
        traced.tracer.start_span("the database's own span").end()

    event.listen(engine.sync_engine, "before_cursor_execute", sent)
    async with AsyncSession(engine) as session:
        event.listen(session.sync_session, "do_orm_execute", cached_read)
        with traced.tracer.start_as_current_span("request") as request:
            await session.execute(select(literal(1)))
            assert trace.get_current_span() is request
    await engine.dispose()
    database = next(s for s in traced.exporter.get_finished_spans() if s.name == "the database's own span")
    lookup = traced.span
    assert database.parent is not None
    assert lookup.parent is not None
    assert database.parent.span_id == lookup.context.span_id
    assert lookup.parent.span_id == request.get_span_context().span_id


def test_an_invalidation_is_a_child_of_the_writer_and_never_current(traced):
    with traced.tracer.start_as_current_span("writer") as writer:
        scopes, traceparent = traced.told.invalidation_started("shop", ("users",))
        assert trace.get_current_span() is writer
        traced.told.invalidated(invalidation(), scopes)
    span = traced.span
    assert span.name == "sqlacache.invalidate users"
    assert span.kind is SpanKind.INTERNAL
    assert span.parent is not None
    assert span.parent.span_id == writer.get_span_context().span_id
    assert traceparent is not None
    version, trace_id, span_id, flags = traceparent.split("-")
    assert (version, int(flags, 16) & TraceFlags.SAMPLED) == ("00", 1)
    assert (trace_id, span_id) == (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}")
    assert attributes_of(span) == {
        "sqlacache.cache": "shop",
        "sqlacache.outcome": "applied",
        "sqlacache.tables": ("users",),
        "sqlacache.scope": "rows",
        "sqlacache.rows": 1,
        "sqlacache.tags": ("users:42", "users?active=true"),
        "sqlacache.tags_total": 2,
        "sqlacache.causes": ("row_update",),
        "sqlacache.evicted": 2,
        "sqlacache.bumped": False,
        "sqlacache.phase_one_s": 0.001,
        "sqlacache.commit_s": 0.002,
        "sqlacache.phase_two_s": 0.0005,
        "db.query.summary": "UPDATE users",
        "db.collection.name": "users",
    }


def test_an_invalidation_of_several_tables_is_called_multiple_and_has_the_widest_scope(traced):
    scopes, _ = traced.told.invalidation_started("shop", ("users",))
    traced.told.invalidated(
        invalidation(
            change(rows=3, evicted=1),
            change(table="orders", cause="cascade", scope="conditions", rows=0, evicted=4, bumped=True),
        ),
        scopes,
    )
    attributes = attributes_of(traced.span)
    assert traced.span.name == "sqlacache.invalidate multiple"
    assert attributes["sqlacache.tables"] == ("users", "orders")
    assert attributes["sqlacache.scope"] == "conditions"
    assert attributes["sqlacache.causes"] == ("row_update", "cascade")
    assert (attributes["sqlacache.rows"], attributes["sqlacache.evicted"]) == (3, 5)
    assert attributes["sqlacache.bumped"] is True
    assert "db.collection.name" not in attributes


def test_an_invalidation_that_came_to_nothing_and_one_that_was_refused_say_so(traced):
    scopes, _ = traced.told.invalidation_started("shop", ("users",))
    traced.told.invalidated(None, scopes)
    scopes, _ = traced.told.invalidation_started("shop", ("users",))
    traced.told.invalidated(invalidation(committed=False), scopes)
    nothing, refused = (attributes_of(span) for span in traced.spans)
    assert nothing == {"sqlacache.cache": "shop", "sqlacache.outcome": "none"}
    assert refused["sqlacache.outcome"] == "refused"
    assert {nothing["sqlacache.outcome"], refused["sqlacache.outcome"], "applied"} == set(names.OUTCOMES)


def test_a_call_outside_a_transaction_has_one_phase(traced):
    scopes, _ = traced.told.invalidation_started("shop", ())
    none = {"phase_one_seconds": None, "commit_seconds": None, "statement": ""}
    traced.told.invalidated(invalidation(change(table="*", cause="flush", scope="table"), **none), scopes)
    attributes = attributes_of(traced.span)
    assert traced.span.name == "sqlacache.invalidate *"
    assert {"sqlacache.phase_one_s", "sqlacache.commit_s", "db.query.summary"}.isdisjoint(attributes)


def test_a_commit_of_another_process_is_a_root_span_linked_to_the_span_that_committed(traced):
    with traced.tracer.start_as_current_span("what bind() ran in"):
        traced.told.received(received())
    span = traced.span
    assert span.name == "sqlacache.receive users"
    assert span.kind is SpanKind.INTERNAL
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    (link,) = span.links
    assert f"{link.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{link.context.span_id:016x}" == "b7ad6b7169203331"
    assert attributes_of(span) == {
        "sqlacache.cache": "shop",
        "sqlacache.tables": ("users",),
        "sqlacache.causes": ("row_update",),
        "sqlacache.lag_s": 0.004,
        "sqlacache.origin": "0123456789abcdef",
        "db.collection.name": "users",
    }


def test_a_commit_of_several_tables_elsewhere_is_one_span_called_multiple(traced):
    other = CAUSE.__class__(cause="bulk_write", table="orders", traceparent=CAUSE.traceparent)
    traced.told.received(received(tables=("users", "orders"), causes=(CAUSE, other)))
    assert traced.span.name == "sqlacache.receive multiple"
    assert len(traced.span.links) == 1
    assert attributes_of(traced.span)["sqlacache.causes"] == ("row_update", "bulk_write")


def test_an_untraced_writer_is_received_without_a_link(traced):
    traced.told.received(received(causes=(CAUSE.__class__(cause="bulk_write", table="users"),)))
    assert traced.span.links == ()


def test_lists_and_names_are_bounded(traced):
    many = tuple(f"table_{number:03}" for number in range(300))
    traced.told.decided(hit(tables=many, tags=(*("x" * 10_000,), *many)))
    span = traced.span
    attributes = attributes_of(span)
    assert len(attributes["sqlacache.tags"]) == names.MAX_LIST
    assert len(attributes["sqlacache.tags"][0]) == names.MAX_TEXT
    assert len(attributes["db.query.summary"]) <= names.MAX_SUMMARY
    assert attributes["db.query.summary"].split()[-1] in many


def test_the_sql_is_on_spans_of_reads_when_it_is_asked_for_and_else_nowhere(traced):
    asked = Traced(query_text=True)
    for told in (traced.told, asked.told):
        told.decided(hit())
        scopes = told.load_started(load())
        told.load_finished(scopes, None)
        told.decided(miss(), scopes)
        told.decided(bypass(sql=None))
    assert ["db.query.text" in attributes_of(span) for span in traced.spans] == [False, False, False]
    assert [attributes_of(span).get("db.query.text") for span in asked.spans] == [SQL, SQL, None]


def test_sql_is_bounded_and_lists_in_it_are_written_as_they_are_meant():
    traced = Traced(query_text=True)
    traced.told.decided(hit(sql="SELECT 1 FROM users WHERE id IN (__[POSTCOMPILE_id_1]) AND x = ?"))
    traced.told.decided(hit(sql="SELECT " + "x" * 10_000))
    listed, long = (attributes_of(span)["db.query.text"] for span in traced.spans)
    assert listed == "SELECT 1 FROM users WHERE id IN (...) AND x = ?"
    assert (len(long), long[-1]) == (names.MAX_SQL, "…")


async def test_the_sql_of_a_real_read_has_placeholders_and_none_of_its_values(sqlite_databases: Any):
    traced = Traced()
    async with sqlite_databases.fresh() as url:
        database = Database(url)
        options = {"tracer_provider": traced.provider, "registry": CollectorRegistry(), "query_text": True}
        cache = configure(models={"*": {"timeout": 60}}, telemetry=options)
        await cache.bind(database.engine)
        wanted = select(User).where(User.name.in_(["secret", "other"]), User.plan == "hidden")
        for _ in range(2):
            async with database.sessions() as session:
                await session.execute(wanted)
        await cache.disconnect()
        await database.dispose()
    texts = [attributes_of(span)["db.query.text"] for span in traced.spans]
    assert len(texts) == 2 and texts[0] == texts[1]
    assert "FROM users" in texts[0] and "IN (...)" in texts[0]
    assert not [word for word in ("secret", "other", "hidden", "POSTCOMPILE") if word in texts[0]]


def test_the_line_of_the_application_is_on_spans_of_what_it_read_and_wrote(traced):
    scopes = traced.told.load_started(load())
    traced.told.load_finished(scopes, None)
    traced.told.decided(miss(site=SITE), scopes)
    scopes, _ = traced.told.invalidation_started("shop", ("orders", "users"))
    traced.told.invalidated(invalidation(change(table="orders"), change(site=SITE)), scopes)
    for span in traced.spans:
        found = {name: value for name, value in attributes_of(span).items() if name.startswith("code.")}
        assert found == {
            "code.file.path": "/app/shop.py",
            "code.line.number": 7,
            "code.function.name": "rename",
        }


def test_every_attribute_is_described_for_its_span_with_its_type():
    traced = Traced(query_text=True)
    traced.told.decided(hit(site=SITE))
    traced.told.decided(miss(reason="row_invalidated", cause=CAUSE))
    traced.told.decided(bypass())
    scopes = traced.told.load_started(load())
    traced.told.load_finished(scopes, ValueError("a value"))
    scopes, _ = traced.told.invalidation_started("shop", ("users",))
    traced.told.invalidated(invalidation(), scopes)
    traced.told.received(received())
    described = {attribute.name: attribute for attribute in names.ATTRIBUTES}
    types = {"string": str, "string[]": tuple, "int": int, "double": float, "boolean": bool}
    seen = set()
    for span in traced.spans:
        for name, value in attributes_of(span).items():
            attribute = described[name]
            assert span.name.split()[0] in {one.name for one in attribute.spans}
            assert type(value) is types[attribute.type]
            seen.add(name)
    assert seen == set(described)
