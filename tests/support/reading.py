"""Readers: reads made through fresh sessions, as other requests would make them, and what is asserted of each.

A *read* is an async function of a session. A :class:`Reader` runs it, watches what the cache decided and what reached
the database, and compares the result with the same read made on an engine that the cache does not know.

With ``SQLACACHE_TEST_UNCACHED=1`` no cache is bound and only results are compared: a situation that fails then is
wrong in itself.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from sqlacache.decisions import Decision, Invalidation
from sqlacache.observers import Observer

from .databases import Database, Traffic
from .plain import plain

UNCACHED = os.environ.get("SQLACACHE_TEST_UNCACHED") == "1"

Read = Callable[[AsyncSession], Awaitable[Any]]


class Watcher(Observer):
    """Keeps every record it is told of."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.invalidations: list[Invalidation] = []

    def decided(self, decision: Decision, scope: Any) -> None:
        self.decisions.append(decision)

    def invalidated(self, invalidation: Invalidation | None, scope: Any) -> None:
        if invalidation is not None:
            self.invalidations.append(invalidation)


@dataclass
class Answer:
    """What a read returned and how it was answered."""

    value: Any
    decisions: list[Decision]
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def hits(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.decision == "hit"]

    @property
    def misses(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.decision == "miss"]

    @property
    def bypasses(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.decision == "bypass"]

    def __str__(self) -> str:
        decided = [f"{d.op} {d.decision} {d.reason or d.tier} {','.join(d.tags)}" for d in self.decisions]
        return (
            f"decisions {decided}, statements {self.traffic.statements}, checkouts {self.traffic.checkouts}"
        )


class Reader:
    """Reads a database through its cached engine and says, by name of the method, what must be true of the answer."""

    def __init__(self, database: Database, cache: Any) -> None:
        self.database = database
        self.cache = cache

    @contextmanager
    def watch(self) -> Iterator[Watcher]:
        """Collect what the cache decides during the block."""
        watcher = Watcher()
        if self.cache is None:
            yield watcher
            return
        self.cache.add_observer(watcher)
        try:
            yield watcher
        finally:
            self.cache.remove_observer(watcher)

    async def truth(self, read: Read) -> Any:
        """What the database says now: the same read on an engine that is not bound."""
        async with self.database.truth_sessions() as session:
            return plain(await read(session))

    async def ask(self, read: Read, session: AsyncSession | None = None) -> Answer:
        """Read through a fresh session (or the one given); assert nothing."""
        with self.watch() as seen, self.database.probe() as traffic:
            if session is not None:
                value = plain(await read(session))
            else:
                async with self.database.sessions() as fresh:
                    value = plain(await read(fresh))
        return Answer(value, seen.decisions, traffic)

    async def current(self, read: Read) -> Answer:
        """Read; the answer is what the database says now, however it came about."""
        answer = await self.ask(read)
        assert answer.value == await self.truth(read), f"not what the database says: {answer}"
        return answer

    async def hit(self, read: Read) -> Answer:
        """Read; every part of the answer comes from the cache, nothing reaches the database, and it is current."""
        answer = await self.current(read)
        if not UNCACHED:
            assert answer.decisions, f"no decision was made: {answer}"
            assert answer.hits == answer.decisions, f"not answered from the cache: {answer}"
            assert answer.traffic.statements == [], f"a hit reached the database: {answer}"
            assert answer.traffic.checkouts == 0, f"a hit took a connection: {answer}"
        return answer

    async def miss(self, read: Read, reasons: Iterable[str]) -> Answer:
        """Read; something had to be loaded for one of ``reasons``, nothing was bypassed, and it is current."""
        answer = await self.current(read)
        if not UNCACHED:
            found = {decision.reason for decision in answer.misses}
            assert found, f"nothing was loaded: {answer}"
            assert found & set(reasons), f"loaded for {found}, expected {set(reasons)}: {answer}"
            assert not answer.bypasses, f"bypassed: {answer}"
        return answer

    async def bypass(self, read: Read, reason: str, session: AsyncSession | None = None) -> Answer:
        """Read; the cache had no part in it for ``reason``. In a session given, the answer is not compared."""
        answer = await self.ask(read, session)
        if session is None:
            assert answer.value == await self.truth(read), f"not what the database says: {answer}"
        if not UNCACHED:
            assert reason in {decision.reason for decision in answer.bypasses}, f"expected {reason}: {answer}"
            assert not answer.hits, f"answered from the cache: {answer}"
            assert not answer.misses, f"stored in the cache: {answer}"
        return answer

    async def warm(self, *reads: Read) -> None:
        """Read each twice: the first loads because nothing is there, the second is answered from the cache."""
        for read in reads:
            await self.miss(read, {"absent"})
            await self.hit(read)
