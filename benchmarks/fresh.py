"""Who sees a commit: what a cached read answers right after its own process has committed a change of it.

Not a matter of speed, but what speed is compared for: a cache that answers with what was there before has less to do.
Each contender that caches reads until it hits, changes a row that the answer shows (one row, through a session: load,
assign, commit), and reads again. Its answer is compared with the database's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from .child import Unable
from .contender import Contender
from .contenders import (
    DECORATOR,
    DECORATOR_REDIS,
    DIRECT,
    DIRECT_VALIDATED,
    HIT,
    NO_CACHE,
    PEER_MEMORY,
    PEER_REDIS,
    PUSHED,
    REDIS,
    VALIDATED,
    contenders,
)
from .measure import CUSTOMERS, fresh_database
from .models import create_and_fill
from .parts import Goal, Part, Place
from .spread import spread
from .text import table
from .work import READS

NAME = "fresh"
TITLE = "who sees a commit"
OURS = (HIT, REDIS, VALIDATED, PUSHED, DIRECT, DIRECT_VALIDATED)
OTHERS = (PEER_MEMORY, PEER_REDIS, DECORATOR, DECORATOR_REDIS)

NEW, OLD, UNCACHED = "new", "OLD", "not cached"

Found = Mapping[str, Mapping[str, str]]
"""By work, by contender: :data:`NEW`, :data:`OLD` or :data:`UNCACHED`."""


def run(place: Place, *, rounds: int | None, quick: bool, progress: Callable[[str], None]) -> Part:
    """Try; once is enough."""
    there = [one for one in contenders() if one.absent() is None]
    found = asyncio.run(tried(place, there, progress))
    ours = [float(runs[name] == NEW) for runs in found.values() for name in OURS if name in runs]
    text = f"This library: the least of {len(ours)} reads after a commit, where 1 is new and 0 is old."
    goals = [Goal("reads after a commit", text, spread([min(ours)]), 1.0, True)] if ours else []
    return Part(NAME, TITLE, list(lines(found)), {"rounds": 1, "works": found}, goals)


async def tried(place: Place, among: Sequence[Contender], progress: Callable[[str], None]) -> Found:
    """Let every contender of ``among`` that caches change what it has cached, and read again."""
    numbers = count(1)
    found: dict[str, dict[str, str]] = {work.name: {} for work in READS}
    (truth,) = [one for one in among if one.name == NO_CACHE]
    runners = [one for one in among if one.name in (*OURS, *OTHERS)]
    async with fresh_database(place.postgres) as url:
        administrator = create_async_engine(url, poolclass=NullPool)
        async with administrator.begin() as connection:
            await connection.run_sync(create_and_fill, CUSTOMERS)
        await administrator.dispose()
        try:
            for runner in (truth, *runners):
                runner.open(url, place.redis)
            for work in READS:
                progress(work.name)
                for runner in runners:
                    if runner.takes_part(work):
                        async with runner.turn():
                            try:
                                before = await runner.ready(work)
                            except Unable:
                                found[work.name][runner.name] = UNCACHED
                                continue
                            for _ in range(2):  # what alternates between two values differs from one of both
                                await runner.change(work, next(numbers))
                                seen, real = await runner.again(work), await truth.again(work)
                                if seen != real:
                                    break
                        found[work.name][runner.name] = NEW if seen == real else OLD
                        if seen != real and seen != before:
                            raise RuntimeError(
                                f"{runner.name}, {work.name}: neither the old answer nor the new one"
                            )
        finally:
            for runner in (truth, *runners):
                await runner.close()
    return found


def lines(found: Found) -> Iterator[str]:
    """Give the report line by line."""
    names = [name for name in (*OURS, *OTHERS) if any(name in runs for runs in found.values())]
    yield "  Each read until it hit; then its own process committed a change of one row that the answer shows, and it"
    yield f"  read again. {NEW}: what the database has. {OLD}: what was there before. {UNCACHED}: it asks every time."

    def cell(work: str, name: str) -> Any:
        return found[work].get(name, "")

    yield from table(list(found), [name for name in names if name in OURS], cell, 18)
    yield from table(list(found), [name for name in names if name in OTHERS], cell, 18)
