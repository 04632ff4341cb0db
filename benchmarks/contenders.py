"""Who is compared. Each has an engine of its own on the same database, and only public API is used to bind a cache.

A cache is bound when its contender's turn comes and disconnected when it ends, because a bound cache listens to every
session of the process: nobody else's figures may contain that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker

from sqlacache import CacheManager, configure, testing

from .instant import make_instant
from .models import Setting
from .work import WRITES, Work, reads_of_what_is_written


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
    engine: AsyncEngine = field(init=False, repr=False)
    sessions: Any = field(init=False, repr=False)
    cache: CacheManager | None = field(init=False, default=None, repr=False)

    def open(self, url: Any, redis_url: str) -> None:
        """Make the engine and the cache; ``redis_url`` is for those on Redis."""
        self.engine = create_async_engine(url, pool_size=2, max_overflow=0)
        if self.instant:
            make_instant(self.engine)
        self.sessions = sessionmaker(self.engine, class_=AsyncSession, expire_on_commit=False)  # type: ignore[call-overload]  # typed for sync engines only
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


EVERYTHING: Mapping[Any, Any] = {"*": {"timeout": 3600}}

NO_CACHE = "no cache"
UNCONFIGURED = "unconfigured"
UNCONFIGURED_TELEMETRY = "unconf., telemetry"
MISS = "miss"
HIT = "hit"
HIT_TELEMETRY = "hit, telemetry"
REDIS = "redis"
VALIDATED = "redis, validated"
PUSHED = "redis, pushed"
INSTANT = "instant driver"


def contenders() -> Sequence[Contender]:
    """Make them all; the first is what the others are compared with."""
    return (
        Contender(NO_CACHE, "PostgreSQL through asyncpg; no cache is bound to anything"),
        Contender(
            UNCONFIGURED,
            "a cache is bound, but the models read and written are not configured",
            models={Setting: {"timeout": 3600}},
            expects="not_configured",
        ),
        Contender(
            UNCONFIGURED_TELEMETRY,
            "the same with telemetry as it is by default, no OpenTelemetry SDK set up",
            models={Setting: {"timeout": 3600}},
            telemetry=True,
            expects="not_configured",
        ),
        Contender(
            MISS,
            "every read is loaded and stored anew (sqlacache_refresh); telemetry off",
            models=EVERYTHING,
            expects="manual_invalidated",
            options={"sqlacache_refresh": True},
            writes=False,
        ),
        Contender(HIT, "mem://, every read is a hit; telemetry off", models=EVERYTHING, expects="hit"),
        Contender(
            HIT_TELEMETRY,
            "the same with telemetry as it is by default",
            models=EVERYTHING,
            telemetry=True,
            expects="hit",
        ),
        Contender(
            REDIS,
            "Redis, no local tier; telemetry off",
            models=EVERYTHING,
            expects="hit",
            redis=True,
            local=None,
        ),
        Contender(
            VALIDATED,
            "Redis, decoded rows stay here and Redis is asked whether they hold; telemetry off",
            models=EVERYTHING,
            expects="hit",
            redis=True,
            local="validated",
        ),
        Contender(
            PUSHED,
            "Redis, and nobody is asked while commits are announced; telemetry off",
            models=EVERYTHING,
            expects="hit",
            redis=True,
            local="pushed",
        ),
        Contender(
            INSTANT,
            "no cache, and a driver that answers at once: what SQLAlchemy itself spends",
            instant=True,
            writes=False,
        ),
    )
