"""What a contender is: a way to answer the same reads and do the same writes, with an engine of its own.

A cache is bound when its contender's turn comes and disconnected when it ends, because a bound cache listens to every
session of the process: nobody else's figures may contain that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker

from sqlacache import CacheManager, configure, testing

from .instant import make_instant
from .work import WRITES, Work, change, fingerprint, reads_of_what_is_written

EVERYTHING: Mapping[Any, Any] = {"*": {"timeout": 3600}}
"""Configuration: all models, entries that live longer than a run."""


WAYS: Mapping[str | None, str] = {"default": "direct", "pushed": "direct", "validated": "confirmed"}
"""Which way gets of direct sessions take, by the local tier."""


class Unfair(Exception):
    """A contender did not do what its name says: the figures would mean something else."""


@dataclass
class Contender:
    """One way to answer the same reads and do the same writes."""

    name: str
    title: str
    models: Mapping[Any, Any] | None = None
    """What its cache is configured with; ``None``: it has no cache."""
    telemetry: Any = False
    """What its cache is configured with; ``False`` is ``None``."""
    expects: str = ""
    """What every read of it must be: a decision, or the reason of a bypass."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Execution options of its reads."""
    instant: bool = False
    writes: bool = True
    local: str | None = "default"
    """With Redis: what of the entries stays in this process."""
    redis: bool = False
    only: Collection[str] | None = None
    """Names of the works that it takes part in; ``None``: all."""
    session_class: Any = AsyncSession
    engine: AsyncEngine = field(init=False, repr=False)
    sessions: Any = field(init=False, repr=False)
    cache: CacheManager | None = field(init=False, default=None, repr=False)

    def takes_part(self, work: Work) -> bool:
        """Return whether it is to do ``work``."""
        return (self.writes or work not in WRITES) and (self.only is None or work.name in self.only)

    def absent(self) -> str | None:
        """Return why it cannot take part in anything here, or ``None``."""
        return None

    def open(self, url: Any, redis_url: str) -> None:
        """Make the engine and the cache; ``redis_url`` is for those on Redis."""
        self.engine = create_async_engine(url, pool_size=2, max_overflow=0)
        if self.instant:
            make_instant(self.engine)
        make: Any = sessionmaker  # typed for sync engines only
        self.sessions = make(self.engine, class_=self.session_class, expire_on_commit=False)
        if self.models is not None:
            self.cache = configure(
                backend={"url": redis_url, "timeout": 5.0} if self.redis else "mem://",
                local=self.local,
                models=self.models,
                telemetry=self.telemetry or None,
                prefix=f"benchmark-{self.name.replace(', ', '-').replace(' ', '-')}",
            )

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Bind the cache, if there is one, for the time of the block."""
        if self.cache is None:
            yield
            return
        await self.cache.bind(self.engine)
        try:
            yield
        finally:
            await self.cache.disconnect()

    def request(self) -> AbstractContextManager[Any]:
        """Return what a series of operations is done in."""
        return nullcontext()

    async def ready(self, work: Work) -> str:
        """Warm up; return the fingerprint of the answer.

        Raises :class:`Unfair` as :meth:`warm` does, and :class:`~benchmarks.child.Unable` if there will be no
        figures of this work.
        """
        return fingerprint(work.plain(await self.warm(work)))

    async def warm(self, work: Work) -> Any:
        """Do the work until nothing is done for the first time any more; return the last answer.

        Raises :class:`Unfair` if a read is not answered in the way that is to be measured.
        """
        if work in WRITES:
            async with self.sessions() as session:
                await reads_of_what_is_written(session)
            await work.run(self.sessions, self.options, 0)
            return None
        for number in range(work.keys + 1):
            await work.run(self.sessions, self.options, number)
        if self.cache is None:
            return await work.run(self.sessions, self.options, 0)
        with testing.record(self.cache) as seen:
            answer = await work.run(self.sessions, self.options, 0)
            if self.local == "pushed":  # served from here once it is proved that announcements arrive
                await _until_local(lambda: work.run(self.sessions, self.options, 0), seen)
        found = {decision.reason or decision.decision for decision in seen.decisions}
        if found != {self.expects}:
            raise Unfair(f"{self.name}, {work.name}: expected {self.expects}, got {sorted(found)}")
        return answer

    async def seconds(self, work: Work, times: int) -> float:
        """Return what one operation takes: the mean of ``times``, one after the other."""
        run, sessions, options = work.run, self.sessions, self.options
        await asyncio.sleep(0)
        with self.request():
            began = time.perf_counter()
            for number in range(times):
                await run(sessions, options, number)
            return (time.perf_counter() - began) / times

    async def change(self, work: Work, number: int) -> None:
        """Commit a change of what a read answers."""
        await change(self.sessions, work.name, number)

    async def again(self, work: Work) -> str:
        """Read once more; return the fingerprint of the answer."""
        return fingerprint(work.plain(await work.run(self.sessions, self.options, 0)))

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


async def _until_local(read: Callable[[], Awaitable[Any]], seen: testing.Recorder) -> None:
    deadline = time.monotonic() + 10
    while True:
        seen.decisions.clear()
        await read()
        if {decision.tier for decision in seen.decisions} == {"local"}:
            return
        if time.monotonic() > deadline:
            raise Unfair("the pushed tier did not come to life")
        await asyncio.sleep(0.01)
