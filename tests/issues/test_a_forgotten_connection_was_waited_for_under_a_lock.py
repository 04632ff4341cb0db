"""The garbage collector waited for a connection inside whatever it had interrupted, and so the process hung.

::

    1. A session is never closed, and whoever had it forgets it.
    2. A greenlet notes a read: it holds the lock of a metric (or a flight, or a log) and asks for memory.
    3. The garbage collector finds the session there, and SQLAlchemy waits in that greenlet for its connection to close.
    4. The loop runs another greenlet, which wants that lock: its thread, which is the loop's, blocks for good.

Found by ``make leaks``. SQLAlchemy does so by itself, but it takes somebody's lock to hang, and a cache brings many.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from sqlacache import configure
from tests.support.fronts import url_for
from tests.support.models import User

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*garbage collector is trying to clean up"),
]


async def test_nobody_else_runs_while_the_garbage_collector_ends_a_forgotten_connection(
    postgres_url: str,
) -> None:
    engine = create_async_engine(url_for(postgres_url, "async"))
    pool: Any = engine.pool
    order: list[str] = []

    def forget() -> None:
        session = Session(engine.sync_engine)
        session.execute(text("SELECT 1"))
        session.info["itself"] = session

    def hold() -> None:
        order.append("a lock is taken")
        gc.collect()
        order.append("it is released")

    def run() -> None:
        order.append("somebody else runs")

    cache = configure(models={User: {}})
    await cache.bind(engine)
    gc.collect()
    gc.disable()
    try:
        await greenlet_spawn(forget)
        assert pool.checkedout() == 1
        await asyncio.gather(greenlet_spawn(hold), greenlet_spawn(run))
    finally:
        gc.enable()
    assert order == ["a lock is taken", "it is released", "somebody else runs"]
    assert pool.checkedout() == 0
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await cache.disconnect()
    await engine.dispose()
