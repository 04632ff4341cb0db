"""A database behind a cache on a given backend, for the time of a block, as one process has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from .databases import Database
from .fronts import configure
from .reading import Reader


@asynccontextmanager
async def cached(url: str, backend: Any, prefix: str, **options: Any) -> AsyncIterator[Reader]:
    """Bind an engine on ``url`` to a cache and give its reader; two of them are as two processes.

    Args:
        url: URL of a seeded database.
        backend: As ``configure()`` takes it.
        prefix: Of the cache's keys.
        options: Further arguments of ``configure()``.
    """
    database = Database(url)
    cache = configure(
        backend=backend,
        models={"*": {"timeout": 3600}},
        prefix=prefix,
        telemetry=None,
        name=f"test-{uuid4().hex[:8]}",
        **options,
    )
    await cache.bind(database.engine, database="main")
    try:
        yield Reader(database, cache)
    finally:
        await cache.disconnect()
        await database.dispose()
