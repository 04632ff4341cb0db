"""Runs the operations in one process on real servers, and measures it at rest after every so many of them."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import os
import subprocess
import sys
import time
import tracemalloc
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from random import Random
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.util import greenlet_spawn

from sqlacache import Observer, configure, configure_sync
from sqlacache.store import records
from tests.histories import program
from tests.histories.program import Group, Item
from tests.histories.running import ROOT, database
from tests.leaks import allocators, planted, sampling
from tests.leaks.judge import Growth, judge
from tests.leaks.sampling import Sample
from tests.leaks.watchdog import Watchdog, greenlets
from tests.leaks.work import Work
from tests.support.fronts import url_for
from tests.support.processes import until
from tests.support.redis_server import RedisServer

TIMEOUT = 5.0
"""Seconds that entries live, so that as many expire as are made."""
LEASE = 2.0
PATIENCE = 900.0
"""Seconds for a round: after that, some operation is stuck, and what each waits for is told."""
ROOM = 300_000
"""Bytes of entries, so that some leave for want of it."""
HISTORY = 100
PROGRESS = ("memory", "used memory", "free memory of malloc", "blocks", "keys of Redis")
BOUNDS = {
    "sqlacache.read.identify": {"MAX_PLANS": 200},
    "sqlacache.store.memory": {"REMEMBERED": 200, "SETTLED": 200},
    "sqlacache.store.redis": {"REMEMBERED": 200},
    "sqlacache.store.pushed": {"MAX_REMEMBERED": 2000},
    "sqlacache.digests": {"REMEMBERED": 200},
    "sqlacache.store.records": {"_known": lru_cache(50)(records._parse)},
}
"""What is bounded by numbers that take long to reach, and would look like growth until then, is bounded by these."""


@dataclass(frozen=True)
class Plan:
    """What to run."""

    operations: int = 1_000_000
    seed: int = 1
    local: str = "mem"
    """``mem``, for ``mem://``, or a local tier on Redis: ``validated``, ``pushed`` or ``none``."""
    front: str = "async"
    sessions: int = 6
    """Side by side."""
    seconds: float = inf
    """After which no further round begins."""
    samples: int = 120
    faults: bool = True
    trace: bool = False
    """Say what allocated what is there at the end and was not after the warm-up."""
    plant: tuple[str, ...] = ()
    """Leaks, of :mod:`.planted`, that must be found."""


@dataclass
class Report:
    """What was done, and how everything that was measured went on."""

    plan: Plan
    at: list[int] = field(default_factory=list)
    """Operations done at each sample."""
    series: dict[str, array[float]] = field(default_factory=dict)
    """What was there then: packed, since what is kept here grows, too."""
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    trimmed: list[tuple[float, float]] = field(default_factory=list)
    """MB resident at the end, and once malloc has given back what it had free; empty where that is not told."""
    allocated: list[str] = field(default_factory=list)

    @property
    def found(self) -> list[Growth]:
        """How everything that was measured went on."""
        series = {name: list(zip(self.at, self.series[name])) for name in sorted(self.series)}
        return judge(series, self.at[-1])

    def note(self, at: int, sample: Sample) -> None:
        """Add a sample; what it does not name is not there."""
        for name in sample.keys() - self.series.keys():
            self.series[name] = array("d", bytes(8 * len(self.at)))
        for name, much in self.series.items():
            much.append(sample.get(name, 0.0))
        self.at.append(at)

    @property
    def growing(self) -> list[Growth]:
        return [one for one in self.found if one.grows]

    def __str__(self) -> str:
        plan = self.plan
        asked, failed = sum(self.done.values()), sum(self.failed.values())
        found = self.found
        told = [one for one in found if not one.what.startswith(("objects", "held"))]
        trimmed = [
            f"{before:.1f} MB resident, {after:.1f} after malloc_trim" for before, after in self.trimmed
        ]
        return "\n".join(
            [
                f"seed {plan.seed}, local={plan.local}, {plan.front}: {asked + failed:,} operations in "
                f"{self.seconds:,.0f} s; {_counted(self.done)}",
                f"decisions: {_counted(self.decisions)}",
                f"faults: {_counted(self.faults) or 'none'}",
                f"raised: {_counted(self.failed) or 'none'}",
                *map(str, told),
                *trimmed,
                f"and {len(found) - len(told)} kinds of objects and containers",
                *self.allocated,
                *(f"GROWS: {one}" for one in found if one.grows),
            ]
        )


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in found.most_common())


