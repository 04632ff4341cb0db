"""Processes of the parts ``growth`` and ``memory``: each has one cache, grown to some size, and does as it is told.

A process each, since what grows weighs on all of a process: its garbage collector looks at every cached object, and its
caches listen to every session. They take turns: while one works, the others wait.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from sqlalchemy import Column, Integer, String, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import declarative_base, sessionmaker

from sqlacache import configure, testing

from .contender import Unfair
from .copies import add_copies
from .models import Customer

COLUMNS = 8
"""Columns of a grown table beside its key."""
KEYS = 10
"""Rows that are read."""
STORES: Mapping[str, Mapping[str, Any]] = {
    "no cache": {},
    "mem://": {"backend": "mem://"},
    "redis": {"local": None},
    "redis, validated": {"local": "validated"},
}


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["benchmarks.report", "benchmarks.grown", "asyncpg", "redis.asyncio"])


@dataclass(frozen=True)
class Grown:
    """What a process has."""

    store: str
    """One of :data:`STORES`."""
    prefix: str
    postgres: str
    redis: str
    entries: int = 0
    """Entries in its cache beside those that it reads."""
    tables: int = 1
    """Configured models."""
    shapes: int = 0
    """Ways in which the first table is read, besides by key."""

    def cache(self, models: Mapping[Any, Any], **options: Any) -> Any:
        """Return its cache."""
        backend = {"backend": {"url": self.redis, "timeout": 5.0, "max_bytes": 1 << 30}}
        given = {**backend, **STORES[self.store]}
        if given["backend"] == "mem://":
            given["backend"] = {"url": "mem://", "max_bytes": 1 << 30}
        return configure(**given, models=models, prefix=self.prefix, telemetry=None, **options)


def grown_models(tables: int) -> list[Any]:
    """Make mapped classes of tables ``grown_1``, ``grown_2`` and so on."""
    base: Any = declarative_base()
    return [_grown_model(base, number) for number in range(1, tables + 1)]


def _grown_model(base: Any, number: int) -> Any:
    columns = {f"c{each}": Column(Integer) for each in range(1, COLUMNS + 1)}
    fields = {"__tablename__": f"grown_{number}", "id": Column(Integer, primary_key=True), **columns}
    return type(f"Grown{number}", (base,), {**fields, "note": Column(String(40))})


def ways(model: Any, number: int) -> Iterator[Any]:
    """Give ``number`` statements of which each is another shape of ``model``: by another column, of other columns."""
    columns = [getattr(model, f"c{each}") for each in range(1, COLUMNS + 1)]
    for way in range(1, number + 1):
        wanted = [column for bit, column in enumerate(columns) if way >> bit & 1]
        yield select(model.id, *wanted).where(columns[way % COLUMNS] == 1)


# -- in the process --------------------------------------------------------------------------------------------

Operation = Callable[[int], Awaitable[Any]]


class Worker:
    """A grown cache, and what is done with it; every method takes a number and returns seconds per operation."""

    def __init__(self, sessions: Any, model: Any, cache: Any) -> None:
        self._sessions, self._model, self._cache = sessions, model, cache

    async def hits(self, times: int) -> float:
        """Get a row that is cached, so many times."""
        model = self._model
        with testing.record(self._cache) as seen:
            for key in range(1, KEYS + 1):
                async with self._sessions() as session:
                    await session.get(model, key)
        if any(decision.decision != "hit" for decision in seen.decisions):
            raise Unfair(f"not all hits: {seen.decisions}")
        gc.collect()
        began = time.perf_counter()
        for number in range(times):
            async with self._sessions() as session:
                await session.get(model, number % KEYS + 1)
        return (time.perf_counter() - began) / times

    async def commits(self, times: int) -> float:
        """Insert a row and commit, so many times."""
        gc.collect()
        began = time.perf_counter()
        for _ in range(times):
            await self._commit(1)
        return (time.perf_counter() - began) / times

    async def rows(self, rows: int) -> float:
        """Insert so many rows and commit."""
        gc.collect()
        began = time.perf_counter()
        await self._commit(rows)
        return time.perf_counter() - began

    async def _commit(self, rows: int) -> None:
        async with self._sessions() as session:
            session.add_all([self._model(c1=number, note=f"row {number}") for number in range(rows)])
            await session.commit()


@asynccontextmanager
async def working(what: Grown) -> AsyncIterator[Worker]:
    """Grow a cache and give what works with it."""
    models = grown_models(what.tables)
    model = Customer if what.entries else models[0]
    engine = create_async_engine(what.postgres, pool_size=2, max_overflow=0)
    sessions: Any = sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)  # type: ignore[call-overload]  # typed for sync engines only
    cache = None
    if what.store != "no cache":
        cache = what.cache({each: {"timeout": 3600} for each in ([model] if what.entries else models)})
        await cache.bind(engine)
    try:
        async with sessions() as session:
            for key in range(1, KEYS + 1):
                await session.get(model, key)
            for statement in ways(model, what.shapes) if what.shapes else ():
                await session.execute(statement)
        if what.entries and cache is not None:
            await add_copies(cache, sessions, model, what.entries - KEYS, what.redis)
        yield Worker(sessions, model, cache)
    finally:
        if cache is not None:
            await cache.disconnect()
        await engine.dispose()


async def _work(connection: Connection, what: Grown) -> None:
    loop = asyncio.get_running_loop()
    async with working(what) as worker:
        connection.send("ready")
        while (asked := await loop.run_in_executor(None, connection.recv)) is not None:
            name, number = asked
            connection.send(await getattr(worker, name)(number))


def _main(connection: Connection, what: Grown) -> None:
    logging.getLogger("sqlacache").setLevel(logging.ERROR)  # that mem:// is not shared by processes is meant
    asyncio.run(_work(connection, what))


# -- in the program --------------------------------------------------------------------------------------------


class Process:
    """A process that has what it is told to have, when the block of :func:`processes` begins."""

    def __init__(self, what: Grown) -> None:
        self.what = what
        self._connection, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_main, args=(theirs, what), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, name: str, number: int) -> Any:
        """Let it do one of :class:`Worker`'s methods; return what that returns."""
        self._connection.send((name, number))
        return self.answer()

    def answer(self) -> Any:
        """Wait for what it says next."""
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"{self.what} ended with status {self._process.exitcode}") from None

    def end(self) -> None:
        """End it, gently if it listens."""
        try:
            self._connection.send(None)
        except OSError:
            self._process.terminate()
        self._process.join(30)
        self._process.terminate()
        self._connection.close()


@contextmanager
def processes(wanted: Mapping[Any, Grown]) -> Iterator[Mapping[Any, Process]]:
    """Start a process for each, two at a time; all are grown when the block begins, and ended when it ends."""
    started: dict[Any, Process] = {}
    waiting: list[Process] = []
    try:
        for name, what in wanted.items():
            started[name] = Process(what)
            waiting.append(started[name])
            if len(waiting) == 2:
                waiting.pop(0).answer()
        for process in waiting:
            process.answer()
        yield started
    finally:
        for process in started.values():
            process.end()
