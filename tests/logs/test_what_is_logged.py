"""When something is logged, and that an ordinary day logs nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

from sqlacache import Observer, SyncCacheManager, configure_sync
from tests.support.models import Base, Order, User
from tests.support.processes import until
from tests.support.programs import started
from tests.support.redis_server import RedisServer, redis_server


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Any]:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.sqlite", future=True)
    Base.metadata.create_all(engine)
    with Session(engine, future=True) as session:
        session.add_all(User(id=key, name=f"user {key}", email=f"{key}@x") for key in (1, 2, 3))
        session.commit()
    yield engine
    engine.dispose()


@pytest.fixture
def bound(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SyncCacheManager]]:
    """Configure a cache with ``bound(**options)`` and bind it."""
    monkeypatch.delenv("SQLACACHE_BACKEND", raising=False)
    with ExitStack() as stack:

        def make(**options: Any) -> SyncCacheManager:
            cache = configure_sync(**{"models": {"*": {}}, "telemetry": None, **options})
            cache.bind(engine, database="shop")
            stack.callback(cache.disconnect)
            return cache

        yield make


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with ExitStack() as stack:
        yield started(stack, redis_server())


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged, whoever logged it."""
    return [
        getattr(record, "event", record.getMessage())
        for record in caplog.records
        if record.name.startswith("sqlacache")
    ]


def get(engine: Any, key: int = 1) -> None:
    with Session(engine, future=True) as session:
        session.get(User, key)


def an_ordinary_day(engine: Any, cache: SyncCacheManager) -> None:
    for _ in range(2):
        with Session(engine, future=True) as session:
            session.get(User, 1)
            session.execute(select(User).where(User.plan == "free")).all()
            session.execute(text("SELECT 1"))
            session.execute(select(Order)).all()
    with Session(engine, future=True) as session:
        session.get(User, 1).name = "ann"
        session.flush()
        session.rollback()
        session.get(User, 2).name = "bob"
        session.commit()
        session.execute(text("UPDATE users SET name = 'x'"))
        session.commit()
        cache.explain_get(session, User, 1)
    cache.touched("users", pks=[1])
    cache.invalidate_all()
    cache.health()


def test_an_ordinary_day_logs_nothing(
    engine: Any, bound: Callable[..., SyncCacheManager], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sqlacache")
    an_ordinary_day(engine, bound(telemetry=True, verify=1.0))
    assert events(caplog) == []
    assert logging.getLogger("sqlacache").handlers == []


@pytest.mark.integration
def test_an_outage_is_told_once_and_its_end_too(
    engine: Any,
    bound: Callable[..., SyncCacheManager],
    server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "sqlacache")
    cache = bound(backend={"url": server.url, "timeout": 5.0}, prefix=f"test-{uuid4().hex[:8]}")
    an_ordinary_day(engine, cache)
    assert events(caplog) == []
    for _ in range(2):
        server.kill()
        for _ in range(20):
            get(engine)
        until(lambda: "sqlacache.backend.lost" in events(caplog), "the outage to be told")
        for _ in range(20):
            get(engine)
        server.start()
        until(lambda: "sqlacache.backend.back" in events(caplog), "its end to be told")
        assert events(caplog) == ["sqlacache.backend.lost", "sqlacache.backend.back"]
        lost, back = caplog.records
        assert (lost.levelno, lost.cache, back.cache) == (logging.WARNING, cache.name, cache.name)  # type: ignore[attr-defined]
        assert "Error" in lost.error and back.seconds > 0  # type: ignore[attr-defined]
        caplog.clear()
        until(lambda: cache.health().status == "ok", "the backend")


def test_probes_are_told_to_those_who_ask(
    engine: Any, bound: Callable[..., SyncCacheManager], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sqlacache")
    bound(backend="redis://127.0.0.1:1/0")  # where nobody answers
    until(lambda: "sqlacache.backend.probed" in events(caplog), "a probe")
    assert set(events(caplog)) == {"sqlacache.backend.lost", "sqlacache.backend.probed"}
    assert events(caplog).count("sqlacache.backend.lost") == 1


def test_what_was_never_delivered_is_an_error(
    engine: Any,
    bound: Callable[..., SyncCacheManager],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sqlacache.core.OWED_WAIT", 0.05)
    cache = bound(backend="redis://127.0.0.1:1/0")
    with Session(engine, future=True) as session:
        session.get(User, 1).name = "ann"
        session.commit()
    caplog.clear()
    cache.disconnect()
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.event == "sqlacache.invalidations.undelivered"  # type: ignore[attr-defined]
    assert record.owed == "shop: 1 invalidation(s) of users"  # type: ignore[attr-defined]


def test_a_stale_entry_is_told_with_its_explanation_and_not_with_every_read(
    engine: Any, bound: Callable[..., SyncCacheManager], caplog: pytest.LogCaptureFixture
) -> None:
    cache = bound(verify=1.0, history=100)
    with cache.record() as seen:
        for key in (1, 2, 3):
            get(engine, key)
        with engine.connect() as connection:  # past the hooks
            connection.connection.cursor().execute("UPDATE users SET name = 'planted'")
            connection.connection.commit()
        for key in (1, 2, 3):
            get(engine, key)
    assert [one.outcome for one in seen.verifications] == ["mismatch"] * 3
    (record,) = caplog.records
    assert record.event == "sqlacache.verification.mismatch"  # type: ignore[attr-defined]
    said = record.getMessage()
    for part in (
        "1 row(s) are only in the database, 1 only in the cache",
        "HIT: 1 row(s) would be served from the cache",
        "users:1",
        "SELECT users.id",
        str(seen.verifications[0].key),
    ):
        assert part in said
    assert "planted" not in said and "user 1" not in said
    assert record.explanation["key"] == record.key == seen.verifications[0].key  # type: ignore[attr-defined]
    assert record.explanation["stamps"]  # type: ignore[attr-defined]
    assert record.suppressed == 0  # type: ignore[attr-defined]


def test_an_observer_that_raises_is_told_once(
    engine: Any, bound: Callable[..., SyncCacheManager], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Observer):
        def decided(self, decision: Any, scope: Any) -> None:
            raise LookupError("broken")

    bound(observers=[Broken()])
    for _ in range(5):
        get(engine)
    assert events(caplog) == ["sqlacache.observer.failed"]
    record: Any = caplog.records[0]
    assert (record.observer, record.method, record.error) == ("Broken", "decided", "LookupError")


def test_a_call_that_reaches_nobody_is_told(caplog: pytest.LogCaptureFixture) -> None:
    configure_sync(telemetry=None, models={"*": {}}).touched("users")
    record: Any = caplog.records[0]
    assert (events(caplog), record.call) == (["sqlacache.call.unbound"], "touched")