class Run:
    """One run: :meth:`go` returns its report."""

    def __init__(self, plan: Plan, url: URL, redis: RedisServer) -> None:
        self.plan = plan
        self.redis = redis
        self.report = Report(plan)
        self._url = url
        self._is_async = plan.front == "async"
        self._watching = create_engine(url_for(url, "sync"), isolation_level="AUTOCOMMIT")
        self._writer: subprocess.Popen[bytes] | None = None
        self._started = 0
        """Operations begun."""
        self._snapshot: Any = None
        self._work: Work
        self._leak: Callable[[int], None] = lambda number: None

    def go(self) -> Report:
        with ExitStack() as stack:
            stack.enter_context(_quiet())
            stack.enter_context(_bounded())
            stack.callback(self._watching.dispose)
            if self.plan.local != "mem":
                self._writer = stack.enter_context(_writer(self._url, self.redis, self.plan))
            begun = time.monotonic()
            if self._is_async:
                asyncio.run(self._run_async())
            else:
                self._run_sync()
            self.report.seconds = time.monotonic() - begun
        self.report.done, self.report.failed = self._work.done, self._work.failed
        return self.report

    # -- engines and caches --------------------------------------------------------------------------------------------

    def _configure(self, name: str) -> Any:
        mem = self.plan.local == "mem"
        front = configure if self._is_async else configure_sync
        return front(
            backend="mem://" if mem else {"url": self.redis.url, "timeout": 0.3},
            models={"*": {"timeout": TIMEOUT}, program.Hold: None},
            writes_also={"holds": ()},
            prefix=name,
            default_timeout=TIMEOUT,
            lease=LEASE,
            max_bytes=ROOM,
            history=HISTORY,
            **({} if mem else {"local": None if self.plan.local == "none" else self.plan.local}),
        )

    def _engine(self, **options: Any) -> Any:
        url = self._url if self._is_async else url_for(self._url, "sync")
        return (create_async_engine if self._is_async else create_engine)(url, **options)

    def _cycle(self) -> Any:
        return self._cycle_async() if self._is_async else self._cycle_sync()

    def _cycle_sync(self) -> None:
        cache, engine = self._configure("cycle"), self._engine(pool_size=1)
        cache.bind(engine, database="main")
        _use(engine)
        cache.disconnect()
        engine.dispose()

    async def _cycle_async(self) -> None:
        cache, engine = self._configure("cycle"), self._engine(pool_size=1)
        await cache.bind(engine, database="main")
        await greenlet_spawn(_use, engine.sync_engine)
        await cache.disconnect()
        await engine.dispose()

    def _unbound(self) -> Any:
        engine = self._engine(pool_size=1)
        return getattr(engine, "sync_engine", engine)

    def _make_work(self) -> tuple[Any, Any]:
        """Make the work, and return its engines, which are to be bound."""
        # Fewer statements remembered than usual, so that they have come round when the warm-up ends.
        engine = self._engine(pool_size=10, max_overflow=20, query_cache_size=100)
        elsewhere = self._engine(poolclass=NullPool, query_cache_size=100)
        self._work = Work(
            getattr(engine, "sync_engine", engine),
            engine if self._is_async else None,
            getattr(elsewhere, "sync_engine", elsewhere),
            self._configure("leaks"),
            self._cycle,
            self._unbound,
        )
        self._work.cache.add_observer(_Counting(self.report.decisions))
        self._leak = planted.plant(self.plan.plant, self._work, self.redis)
        return engine, elsewhere

    # -- the fronts ----------------------------------------------------------------------------------------------------

    async def _run_async(self) -> None:
        engines = self._make_work()
        for engine in engines:
            await self._work.cache.bind(engine, database="main")

        async def act(random: Random, target: int) -> None:
            while self._begin(target):
                await greenlet_spawn(self._work.step, random)
                self._leak(self._started)

        randoms = self._randoms()
        for number, target in self._rounds():
            with self._failing(number), self._watched(asyncio.get_running_loop()):
                acting = asyncio.gather(*(act(random, target) for random in randoms))
                done, _ = await asyncio.wait([acting], timeout=PATIENCE)
                if not done:
                    print(greenlets(), file=sys.stderr, flush=True)
                    raise TimeoutError(f"operations of round {number} have not ended within {PATIENCE} s")
                await acting
            await asyncio.sleep(0)
            await asyncio.to_thread(self._await_redis)
            self._sample(asyncio.get_running_loop())
        self._trim()
        await self._work.cache.disconnect()
        for engine in engines:
            await engine.dispose()

    def _run_sync(self) -> None:
        engines = self._make_work()
        for engine in engines:
            self._work.cache.bind(engine, database="main")

        def act(random: Random, target: int) -> None:
            while self._begin(target):
                self._work.step(random)
                self._leak(self._started)

        randoms = self._randoms()
        for number, target in self._rounds():
            with (
                self._failing(number),
                self._watched(None),
                ThreadPoolExecutor(self.plan.sessions) as pool,
            ):
                for ended in [pool.submit(act, random, target) for random in randoms]:
                    ended.result()
            self._await_redis()
            self._sample(None)
        self._trim()
        self._work.cache.disconnect()
        for engine in engines:
            engine.dispose()

    def _watched(self, loop: asyncio.AbstractEventLoop | None) -> Watchdog:
        return Watchdog(lambda: self._work.done.total() + self._work.failed.total(), loop)

    def _begin(self, target: int) -> bool:
        if self._started >= target:
            return False
        self._started += 1
        return True

    def _randoms(self) -> list[Random]:
        return [Random(f"{self.plan.seed} {number}") for number in range(self.plan.sessions)]

    def _rounds(self) -> Iterator[tuple[int, int]]:
        ends = time.monotonic() + self.plan.seconds
        for number in range(1, self.plan.samples + 1):
            if time.monotonic() > ends:
                return
            yield number, self.plan.operations * number // self.plan.samples

    # -- faults --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _failing(self, number: int) -> Iterator[None]:
        """Let one thing of Redis fail while a round goes on, every second round."""
        kinds: dict[str, Callable[[], None]] = {
            "connections cut": lambda: self._kill("normal"),
            "subscriptions cut": lambda: self._kill("pubsub"),
            "redis paused": self._pause,
            "redis restarted": lambda: self.redis.restart(empty=True),
        }
        if not self.plan.faults or self.plan.local == "mem" or number % 2:
            yield
            return
        what = list(kinds)[number // 2 % len(kinds)]
        with ThreadPoolExecutor(1) as pool:
            failing = pool.submit(kinds[what])
            yield
            failing.result()
        self.report.faults[what] += 1

    def _kill(self, kind: str) -> None:
        self.redis.command("CLIENT KILL", "TYPE", kind, "SKIPME", "yes")

    def _pause(self) -> None:
        with self.redis.paused():
            time.sleep(0.3)

    def _await_redis(self) -> None:
        """Let what is owed be delivered, and whoever listens be back, before anything is counted."""
        bindings = self._work.cache.bindings
        with suppress(TimeoutError):  # what is still owed then shows as growth, if it is
            until(lambda: not any(len(binding.owed) for binding in bindings), "what is owed to be told", 10.0)

    # -- measuring -----------------------------------------------------------------------------------------------------

    def _sample(self, loop: asyncio.AbstractEventLoop | None) -> None:
        sample = {
            **sampling.of_python(loop),
            **sampling.of_process(),
            **allocators.of_allocators(),
            **sampling.of_metrics(),
            **sampling.of_postgres(self._watching),
            **sampling.of_redis(self.redis),
        }
        if self._writer is not None:
            sample.update(sampling.named(sampling.of_process(self._writer.pid), "the writer"))
        self.report.note(self._started, sample)
        if "SQLACACHE_LEAKS_PROGRESS" in os.environ:
            done = {name: sample[name] for name in PROGRESS if name in sample}
            print(f"{self._started:,} operations: {done}", flush=True)
        if self.plan.trace:
            self._trace()

    def _trim(self) -> None:
        before = sampling.of_process()
        allocators.trim()
        if before:
            self.report.trimmed.append((before["memory"], sampling.of_process()["memory"]))

    def _trace(self) -> None:
        if not tracemalloc.is_tracing():
            if self._started >= 0.25 * self.plan.operations:
                tracemalloc.start(12)
        elif self._snapshot is None and self._started >= 0.5 * self.plan.operations:
            self._snapshot = tracemalloc.take_snapshot()
        elif self._started >= self.plan.operations:
            grown = tracemalloc.take_snapshot().compare_to(self._snapshot, "traceback")
            for one in sorted(grown, key=lambda one: -one.size_diff)[:15]:
                self.report.allocated += [str(one), *one.traceback.format(most_recent_first=True)[:12]]
            tracemalloc.stop()


class _Counting(Observer):
    def __init__(self, decisions: Counter[str]) -> None:
        self._decisions = decisions

    def decided(self, decision: Any, scope: Any) -> None:
        self._decisions[decision.decision] += 1


def _use(engine: Any) -> None:
    for _ in range(2):
        with Session(engine) as session:
            session.get(Group, 1)
            session.get(Item, 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Say nothing of what is done on purpose: connections that the garbage collector finds, faults of Redis."""
    loggers = [logging.getLogger(name) for name in ("sqlalchemy.pool", "sqlacache", "asyncio")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
    for logger, level in zip(loggers, before):
        logger.setLevel(level)


@contextmanager
def _bounded() -> Iterator[None]:
    before = {}
    for module_name, bounds in BOUNDS.items():
        module = importlib.import_module(module_name)
        for name, bound in bounds.items():
            before[module, name] = getattr(module, name)
            setattr(module, name, bound)
    try:
        yield
    finally:
        for (module, name), bound in before.items():
            setattr(module, name, bound)


@contextmanager
def _writer(url: URL, redis: RedisServer, plan: Plan) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that writes, so that invalidations arrive."""
    given = {
        "database": url_for(url, "sync").render_as_string(hide_password=False),
        "redis": redis.url,
        "seed": plan.seed,
        "timeout": TIMEOUT,
        "lease": LEASE,
    }
    path = os.pathsep.join([str(ROOT), str(ROOT / "telemetry"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.leaks.writer", json.dumps(given)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
        stdin=subprocess.PIPE,  # which ends with this process, and so does the writer
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        if b"ready" not in process.stdout.readline():
            raise RuntimeError("the writer did not start")
        yield process
        if process.poll() is not None:
            raise RuntimeError(f"the writer ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        assert process.stdin is not None
        process.stdin.close()


def run(plan: Plan, server: str, redis: RedisServer) -> Report:
    """Run on a PostgreSQL server's URL and a Redis of its own."""
    allocators.set_large_apart()
    with database(server) as url:
        return Run(plan, url, redis).go()
