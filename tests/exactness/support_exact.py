"""Comparing results down to the type of every value, and fixtures of databases with more tables than usual."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.state import InstanceState

from tests.support.databases import Database
from tests.support.fronts import configure
from tests.support.reading import UNCACHED, Read, Reader

from .support_schema import Furnish, FurnishedPostgres, FurnishedSQLite


def exact(value: Any, _path: tuple[int, ...] = ()) -> Any:
    """Turn a result into nested tuples of text that are equal only if types and values are, NaN included."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if id(value) in _path:
        return (kind, "again")
    path = (*_path, id(value))
    fields = getattr(value, "_fields", None)
    if isinstance(value, Mapping):
        return (kind, *((exact(key, path), exact(item, path)) for key, item in value.items()))
    if isinstance(value, (set, frozenset)):
        return (kind, *sorted(map(repr, value)))
    if isinstance(value, (list, tuple)) or fields is not None:
        names = tuple(map(str, fields)) if fields is not None else ()
        return (kind, names, *(exact(item, path) for item in value))
    state = _instance_state(value)
    if state is not None:
        loaded = sorted((key, item) for key, item in state.dict.items() if key != "_sa_instance_state")
        return (kind, *((key, exact(item, path)) for key, item in loaded))
    return (kind, repr(value))


def exactly(read: Read) -> Read:
    """The same read, its result made comparable to the type."""

    async def compared(session: AsyncSession) -> Any:
        return exact(await read(session))

    return compared


def raw_rows(build: Callable[[], Any]) -> Read:
    """All rows of a statement, as SQLAlchemy's own rows."""

    async def read(session: AsyncSession) -> Any:
        return (await session.execute(build())).all()

    return read


def in_sync(work: Callable[[Any], Any]) -> Read:
    """A function of the synchronous session, in which lazy loading and ``session.query()`` work."""

    async def read(session: AsyncSession) -> Any:
        return await session.run_sync(work)

    return read


def _instance_state(value: Any) -> InstanceState[Any] | None:
    try:
        state = inspect(value)
    except NoInspectionAvailable:
        return None
    return state if isinstance(state, InstanceState) else None


@asynccontextmanager
async def bound(database: Database, **options: Any) -> AsyncIterator[Reader]:
    """A reader of ``database`` through a cache configured as the tests' usual one is, but for ``options``."""
    if UNCACHED:
        yield Reader(database, None)
        return
    given = {"backend": "mem://", "models": {"*": {"timeout": 3600}}, "telemetry": None, **options}
    manager = configure(name=f"test-{uuid4().hex[:8]}", **given)
    await manager.bind(database.engine)
    yield Reader(database, manager)
    await manager.disconnect()


def furnished(furnish: Furnish) -> tuple[Any, Any]:
    """The fixtures ``sqlite_databases`` and ``postgresql_databases`` of a module, with what ``furnish`` adds."""

    @pytest.fixture(scope="module")
    def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> FurnishedSQLite:
        folder: Path = tmp_path_factory.mktemp("furnished")
        return FurnishedSQLite(folder, furnish)

    @pytest.fixture(scope="module")
    def postgresql_databases(postgres_url: str) -> Iterator[FurnishedPostgres]:
        databases = FurnishedPostgres(postgres_url, furnish)
        yield databases
        # The loops of the tests are closed by now: the last statement gets one of its own.
        last = Thread(target=lambda: asyncio.run(databases.remove_template()))
        last.start()
        last.join()

    return sqlite_databases, postgresql_databases


POSTGRESQL_ONLY = pytest.mark.parametrize(
    "database", [pytest.param("postgresql", marks=pytest.mark.integration)], indirect=True
)
SQLITE_ONLY = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
