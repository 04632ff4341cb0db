"""What telemetry adds to a hit: the part of the report that :mod:`benchmarks.overhead` measures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from .measure import fresh_database
from .models import create_and_fill
from .overhead import OFF, PARTS, TIMES, Samples, contenders, lines, measure
from .parts import Goal, Part, Place
from .spread import ratios, spread

NAME = "telemetry"
TITLE = "what telemetry adds to a hit in memory"
ROUNDS = 60


def run(place: Place, *, rounds: int | None, quick: bool, progress: Callable[[str], None]) -> Part:
    """Measure in a database of its own."""
    number = rounds or (1 if quick else ROUNDS)
    progress(f"{number} rounds")
    samples = asyncio.run(_measured(place.postgres, number, 1 if quick else TIMES))
    shown = [
        *(f"  {one.name:<20}{one.title}" for one in contenders()),
        f"  A hit of session.get(), CPU time: the fastest of {PARTS} parts of {TIMES} in each of {number} rounds",
        *lines(samples, "µs: median (quartiles)", 1e6),
    ]
    return Part(NAME, TITLE, shown, _told(samples, number), list(_goals(samples)))


async def _measured(server: str, rounds: int, times: int) -> Samples:
    async with fresh_database(server) as url:
        administrator = create_async_engine(url, poolclass=NullPool)
        async with administrator.begin() as connection:
            await connection.run_sync(create_and_fill, 100)
        await administrator.dispose()
        return await measure(url, rounds, times)


def _goals(samples: Samples) -> Iterator[Goal]:
    for one in contenders():
        if one.most is not None:
            text = f"A hit with telemetry ({one.title}) against one without."
            yield Goal(one.name, text, ratios(samples[one.name], samples[OFF]), 1 + one.most, False)


def _told(samples: Samples, rounds: int) -> dict[str, Any]:
    return {
        "rounds": rounds,
        "hits": {
            name: {"seconds": spread(found).as_dict(), "samples": found} for name, found in samples.items()
        },
    }
