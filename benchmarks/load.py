"""Part ``load``: many requests at a time in one process, and what they send to Redis together."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from .contender import Unfair
from .contenders import DECORATOR_REDIS, HIT, NO_CACHE, PUSHED, REDIS, VALIDATED
from .load_contenders import CHECKED, POOL, Crowded, contenders, crowd, takes_part
from .load_requests import MIX, POPULAR, mixes_told, reads_of, requests_of
from .load_trips import Together, together
from .measure import CUSTOMERS, fresh_database
from .models import create_and_fill
from .parts import Chart, Goal, Part, Place
from .spread import Spread, ratios, spread

NAME = "load"
TITLE = "1 and 50 concurrent requests in one process"
ROUNDS = 3
CONCURRENT = (1, 50)
WORKS: Mapping[str, int] = {"get": 600, "list of 100": 200, "count": 400, MIX: 800}
"""How many requests each does in a round."""
QUICK = (MIX,)
PERCENTILES = ("p50", "p95", "p99")

Sample = dict[str, Any]
"""What one contender did in one round: ``per_second`` and percentiles of a request's seconds."""
Samples = dict[str, dict[int, dict[str, list[Sample]]]]
"""By work, by how many requests at a time, by contender: one per round."""


def run(place: Place, *, rounds: int | None, quick: bool, progress: Callable[[str], None]) -> Part:
    """Measure; see :class:`~benchmarks.parts.Module`."""
    return asyncio.run(_run(place, 1 if quick else rounds or ROUNDS, quick, progress))


async def _run(place: Place, rounds: int, quick: bool, progress: Callable[[str], None]) -> Part:
    async with fresh_database(place.postgres) as url:
        administrator = create_async_engine(url, poolclass=NullPool)
        async with administrator.begin() as connection:
            await connection.run_sync(create_and_fill, 100 if quick else CUSTOMERS)
        await administrator.dispose()
        runners = contenders(2 if quick else POOL, patient=quick)
        for runner in runners:
            runner.open(url, place.redis)
        measured = _Measured(runners, quick)
        try:
            for number in range(rounds if quick else rounds + 1):
                progress(f"round {number + 1}")
                await measured.round(number)
            progress("round trips")
            looked_at = (VALIDATED,) if quick else (REDIS, VALIDATED, DECORATOR_REDIS)
            asked = [one for one in runners if one.name in looked_at]
            trips = {one.name: await together(one, place.redis, quick=quick) for one in asked}
        finally:
            for runner in runners:
                await runner.close()
    return _part(measured, trips, rounds)


