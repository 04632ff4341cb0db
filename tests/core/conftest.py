"""These tests are about the library's own surface: one database is enough, unless a test asks for more."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.databases import Database


@pytest_asyncio.fixture
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A fresh, seeded database on SQLite; or on the dialect that a test asks for by indirect parametrisation."""
    dialect = getattr(request, "param", "sqlite")
    async with request.getfixturevalue(f"{dialect}_databases").fresh() as url:
        fresh = Database(url)
        yield fresh
        await fresh.dispose()


@pytest_asyncio.fixture
async def other_database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """Another fresh, seeded database of the same kind."""
    async with request.getfixturevalue("sqlite_databases").fresh() as url:
        fresh = Database(url)
        yield fresh
        await fresh.dispose()
