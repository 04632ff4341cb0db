"""Who is compared with sync sessions: nobody's cache, this one where it can be kept, and the recipe on dogpile.cache.

As among the others (:mod:`.contenders`), a cache of ours is bound while it is its contender's turn. The recipe listens
to its own sessions only, and can stay.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, sessionmaker

from sqlacache import SyncCacheManager, configure_sync, testing

from .contenders import EVERYTHING, Unfair
from .sync_recipe import FromCache, cached_sessions, memory_region, redis_region
from .sync_work import Work

NO_CACHE = "no cache"
HIT = "mem://"
HIT_TELEMETRY = "mem://, telemetry"
REDIS = "redis"
VALIDATED = "redis, validated"
PUSHED = "redis, pushed"
DOGPILE = "dogpile, memory"
DOGPILE_REDIS = "dogpile, redis"


@dataclass
class Contender:
    """One way to answer the same reads, on one database."""

    name: str
    title: str
    backend: str | None = None
    """Where this library keeps entries: ``memory`` or ``redis``; ``None``: it is not there."""
    local: str | None = "default"
    telemetry: bool = False
    region: str | None = None
    """Where the recipe keeps what it keeps; ``None``: it is not there."""
    engine: Engine = field(init=False, repr=False)
    sessions: Any = field(init=False, repr=False)
    cache: SyncCacheManager | None = field(init=False, default=None, repr=False)
    options: Sequence[Any] = field(init=False, default=(), repr=False)
    """Options of its statements."""
    _sent: int = field(init=False, default=0, repr=False)

    def open(self, url: Any, redis_url: str, **engine: Any) -> None:
        """Make the engine and the cache; ``redis_url`` is for those on Redis."""
        self.engine = create_engine(url, **engine)
        event.listen(self.engine, "checkout", self._checked_out)
        self.sessions = sessionmaker(self.engine, class_=_session_class())
        if self.backend is not None:
            self.cache = configure_sync(
                backend={"url": redis_url, "timeout": 5.0} if self.backend == "redis" else "mem://",
                local=self.local,
                models=EVERYTHING,
                telemetry=self.telemetry or None,
                prefix=f"sync-{self.engine.dialect.name}-{self.name.replace(', ', '-').replace('://', '')}",
            )
        if self.region is not None:
            on_redis = self.region == "redis"
            region = redis_region(redis_url, self.engine.dialect.name) if on_redis else memory_region()
            cached_sessions(self.sessions, region)
            self.options = (FromCache(),)

    def _checked_out(self, connection: Any, record: Any, proxy: Any) -> None:
        self._sent += 1

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Bind the cache, if it is one of ours, for the time of the block."""
        if self.cache is None:
            yield
            return
        with self.cache.bound(self.engine):
            yield

    def warm(self, work: Work) -> Any:
        """Do the work until nothing is done for the first time any more; return the last answer.

        Raises :class:`~benchmarks.contenders.Unfair` if what follows would not be what the name says: a cache that asks
        the database, or nobody's cache that does not.
        """
        for number in range(work.keys + 1):
            work.run(self.sessions, self.options, number)
        if self.local == "pushed" and self.cache is not None:
            self._until_local(self.cache, work)
        before = self._sent
        answer = work.run(self.sessions, self.options, 0)
        if (self._sent > before) is not (self.name == NO_CACHE):
            raise Unfair(f"{self.name}, {work.name}: took {self._sent - before} connections to the database")
        return answer

    def _until_local(self, cache: SyncCacheManager, work: Work) -> None:
        """Read until Redis has proved that announcements arrive; from then on it is not asked any more."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with testing.record(cache) as seen:
                work.run(self.sessions, self.options, 0)
            if {decision.tier for decision in seen.decisions} == {"local"}:
                return
            time.sleep(0.01)
        raise Unfair("the pushed tier did not come to life")

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def _session_class() -> type[Session]:
    """Return a class of its own, so that who listens to one contender's sessions hears no other's."""
    return type("Session", (Session,), {})


def contenders() -> Sequence[Contender]:
    """Make them all; the first is what the others are compared with."""
    return (
        Contender(NO_CACHE, "no cache is bound to anything"),
        Contender(HIT, "this library in this process's memory; telemetry off", "memory"),
        Contender(HIT_TELEMETRY, "the same with telemetry as it is by default", "memory", telemetry=True),
        Contender(REDIS, "this library on Redis, no local tier; telemetry off", "redis", local=None),
        Contender(VALIDATED, "the same, and rows stay here while Redis says they hold", "redis", "validated"),
        Contender(PUSHED, "the same, and nobody is asked while commits are announced", "redis", "pushed"),
        Contender(DOGPILE, "the recipe on dogpile.cache.memory: the objects themselves", region="memory"),
        Contender(DOGPILE_REDIS, "the recipe on dogpile.cache.redis: pickled objects", region="redis"),
    )


COUNTERPARTS: Mapping[str, str] = {
    HIT: DOGPILE,
    REDIS: DOGPILE_REDIS,
    VALIDATED: DOGPILE_REDIS,
    PUSHED: DOGPILE_REDIS,
}
"""Which region of the recipe each is compared with: the one that keeps what it keeps in the same place."""
