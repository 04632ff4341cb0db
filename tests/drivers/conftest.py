"""A fresh, seeded database and a cache bound to it, for each driver in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
import sqlalchemy

from tests.drivers.tables import create_and_fill
from tests.support.databases import Database, with_driver
from tests.support.fronts import configure
from tests.support.listeners import listeners_of_ours
from tests.support.reading import Reader

SQLALCHEMY = tuple(int(part) for part in sqlalchemy.__version__.split(".")[:2])

no_psycopg = pytest.mark.skipif(SQLALCHEMY < (2, 0), reason="SQLAlchemy 1.4 has no dialect for psycopg 3")
DRIVERS = [
    pytest.param("sqlite+aiosqlite", "async", id="aiosqlite"),
    pytest.param("sqlite+pysqlite", "sync", id="sqlite3"),
    pytest.param("postgresql+asyncpg", "async", id="asyncpg", marks=pytest.mark.integration),
    pytest.param(
        "postgresql+psycopg", "async", id="psycopg async", marks=[pytest.mark.integration, no_psycopg]
    ),
    pytest.param("postgresql+psycopg", "sync", id="psycopg", marks=[pytest.mark.integration, no_psycopg]),
    pytest.param("postgresql+psycopg2", "sync", id="psycopg2", marks=pytest.mark.integration),
    pytest.param("mariadb+asyncmy", "async", id="asyncmy", marks=pytest.mark.integration),
    pytest.param("mariadb+pymysql", "sync", id="pymysql", marks=pytest.mark.integration),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on every driver, or on those of the dialects that its module names in ``DIALECTS``; on one of them, if
    it is one of the module's ``OF_THE_DATABASE``, since the driver has no part in it."""
    if "driver" in metafunc.fixturenames:
        wanted = getattr(metafunc.module, "DIALECTS", ("sqlite", "postgresql", "mariadb"))
        chosen = [driver for driver in DRIVERS if str(driver.values[0]).partition("+")[0] in wanted]
        if metafunc.function.__name__ in getattr(metafunc.module, "OF_THE_DATABASE", ()):
            chosen = chosen[-1:]
        metafunc.parametrize(("driver", "front"), chosen)


@pytest_asyncio.fixture
async def database(request: pytest.FixtureRequest, driver: str, front: Any) -> AsyncIterator[Database]:
    """A database with the rows of all tests, and the tables of these."""
    dialect, _, name = driver.partition("+")
    source = request.getfixturevalue(f"{dialect}_databases")
    async with source.fresh() as url:
        fresh = Database(with_driver(url, name), front)
        async with fresh.truth_engine.begin() as connection:
            await connection.run_sync(create_and_fill)
        yield fresh
        await fresh.dispose()


@pytest_asyncio.fixture
async def cache(database: Database, front: Any) -> AsyncIterator[Any]:
    """A cache in memory, bound to ``database``; nothing of it is left on anything afterwards."""
    before = listeners_of_ours()
    manager = configure(
        front=front,
        models={"*": {"timeout": 3600}},
        telemetry=None,
        local=None,
        name=f"test-{uuid4().hex[:8]}",
    )
    await manager.bind(database.engine)
    yield manager
    await manager.disconnect()
    assert listeners_of_ours() == before, "disconnect() left listeners behind"


@pytest.fixture
def reader(database: Database, cache: Any) -> Reader:
    """Reads ``database`` through ``cache`` and asserts how each read was answered."""
    return Reader(database, cache)
