"""Observers: they see everything, and nothing they do reaches a query or a commit."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy import select

from sqlacache import Decision, Drop, Invalidation, Load, Observer, configure
from sqlacache.observers import Observers
from tests.support import writes
from tests.support.gates import failing_select
from tests.support.models import AuditLog, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import get

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

METHODS = (
    "bound",
    "load_started",
    "load_finished",
    "decided",
    "invalidation_started",
    "invalidated",
    "dropped",
)


class Told(Observer):
    """Notes every call, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def bound(self, cache: str, tables: Any) -> None:
        self.calls.append(("bound", cache, tuple(tables)))

    def load_started(self, load: Load) -> Any:
        self.calls.append(("load_started", load))
        return "scope"

    def load_finished(self, scope: Any, error: BaseException | None) -> None:
        self.calls.append(("load_finished", scope, error))

    def decided(self, decision: Decision, scope: Any) -> None:
        self.calls.append(("decided", decision, scope))

    def invalidation_started(self, cache: str, tables: Any) -> tuple[Any, str | None]:
        self.calls.append(("invalidation_started", cache, tuple(tables)))
        return "write", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"

    def invalidated(self, invalidation: Invalidation | None, scope: Any) -> None:
        self.calls.append(("invalidated", invalidation, scope))

    def dropped(self, drop: Drop) -> None:
        self.calls.append(("dropped", drop))

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


def raising(method: str) -> Observer:
    def fail(self: Any, *args: Any) -> Any:
        raise LookupError(method)

    return type(f"Raises_{method}", (Observer,), {method: fail})()  # type: ignore[no-any-return]  # type() is untyped


async def everything(reader: Reader) -> None:
    """A miss, a hit, a bypass, a failed load, a commit, a rollback, a call, an entry dropped."""
    await reader.warm(get(User, 1))
    await reader.bypass(get(AuditLog, 1), "opted_out")
    with failing_select(reader.database), pytest.raises(RuntimeError, match="no answer"):
        await reader.ask(get(User, 2))
    await writes.change(User, 1, name="new")(reader.database)
    await reader.miss(get(User, 1), {"row_invalidated"})
    async with reader.database.sessions() as session:
        (await session.get(User, 1)).name = "never"
        await session.flush()
        await session.rollback()
    await reader.cache.invalidate(User)
    store = reader.cache.bindings[0].store
    await reader.ask(get(User, 3))
    store.max_bytes = store.bytes
    await reader.ask(get(User, 4))
    store.max_bytes = 1 << 20


