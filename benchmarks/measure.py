"""Rounds: in each, every work is done by one contender after the other, a few times by each."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from .contenders import Contender, Unfair, contenders
from .models import create_and_fill
from .work import READS, WRITES, Work, fresh_events

CUSTOMERS = 2000

Samples = dict[str, dict[str, list[float]]]
"""Seconds per operation: by work, by contender, one figure per round."""


async def measure(
    server_url: str,
    rounds: int,
    *,
    quick: bool,
    progress: Callable[[str], None],
    redis_url: str,
    works: Sequence[Work] = (*READS, *WRITES),
) -> Samples:
    """Run the benchmark in a database of its own on the server; ``quick`` does each work once per round, unwarmed."""
    async with fresh_database(server_url) as url:
        runners = contenders()
        administrator = create_async_engine(url, poolclass=NullPool)
        async with administrator.begin() as connection:
            await connection.run_sync(create_and_fill, CUSTOMERS)
        for runner in runners:
            runner.open(url, redis_url)
        samples: Samples = {
            work.name: {runner.name: [] for runner in runners if _takes_part(runner, work)} for work in works
        }
        answers: dict[str, Any] = {}
        try:
            for number in range(rounds if quick else rounds + 1):
                for work in works:
                    for runner in _in_turn(runners, number):
                        if _takes_part(runner, work):
                            async with runner.turn():
                                seconds = await _sample(runner, work, administrator, answers, quick=quick)
                            samples[work.name][runner.name].append(seconds)
                progress(f"round {number + 1}")
        finally:
            for runner in runners:
                await runner.close()
            await administrator.dispose()
    if not quick:  # the first round warms everything up
        samples = {work: {name: found[1:] for name, found in runs.items()} for work, runs in samples.items()}
    return samples


def _in_turn(runners: Sequence[Contender], number: int) -> Sequence[Contender]:
    """Let another one begin in each round."""
    first = number % len(runners)
    return (*runners[first:], *runners[:first])


def _takes_part(runner: Contender, work: Work) -> bool:
    return runner.writes or work not in WRITES


async def _sample(
    runner: Contender, work: Work, administrator: AsyncEngine, answers: dict[str, Any], *, quick: bool
) -> float:
    """Return the mean of one round's executions, in seconds."""
    if work in WRITES:
        async with administrator.begin() as connection:
            await fresh_events(connection)
    answer = work.plain(await runner.warm(work))
    if answers.setdefault(work.name, answer) != answer:
        raise Unfair(f"{runner.name}, {work.name}: not the answer of the others")
    times = 1 if quick else work.times
    run, sessions, options = work.run, runner.sessions, runner.options
    del answer
    gc.collect()  # what others left behind is not this one's; its own garbage is, so collection stays on
    await asyncio.sleep(0)
    began = time.perf_counter()
    for number in range(times):
        await run(sessions, options, number)
    return (time.perf_counter() - began) / times


@asynccontextmanager
async def fresh_database(server_url: str) -> AsyncIterator[Any]:
    """Give the URL of a new database, which is dropped afterwards."""
    name = f"sqlacache_benchmark_{uuid4().hex[:8]}"
    server = create_async_engine(server_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        async with server.connect() as connection:
            await connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            yield make_url(server_url).set(database=name)
        finally:
            async with server.connect() as connection:
                await connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await server.dispose()


__all__ = ["Samples", "measure"]
