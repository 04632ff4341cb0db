"""Part ``apart``: each contender in a process of its own, as an application has it, beside sqlacache 0.1.3.

In the part ``one`` everybody's caches are in one process, whose garbage collector must be kept from them
(:mod:`.heap`). Here it is as Python sets it, and has nothing to look at but what one contender brings along: what it
collects for a cache that makes many objects, that cache pays. Contenders take turns as everywhere; who has no turn
sleeps.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .child import Process
from .contender import Contender
from .contenders import (
    HIT,
    INSTANT,
    NO_CACHE,
    PEER_MEMORY,
    PEER_NO_CACHE,
    PEER_REDIS,
    PUSHED,
    REDIS,
    VALIDATED,
    contenders,
)
from .figures import Samples, ratio, told
from .goals import Demand
from .measure import LeftOut, measure
from .parts import Chart, Part, Place
from .peer import VERSION, child, peers
from .spread import times
from .text import detail
from .work import READS, Work

NAME = "apart"
TITLE = f"each in a process of its own, beside sqlacache {VERSION}"
ROUNDS = 15
WORKS = ("get", "list of 100", "list of 1,000")
QUICK = ("get",)
OURS = (NO_CACHE, HIT, REDIS, VALIDATED, PUSHED, INSTANT)
BESIDE = ((HIT, PEER_MEMORY), (VALIDATED, PEER_REDIS))
"""Which of ours is compared with which of theirs: what each has by default."""
BOUNDS = {"get": 2.5, "list of 1,000": 8.0}
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Apart(Contender):
    """A contender of this library's, in a process of its own."""

    process: Process = field(init=False, repr=False)

    def open(self, url: Any, redis_url: str) -> None:
        self.process = Process(
            self.name, [sys.executable, "-m", "benchmarks.apart_child", self.name], cwd=str(ROOT)
        )
        self.process.start(url.render_as_string(hide_password=False), redis_url)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        await self.process.ask("bind")
        try:
            yield
        finally:
            await self.process.ask("unbind")

    async def ready(self, work: Work) -> str:
        return await self.process.ask("warm", work.name)

    async def seconds(self, work: Work, times: int) -> float:
        return float(await self.process.ask("run", work.name, str(times)))

    async def close(self) -> None:
        self.process.stop()


def apart() -> Sequence[Contender]:
    """Make them, each with a process to come."""
    found = {one.name: one for one in contenders()}
    theirs = peers()
    for one in theirs:
        one.process, one.heap = child(), "all"
    return (*(Apart(name, found[name].title) for name in OURS), *theirs)


def run(place: Place, *, rounds: int | None, quick: bool, progress: Callable[[str], None]) -> Part:
    """Measure; see :class:`~benchmarks.parts.Module`."""
    number = rounds or (1 if quick else ROUNDS)
    names = QUICK if quick else WORKS
    left_out: LeftOut = {}
    samples = asyncio.run(
        measure(
            place.postgres,
            number,
            quick=quick,
            progress=progress,
            redis_url=place.redis,
            works=[work for work in READS if work.name in names],
            among=apart(),
            left_out=left_out,
        )
    )
    data = {"rounds": number, "works": told(samples, NO_CACHE), "left_out": left_out}
    goals = [goal for demand in demands() if (goal := demand.goal(samples)) is not None]
    return Part(NAME, TITLE, list(lines(samples, left_out)), data, goals, list(charts(samples)))


def demands() -> Iterator[Demand]:
    """Give what is demanded beside 0.1.3."""
    for work, bound in BOUNDS.items():
        for ours, theirs in BESIDE:
            text = f"{work}: a hit ({ours}) against one of {theirs}, each in a process of its own."
            yield Demand(f"{work}, {ours} against {theirs}", text, [work], theirs, ours, bound)


def lines(samples: Samples, left_out: LeftOut) -> Iterator[str]:
    """Give the report line by line."""
    yield "  The garbage collector is as Python sets it, in every process. Milliseconds per operation, times as fast as"
    yield f"  no cache. {INSTANT}: no cache at all, and every answer at hand; what is beyond it cannot be had."
    names = [*OURS, PEER_NO_CACHE, PEER_MEMORY, PEER_REDIS]
    for work in samples:
        yield from detail(samples, work, names, NO_CACHE, INSTANT, (HIT, REDIS, VALIDATED, PUSHED))
        for theirs in (PEER_MEMORY, PEER_REDIS):
            if samples[work].get(theirs):
                beside = (
                    f"{name} {times(ratio(samples, work, theirs, name))}"
                    for name in (HIT, VALIDATED, PUSHED, INSTANT)
                )
                yield f"      times as fast as {theirs}: {', '.join(beside)}"
    for why in sorted({why for absent in left_out.values() for why in absent.values()}):
        yield f"  Without figures: sqlacache {VERSION}: {why}"


def charts(samples: Samples) -> Iterator[Chart]:
    """Give one chart of all."""
    there = [work for work in samples if samples[work].get(NO_CACHE)]
    series = {
        name: [(work, ratio(samples, work, NO_CACHE, name)) for work in there if samples[work].get(name)]
        for name in (*OURS[1:], PEER_NO_CACHE, PEER_MEMORY, PEER_REDIS)
    }
    series = {name: figures for name, figures in series.items() if figures}
    title = "Each in a process of its own: how many times as fast as with no cache"
    yield Chart(NAME, title, "bars", "", "times as fast (higher is better)", series, log_y=True, base=1.0)
