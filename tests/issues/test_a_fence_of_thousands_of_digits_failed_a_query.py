"""Found by planting bytes at the keys of control.

::

    1. Somebody else's bytes are at the fence, or at the generation, of which the next script makes a fence: digits that
       never end.
    2. A read looks up, and finds that another version writes here. To say which, it reads the digits as a number.
    3. Python refuses to read so many (ValueError), and the query fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

import sqlacache.testing
from sqlacache import configure_sync
from sqlacache.databases import is_one_of_several_workers
from tests.support.models import Base, Team
from tests.support.programs import started
from tests.support.redis_server import redis_server

DIGITS = b"9" * 5000


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with ExitStack() as stack:
        yield started(stack, redis_server())


@pytest.mark.integration
@pytest.mark.parametrize(
    ("key", "value"),
    [("sqlacache:fence", DIGITS), ("sqlacache:generation", DIGITS + b"|run|00")],
    ids=["fence", "generation"],
)
def test_digits_that_never_end_are_another_version(server: Any, key: str, value: bytes) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(server.client())
        client.flushall()
        engine = create_engine("sqlite://", poolclass=StaticPool)
        stack.callback(engine.dispose)
        Base.metadata.create_all(engine)
        cache = configure_sync(
            backend={"url": server.url, "timeout": 30}, models={Team: {"timeout": 60}}, telemetry=None
        )
        stack.callback(cache.disconnect)
        cache.bind(engine, database="teams")
        client.set(key, value, px=60_000)
        with sqlacache.testing.record(cache) as seen:
            for _ in range(2):
                with Session(engine) as session:
                    assert session.get(Team, 1) is None
        assert seen.decisions[-1].reason == "protocol_mismatch"
        assert "another version" in str(cache.health())


@pytest.mark.parametrize(
    ("workers", "several"),
    [("²", False), ("9" * 5000, True), ("01", False), ("10", True)],
    ids=["no plain digit", "thousands of digits", "one", "ten"],
)
def test_what_says_how_many_workers_there_are_may_be_anything(
    workers: str, several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", workers)
    assert is_one_of_several_workers() is several
