"""The process in which sqlacache 0.1.3 takes part: it does what :mod:`.peer` writes on its standard input.

Run as a file by the Python of ``.venv-peer`` (``-I``: without this folder on its path), because the package has the
import name that this checkout has. The work is :mod:`.work`, like everybody's.

| line (:mod:`.child`) | answer, if not ``no`` and the reason |
|---|---|
| ``open``, database's URL, Redis's URL | ``ok`` |
| ``bind``, ``none``, ``memory`` or ``redis`` | ``ok`` |
| ``warm``, name of a work | ``ok``, the fingerprint of its answer |
| ``change``, name of a read, a number | ``ok``, once a change of what it answers is committed |
| ``again``, name of a read | ``ok``, the fingerprint of its answer |
| ``run``, name of a work, number of times, ``own`` or ``all`` (:mod:`.heap`) | ``ok``, seconds per operation |
| ``unbind`` | ``ok`` |
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlacache

# Last, so that the name sqlacache above and below is that of the package installed here.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from benchmarks.child import Unable, serve
from benchmarks.heap import all_garbage, own_garbage
from benchmarks.models import Base
from benchmarks.work import READS, WRITES, Work, change, fingerprint, reads_of_what_is_written

MEMORY = "mem://?size=1000000"
"""Its memory holds 1,000 keys by default, of which a list of 1,000 rows takes 1,001: it would never be a hit."""
WORKS = {work.name: work for work in (*READS, *WRITES)}


class Statements:
    """Counts the statements that an engine sends, while it is listening."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.sync_engine
        self.sent = 0

    def _count(self, *_: Any) -> None:
        self.sent += 1

    def __enter__(self) -> Statements:
        event.listen(self._engine, "before_cursor_execute", self._count)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._count)


class Warnings(logging.Handler):
    """Keeps the last warning that the package logged: it says why something was not cached."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


class Child:
    """The package on one engine, bound to one backend at a time, or to none."""

    def __init__(self) -> None:
        self._warnings = Warnings(logging.WARNING)
        logging.getLogger().addHandler(self._warnings)
        self._backends: dict[str, str] = {}
        self._cache: Any = None
        self._prefix = f"peer-{uuid4().hex[:8]}"

    async def open(self, url: str, redis_url: str) -> None:
        self._engine = create_async_engine(url, pool_size=2, max_overflow=0)
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._backends = {"memory": MEMORY, "redis": redis_url}

    async def bind(self, where: str) -> None:
        """Configure it as its README says: every model by its path, since ``*`` alone hears of no writes."""
        if where == "none":
            return
        self._cache = sqlacache.configure(
            backend=self._backends[where],
            models={
                f"{each.__module__}.{each.__name__}": {"ops": "all", "timeout": 3600} for each in _classes()
            },
            prefix=self._prefix,
        )
        await self._cache.bind(self._engine)

    async def unbind(self) -> None:
        if self._cache is not None:
            await self._cache.disconnect()
            self._cache = None

    async def warm(self, name: str) -> str:
        """Do the work until nothing is done for the first time, and refuse if a hit would not be one."""
        work = WORKS[name]
        if work in WRITES:
            async with self._sessions() as session:
                await reads_of_what_is_written(session)
            return fingerprint(work.plain(await work.run(self._sessions, {}, 0)))
        for number in range(work.keys + 1):
            await work.run(self._sessions, {}, number)
        self._warnings.last = ""
        answer = await self._looked_at(work)
        return fingerprint(work.plain(answer))

    async def _looked_at(self, work: Work) -> Any:
        with Statements(self._engine) as statements:
            answer = await work.run(self._sessions, {}, 0)
        if self._cache is not None and statements.sent:
            said = f"; it logs: {self._warnings.last}" if self._warnings.last else ""
            raise Unable(f"asks the database every time{said}")
        if self._cache is None and not statements.sent:
            raise Unable("asks no database without a cache")
        return answer

    async def run(self, name: str, times: str, heap: str) -> str:
        work, count = WORKS[name], int(times)
        run, sessions = work.run, self._sessions
        with own_garbage() if heap == "own" else all_garbage():
            await asyncio.sleep(0)
            began = time.perf_counter()
            for number in range(count):
                await run(sessions, {}, number)
            taken = (time.perf_counter() - began) / count
        if work in READS:
            await self._looked_at(work)  # it was a hit until now
        return repr(taken)

    async def change(self, name: str, number: str) -> None:
        await change(self._sessions, name, int(number))

    async def again(self, name: str) -> str:
        work = WORKS[name]
        return fingerprint(work.plain(await work.run(self._sessions, {}, 0)))


def _classes() -> list[type[Any]]:
    return [mapper.class_ for mapper in Base.registry.mappers]


async def main() -> None:
    await serve(Child())


if __name__ == "__main__":
    asyncio.run(main())
