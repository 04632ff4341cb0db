"""What is done to the example shop, phase by phase, and what the client and the database saw of it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

from dashboards import alerts, recording
from dashboards.alerts import Thresholds
from dashboards.pace import Pace
from examples.visitor import traffic, truth
from examples.visitor.truth import Page, Truth
from tests.examples.serving import Served, process, text_of
from tests.support.processes import free_port
from tests.support.prometheus import PrometheusServer, Unavailable, prometheus_server
from tests.support.redis_server import RedisServer, redis_server

PACE = Pace(minute=0.4)
"""Of the rules: five minutes are two seconds, ten are four, an hour is 24."""
LIMITS = Thresholds(lookup_seconds=0.5)
"""Of alerts: a machine that does much else at the same time is no slow server."""
SCRAPED_EVERY = 0.25
"""Seconds between two scrapes, and between two evaluations of the rules."""
SHOP, CROWD = "shop", "crowd"
"""Jobs: the shop's workers, and an application with too many tables and too little memory."""
__all__ = [
    "CROWD",
    "LIMITS",
    "PACE",
    "SCRAPED_EVERY",
    "SHOP",
    "Phase",
    "Run",
    "Seen",
    "Unavailable",
    "running",
]

WARM = tuple(range(1, 13))
"""Products that are read all the time."""


@dataclass
class Seen:
    """What the client asked for in a phase, and what reached the database."""

    reads: int = 0
    """Reads that a session needs for what was asked, one SELECT each without a cache."""
    commits: int = 0
    calls: int = 0
    """Invalidations by a call, without a commit."""
    selects: int = 0
    """SELECTs in the database's log, without those by which the cache reads old rows."""
    committed: int = 0
    """COMMITs of writes in the database's log."""


@dataclass
class Phase:
    """A part of the run, and when it was."""

    name: str
    begin: float = 0.0
    """The last scrapes before it had begun by then, in seconds since the epoch."""
    end: float = 0.0
    """What it did was over."""
    after: float = 0.0
    """All of that had been scraped."""
    seen: Seen = field(default_factory=Seen)


class Log:
    """PostgreSQL's statement log, from one look to the next."""

    ENTRY = re.compile(r"^\S+ \S+ \S+ \[(\d+)\] LOG:  (?:execute [^:]*|statement): ", re.MULTILINE)
    TABLES = re.compile(
        r"\bFROM (products|categories|tags|product_tags|customers|orders|order_lines|reviews|audit_log)\b"
    )

    def __init__(self, path: Path, but: int) -> None:
        self._path = path
        self._read = path.stat().st_size
        self._but = str(but)
        """The process of a connection that is not the shop's."""

    def new(self) -> list[str]:
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        self._read += len(text)
        _, *parts = self.ENTRY.split(text.decode(errors="replace"))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return [statement for process, statement in pairs if process != self._but]

    def count(self, seen: Seen) -> None:
        for statement in self.new():
            read_back = "KEY UPDATE" in statement
            if statement.startswith("SELECT") and self.TABLES.search(statement) and not read_back:
                seen.selects += 1
            seen.committed += statement.startswith("COMMIT")


