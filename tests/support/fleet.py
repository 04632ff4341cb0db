"""What the tests of several processes on one Redis share: reads to make, and caches of this process beside workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import func, select, update

from .databases import Database
from .fronts import FRONT, Front, configure
from .models import Team, User
from .processes import eventually
from .reading import Read, Reader
from .reads import entities, get, scalar

MODELS: dict[str, Any] = {"*": {"timeout": 3600}, "tests.support.models.AuditLog": None}
LOCAL = [None, "validated", "pushed"]


def user(key: int) -> Read:
    return get(User, key)


def count(plan: str) -> Read:
    return scalar(lambda: select(func.count()).select_from(User).where(User.plan == plan))


def listed(plan: str) -> Read:
    return entities(lambda: select(User).where(User.plan == plan).order_by(User.id))


READS = (user(1), user(2), count("free"), count("pro"), listed("free"))


@asynccontextmanager
async def reading(
    url: str, backend: Any, *, bind: bool = True, front: Front = FRONT, **options: Any
) -> AsyncIterator[Reader]:
    """A reader of ``url`` through a cache of this process's own, on an engine of its own."""
    database = Database(url, front)
    cache = configure(front=front, **{"backend": backend, "models": MODELS, "telemetry": None, **options})
    try:
        if bind:
            await cache.bind(database.engine)
        yield Reader(database, cache)
    finally:
        await cache.disconnect()
        await database.dispose()


async def settled(reader: Reader, *reads: Read, patience: float = 15.0) -> None:
    """Read again and again, each time as the database says, until all of ``reads`` are hits."""

    async def all_hit() -> bool:
        hits = [(await reader.current(read)).hits for read in reads]
        return all(hits)

    await eventually(all_hit, "hits to come back", patience)


async def caught_up(reader: Reader) -> None:
    """Wait until the pushed tier, if there is one, has heard of everything that was announced before the call."""
    for binding in reader.cache.bindings:
        pushed = binding.store.pushed
        if pushed is not None:
            proved = time.monotonic() + pushed.bound

            def is_proved(pushed: Any = pushed, proved: float = proved) -> bool:
                return bool(pushed._live_until > proved)

            await eventually(is_proved, "a PONG to a PING sent from now on")


class Load:
    """Writes and reads that go on while something happens to the backend; nobody may go back in time.

    One writer counts up in the name of a team; readers check that what they read is not older than what had been
    committed before they began.
    """

    def __init__(self, writer: Reader, *readers: Reader) -> None:
        self._writer = writer
        self._readers = readers
        self._stopped = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.committed = [0, 0, 0, 0]
        self.reads = 0

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._write())]
        self._tasks += [asyncio.create_task(self._read(reader)) for reader in self._readers for _ in range(2)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stopped.set()
        await asyncio.gather(*self._tasks)

    async def goes_on(self, commits: int = 5) -> None:
        """Wait until some more commits and as many reads are done."""
        until, reads = sum(self.committed) + commits, self.reads + commits
        failed = [task for task in self._tasks if task.done()]
        await eventually(
            lambda: failed or (sum(self.committed) >= until and self.reads >= reads), "the load to go on", 60
        )

    async def _write(self) -> None:
        number = 0
        while not self._stopped.is_set():
            key = 1 + number % 3
            number += 1
            async with self._writer.database.sessions() as session:
                await session.execute(update(Team).where(Team.id == key).values(name=f"{number:06d}"))
                await session.commit()
            self.committed[key] = number

    async def _read(self, reader: Reader) -> None:
        key = 0
        while not self._stopped.is_set():
            key = 1 + key % 3
            since = self.committed[key]
            async with reader.database.sessions() as session:
                team = await session.get(Team, key)
                names = (await session.execute(select(Team.name).order_by(Team.id))).scalars().all()
            self.reads += 1
            for name in (team.name, names[key - 1]):
                assert not since or int(name) >= since, f"read {name} after {since:06d} had been committed"
            await asyncio.sleep(0)