class _Measured:
    """Everything that rounds bring about."""

    def __init__(self, runners: Sequence[Crowded], quick: bool) -> None:
        self.runners = runners
        works = QUICK if quick else tuple(WORKS)
        self.samples: Samples = {
            work: {many: {one.name: [] for one in runners if takes_part(one, work)} for many in CONCURRENT}
            for work in works
        }
        self.answered: dict[str, Counter[str]] = {}
        """How the reads of the mix were answered, by contender."""
        self.stale: Counter[str] = Counter()
        self.checked = 0
        self._quick = quick
        self._popular = 3 if quick else POPULAR
        self._answers: dict[str, str] = {}

    async def round(self, number: int) -> None:
        """Let everybody do everything once; the first round warms up and is looked at, unless it is the only one."""
        first = number % len(self.runners)
        for work in self.samples:
            self._answers.pop(work, None)  # the mix of the round before has changed what is answered
            for runner in (*self.runners[first:], *self.runners[:first]):
                if not takes_part(runner, work):
                    continue
                async with runner.turn():
                    await self._turn(runner, work, 20 if self._quick else WORKS[work], number)

    async def _turn(self, runner: Crowded, work: str, times: int, number: int) -> None:
        await runner.empty()
        reads = reads_of(work, self._popular)
        told = await runner.warm_up(reads)
        if work != MIX and self._answers.setdefault(work, told) != told:
            raise Unfair(f"{runner.name}, {work}: not the answers of the others")
        if not self._quick:
            gc.collect()  # what others left behind is not this one's
        for many in CONCURRENT:
            requests = islice(cycle(requests_of(work, number, self._popular)), times)
            if number or self._quick:
                self.samples[work][many][runner.name].append(await _sample(runner, requests, many))
            if number == 0 and work == MIX:
                async with runner.looked_at() as found:
                    await crowd(
                        runner.answer, islice(cycle(requests_of(work, 99, self._popular)), times), many
                    )
                self.answered[f"{runner.name}, {many}"] = found
        if work == MIX:
            checked = reads[number % 7 :: max(1, len(reads) // CHECKED)]
            self.stale[runner.name] += await runner.stale(checked)
            self.checked += len(checked)
            if self.stale[runner.name] and runner.cache is not None:
                raise Unfair(f"{runner.name} served stale data")


async def _sample(runner: Crowded, requests: Iterator[Any], many: int) -> Sample:
    began = time.perf_counter()
    done = await crowd(runner.answer, requests, many)
    took = time.perf_counter() - began
    return {"per_second": len(done) / took, **percentiles([seconds for _, seconds in done])}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the percentiles that reports show."""
    if len(seconds) == 1:
        return dict.fromkeys(PERCENTILES, seconds[0])
    cut = statistics.quantiles(seconds, n=100, method="inclusive")
    return {name: cut[int(name[1:]) - 1] for name in PERCENTILES}


# -- telling ---------------------------------------------------------------------------------------------------------


def _of(samples: Sequence[Sample], what: str) -> list[float]:
    return [one[what] for one in samples]


def times_as_many(runs: Mapping[str, Sequence[Sample]], name: str) -> Spread:
    """Return how many times as many requests per second a contender did as no cache: over rounds, within a round."""
    return ratios(_of(runs[name], "per_second"), _of(runs[NO_CACHE], "per_second"))


def _part(measured: _Measured, trips: Mapping[str, Sequence[Together]], rounds: int) -> Part:
    samples = measured.samples
    return Part(
        NAME,
        TITLE,
        [*_lines(measured, trips)],
        {
            "rounds": rounds,
            "samples": samples,
            "mix answered": {name: dict(found) for name, found in measured.answered.items()},
            "mix checked": measured.checked,
            "mix stale": dict(measured.stale),
            "round trips": {name: [one._asdict() for one in found] for name, found in trips.items()},
        },
        _goals(samples),
        [*_charts(samples, trips)],
    )


def _goals(samples: Samples) -> Sequence[Goal]:
    found = []
    for name in (HIT, VALIDATED, PUSHED):
        least = min(
            (times_as_many(runs[CONCURRENT[-1]], name) for runs in samples.values()),
            key=lambda one: one.median,
        )
        found.append(
            Goal(
                f"{CONCURRENT[-1]} concurrent, {name}",
                f"{CONCURRENT[-1]} concurrent requests: {name} answers at least as many as no cache, in every work",
                least,
                1.0,
                True,
                tuple(samples),
            )
        )
    return found


def _lines(measured: _Measured, trips: Mapping[str, Sequence[Together]]) -> Iterator[str]:
    yield f"Requests per second, medians; x: times as many as no cache, within a round (quartiles). Pool of {POOL}."
    yield "Redis is on the same machine, with its default timeout. Milliseconds of one request: p50, p95, p99."
    for runner in measured.runners:
        yield f"  {runner.name:<18}{runner.title}"
    for work, by_many in measured.samples.items():
        for many, runs in by_many.items():
            yield f"{work}, {many} concurrent"
            for name, found in runs.items():
                rate = spread(_of(found, "per_second")).median
                more = times_as_many(runs, name)
                cuts = "  ".join(f"{statistics.median(_of(found, one)) * 1e3:8.2f}" for one in PERCENTILES)
                yield f"  {name:<18}{rate:9,.0f}/s   x {more.median:5.2f} ({more.low:.2f}-{more.high:.2f})   {cuts}"
    yield from mixes_told(measured.answered, measured.stale, measured.checked, width=22)
    yield "get on Redis: what lookups under way at the same time send together"
    yield f"  {'':<18}{'concurrent':>10}{'commands':>22}{'server reads':>14}{'server writes':>15}{'bytes in':>10}"
    for name, found_trips in trips.items():
        for one in found_trips:
            yield f"  {name:<18}{one.concurrent:>10}{one.commands:>15.2f} / get{one.server_reads:>14.2f}" + (
                f"{one.server_writes:>15.2f}{one.sent:>10.0f}"
            )


def _charts(samples: Samples, trips: Mapping[str, Sequence[Together]]) -> Iterator[Chart]:
    for many in CONCURRENT:
        yield Chart(
            f"load_{many}",
            f"{many} concurrent requests in one process",
            "bars",
            "",
            "requests per second",
            {
                name: [
                    (work, spread(_of(by_many[many][name], "per_second")))
                    for work, by_many in samples.items()
                    if name in by_many[many]
                ]
                for name in samples[MIX][many]
            },
        )
    yield Chart(
        "load_latency",
        f"{MIX}: what a request takes among {CONCURRENT[-1]}",
        "bars",
        "",
        "milliseconds",
        {
            percentile: [
                (name, spread([value * 1e3 for value in _of(found, percentile)]))
                for name, found in samples[MIX][CONCURRENT[-1]].items()
            ]
            for percentile in PERCENTILES
        },
    )
    yield Chart(
        "load_round_trips",
        "get on Redis: reads of the server's socket per request",
        "lines",
        "concurrent requests",
        "reads per request",
        {
            name: [(one.concurrent, Spread(*[one.server_reads] * 3)) for one in found]
            for name, found in trips.items()
        },
        log_x=True,
    )
