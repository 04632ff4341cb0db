"""Part ``processes``: three processes share one PostgreSQL and one Redis, and do as much as they can at the same time.

Who reads for a given time instead of a given number of times meets the load of the others until the end.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from .contender import Unfair
from .contenders import DIRECT_PUSHED, DIRECT_VALIDATED, INSTANT, NO_CACHE, PUSHED, REDIS, VALIDATED
from .latency import ADDED, FAR, NEAR, address_of, sql, through
from .latency_proxy import ROOT, Proxy, Trips, delayed_by, latency_proxy
from .load_contenders import contenders, takes_part
from .load_requests import ALONE, MIX, POPULAR, mixes_told
from .measure import CUSTOMERS, fresh_database
from .models import create_and_fill
from .parts import Chart, Goal, Part, Place
from .spread import Spread, ratios, spread

NAME = "processes"
TITLE = "3 processes, which share PostgreSQL and Redis"
PROCESSES = 3
ROUNDS = 2
CONCURRENT = 8
"""Requests at a time in each process, of the crowded mix; of everything else it is one, as in a worker that forked."""
POOL = CONCURRENT
"""Connections to PostgreSQL, in each process: nobody waits for one."""
SECONDS = 0.3
CROWDED = f"{MIX}, {CONCURRENT} at a time"
WORKS = (*(work for work in ALONE if work != "list of 100"), MIX, CROWDED)
MIXES = (MIX, CROWDED)
QUICK = (MIX,)
GOAL = 3.0
"""Times as many reads as with no cache, where PostgreSQL is 1 ms away and the answer is not mostly loading."""
GOALS = {
    **dict.fromkeys(("get", "count"), (REDIS, VALIDATED, PUSHED)),
    MIX: (VALIDATED, PUSHED, DIRECT_PUSHED),
}
"""Of whom that is demanded."""

Sample = dict[str, Any]
"""What all processes did together in one round: ``reads`` and ``commits`` per second, and medians of their seconds."""
Samples = dict[str, dict[str, dict[str, list[Sample]]]]
"""By work, by where PostgreSQL is, by contender: one per round."""


def run(place: Place, *, rounds: int | None, quick: bool, progress: Callable[[str], None]) -> Part:
    """Measure; see :class:`~benchmarks.parts.Module`."""
    rounds = 1 if quick else rounds or ROUNDS
    with latency_proxy(address_of(place.postgres)) as proxy, _workers(2 if quick else PROCESSES) as workers:
        trips = asyncio.run(_distance(place, proxy, quick))
        measured = asyncio.run(_run(place, proxy, workers, rounds, quick, progress))
    return _part(measured, trips, rounds)


async def _distance(place: Place, proxy: Proxy, quick: bool) -> Trips:
    async with sql(place.postgres) as near, sql(through(place.postgres, proxy)) as far:
        return await delayed_by(ADDED, proxy, near, far, quick=quick)


async def _run(
    place: Place,
    proxy: Proxy,
    workers: Sequence[_Process],
    rounds: int,
    quick: bool,
    progress: Callable[[str], None],
) -> _Measured:
    async with fresh_database(place.postgres) as url:
        administrator = create_async_engine(url, poolclass=NullPool)
        async with administrator.begin() as connection:
            await connection.run_sync(create_and_fill, 100 if quick else CUSTOMERS)
        await administrator.dispose()
        urls = {NEAR: url, FAR: through(url, proxy)}
        for number, worker in enumerate(workers):
            worker.tell(
                "open",
                urls={where: one.render_as_string(hide_password=False) for where, one in urls.items()},
                redis_url=place.redis,
                pool=2 if quick else POOL,
                number=number,
                popular=3 if quick else POPULAR,
                patient=quick,
            )
        for worker in workers:
            worker.answer()
        measured = _Measured(workers, proxy, quick)
        for number in range(rounds if quick else rounds + 1):
            progress(f"round {number + 1}")
            measured.round(number)
    return measured


# -- the processes ---------------------------------------------------------------------------------------------------


class _Process:
    """A worker, seen from here."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.processes_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def tell(self, what: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark ended")
        told = json.loads(line)
        if "error" in told:
            raise Unfair(told["error"])
        return told["answer"]

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def _workers(number: int) -> Iterator[Sequence[_Process]]:
    workers = [_Process() for _ in range(number)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.end()


def _all(workers: Sequence[_Process], what: str, **arguments: Any) -> list[Any]:
    """Tell all of them to do something, and wait until every one has."""
    for worker in workers:
        worker.tell(what, **arguments)
    return [worker.answer() for worker in workers]


class _Measured:
    """Everything that rounds bring about."""

    def __init__(self, workers: Sequence[_Process], proxy: Proxy, quick: bool) -> None:
        self.runners = [one for one in contenders(POOL) if one.redis or one.name in (NO_CACHE, INSTANT)]
        """Whose caches are shared (memory belongs to one process), and the bounds of what any could do."""
        self.samples: Samples = {
            work: {
                where: {one.name: [] for one in self.runners if takes_part(one, work)}
                for where in (NEAR, FAR)
            }
            for work in (QUICK if quick else WORKS)
        }
        self.answered: dict[str, Counter[str]] = {}
        """How the reads of the mix were answered, by contender."""
        self.stale: Counter[str] = Counter()
        self.checked = 0
        self._workers = workers
        self._proxy = proxy
        self._quick = quick
        self._answers: dict[str, str] = {}

    def round(self, number: int) -> None:
        """Let everybody do everything once. The first round, unless it is the only one, only looks at the mixes."""
        looks = number == 0 and not self._quick
        for work, by_place in self.samples.items():
            if looks and work not in MIXES:
                continue
            self._answers.pop(work, None)  # the mix of the round before has changed what is answered
            for where, runs in by_place.items():
                names = list(runs)
                first = number % len(names)
                for name in (*names[first:], *names[:first]):
                    sample = self._sample(work, where, name, number)
                    if number or self._quick:
                        runs[name].append(sample)

    def _sample(self, work: str, where: str, name: str, number: int) -> Sample:
        workers, looked_at = self._workers, number == 0 and not self._quick
        asked = MIX if work in MIXES else work
        _all(workers, "begin", name=f"{name} at {where}", work=asked)
        _all(workers[:1], "empty")
        for told in _all(workers, "warm_up"):
            if asked != MIX and self._answers.setdefault(work, told) != told:
                raise Unfair(f"{name}, {work}: not the answers of the others")
        used = self._proxy.cpu()
        seconds = 0.02 if self._quick else SECONDS
        ahead = seconds if work in MIXES else 0.0
        done = _all(
            workers,
            "go",
            at=time.monotonic() + (0.0 if self._quick else 0.15),  # collecting garbage takes some of it
            ahead=ahead,
            seconds=seconds,
            concurrent=CONCURRENT if work == CROWDED else 1,
            seed=number,
            looked_at=looked_at,
        )
        used = self._proxy.cpu() - used
        if work == MIX:
            self._check(name)
            if looked_at:
                self.answered[f"{name} at {where}"] = sum(
                    (Counter(one["answered"]) for one in done), Counter()
                )
        _all(workers, "end")
        return {
            **{kind: sum(len(one[kind]) / one["took"] for one in done) for kind in ("reads", "commits")},
            **{
                f"{kind} seconds": statistics.median(found)
                for kind in ("reads", "commits")
                if (found := [seconds for one in done for seconds in one[kind]])
            },
            "proxy": used / (ahead + seconds),
        }

    def _check(self, name: str) -> None:
        for checked, stale in _all(self._workers, "stale"):
            self.checked += checked
            self.stale[name] += stale
        if self.stale[name] and name in (REDIS, VALIDATED, PUSHED, DIRECT_PUSHED, DIRECT_VALIDATED):
            raise Unfair(f"{name} served stale data")


# -- telling ---------------------------------------------------------------------------------------------------------


def _of(samples: Sequence[Sample], what: str) -> list[float]:
    return [one[what] for one in samples if what in one]


def times_as_many(runs: Mapping[str, Sequence[Sample]], name: str) -> Spread:
    """Return how many times as many reads per second as with no cache: over rounds, within a round."""
    return ratios(_of(runs[name], "reads"), _of(runs[NO_CACHE], "reads"))


def _part(measured: _Measured, trips: Trips, rounds: int) -> Part:
    data = {
        "rounds": rounds,
        "round trip": trips._asdict(),
        "samples": measured.samples,
        "mix answered": {name: dict(found) for name, found in measured.answered.items()},
        "mix checked": measured.checked,
        "mix stale": dict(measured.stale),
    }
    goals = _goals(measured.samples)
    return Part(NAME, TITLE, [*_lines(measured, trips)], data, goals, [*_charts(measured.samples)])


def _goals(samples: Samples) -> Sequence[Goal]:
    text = "3 processes, {}, PostgreSQL 1 ms away: reads per second with Redis ({}), times those of {}."
    return [
        Goal(f"{work}, {FAR}, {name}", text.format(work, name, NO_CACHE), found, GOAL, True)
        for work, names in GOALS.items()
        if work in samples
        for name in names
        for found in [times_as_many(samples[work][FAR], name)]
    ]


def _lines(measured: _Measured, trips: Trips) -> Iterator[str]:
    yield "Each process does one request after the other, if nothing else is said. Redis is on the same machine."
    yield f"PostgreSQL is there, too, or behind a proxy: a round trip takes {trips}."
    for runner in measured.runners:
        yield f"  {runner.name:<18}{runner.title}"
    for work, by_place in measured.samples.items():
        for where, runs in by_place.items():
            yield ""
            yield f"{work}, PostgreSQL at {where}: reads per second of all processes, times as many as no cache"
            for name, found in runs.items():
                yield _line(name, runs, found)
    yield ""
    yield from mixes_told(measured.answered, measured.stale, measured.checked, width=36)


def _line(name: str, runs: Mapping[str, Sequence[Sample]], found: Sequence[Sample]) -> str:
    more = times_as_many(runs, name)
    told = f"  {name:<18}{spread(_of(found, 'reads')).median:9,.0f}/s   x {more.median:5.2f}"
    told += f" ({more.low:.2f}-{more.high:.2f})"
    for kind in ("reads", "commits"):
        took = _of(found, f"{kind} seconds")
        told += f"   a {kind[:-1]} {statistics.median(took) * 1e3:6.2f} ms" if took else ""
    proxy = statistics.median(_of(found, "proxy"))
    return told + (f"   the proxy took {proxy:.0%} of a processor" if proxy > 0.005 else "")


def _charts(samples: Samples) -> Iterator[Chart]:
    for where in samples[MIX]:
        yield Chart(
            f"processes_{where.replace(' ', '_')}",
            f"3 processes, PostgreSQL at {where}: times as many reads per second as with no cache",
            "bars",
            "",
            "times as many",
            {
                name: [
                    (work, times_as_many(by_place[where], name))
                    for work, by_place in samples.items()
                    if name in by_place[where]
                ]
                for name in samples[MIX][where]
                if name != NO_CACHE
            },
            log_y=True,
            base=1.0,
        )
