"""Who is compared where many requests are under way: as they would be deployed, with the settings that they come with.

Unlike the contenders of the other parts they have a pool of ten connections, and Redis as long to answer as it has by
default (0.2 s): who bypasses the cache because he waited too long shows it here.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import create_async_engine

from sqlacache import AsyncDirectSession, configure, testing
from sqlacache.direct import ways
from sqlacache_telemetry import Telemetry

from .contender import EVERYTHING, Contender, Unfair
from .contenders import (
    DECORATOR,
    DECORATOR_REDIS,
    DIRECT_PUSHED,
    DIRECT_VALIDATED,
    HIT,
    HIT_TELEMETRY,
    INSTANT,
    NO_CACHE,
    PUSHED,
    REDIS,
    VALIDATED,
)
from .instant import Answers, make_instant
from .load_by_hand import ByHand
from .load_requests import MIX, Request, ask, plain
from .models import Customer
from .work import fingerprint

POOL = 10
CHECKED = 60
"""Answers that are compared with the database's after a mix."""
PATIENCE, ATTEMPTS = 5.0, 3
"""Seconds for the pushed tier to come to life, or to hear of the last commits; how often is tried at least."""


@dataclass
class Crowded(Contender):
    """Somebody who answers requests, many at a time."""

    pool: int = POOL
    timeout: float | None = None
    """Seconds that Redis has to answer; ``None``: as by default."""

    @property
    def keeps(self) -> bool:
        """Whether it answers from what it was asked before."""
        return self.cache is not None

    def open(self, url: Any, redis_url: str) -> None:
        self.engine = create_async_engine(url, pool_size=self.pool, max_overflow=0)
        self.sessions = partial(self.session_class, self.engine, expire_on_commit=False)
        if self.models is not None:
            self.cache = configure(
                backend=self._backend(redis_url) if self.redis else "mem://",
                local=self.local,
                models=self.models,
                telemetry=Telemetry(registry=CollectorRegistry()) if self.telemetry else None,
                prefix=f"load-{self.name.replace(', ', '-').replace(' ', '-')}",
            )

    def _backend(self, url: str) -> Any:
        return url if self.timeout is None else {"url": url, "timeout": self.timeout}

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Bind the cache, if there is one, for the time of the block; then leave the server's connections to others."""
        try:
            async with super().turn():
                yield
        finally:
            await self.engine.dispose()

    async def empty(self) -> None:
        """Forget what earlier turns have left: others have written since."""
        if self.cache is not None:
            await self.cache.invalidate_all()

    async def answer(self, request: Request) -> Any:
        """Do what a request does."""
        return await ask(self.sessions, self.options, request)

    async def warm_up(self, reads: Sequence[Request]) -> str:
        """Ask everything until it is cached where it is to be; return the fingerprint of some answers.

        Raises :class:`~benchmarks.contender.Unfair` if something is not answered from there.
        """
        checked = reads[:: max(1, len(reads) // CHECKED)]
        until = time.monotonic() + PATIENCE
        for number in itertools.count(1):
            await crowd(self.answer, iter(reads if self.keeps else checked), self.pool)
            async with self.looked_at() as found:
                answers = [plain(one, await self.answer(one)) for one in checked]
            is_cached = set(found) <= {self.expects}
            why = (
                self.not_as_told(reads)
                if is_cached
                else f"expected {self.expects} everywhere, got {dict(found)}"
            )
            if why is None:
                break
            if time.monotonic() > until and number >= ATTEMPTS:
                raise Unfair(f"{self.name}: {why}")
        return fingerprint(answers)

    def not_as_told(self, reads: Sequence[Request]) -> str | None:
        """Return why hits are not what the name says, if they are not."""
        return None

    @asynccontextmanager
    async def looked_at(self) -> AsyncIterator[Counter[str]]:
        """Count how reads are answered during the block. That costs time: not for what is measured."""
        found: Counter[str] = Counter()
        if self.cache is None:
            yield found
            return
        with testing.record(self.cache) as seen:
            yield found
        found.update(told(seen.decisions))

    async def stale(self, checked: Sequence[Request]) -> int:
        """Return how many of these reads are answered otherwise than by the database, when nobody writes.

        The pushed tier hears of another process's commit a little later, and has some time for that.
        """
        found = len(checked)
        until = time.monotonic() + (PATIENCE if self.local == "pushed" else 0)
        while found:
            found = 0
            for one in checked:
                found += plain(one, await self.answer(one)) != plain(one, await self._asked(one))
            if time.monotonic() >= until:
                break
        return found

    async def _asked(self, request: Request) -> Any:
        return await ask(self.sessions, {"sqlacache_skip": True}, request)


@dataclass
class Direct(Crowded):
    """The session class whose ``get`` makes an object of a local hit without a statement."""

    session_class: Any = AsyncDirectSession
    only: Collection[str] | None = ("get", MIX)

    def not_as_told(self, reads: Sequence[Request]) -> str | None:
        if self.local == "pushed" and (asked := ways["confirmed"]):
            ways.clear()
            return f"not read directly: Redis was asked {asked} times whether something holds"
        session = self.sessions()  # it is asked only about itself, and opens nothing
        whys = (session.why_not_direct(Customer, one.subject) for one in reads if one.kind == "customer")
        return next((f"not read directly: {why}" for why in whys if why is not None), None)


@dataclass
class Ceiling(Crowded):
    """No cache, and a driver that has every answer at once, also when it is no longer the answer."""

    _answers: Answers = field(init=False, repr=False)
    keeps = True

    def open(self, url: Any, redis_url: str) -> None:
        super().open(url, redis_url)
        self._answers = make_instant(self.engine)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        self._answers.clear()
        async with super().turn():
            yield

    async def stale(self, checked: Sequence[Request]) -> int:
        """Return 0: it is not meant to see what others write."""
        return 0


@dataclass
class Decorated(Crowded):
    """A decorator of cashews on functions that return plain data, and deletions after each commit, written by hand."""

    by_hand: ByHand = field(init=False, repr=False)
    keeps = True

    def open(self, url: Any, redis_url: str) -> None:
        super().open(url, redis_url)
        self.by_hand = ByHand(self.sessions, redis_url if self.redis else "mem://")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        await self.by_hand.open()
        try:
            async with super().turn():
                yield
        finally:
            await self.by_hand.close()

    async def empty(self) -> None:
        await self.by_hand.empty()

    async def answer(self, request: Request) -> Any:
        return await self.by_hand.answer(request)

    @asynccontextmanager
    async def looked_at(self) -> AsyncIterator[Counter[str]]:
        found: Counter[str] = Counter()
        loads, calls = self.by_hand.loads, self.by_hand.calls
        yield found
        misses = self.by_hand.loads - loads
        found.update({"hit": self.by_hand.calls - calls - misses, "miss": misses})
        found += Counter()  # without what did not happen


def takes_part(runner: Crowded, work: str) -> bool:
    """Return whether somebody is measured at a work."""
    return runner.only is None or work in runner.only


def told(decisions: Iterable[Any]) -> Iterator[str]:
    """Name each decision: where a hit came from, or why it was none."""
    for decision in decisions:
        yield f"{decision.decision}, {decision.reason or decision.tier}"


async def crowd(
    answer: Callable[[Request], Any],
    requests: Iterator[Request],
    concurrent: int,
    until: float | None = None,
) -> list[tuple[str, float]]:
    """Let ``concurrent`` tasks do requests, one after the other each; return every one's kind and seconds.

    They end when there are no more requests, or with the first that is done after ``until`` (of ``perf_counter()``).
    """
    done: list[tuple[str, float]] = []
    clock = time.perf_counter

    async def one() -> None:
        for request in requests:
            began = clock()
            if until is not None and began >= until:
                return
            await answer(request)
            done.append((request.kind, clock() - began))

    await asyncio.gather(*(one() for _ in range(concurrent)))
    return done


def contenders(pool: int = POOL, *, patient: bool = False) -> Sequence[Crowded]:
    """Make them all; the first is what the others are compared with. With ``patient``, Redis has long to answer."""
    timeout = 5.0 if patient else None
    here = {"models": EVERYTHING, "expects": "hit, local", "pool": pool, "timeout": timeout}
    there = {**here, "expects": "hit, remote"}
    return [
        Crowded(NO_CACHE, f"PostgreSQL through asyncpg, {pool} connections, as everybody has", pool=pool),
        Crowded(HIT, "mem://; telemetry off", **here),
        Crowded(HIT_TELEMETRY, "the same with telemetry as it is by default", telemetry=True, **here),
        Crowded(REDIS, "Redis, no local tier", redis=True, local=None, **there),
        Crowded(
            VALIDATED, "Redis, and decoded rows that it is asked about", redis=True, local="validated", **here
        ),
        Crowded(
            PUSHED,
            "Redis, and nobody is asked while commits are announced",
            redis=True,
            local="pushed",
            **here,
        ),
        Direct(
            DIRECT_PUSHED,
            "the same through AsyncDirectSession, whose get takes no statement",
            redis=True,
            local="pushed",
            **here,
        ),
        Direct(
            DIRECT_VALIDATED,
            "the same, and Redis is asked whether the row that is here holds",
            redis=True,
            local="validated",
            **here,
        ),
        Ceiling(
            INSTANT,
            "no cache; a driver that answers every read at once, whatever was written: the most that a cache could do",
            pool=pool,
        ),
        Decorated(
            DECORATOR,
            "cashews' decorator on functions returning plain data; not safe under races",
            expects="hit",
            pool=pool,
        ),
        Decorated(DECORATOR_REDIS, "the same on Redis", redis=True, expects="hit", pool=pool),
    ]
