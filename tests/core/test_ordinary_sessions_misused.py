"""What somebody who uses ordinary sessions gets wrong first, and what they are told."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import scoped_session, sessionmaker

from sqlacache import CacheError, ConfigError, configure, configure_sync
from tests.support.models import Base, User
from tests.support.reading import UNCACHED

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")


async def test_the_wrong_kind_of_engine_is_refused_with_the_name_of_the_right_function() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    cache = configure_sync(telemetry=None)
    with pytest.raises(ConfigError, match=r"takes an Engine, got AsyncEngine; .* configure\(\)"):
        cache.bind(engine)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"a driver that blocks, got one with aiosqlite; .* configure\(\)"):
        cache.bind(engine.sync_engine)
    with pytest.raises(ConfigError, match=r"takes an AsyncEngine, got Engine; .* configure_sync\(\)"):
        await configure(telemetry=None).bind(engine.sync_engine)  # type: ignore[arg-type]


async def test_the_wrong_kind_of_session_is_refused_by_explanations() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    asynchronous, ordinary = configure(telemetry=None), configure_sync(telemetry=None)
    async with AsyncSession(engine) as session:
        with pytest.raises(CacheError, match="explain_get: takes a Session, got AsyncSession"):
            ordinary.explain_get(session, User, 1)  # type: ignore[arg-type]
        with pytest.raises(CacheError, match="explain: takes an AsyncSession, got Session"):
            await asynchronous.explain(session.sync_session, User.__table__.select())  # type: ignore[arg-type]


def test_a_scoped_session_is_explained_as_the_session_that_it_stands_for() -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    cache = configure_sync(telemetry=None, models={"*": {}})
    sessions = scoped_session(sessionmaker(engine))
    with cache.bound(engine):
        assert cache.explain_get(sessions, User, 1).reason == "absent"  # type: ignore[arg-type]
        sessions.remove()
    engine.dispose()


@pytest.mark.parametrize(
    "call",
    [
        lambda cache: cache.invalidate(User),
        lambda cache: cache.invalidate_all(),
        lambda cache: cache.touched("users"),
    ],
    ids=["invalidate", "invalidate_all", "touched"],
)
def test_a_call_on_a_cache_that_is_not_bound_warns_that_it_did_nothing(
    call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "sqlacache"):
        with suppress(CacheError):  # of a table that no model has told it of
            call(configure_sync(telemetry=None, models={"*": {}}))
    assert "the cache is bound to no engine, so that nothing was done" in caplog.text


@pytest.mark.parametrize("make", [configure, configure_sync], ids=["configure", "configure_sync"])
def test_an_argument_that_there_is_not_is_told_by_the_name_of_the_function_called(make: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{make.__name__}\(\) .*unexpected keyword argument 'timeout'"):
        make(timeout=3)
