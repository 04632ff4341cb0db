"""What the exactness tests prepare: dialects to run on, engines with options, statements past the cache."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event
from sqlalchemy.pool import AsyncAdaptedQueuePool

from tests.support.databases import Database, make_sessions
from tests.support.fronts import configure, open_engine
from tests.support.reading import UNCACHED, Reader

Bind = Callable[..., Awaitable[Reader]]

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize(
    "database", [pytest.param("postgresql", marks=pytest.mark.integration)], indirect=True
)


@asynccontextmanager
async def bound(database: Database, **settings: Any) -> AsyncIterator[Reader]:
    """A reader through a cache with these settings, bound to ``database`` for the time of the block."""
    if UNCACHED:
        yield Reader(database, None)
        return
    cache = configure(
        **{
            "backend": "mem://",
            "models": {"*": {"timeout": 3600}},
            "telemetry": None,
            "name": f"test-{uuid4().hex[:8]}",
            **settings,
        }
    )
    await cache.bind(database.engine)
    try:
        yield Reader(database, cache)
    finally:
        await cache.disconnect()


async def prepare(database: Database, *statements: str) -> None:
    """Execute SQL on an engine that the cache does not know."""
    async with database.truth_engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


async def create(database: Database, base: Any, *rows: tuple[Any, list[dict[str, Any]]]) -> None:
    """Create the tables of ``base`` and put rows in, past the cache."""
    async with database.truth_engine.begin() as connection:
        await connection.run_sync(base.metadata.create_all)
        for table, values in rows:
            await connection.execute(table.insert(), values)


@asynccontextmanager
async def with_engine(database: Database, url: str | None = None, **options: Any) -> AsyncIterator[Database]:
    """The same database through another engine, made with ``options``."""
    other = Database(url or database.url)
    pool = (
        {}
        if "poolclass" in options
        else {"poolclass": AsyncAdaptedQueuePool, "pool_size": 5, "max_overflow": 0}
    )
    other.engine = open_engine(url or database.url, **{**pool, **options})
    other.sessions = make_sessions(other.engine)
    try:
        yield other
    finally:
        await other.dispose()


def on_connect(database: Database, *statements: str) -> None:
    """Execute SQL on every connection that the engines of ``database`` make from now on."""

    def connected(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()

    for engine in (database.engine, database.truth_engine):
        event.listen(engine.sync_engine, "connect", connected)
