"""Rounds: in each, every work is done by one contender after the other, a few times by each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from .child import Unable
from .contender import Contender, Unfair
from .contenders import contenders
from .heap import own_garbage
from .models import create_and_fill
from .work import READS, WRITES, Work, fresh_events

CUSTOMERS = 2000

Runner = TypeVar("Runner")

Samples = dict[str, dict[str, list[float]]]
"""Seconds per operation: by work, by contender, one figure per round."""

LeftOut = dict[str, dict[str, str]]
"""Why a contender has no figures: by work, by contender."""


async def measure(
    server_url: str,
    rounds: int,
    *,
    quick: bool,
    progress: Callable[[str], None],
    redis_url: str,
    works: Sequence[Work] = (*READS, *WRITES),
    among: Sequence[Contender] | None = None,
    left_out: LeftOut | None = None,
) -> Samples:
    """Run the benchmark in a database of its own on the server; ``quick`` does each work once per round, unwarmed.

    ``among`` are all contenders if it is not given. Those that cannot do a work, or are not installed, are not in its
    samples; ``left_out`` is filled with the reasons.
    """
    runners = contenders() if among is None else among
    left_out = {} if left_out is None else left_out
    for work in works:
        left_out[work.name] = {one.name: why for one in runners if (why := one.absent()) is not None}
    runners = [one for one in runners if one.absent() is None]
    async with fresh_database(server_url) as url:
        administrator = create_async_engine(url, poolclass=NullPool)
        async with administrator.begin() as connection:
            await connection.run_sync(create_and_fill, CUSTOMERS)
        samples: Samples = {
            work.name: {one.name: [] for one in runners if one.takes_part(work)} for work in works
        }
        answers: dict[str, str] = {}
        try:
            for runner in runners:
                runner.open(url, redis_url)
            for number in range(rounds if quick else rounds + 1):
                for work in works:
                    for runner in in_turn(runners, number):
                        figures = samples[work.name].get(runner.name)
                        if figures is None:
                            continue
                        try:
                            async with runner.turn():
                                figures.append(
                                    await _sample(runner, work, administrator, answers, quick=quick)
                                )
                        except Unable as why:
                            del samples[work.name][runner.name]
                            left_out[work.name][runner.name] = str(why)
                progress(f"round {number + 1}")
        finally:
            for runner in runners:
                await runner.close()
            await administrator.dispose()
    if not quick:  # the first round warms everything up
        samples = {work: {name: found[1:] for name, found in runs.items()} for work, runs in samples.items()}
    return samples


def in_turn(runners: Sequence[Runner], number: int) -> Sequence[Runner]:
    """Let another one begin in each round."""
    first = number % len(runners)
    return (*runners[first:], *runners[:first])


async def _sample(
    runner: Contender, work: Work, administrator: AsyncEngine, answers: dict[str, str], *, quick: bool
) -> float:
    """Return the mean of one round's executions, in seconds."""
    if work in WRITES:
        async with administrator.begin() as connection:
            await fresh_events(connection)
    answer = await runner.ready(work)
    if answers.setdefault(work.name, answer) != answer:
        raise Unfair(f"{runner.name}, {work.name}: not the answer of the others")
    if quick:
        return await runner.seconds(work, 1)
    with own_garbage():
        return await runner.seconds(work, work.times)


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


__all__ = ["LeftOut", "Samples", "measure"]