@pytest.mark.parametrize("method", METHODS)
async def test_one_that_raises_is_counted_and_harms_nobody(
    method: str, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    await reader.cache.disconnect()
    other = Told()
    reader.cache = configure(
        models={"*": {}, AuditLog: None}, telemetry=None, observers=[raising(method), other]
    )
    await reader.cache.bind(reader.database.engine)
    try:
        with caplog.at_level(logging.WARNING, "sqlacache"):
            await everything(reader)
        assert set(other.names) == set(METHODS)
        errors = reader.cache.observers.errors
        assert errors[f"Raises_{method}"] == other.names.count(method)
        assert len([record for record in caplog.records if "Raises_" in record.message]) == 1
        assert f"Raises_{method}.{method} raised LookupError" in caplog.text
    finally:
        await reader.cache.disconnect()


async def test_a_miss_is_begun_ended_and_decided_with_one_scope(reader: Reader) -> None:
    told = Told()
    reader.cache.add_observer(told)
    await reader.ask(get(User, 1))
    await reader.ask(get(User, 1))
    reader.cache.remove_observer(told)
    await reader.ask(get(User, 1))
    (_, load), (_, scope, error), (_, miss, scope_of_miss), (_, hit, scope_of_hit) = told.calls
    assert (scope, error, scope_of_miss, scope_of_hit) == ("scope", None, "scope", None)
    assert (load.key, load.op, load.tables, load.tags, load.reason) == (
        miss.key,
        miss.op,
        miss.tables,
        miss.tags,
        "absent",
    )
    assert (miss.fill, miss.rows, miss.decision, hit.decision) == ("stored", 1, "miss", "hit")
    assert miss.size == hit.size > 0
    assert hit.load_seconds == miss.load_seconds
    assert hit.age >= 0


async def test_a_failed_load_is_told_with_its_error(reader: Reader) -> None:
    told = Told()
    reader.cache.add_observer(told)
    with failing_select(reader.database), pytest.raises(RuntimeError):
        await reader.ask(get(User, 1))
    assert told.names == ["load_started", "load_finished", "decided"]
    assert isinstance(told.calls[1][2], RuntimeError)


async def test_a_commit_is_told_with_its_times_and_its_trace_reaches_the_miss(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    told = Told()
    reader.cache.add_observer(told)
    await writes.change(User, 1, name="new")(reader.database)
    record = next(call[1] for call in told.calls if call[0] == "invalidated")
    assert record.tables == ("users",)
    assert record.traceparent.startswith("00-aaaa")
    assert min(record.phase_one_seconds, record.commit_seconds, record.phase_two_seconds) >= 0
    await reader.ask(get(User, 1))
    assert told.calls[-1][1].cause.traceparent == record.traceparent


async def test_a_rollback_tells_of_no_invalidation(reader: Reader) -> None:
    told = Told()
    reader.cache.add_observer(told)
    async with reader.database.sessions() as session:
        (await session.get(User, 1)).name = "never"
        await session.flush()
        await session.rollback()
    assert [call for call in told.calls if call[0] == "invalidated" and call[1] is not None] == []


async def test_binding_tells_the_tables_that_can_be_cached(reader: Reader) -> None:
    await reader.cache.disconnect()
    told = Told()
    cache = configure(models={User: {}}, telemetry=None, observers=[told], name="shop")
    await cache.bind(reader.database.engine)
    await cache.disconnect()
    assert told.calls == [("bound", "shop", ("users",))]


class Holds(Observer):
    """Notes what the cache holds in memory."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def capacity(self, cache: str, entries: int, size: int) -> None:
        self.told.append((entries, size))


async def test_what_is_in_memory_is_told_when_it_changes(reader: Reader) -> None:
    store = reader.cache.bindings[0].store
    if getattr(store, "local", store) is None:
        pytest.skip("nothing is kept in memory")
    holds = Holds()
    reader.cache.add_observer(holds)
    await reader.warm(get(User, 1))
    one, size = holds.told[-1]
    await reader.ask(get(User, 1))
    assert holds.told[-1] == (one, size)
    await reader.warm(get(User, 2))
    two, more = holds.told[-1]
    assert (one, two) == (1, 2)
    assert more > size > 0
    await reader.cache.invalidate_all()
    none, left = holds.told[-1]
    assert none == 0
    assert left < size, "stamps, and what is remembered of announcements"


async def test_what_is_in_memory_is_nothing_after_disconnecting(reader: Reader) -> None:
    holds = Holds()
    reader.cache.add_observer(holds)
    await reader.warm(get(User, 1))
    await reader.cache.disconnect()
    assert holds.told[-1] == (0, 0)


def test_all_are_told_of_one_that_raises_and_raising_at_that_is_only_counted() -> None:
    class Hears(Observer):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def observer_failed(self, observer: str) -> None:
            self.heard.append(observer)

    hears = Hears()
    observers = Observers([raising("owed"), raising("observer_failed"), hears])
    observers.owed("c", 1)
    assert hears.heard == ["Raises_owed"]
    assert observers.errors == {"Raises_owed": 1, "Raises_observer_failed": 1}


def test_adding_one_twice_is_an_error_and_removing_a_stranger_is_none() -> None:
    observer = Observer()
    observers = Observers([observer])
    with pytest.raises(ValueError, match="is already there"):
        observers.add(observer)
    observers.remove(Observer())
    assert observers
    observers.remove(observer)
    assert not observers


def test_the_base_does_nothing_whatever_it_is_told() -> None:
    observers = Observers([Observer()])
    nothing: Any = None
    observers.bound("c", ["t"])
    scopes = observers.load_started(nothing)
    observers.load_finished(scopes, None)
    observers.decided(nothing, scopes)
    scopes, traceparent = observers.invalidation_started("c", ["t"])
    observers.invalidated(None, scopes)
    observers.dropped(nothing)
    observers.received(nothing)
    observers.backend_failed("c", "MGET", LookupError())
    observers.owed("c", 1)
    observers.capacity("c", 1, 1)
    assert not observers.listen
    assert not observers.weigh
    assert traceparent is None
    assert not observers.errors


async def test_nothing_is_built_when_nobody_listens(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("built although nobody listens")

    monkeypatch.setattr("sqlacache.read.path.Decision", built)
    monkeypatch.setattr("sqlacache.read.path.Load", built)
    monkeypatch.setattr("sqlacache.write.phases.Invalidation", built)
    for _ in range(2):
        async with reader.database.sessions() as session:
            await session.execute(select(User))
    await writes.change(User, 1, name="new")(reader.database)