class Run:
    """The shop, what it needs, and a Prometheus that scrapes it; phases are done one after another."""

    def __init__(
        self,
        prometheus: PrometheusServer,
        redis: RedisServer,
        workers: Sequence[Served],
        log: Path,
        database: str,
        let_crowd_in: Callable[[], Any],
    ) -> None:
        self.prometheus = prometheus
        self.phases: list[Phase] = []
        self.workers = workers
        """Two as configured, and one in mode shadow."""
        self._redis = redis
        self._truth = Truth(database)
        self._log = Log(log, but=self._truth.value("SELECT pg_backend_pid()"))
        self._let_crowd_in = let_crowd_in
        self._seen = Seen()
        self._last: Collection[tuple[str, str]] = ()

    def do(self, last: Collection[tuple[str, str]]) -> None:
        """Do all phases; the last one goes on until these alerts of jobs fire, or for as long as is sensible."""
        self._last = last
        asyncio.run(self._do())
        self._truth.close()

    async def _do(self) -> None:
        limits = httpx.Limits(max_connections=20)
        clients = [
            httpx.AsyncClient(base_url=one.address, timeout=30, trust_env=False, limits=limits)
            for one in self.workers
        ]
        self._clients = clients[:2]
        self._shadow = clients[2]
        self._turns = cycle(self._clients)
        try:
            for work in (
                self.warm_up,
                self.read_heavy,
                self.write_storm,
                self.bulk_updates,
                self.stopped_worker,
                self.redis_outage,
                self.recovery,
                self.slow_redis,
                self.full_redis,
                self.written_behind,
            ):
                await self._phase(work)
        finally:
            for client in clients:
                await client.aclose()

    async def _phase(self, work: Callable[[], Awaitable[None]]) -> None:
        phase = Phase(work.__name__)
        self._seen = phase.seen
        self._log.new()
        await self._scraped()
        phase.begin = time.time()
        await work()
        phase.end = time.time()
        await self._scraped()
        phase.after = time.time()
        self._log.count(phase.seen)
        self.phases.append(phase)

    async def _scraped(self) -> None:
        await asyncio.to_thread(self.prometheus.await_scrape, job=SHOP)

    # -- phases --------------------------------------------------------------------------------------------------------

    async def warm_up(self) -> None:
        await self._read_all_twice()
        await self._read(2.0)

    async def read_heavy(self) -> None:
        await self._read(4.0)

    async def write_storm(self) -> None:
        """Prices change all the time, and each product and its category's list are read once in between."""
        async for turn in _paced(7.5, every=0.3):
            key = WARM[turn % len(WARM)]
            change = await asyncio.to_thread(traffic.change_price, self._truth, key, 1000 + 5 * turn)
            await self._change(change)
            category = self._truth.value("SELECT category_id FROM products WHERE id = ?", key)
            await self._get(truth.product(key))
            await self._get(truth.category_products(category))

    async def bulk_updates(self) -> None:
        """Categories get other prices at once; somebody else writes orders, and says no more than that."""

        async def write() -> None:
            async for turn in _paced(5.5, every=0.5):
                if turn % 2 == 0:
                    await self._touched("orders", "status")
                elif turn % 4 == 1:
                    await self._change(traffic.reprice(1 + turn // 4 % 3, 5))

        await asyncio.gather(write(), self._read(5.5))

    async def stopped_worker(self) -> None:
        """The second worker hears of nothing for a while, several times, and then of everything at once."""
        pid = self.workers[1].pid
        self._turns = cycle(self._clients[:1])
        for turn in range(3):
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.gather(self._lower(2, 3000 + turn), self._read(1.0))
            finally:
                os.kill(pid, signal.SIGCONT)
            await self._read(0.5)
        self._turns = cycle(self._clients)

    async def redis_outage(self) -> None:
        """The server is gone; four commits come meanwhile."""
        self._redis.kill()

        async def write() -> None:
            async for turn in _paced(5.5, every=0.5):
                if turn < 4:
                    await self._change(traffic.change_price(self._truth, WARM[turn], 2000 + turn))

        await asyncio.gather(write(), self._read(5.5))

    async def recovery(self) -> None:
        """The server comes back empty, and the whole catalogue is asked for."""
        self._redis.start(empty=True)
        products = iter(range(20, 800))
        until = time.monotonic() + 3.5

        async def browse() -> None:
            for key in products:
                if time.monotonic() > until:
                    return
                await self._get(truth.product(key))

        await asyncio.gather(*(browse() for _ in range(6)))
        await self._read_all_twice()

    async def slow_redis(self) -> None:
        """Something else holds the server again and again."""
        over = asyncio.Event()

        async def hold() -> None:
            while not over.is_set():
                await asyncio.to_thread(self._redis.command, "DEBUG SLEEP", "0.6")
                await asyncio.sleep(0.02)

        holding = asyncio.create_task(hold())
        await self._read(5.0)
        over.set()
        await holding

    async def full_redis(self) -> None:
        """Again and again, others take room on the server, and it forgets what lives only for a time."""
        self._redis.command("CONFIG SET", "maxmemory-policy", "volatile-random")

        async def squeeze() -> None:
            async for _ in _paced(6.0, every=0.5):
                used = (await asyncio.to_thread(self._redis.info))["used_memory"]
                for most in (int(used * 0.97), 0):
                    await asyncio.to_thread(self._redis.command, "CONFIG SET", "maxmemory", str(most))
                    await asyncio.sleep(0.1)

        await asyncio.gather(squeeze(), self._read(6.0))

    async def written_behind(self) -> None:
        """Somebody writes past the cache, and the worker in mode shadow compares; meanwhile the crowd is at work."""
        behind = WARM[:4]
        for key in behind:
            await self._get(truth.product(key))
        self._let_crowd_in()
        for key in behind:
            self._truth.write("UPDATE products SET stock = stock - 1 WHERE id = ?", key)
        for key in behind:
            await self._get(truth.product(key), by=self._shadow)
        until = time.monotonic() + 25.0
        await self._read(5.0)
        while time.monotonic() < until and not await asyncio.to_thread(self._all_fire):
            await self._read(0.5)

    def _all_fire(self) -> bool:
        firing = {
            (one["labels"]["alertname"], one["labels"]["job"])
            for one in self.prometheus.alerts()
            if one["state"] == "firing"
        }
        return firing.issuperset(self._last)

    async def _lower(self, products: int, cents: int) -> None:
        for key in WARM[:products]:
            await self._change(await asyncio.to_thread(traffic.change_price, self._truth, key, cents))

    # -- requests ------------------------------------------------------------------------------------------------------

    def _usual(self) -> list[Page]:
        return [
            *(page(key) for key in WARM for page in (truth.product, truth.product_page, truth.rating)),
            *(truth.category_products(key) for key in (1, 2, 3)),
            *(truth.customer_orders(key) for key in (1, 2, 3, 4)),
        ]

    async def _read_all_twice(self) -> None:
        for _ in range(2):
            for page in self._usual():
                await self._get(page)

    async def _read(self, seconds: float) -> None:
        """Ask for the usual pages again and again, some 80 times per second."""
        pages = cycle(self._usual())
        async for _ in _paced(seconds, every=0.05):
            await asyncio.gather(*(self._get(next(pages)) for _ in range(4)))

    async def _get(self, page: Page, by: httpx.AsyncClient | None = None) -> None:
        answered = await (by or next(self._turns)).get(page.path)
        assert answered.is_success, answered.text
        self._seen.reads += page.statements(answered.json())

    async def _change(self, change: traffic.Change) -> None:
        answered = await next(self._turns).request(change.method, change.path, json=change.body)
        assert answered.is_success, answered.text
        self._seen.reads += change.statements
        self._seen.commits += 1

    async def _touched(self, table: str, column: str) -> None:
        answered = await self._clients[0].post(f"/touched/{table}", params={"column": column})
        assert answered.is_success, answered.text
        self._seen.calls += 1


async def _paced(seconds: float, every: float) -> Any:
    """Count turns, one every so often or as often as that is possible, until the time is over."""
    begun = time.monotonic()
    turn = 0
    while time.monotonic() - begun < seconds:
        yield turn
        turn += 1
        await asyncio.sleep(max(0.0, begun + turn * every - time.monotonic()))


@contextmanager
def running(folder: Path, postgres_log: Path, database: Any) -> Iterator[Run]:
    """Start the shop's workers and a Prometheus with the rules, for the time of the block.

    Raises :class:`Unavailable` where a server is missing.
    """
    rules = []
    for name, text in (("recording", recording.written(PACE)), ("alerts", alerts.written(PACE, LIMITS))):
        path = folder / f"{name}.rules.yaml"
        path.write_text(text)
        rules.append(path)
    *ports, crowd_port = (free_port() for _ in range(4))
    scraped = {
        SHOP: (ports, SCRAPED_EVERY),
        CROWD: ([crowd_port], 2 * SCRAPED_EVERY),  # it has very many series
    }
    with ExitStack() as stack:
        configured = {"scrape_configs": [_job(job, *how) for job, how in scraped.items()]}
        every = f"{SCRAPED_EVERY * 1000:.0f}ms"
        prometheus = stack.enter_context(
            prometheus_server({}, interval=every, rules=rules, configured=configured)
        )
        redis = stack.enter_context(redis_server())
        settings = {
            "SHOP_DATABASE_URL": text_of(database, "postgresql+asyncpg"),
            "SQLACACHE_BACKEND": f"{redis.unix_url}?timeout=2",
        }
        served = []
        for port, mode in zip(ports, ("on", "on", "shadow"), strict=True):
            arguments = ["--factory", "examples.shop.app:create_app", "--port", str(port), "--no-access-log"]
            own = {**settings, "SQLACACHE_MODE": mode}
            served.append(stack.enter_context(process(folder, "uvicorn", arguments, own)))
        gate = folder / "gate"
        crowd = process(
            folder,
            "tests.dashboards.crowd",
            [str(crowd_port), str(gate)],
            {"PROMETHEUS_DISABLE_CREATED_SERIES": "True"},
            "(serving)",
        )
        stack.enter_context(crowd)
        for worker in served:
            worker.address = worker.announced(r"Uvicorn running on (http://\S+)")
        prometheus.await_scrape()
        yield Run(
            prometheus, redis, served, postgres_log, text_of(database, "postgresql+asyncpg"), gate.touch
        )


def _job(name: str, ports: Sequence[int], every: float) -> dict[str, Any]:
    interval = f"{every * 1000:.0f}ms"
    targets = [f"127.0.0.1:{port}" for port in ports]
    return {
        "job_name": name,
        "scrape_interval": interval,
        "scrape_timeout": interval,
        "static_configs": [{"targets": targets}],
    }
