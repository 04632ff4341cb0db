"""Who is compared with sync sessions: nobody's cache, this one where it can be kept, and the recipe on dogpile.cache.

As among the others (:mod:`.contenders`), a cache of ours is bound while it is its contender's turn. The recipe listens
to its own sessions only, and can stay.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, sessionmaker

from sqlacache import DirectSession, SyncCacheManager, configure_sync, testing
from sqlacache.direct import ways

from .contender import EVERYTHING, WAYS, Unfair
from .models import Customer
from .sync_recipe import FromCache, cached_sessions, memory_region, redis_region
from .sync_work import WRITES, reads_of_what_is_written
from .work import KEYS, Work

NO_CACHE = "no cache"
HIT = "mem://"
HIT_TELEMETRY = "mem://, telemetry"
REDIS = "redis"
VALIDATED = "redis, validated"
PUSHED = "redis, pushed"
DIRECT = "mem://, direct"
DIRECT_PUSHED = "pushed, direct"
DIRECT_VALIDATED = "validated, direct"
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
    only: Collection[str] | None = None
    """Names of the works that it takes part in; ``None``: all."""
    unable: Mapping[str, str] = field(default_factory=dict)
    """Why it has no figures of a work, by name."""
    session_class: type[Session] = Session
    engine: Engine = field(init=False, repr=False)
    sessions: Any = field(init=False, repr=False)
    cache: SyncCacheManager | None = field(init=False, default=None, repr=False)
    options: Sequence[Any] = field(init=False, default=(), repr=False)
    """Options of its statements."""
    _sent: int = field(init=False, default=0, repr=False)

    def takes_part(self, work: Work) -> bool:
        """Return whether it is to do ``work``; what the recipe is not told of, it does nothing about."""
        if work.name in self.unable or (self.only is not None and work.name not in self.only):
            return False
        return self.region is None or work not in WRITES

    def open(self, url: Any, redis_url: str, **engine: Any) -> None:
        """Make the engine and the cache; ``redis_url`` is for those on Redis."""
        self.engine = create_engine(url, **engine)
        event.listen(self.engine, "checkout", self._checked_out)
        # A class of its own: who listens to one contender's sessions hears no other's.
        sessions = type("Session", (self.session_class,), {})
        self.sessions = sessionmaker(self.engine, class_=sessions)
        if self.backend is not None:
            self.cache = configure_sync(
                backend={"url": redis_url, "timeout": 5.0} if self.backend == "redis" else "mem://",
                local=self.local,
                models=EVERYTHING,
                telemetry=self.telemetry or None,
                prefix=f"sync-{self.engine.dialect.name}-{self.name.replace(', ', '-').replace('://', '')}",
            )
        if self.region is not None:
            place = f"{self.engine.dialect.name}-{uuid4().hex[:8]}"
            region = redis_region(redis_url, place) if self.region == "redis" else memory_region()
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

        Raises :class:`~benchmarks.contender.Unfair` if what follows would not be what the name says: a cache that asks
        the database, or nobody's cache that does not.
        """
        if work in WRITES:
            with self.sessions() as session:
                reads_of_what_is_written(session)
            return work.run(self.sessions, self.options, 0)
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


@dataclass
class Direct(Contender):
    """A contender with the session class whose ``get`` makes an object of a local hit without a statement."""

    only: Collection[str] | None = ("get",)
    session_class: type[Session] = DirectSession

    def warm(self, work: Work) -> Any:
        """Warm up, and see that every key takes the short way, which begins with an entry's second hit."""
        answer = super().warm(work)
        deadline = time.monotonic() + (
            10 if self.local == "pushed" else 0
        )  # announcements come when they come
        while True:
            for number in range(2 * work.keys):
                work.run(self.sessions, self.options, number)
            with self.sessions() as session:
                why = {session.why_not_direct(Customer, number) for number in range(1, KEYS + 1)} - {None}
            ways.clear()
            for number in range(work.keys):
                work.run(self.sessions, self.options, number)
            if not why and set(ways) == {WAYS[self.local]}:
                return answer
            if time.monotonic() > deadline:
                raise Unfair(f"{self.name}, {work.name}: not direct: {sorted(why) or sorted(ways)}")
            time.sleep(0.01)


CONFUSED = {
    "selectinload, 100 + 500": "the recipe's keys do not tell it from the same list without orders: "
    "it answers with whichever was read first",
}


def contenders() -> Sequence[Contender]:
    """Make them all; the first is what the others are compared with."""
    return (
        Contender(NO_CACHE, "no cache is bound to anything"),
        Contender(HIT, "this library in this process's memory; telemetry off", "memory"),
        Contender(HIT_TELEMETRY, "the same with telemetry as it is by default", "memory", telemetry=True),
        Contender(REDIS, "this library on Redis, no local tier; telemetry off", "redis", local=None),
        Contender(VALIDATED, "the same, and rows stay here while Redis says they hold", "redis", "validated"),
        Contender(PUSHED, "the same, and nobody is asked while commits are announced", "redis", "pushed"),
        Direct(DIRECT, "DirectSession on mem://: its get answers a local hit without a statement", "memory"),
        Direct(DIRECT_PUSHED, "DirectSession on Redis, pushed", "redis", "pushed"),
        Direct(DIRECT_VALIDATED, "DirectSession on Redis, asked whether the row holds", "redis", "validated"),
        Contender(
            DOGPILE,
            "the recipe on dogpile.cache.memory: the objects themselves",
            region="memory",
            unable=CONFUSED,
        ),
        Contender(
            DOGPILE_REDIS,
            "the recipe on dogpile.cache.redis: pickled objects",
            region="redis",
            unable=CONFUSED,
        ),
    )


COUNTERPARTS: Mapping[str, str] = {
    HIT: DOGPILE,
    REDIS: DOGPILE_REDIS,
    VALIDATED: DOGPILE_REDIS,
    PUSHED: DOGPILE_REDIS,
}
"""Which region of the recipe each is compared with: the one that keeps what it keeps in the same place."""
HITS = (HIT, HIT_TELEMETRY, REDIS, VALIDATED, PUSHED, DIRECT, DIRECT_PUSHED)
"""Ours of which every read is a hit."""
