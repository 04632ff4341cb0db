"""Fresh, seeded databases for tests, and a probe of what reaches them."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from .fronts import FRONT, SESSION, Front, open_engine
from .seed import create_and_seed

POOL_SIZE = 5

DATABASES = [
    name if name.startswith("sqlite") else pytest.param(name, marks=pytest.mark.integration)
    for name in os.environ.get("SQLACACHE_TEST_DATABASES", "sqlite,postgresql").split(",")
]
"""What the tests of everyday situations run on: dialects, each perhaps with its driver."""


@dataclass(eq=False)
class Traffic:
    """What reached the database while a probe was on."""

    statements: list[str] = field(default_factory=list)
    checkouts: int = 0

    @property
    def selects(self) -> list[str]:
        """The statements that read."""
        return [statement for statement in self.statements if statement.lstrip().upper().startswith("SELECT")]


class Database:
    """One seeded database: an engine to be cached, and another that the cache does not know, to ask for the truth."""

    def __init__(self, url: str, front: Front = FRONT) -> None:
        self.url = url
        self.engine = make_engine(url, front=front)
        self.truth_engine = make_engine(url, pool_size=1, front=front)
        self.sessions = make_sessions(self.engine)
        self.truth_sessions = make_sessions(self.truth_engine)

    @property
    def dialect(self) -> str:
        """Name of the dialect: ``sqlite``, ``postgresql`` or ``mariadb``."""
        return self.engine.dialect.name

    @contextmanager
    def probe(self) -> Iterator[Traffic]:
        """Count the statements sent to the database through :attr:`engine`, and the connections taken from its pool."""
        traffic = Traffic()
        probes = _probes_of(self.engine.sync_engine)
        probes.append(traffic)
        try:
            yield traffic
        finally:
            probes.remove(traffic)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session in a transaction that commits at the end of the block, as a request that writes would."""
        async with self.sessions() as session:
            async with session.begin():
                yield session

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection of the cached engine, without a session, in a transaction that commits at the end."""
        async with self.engine.begin() as connection:
            yield connection

    async def dispose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()
        await self.truth_engine.dispose()


_probes: WeakKeyDictionary[Engine, list[Traffic]] = WeakKeyDictionary()


def _probes_of(engine: Engine) -> list[Traffic]:
    """What counts now: the listeners stay, since threads may be iterating over an engine's listeners at any time."""
    probes = _probes.get(engine)
    if probes is None:
        probes = _probes[engine] = []

        def on_statement(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
            for traffic in list(probes):
                traffic.statements.append(statement)

        def on_checkout(*args: Any) -> None:
            for traffic in list(probes):
                traffic.checkouts += 1

        event.listen(engine, "before_cursor_execute", on_statement)
        event.listen(engine, "checkout", on_checkout)
    return probes


def make_engine(url: str, pool_size: int = POOL_SIZE, front: Front = FRONT) -> AsyncEngine:
    """An engine that never has more than ``pool_size`` connections, on every dialect and SQLAlchemy version alike."""
    return open_engine(
        url,
        front=front,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=20,
        **isolation(url),
    )


def isolation(url: str) -> dict[str, Any]:
    """What makes an engine READ COMMITTED where that is not what the database begins with."""
    return {"isolation_level": "READ COMMITTED"} if make_url(url).get_backend_name() == "mariadb" else {}


def with_driver(url: str, driver: str) -> str:
    """The URL of the same database for another driver; for the same where ``driver`` is empty."""
    made = make_url(url)
    if driver:
        made = made.set(drivername=f"{made.get_backend_name()}+{driver}")
    return made.render_as_string(hide_password=False)


def make_sessions(engine: AsyncEngine, **options: Any) -> Any:
    """What ``async_sessionmaker`` makes, in the spelling that SQLAlchemy 1.4 knows as well."""
    return sessionmaker(bind=engine, class_=SESSION, expire_on_commit=False, **options)  # type: ignore[call-overload]  # typed for sync engines only


class SQLiteDatabases:
    """Databases copied from one seeded file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seeded: Path | None = None

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[str]:
        """Give the URL of a seeded database that nobody else uses."""
        if self._seeded is None:
            path = self._folder / "seeded.db"
            await _seed(f"sqlite+aiosqlite:///{path}", "PRAGMA journal_mode=WAL")
            self._seeded = path
        copy = self._folder / f"{uuid4().hex}.db"
        shutil.copy(self._seeded, copy)
        try:
            yield f"sqlite+aiosqlite:///{copy}"
        finally:
            for leftover in self._folder.glob(f"{copy.name}*"):
                leftover.unlink()


class PostgresDatabases:
    """Databases copied by the server from one seeded template."""

    def __init__(self, server_url: str) -> None:
        self._server = make_url(server_url)
        self._template: str | None = None

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[str]:
        """Give the URL of a seeded database that nobody else uses."""
        if self._template is None:
            template = await self._create()
            await _seed(self._named(template))
            self._template = template
        # As files (PostgreSQL 15): a third cheaper than through its log, and what it knows of the catalog comes along.
        copy = await self._create(f"TEMPLATE {self._template} STRATEGY FILE_COPY")
        try:
            yield self._named(copy)
        finally:
            await self._administer(f"DROP DATABASE {copy} WITH (FORCE)")

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[str]:
        """Give the URL of an empty database that nobody else uses."""
        name = await self._create()
        try:
            yield self._named(name)
        finally:
            await self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    async def remove_template(self) -> None:
        """Leave nothing behind on a server that outlives the tests."""
        if self._template is not None:
            await self._administer(f"DROP DATABASE {self._template}")
            self._template = None

    def _named(self, database: str) -> str:
        return self._server.set(database=database).render_as_string(hide_password=False)

    async def _create(self, options: str = "") -> str:
        name = f"sqlacache_{uuid4().hex[:12]}"
        await self._administer(f"CREATE DATABASE {name} {options}")
        return name

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(
            **self._server.get_dialect()().create_connect_args(self._server)[1]
        )
        await connection.execute(statement)
        await connection.close()


class MariaDBDatabases:
    """Databases seeded one by one: the server has no way to copy one."""

    def __init__(self, server_url: str) -> None:
        self._server = make_url(server_url)

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[str]:
        """Give the URL of a seeded database that nobody else uses."""
        async with self.empty() as url:
            await _seed(url)
            yield url

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[str]:
        """Give the URL of an empty database that nobody else uses."""
        name = f"sqlacache_{uuid4().hex[:12]}"
        await self._administer(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        try:
            yield self._server.set(database=name).render_as_string(hide_password=False)
        finally:
            await self._administer(f"DROP DATABASE {name}")

    async def _administer(self, statement: str) -> None:
        engine = create_async_engine(self._server, poolclass=NullPool)
        async with engine.connect() as connection:
            await connection.exec_driver_sql(statement)
        await engine.dispose()


async def _seed(url: str, *first: str) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        for statement in first:
            await connection.exec_driver_sql(statement)
    async with engine.begin() as connection:
        await connection.run_sync(create_and_seed)
    await engine.dispose()
