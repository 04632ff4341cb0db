"""Which front the tests are about: ``configure()`` and asynchronous engines, or ``configure_sync()`` and ordinary ones.

``SQLACACHE_TEST_FRONT=sync`` runs everything that takes its engines and caches from here on the sync front, from the
same source: engines have the face of asynchronous ones (:mod:`.threads`), and so has the cache. What is about
asynchronous sessions only is marked ``asynchronous``, with the reason.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Coroutine
from functools import cache, partial
from pkgutil import resolve_name
from typing import Any, Literal

import pytest
import sqlalchemy
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import greenlet_spawn

from sqlacache import AsyncDirectSession, CacheManager, SyncCacheManager, configure_sync
from sqlacache import configure as configure_async
from sqlacache.front import port
from sqlacache.front.blocking import finish

from .threads import in_thread, thread_engine, thread_of

Front = Literal["async", "sync"]

FRONT: Front = "sync" if os.environ.get("SQLACACHE_TEST_FRONT") == "sync" else "async"

SESSION: type[AsyncSession] = (
    AsyncDirectSession if os.environ.get("SQLACACHE_TEST_SESSION") == "direct" else AsyncSession
)
"""The class of the sessions of everyday tests: with ``direct``, those that answer hits of a get without a statement."""

PSYCOPG = "psycopg" if int(sqlalchemy.__version__[0]) >= 2 else "psycopg2"
DRIVERS = {"aiosqlite": "pysqlite", "asyncpg": PSYCOPG, "asyncmy": "pymysql", "aiomysql": "pymysql"}
"""The ordinary driver for each asynchronous one; others are both, or ordinary."""


def asynchronous(reason: str) -> pytest.MarkDecorator:
    """Mark a test (or a parameter) of what only asynchronous sessions can do, or have done to them."""
    return pytest.mark.skipif(FRONT == "sync", reason=f"asynchronous: {reason}")


def open_engine(url: Any, *, front: Front = FRONT, **options: Any) -> AsyncEngine:
    """An engine as ``create_async_engine`` makes it, or an ordinary one with its face."""
    url = url_for(url, front)
    if front == "async":
        return create_async_engine(url, **options)
    if options.get("poolclass") is AsyncAdaptedQueuePool:
        del options["poolclass"]
    connection = _CONNECTIONS.get(url.get_driver_name())
    if connection is not None:
        options["connect_args"] = {**connection(), **options.get("connect_args", {})}
    return thread_engine(url, **options)


def url_for(url: Any, front: Front = FRONT) -> URL:
    """The URL of the same database for a driver of the front."""
    made = make_url(url)
    driver = DRIVERS.get(made.get_driver_name()) if front == "sync" else None
    return made if driver is None else made.set(drivername=f"{made.get_backend_name()}+{driver}")


class SQLiteCursor(sqlite3.Cursor):
    """One whose methods can be replaced, as those of the other drivers can."""


class SQLiteConnection(sqlite3.Connection):
    """As above."""

    def cursor(self, factory: Any = SQLiteCursor) -> Any:
        return super().cursor(factory)


@cache
def _of_psycopg2() -> dict[str, Any]:
    from psycopg2.extensions import connection, cursor

    return {
        "connection_factory": type("Connection", (connection,), {}),
        "cursor_factory": type("Cursor", (cursor,), {}),
    }


_CONNECTIONS: dict[str, Any] = {
    # Sessions move between threads of a pool; SQLAlchemy 1.4 does not ask for it by itself.
    "pysqlite": lambda: {"factory": SQLiteConnection, "check_same_thread": False},
    "psycopg2": _of_psycopg2,
}


def driver_class(dialect: Any, what: Literal["connection", "cursor"]) -> Any:
    """The class of an ordinary driver's connections or cursors, as engines of :func:`open_engine` have them."""
    if dialect.driver == "pysqlite":
        return {"connection": SQLiteConnection, "cursor": SQLiteCursor}[what]
    if dialect.driver == "psycopg2":
        return _of_psycopg2()[f"{what}_factory"]
    named = "connections.Connection" if what == "connection" else "cursors.Cursor"
    names = {"pymysql": f"pymysql.{named}", "psycopg": f"psycopg.{what.capitalize()}"}
    return resolve_name(names[dialect.driver])


def configure(*arguments: Any, front: Front = FRONT, **options: Any) -> Any:
    """``configure()``, or ``configure_sync()`` with the face of it."""
    if front == "async":
        return configure_async(*arguments, **options)
    return ThreadCache(configure_sync(*arguments, **options))


AWAITED = frozenset(
    name for name in vars(CacheManager) if not name.startswith("_") and hasattr(SyncCacheManager, name)
) - {"lifespan"}


def run_on(
    front: port.Front, work: Callable[[], None], close: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Do work that waits as a front does, then close what is its."""

    async def run() -> None:
        try:
            await greenlet_spawn(work)
        finally:
            await close()

    if not front.is_blocking:
        return asyncio.run(run())
    try:
        return work()
    finally:
        finish(close())


class ThreadCache:
    """A :class:`~sqlacache.SyncCacheManager` whose methods are awaited, each call done in a thread."""

    def __init__(self, manager: SyncCacheManager) -> None:
        self.manager = manager

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.manager, name)
        return partial(self._call, found) if name in AWAITED else found

    def __repr__(self) -> str:
        return repr(self.manager)

    async def _call(self, method: Any, *arguments: Any, **named: Any) -> Any:
        given = [_ordinary(argument) for argument in arguments]
        call = partial(method, *given, **named)
        session = given[0] if given and isinstance(arguments[0], AsyncSession) else None
        return await (in_thread(call) if session is None else in_thread(call, thread=thread_of(session)))


def _ordinary(argument: Any) -> Any:
    if isinstance(argument, AsyncEngine):
        return argument.sync_engine
    return argument.sync_session if isinstance(argument, AsyncSession) else argument
