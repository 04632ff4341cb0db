"""Fixtures of all tests: real databases, a cache bound to one, and a reader that asserts how reads were answered.

``database`` gives each test a fresh, seeded database on SQLite and on PostgreSQL, or on what
``SQLACACHE_TEST_DATABASES`` names, such as ``postgresql+psycopg,mariadb+asyncmy``. A server is the one at
``SQLACACHE_TEST_POSTGRES_URL`` or ``SQLACACHE_TEST_MARIADB_URL``, or one that is started here; where neither can be
had, its tests are skipped, or fail when ``SQLACACHE_REQUIRE_SERVERS=1`` promised them.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import hypothesis
import pytest
import pytest_asyncio

from tests.support.databases import (
    DATABASES,
    Database,
    MariaDBDatabases,
    PostgresDatabases,
    SQLiteDatabases,
    with_driver,
)
from tests.support.fronts import configure
from tests.support.listeners import listeners_of_ours
from tests.support.mariadb import mariadb_server
from tests.support.postgres import Unavailable, postgres_server
from tests.support.reading import UNCACHED, Reader
from tests.support.redis_server import redis_server

# A busy machine is no finding: no example has to be fast.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

LOCAL = os.environ.get("SQLACACHE_TEST_LOCAL", "default")
"""The local tier of the tests' caches with ``SQLACACHE_TEST_BACKEND=redis``: what holds in one process holds there."""

_servers = ExitStack()


def pytest_sessionstart(session: pytest.Session) -> None:
    """With ``SQLACACHE_TEST_BACKEND=redis``, every cache of every test is on a Redis that is started here."""
    if os.environ.get("SQLACACHE_TEST_BACKEND") == "redis":
        server = _servers.enter_context(redis_server())
        os.environ["SQLACACHE_BACKEND"] = f"{server.url}?timeout=5"  # the machine may be slow


def pytest_sessionfinish(session: pytest.Session) -> None:
    _servers.close()


def pytest_configure(config: pytest.Config) -> None:
    # SQLite keeps Numeric as floating point, which the tests' amounts survive.
    config.addinivalue_line("filterwarnings", "ignore:Dialect sqlite.* does \\*not\\* support Decimal")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests recorded as a ``figure``, in whichever process they ran: reports bring it here."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    figures = [value for report in reports for name, value in report.user_properties if name == "figure"]
    if figures:
        terminalreporter.section("exactness")
        for line in sorted(figures):
            terminalreporter.line(line)


@pytest.fixture(scope="session", autouse=True)
def collected() -> Iterator[None]:
    """What cannot be finalised without an error fails a test: at the end of a worker process, nobody looks at it."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """SQLAlchemy URL (asyncpg) of a running PostgreSQL server."""
    yield from _server("SQLACACHE_TEST_POSTGRES_URL", postgres_server)


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """SQLAlchemy URL (asyncmy) of a running MariaDB server, of a user who may create databases."""
    yield from _server("SQLACACHE_TEST_MARIADB_URL", mariadb_server)


def _server(variable: str, start: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    given = os.environ.get(variable)
    if given:
        yield given
        return
    server = start()
    try:
        url = server.__enter__()
    except Unavailable as why:
        if os.environ.get("SQLACACHE_REQUIRE_SERVERS") == "1":
            pytest.fail(f"SQLACACHE_REQUIRE_SERVERS=1, but: {why}", pytrace=False)
        pytest.skip(str(why))
    yield url
    server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def postgresql_databases(postgres_url: str) -> Iterator[PostgresDatabases]:
    """Source of fresh databases on PostgreSQL."""
    databases = PostgresDatabases(postgres_url)
    yield databases
    # The loops of the tests are closed by now: the last statement gets one of its own, out of pytest-asyncio's way.
    last = Thread(target=lambda: asyncio.run(databases.remove_template()))
    last.start()
    last.join()


@pytest.fixture(scope="session")
def mariadb_databases(mariadb_url: str) -> MariaDBDatabases:
    """Source of fresh databases on MariaDB."""
    return MariaDBDatabases(mariadb_url)


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> SQLiteDatabases:
    """Source of fresh databases on SQLite."""
    folder: Path = tmp_path_factory.mktemp("sqlite")
    return SQLiteDatabases(folder)


@pytest_asyncio.fixture(params=DATABASES)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A fresh, seeded database, on every dialect."""
    dialect, _, driver = request.param.partition("+")
    source = request.getfixturevalue(f"{dialect}_databases")
    async with source.fresh() as url:
        fresh = Database(with_driver(url, driver))
        yield fresh
        await fresh.dispose()


@pytest_asyncio.fixture
async def cache(database: Database) -> AsyncIterator[Any]:
    """A cache in memory, bound to ``database``; nothing of it is left on anything afterwards."""
    if UNCACHED:
        yield None
        return
    before = listeners_of_ours()
    manager = configure(
        models={"*": {"timeout": 3600}, "tests.support.models.AuditLog": None},
        telemetry=None,
        prefix=f"test-{uuid4().hex[:8]}",
        local=None if LOCAL == "none" else LOCAL,
    )
    await manager.bind(database.engine)
    yield manager
    await manager.disconnect()
    assert listeners_of_ours() == before, "disconnect() left listeners behind"


@pytest.fixture
def reader(database: Database, cache: Any) -> Reader:
    """Reads ``database`` through ``cache`` and asserts how each read was answered."""
    return Reader(database, cache)


@pytest_asyncio.fixture
async def other_reader(
    request: pytest.FixtureRequest, database: Database, cache: Any
) -> AsyncIterator[Reader]:
    """Reads a second database through the same cache: what happens in one is no news in the other."""
    source = request.getfixturevalue(f"{database.dialect}_databases")
    async with source.fresh() as url:
        other = Database(url)
        if cache is not None:
            await cache.bind(other.engine, database="other")
        yield Reader(other, cache)
        await other.dispose()
