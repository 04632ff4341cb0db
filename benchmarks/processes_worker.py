"""One of several processes that do the same at the same time: ``python -m benchmarks.processes_worker``.

It is told what to do by lines of JSON, and answers each with one: ``{"do": "open", ...}`` with the rest as arguments of
:meth:`Worker.open`, and so on. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any

from .load_contenders import CHECKED, Crowded, crowd
from .load_contenders import contenders as in_one_process
from .load_requests import COMMITS, POPULAR, Request, reads_of, requests_of


class Worker:
    """What the process does when it is told to."""

    def __init__(self) -> None:
        self._runners: Mapping[str, Crowded] = {}
        self._stack = AsyncExitStack()
        self._number = 0
        self._popular = POPULAR
        self._work = ""
        self._runner: Crowded

    async def open(
        self, urls: Mapping[str, str], redis_url: str, pool: int, number: int, popular: int, patient: bool
    ) -> None:
        """Make all contenders, for each of the places where PostgreSQL may be."""
        self._number, self._popular = number, popular
        runners: dict[str, Crowded] = {}
        for where, url in urls.items():
            for runner in in_one_process(pool, patient=patient):
                runner.open(url, redis_url)
                runners[f"{runner.name} at {where}"] = runner
        self._runners = runners

    async def begin(self, name: str, work: str) -> None:
        """Begin a turn: bind the cache."""
        self._runner, self._work = self._runners[name], work
        await self._stack.enter_async_context(self._runner.turn())

    async def empty(self) -> None:
        """Forget what is cached, for all processes."""
        await self._runner.empty()

    async def warm_up(self) -> str:
        """Ask everything until it is cached; return the fingerprint of the answers."""
        return await self._runner.warm_up(reads_of(self._work, self._popular))

    async def go(
        self, at: float, ahead: float, seconds: float, concurrent: int, seed: int, looked_at: bool
    ) -> Any:
        """Do requests from ``at`` on (of the monotonic clock, which all processes share), for some seconds.

        What is done in the first ``ahead`` of them is not told: connections are new, and nothing has committed on them.
        """
        asked = cycle(requests_of(self._work, 10 * seed + self._number, self._popular))
        if at > time.monotonic():
            gc.collect()
            await asyncio.sleep(max(0.0, at - time.monotonic()))
        if ahead:
            await crowd(self._runner.answer, asked, concurrent, time.perf_counter() + ahead)
        until = time.perf_counter() + seconds
        found: Counter[str] = Counter()
        if looked_at:
            async with self._runner.looked_at() as found:
                done = await crowd(self._runner.answer, asked, concurrent, until)
        else:
            done = await crowd(self._runner.answer, asked, concurrent, until)
        took = seconds + max(0.0, time.perf_counter() - until)
        commits = [one for kind, one in done if kind in COMMITS]
        reads = [one for kind, one in done if kind not in COMMITS]
        return {"reads": reads, "commits": commits, "took": took, "answered": dict(found)}

    async def stale(self) -> tuple[int, int]:
        """Return how many reads were compared with the database, and how many were answered otherwise."""
        reads = reads_of(self._work, self._popular)
        checked: list[Request] = [*reads[self._number :: max(1, len(reads) // CHECKED)]]
        return len(checked), await self._runner.stale(checked)

    async def end(self) -> None:
        """End the turn."""
        await self._stack.aclose()

    async def close(self) -> None:
        """Close everything."""
        for runner in self._runners.values():
            await runner.close()


async def main() -> None:
    worker, loop = Worker(), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        told = json.loads(line)
        try:
            answer: Any = {"answer": await getattr(worker, told.pop("do"))(**told)}
        except Exception as why:  # told to the parent, which raises it there
            answer = {"error": f"{type(why).__name__}: {why}"}
        print(json.dumps(answer), flush=True)
    await worker.close()


if __name__ == "__main__":
    asyncio.run(main())
