"""Fixtures of the exactness tests: the schema beside the seeded one, and caches with settings of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.support.databases import Database
from tests.support.listeners import listeners_of_ours
from tests.support.reading import UNCACHED, Reader

from .setups import Bind, bound


@pytest_asyncio.fixture
async def bind(database: Database) -> AsyncIterator[Bind]:
    """Bind a cache with settings of its own, when the test has prepared the database; undone at the end."""
    before = listeners_of_ours()
    async with AsyncExitStack() as stack:

        async def bind_now(other: Database | None = None, **settings: Any) -> Reader:
            return await stack.enter_async_context(bound(other or database, **settings))

        yield bind_now
    assert listeners_of_ours() == before, "disconnect() left listeners behind"


@pytest.fixture
def cached() -> None:
    """For tests of what only a cache does."""
    if UNCACHED:
        pytest.skip("needs the cache")
