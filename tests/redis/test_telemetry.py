"""What one process is told of another's commits, and of the backend: metrics, spans and ``on_evict`` hooks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from sqlacache import CacheError, Eviction, Observer, Received
from tests.support.databases import Database
from tests.support.fleet import reading, settled, user
from tests.support.models import Order, User
from tests.support.processes import eventually
from tests.support.reading import Reader
from tests.support.redis_server import RedisServer
from tests.support.writes import change
from tests.telemetry.records import Scrape
from tests.telemetry.traced import Traced, attributes_of

pytestmark = pytest.mark.integration

TIMEOUT = 2.0


class Told(NamedTuple):
    """A cache with a registry and an SDK of its own."""

    reader: Reader
    registry: CollectorRegistry
    traced: Traced

    def scrape(self, name: str, **labels: str) -> float:
        return Scrape(self.registry).total(name, cache=self.reader.cache.name, **labels)

    def spans(self, start: str) -> list[Any]:
        return [one for one in self.traced.exporter.get_finished_spans() if one.name.startswith(start)]


class Two(NamedTuple):
    """Two caches on one Redis and one database file, as two processes have them."""

    near: Told
    far: Told


async def listening(reader: Reader) -> None:
    subscription = reader.cache.backend.subscription
    await eventually(lambda: len(subscription._confirmed) == len(subscription._listeners) > 0, "listening")


Start = Callable[..., Any]


@pytest_asyncio.fixture
async def two(file: str, redis_url: str, prefix: str) -> AsyncIterator[Two]:
    near, far = ((CollectorRegistry(), Traced()) for _ in range(2))
    backend = {"url": redis_url, "timeout": TIMEOUT}
    async with (
        reading(file, backend, prefix=prefix, name="near", telemetry=_telemetry(*near)) as one,
        reading(file, backend, prefix=prefix, name="far", telemetry=_telemetry(*far)) as other,
    ):
        await listening(one)
        await listening(other)
        yield Two(Told(one, *near), Told(other, *far))
        assert not one.cache.observers.errors
        assert not other.cache.observers.errors


def _telemetry(registry: CollectorRegistry, traced: Traced, **more: Any) -> dict[str, Any]:
    return {"registry": registry, "tracer_provider": traced.provider, **more}


async def test_a_commit_elsewhere_is_counted_with_its_lag_and_ones_own_is_not(two: Two) -> None:
    near, far = two
    name = "sqlacache_invalidation_lag_seconds_count"
    assert (near.scrape(name), far.scrape(name)) == (0, 0)
    await change(User, 1, plan="pro")(far.reader.database)
    await eventually(lambda: near.scrape(name) == 1, "the lag to be counted")
    await change(User, 2, plan="free")(near.reader.database)
    await eventually(lambda: far.scrape(name) == 1, "the lag to be counted")
    assert near.scrape(name) == 1
    assert 0 <= near.scrape("sqlacache_invalidation_lag_seconds_sum") < 60
    assert near.scrape(name) == len(near.spans("sqlacache.receive"))


async def test_a_commit_elsewhere_is_a_root_span_linked_to_the_span_that_committed(two: Two) -> None:
    near, far = two
    with far.traced.tracer.start_as_current_span("the writer's request"):
        await change(User, 1, plan="pro")(far.reader.database)
    (span,) = await eventually(lambda: near.spans("sqlacache.receive"), "the span")
    (written,) = far.spans("sqlacache.invalidate")
    assert (span.name, span.kind, span.parent) == ("sqlacache.receive users", SpanKind.INTERNAL, None)
    assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [
        (written.context.trace_id, written.context.span_id)
    ]
    attributes = attributes_of(span)
    assert attributes.pop("sqlacache.lag_s") >= 0
    assert attributes == {
        "sqlacache.cache": "near",
        "sqlacache.tables": ("users",),
        "sqlacache.causes": ("row_update",),
        "sqlacache.origin": far.reader.cache.bindings[0].store._commits.announcer.origin,
        "db.collection.name": "users",
    }
    assert far.spans("sqlacache.receive") == []


async def test_a_miss_after_it_names_and_links_the_same_write(two: Two) -> None:
    near, far = two
    await settled(near.reader, user(1))
    await change(User, 1, plan="pro")(far.reader.database)
    await near.reader.miss(user(1), {"row_invalidated"})
    (received,) = await eventually(lambda: near.spans("sqlacache.receive"), "the span")
    missed = [one for one in near.spans("sqlacache.lookup") if one.links][-1]
    assert [link.context.span_id for link in missed.links] == [
        link.context.span_id for link in received.links
    ]
    assert attributes_of(missed)["sqlacache.cause.pid"] == os.getpid()
    assert attributes_of(missed)["sqlacache.cause.columns"] == ("plan",)


async def test_spans_of_misses_alone_leave_it_out(two: Two, file: str, redis_url: str, prefix: str) -> None:
    registry, traced = CollectorRegistry(), Traced()
    telemetry = _telemetry(registry, traced, trace="misses")
    async with reading(file, redis_url, prefix=prefix, name="few", telemetry=telemetry) as reader:
        await listening(reader)
        few = Told(reader, registry, traced)
        await change(User, 1, plan="pro")(two.far.reader.database)
        await eventually(
            lambda: few.scrape("sqlacache_invalidation_lag_seconds_count") == 1, "the announcement"
        )
        assert few.spans("sqlacache.receive") == []


async def test_a_span_of_bind_is_no_parent_of_what_arrives_later(
    two: Two, file: str, redis_url: str, prefix: str
) -> None:
    registry, traced = CollectorRegistry(), Traced()
    telemetry = _telemetry(registry, traced)
    async with reading(
        file, redis_url, prefix=prefix, name="late", telemetry=telemetry, bind=False
    ) as reader:
        with traced.tracer.start_as_current_span("startup"):
            await reader.cache.bind(reader.database.engine)
        await listening(reader)
        await change(User, 1, plan="pro")(two.far.reader.database)
        late = Told(reader, registry, traced)
        (span,) = await eventually(lambda: late.spans("sqlacache.receive"), "the span")
        assert span.parent is None


async def test_while_the_server_is_gone_its_errors_and_what_is_owed_are_counted(
    file: str, redis_server: RedisServer, prefix: str
) -> None:
    registry, traced = CollectorRegistry(), Traced()
    backend = {"url": redis_server.url, "timeout": 0.25}
    telemetry = _telemetry(registry, traced)
    async with reading(file, backend, prefix=prefix, name="near", telemetry=telemetry) as reader:
        near = Told(reader, registry, traced)
        await settled(reader, user(1))
        owed, errors = "sqlacache_owed_invalidations", "sqlacache_backend_errors_total"
        assert (near.scrape(owed), near.scrape(errors)) == (0, 0)
        redis_server.kill()
        await change(User, 1, plan="pro")(reader.database)
        await change(Order, 1, total=7)(reader.database)
        assert near.scrape(owed) == 2
        assert near.scrape(errors) > 0
        series = Scrape(registry).series(errors)
        assert {labels["operation"] for labels in series} <= {"MGET", "EVALSHA", "EVAL", "HGETALL", "PING"}
        assert {labels["error"] for labels in series} <= {"ConnectionError", "TimeoutError", "ConnectionLost"}
        redis_server.restart()
        await eventually(lambda: near.scrape(owed) == 0, "what is owed to be delivered")
        await settled(reader, user(1))
        assert not reader.cache.observers.errors


async def test_binding_without_the_server_counts_its_error(
    file: str, redis_server: RedisServer, prefix: str
) -> None:
    redis_server.kill()
    registry, traced = CollectorRegistry(), Traced()
    backend = {"url": redis_server.url, "timeout": 0.25}
    telemetry = _telemetry(registry, traced)
    async with reading(file, backend, prefix=prefix, name="near", telemetry=telemetry) as reader:
        near = Told(reader, registry, traced)
        assert near.scrape("sqlacache_backend_errors_total", operation="PING") >= 1


async def test_what_is_in_memory_counts_fills_and_what_others_filled(two: Two) -> None:
    near, far = two
    await settled(near.reader, user(1), user(2))
    await settled(far.reader, user(1))
    assert (near.scrape("sqlacache_entries"), far.scrape("sqlacache_entries")) == (2, 1)
    assert near.scrape("sqlacache_bytes") > far.scrape("sqlacache_bytes") > 0
    await near.reader.cache.disconnect()
    assert (near.scrape("sqlacache_entries"), near.scrape("sqlacache_bytes")) == (0, 0)


async def test_without_a_local_tier_nothing_is_in_memory(file: str, redis_url: str, prefix: str) -> None:
    registry, traced = CollectorRegistry(), Traced()
    telemetry = _telemetry(registry, traced)
    async with reading(
        file, redis_url, prefix=prefix, name="near", local=None, telemetry=telemetry
    ) as reader:
        await settled(reader, user(1))
        assert Told(reader, registry, traced).scrape("sqlacache_entries") == 0


async def test_what_a_commit_elsewhere_voids_stays_in_memory_until_it_is_met(two: Two) -> None:
    near, far = two
    await settled(near.reader, user(1), user(2))
    await change(User, 1, plan="pro")(far.reader.database)
    await eventually(lambda: near.spans("sqlacache.receive"), "the announcement")
    assert near.scrape("sqlacache_entries") == 2
    await settled(near.reader, user(1))
    assert near.scrape("sqlacache_entries") == 2


# -- on_evict ----------------------------------------------------------------------------------------------------------


async def test_hooks_in_both_processes_name_the_writer(
    file: str, redis_url: str, start_workers: Start, tmp_path: Path
) -> None:
    async with start_workers(2, file, backend={"url": redis_url, "timeout": TIMEOUT}) as [a, b]:
        for worker in (a, b):
            await worker.call("on_evict")
        for turn, (writer, other) in enumerate(((a, b), (b, a))):
            plan = f"plan {turn}"
            there: list[Any] = []

            async def heard(
                writer: Any = writer, other: Any = other, plan: str = plan, there: list[Any] = there
            ) -> bool:
                # The other one subscribes while it goes on: what was announced before that is not heard.
                if not there:
                    values = {"plan": plan, "name": os.urandom(4).hex()}
                    await writer.call("update", model="User", key=1, values=values)
                there.extend(await other.call("evictions"))
                return bool(there)

            await eventually(heard, f"{other!r} to hear of a commit")
            here = (await writer.call("evictions"))[-1]
            for told, elsewhere in ((here, False), (there[-1], True)):
                assert (told["table"], told["tags"], told["scope"]) == ("users", ["users:1"], "rows")
                assert told["elsewhere"] is elsewhere
                assert (told["lag"] is not None) is elsewhere
                cause = told["cause"]
                assert (cause["pid"], cause["cause"], cause["keys"]) == (
                    writer.pid,
                    "row_update",
                    ["users:1"],
                )
                assert set(cause["columns"]) <= {"plan", "name"}
                assert cause["statement"] == "UPDATE users"
            assert here["cause"]["host"] == there[-1]["cause"]["host"] != ""
            for worker in (a, b):
                await worker.call("evictions")


async def test_a_hook_added_after_bind_begins_to_listen_and_one_that_was_removed_hears_nothing(
    two: Two, file: str, redis_url: str, prefix: str
) -> None:
    far = two.far.reader
    async with reading(file, redis_url, prefix=prefix, name="quiet") as reader:
        assert not reader.cache.backend.subscription.is_under_way
        first: list[Eviction] = []
        remove = reader.cache.on_evict(first.append)
        await listening(reader)
        await change(User, 1, plan="one")(far.database)
        (eviction,) = await eventually(lambda: first, "the first commit")
        assert (eviction.elsewhere, eviction.cause.columns, eviction.cache) == (True, ("plan",), "quiet")
        assert eviction.lag >= 0
        remove()
        second: list[Eviction] = []
        reader.cache.on_evict(second.append)
        await change(User, 1, plan="two")(far.database)
        await eventually(lambda: second, "the second commit")
        assert (len(first), len(second)) == (1, 1)


async def test_an_observer_added_after_bind_hears_of_others(
    two: Two, file: str, redis_url: str, prefix: str
) -> None:
    class Hears(Observer):
        def __init__(self) -> None:
            self.heard: list[Received] = []

        def received(self, received: Received) -> None:
            self.heard.append(received)

    async with reading(file, redis_url, prefix=prefix, name="quiet") as reader:
        hears = Hears()
        reader.cache.add_observer(hears)
        await listening(reader)
        await change(User, 1, plan="one")(two.far.reader.database)
        (received,) = await eventually(lambda: hears.heard, "the commit")
        assert [one.cause for one in received.evictions] == list(received.causes)


async def test_listening_survives_disconnect_and_bind(
    two: Two, file: str, redis_url: str, prefix: str
) -> None:
    async with reading(file, redis_url, prefix=prefix, name="quiet") as reader:
        told: list[Eviction] = []
        reader.cache.on_evict(told.append)
        await reader.cache.disconnect()
        await reader.cache.bind(reader.database.engine)
        await listening(reader)
        await change(User, 1, plan="one")(two.far.reader.database)
        await eventually(lambda: told, "the commit")
        assert len(told) == 1


@pytest.mark.parametrize("step", range(12))
async def test_disconnecting_while_the_subscription_connects_ends_it(
    step: int, file: str, redis_url: str, prefix: str
) -> None:
    """
    1. ``bind()`` starts the subscription. It sends SUBSCRIBE, in redis-py's ``asyncio.wait_for``.
    2. ``disconnect()`` cancels it at that moment. Before Python 3.12, the cancellation is lost, and it goes on.
    """
    async with reading(file, redis_url, prefix=prefix, name="short") as reader:
        reader.cache.on_evict(lambda eviction: None)
        worker = reader.cache.backend.subscription._worker
        for _ in range(step):
            await asyncio.sleep(0)
        await asyncio.wait_for(reader.cache.disconnect(), 10)
        assert not worker.is_alive
        assert not reader.cache.backend.subscription.is_under_way


async def test_two_engines_of_one_database_hear_of_a_commit_once(two: Two) -> None:
    near, far = two
    second = Database(str(near.reader.database.engine.url))
    told: list[Eviction] = []
    near.reader.cache.on_evict(told.append)
    await near.reader.cache.bind(second.engine)
    try:
        await change(User, 1, plan="one")(far.reader.database)
        await change(User, 2, plan="one")(far.reader.database)
        await eventually(lambda: [one for one in told if one.tags == ("users:2",)], "both commits")
        assert [one.tags for one in told] == [("users:1",), ("users:2",)]
        assert near.scrape("sqlacache_invalidation_lag_seconds_count") == 2
    finally:
        await near.reader.cache.disconnect()
        await second.dispose()


async def test_a_hook_that_raises_at_an_announcement_is_counted_and_the_next_one_arrives(two: Two) -> None:
    near, far = two
    told: list[Eviction] = []

    def fail(eviction: Eviction) -> None:
        told.append(eviction)
        raise LookupError

    near.reader.cache.on_evict(fail)
    for number in (1, 2):
        await change(User, number, plan="one")(far.reader.database)
    await eventually(lambda: len(told) == 2, "both commits")
    failed = Scrape(near.registry).get("sqlacache_observer_errors_total", observer="EvictionHook")
    assert failed == near.reader.cache.observers.errors.pop("EvictionHook") == 2


async def test_the_first_that_wants_to_hear_of_others_needs_an_event_loop(
    file: str, redis_url: str, prefix: str
) -> None:
    async with reading(file, redis_url, prefix=prefix, name="quiet") as reader:
        told: list[Eviction] = []
        with pytest.raises(CacheError, match="where an event loop runs"):
            await asyncio.to_thread(reader.cache.on_evict, told.append)
        assert not reader.cache.observers
        await asyncio.to_thread(reader.cache.add_observer, Observer())
        await change(User, 1, plan="one")(reader.database)
        assert told == []


async def test_a_bulk_write_elsewhere_is_told_with_its_scope(two: Two) -> None:
    near, far = two
    told: list[Eviction] = []
    near.reader.cache.on_evict(told.append)
    await far.reader.cache.touched("users", columns={"plan"})
    await far.reader.cache.invalidate_all()
    await eventually(lambda: len(told) == 2, "both calls")
    assert [(one.table, one.scope, one.cause.cause, one.cause.keys) for one in told] == [
        ("users", "conditions", "touched", ()),
        ("*", "table", "flush", ()),
    ]


# -- several processes in one answer -----------------------------------------------------------------------------------


async def test_two_workers_add_up_under_the_multiprocess_mode(
    file: str, redis_url: str, start_workers: Start, tmp_path: Path
) -> None:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))  # type: ignore[no-untyped-call]  # prometheus_client has no types here

    def total(name: str) -> float:
        return Scrape(registry).total(name, cache="shop")

    async with start_workers(
        2,
        file,
        backend={"url": redis_url, "timeout": TIMEOUT},
        name="shop",
        telemetry=True,
        environment={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
    ) as [a, b]:
        assert total("sqlacache_owed_invalidations") == 0
        await a.call("get", model="User", key=1)
        await a.call("get", model="User", key=2)
        await b.call("get", model="User", key=1)
        assert total("sqlacache_entries") == 3

        async def heard() -> bool:
            await a.call("update", model="Team", key=1, values={"name": os.urandom(4).hex()})
            return total("sqlacache_invalidation_lag_seconds_count") > 0

        await eventually(heard, "a commit to be heard of")
        await a.exit()
        assert total("sqlacache_entries") == 1
