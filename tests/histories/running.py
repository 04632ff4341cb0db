"""Runs a history: a PostgreSQL database, a Redis, clients of both fronts behind proxies, and the nemesis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

from redis import RedisError
from sqlalchemy import create_engine
from sqlalchemy.engine import URL, make_url

from tests.histories import program
from tests.histories.nemesis import Broken, Nemesis
from tests.support.fronts import url_for
from tests.support.processes import until
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


@dataclass(frozen=True)
class Plan:
    """What to run."""

    seconds: float = 8.0
    seed: int = 1
    clients: int = 3
    """Every second one from the third on is synchronous."""
    local: str | None = "validated"
    sessions: int = 3
    """Of each client."""
    writes: float = 0.12
    """Share of writes among operations."""
    rest: float = 0.02
    """Seconds that a session rests after an operation, at most."""
    timeout: float = 3.0
    """Of entries, in seconds: what a killed writer owed is stale no longer than that."""
    lease: float = 6.0
    """Seconds, longer than the nemesis stops anybody."""
    faults: bool = True
    pace: float = 0.5
    """Seconds between faults, on average."""
    only: tuple[str, ...] = ()
    """Names of faults, of :class:`.nemesis.Nemesis`, if not all of them are to be tried."""
    broken: str | None = None
    """What the clients do wrong, of :data:`.client.BROKEN`: that must be found."""


@dataclass
class Ran:
    """What was run and what is left of it."""

    plan: Plan
    logs: list[Path]
    killed: dict[str, float]
    """By name of a process, when it was surely dead."""
    broken: list[Broken]
    begin: float
    end: float
    keys: list[tuple[float, int]] = field(default_factory=list)
    """When Redis had how many keys."""
    connections: list[tuple[float, int]] = field(default_factory=list)
    """When the database had how many connections."""


class Client:
    """One client, and after each kill the next of the same place."""

    def __init__(self, number: int, given: dict[str, Any], folder: Path, proxy: Proxy, may_die: bool) -> None:
        self.proxy = proxy
        self.may_die = may_die
        self.killed: dict[str, float] = {}
        self.logs: list[Path] = []
        self._number, self._given, self._folder = number, given, folder
        self._process: subprocess.Popen[bytes] | None = None
        self.name = ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start a process, and return before it is ready."""
        self.name = f"c{self._number}.{len(self.logs)}"
        log = self._folder / f"{self.name}.jsonl"
        self.logs.append(log)
        given = {**self._given, "name": self.name, "log": str(log)}
        path = os.pathsep.join([str(ROOT), str(ROOT / "telemetry"), os.environ.get("PYTHONPATH", "")])
        with (self._folder / f"{self.name}.err").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.histories.client", json.dumps(given)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )

    def await_ready(self) -> None:
        def is_ready() -> bool:
            self._check()
            return self.logs[-1].exists() and '"ready"' in self.logs[-1].read_text()

        until(is_ready, f"{self.name} to be ready", PATIENCE)

    def _check(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self._process.returncode}: {self.errors}")

    @property
    def errors(self) -> str:
        """The end of what the process wrote on its standard error."""
        return (self._folder / f"{self.name}.err").read_text(errors="replace")[-3000:]

    def restart(self) -> None:
        self.start()
        self.await_ready()

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self.killed[self.name] = time.monotonic()

    def stop(self) -> None:
        """Let the process finish what it is at, deliver what it owes, and end."""
        self._check()
        assert self._process is not None
        self._process.terminate()
        if self._process.wait(PATIENCE) != 0:
            raise AssertionError(f"{self.name} ended with {self._process.returncode}: {self.errors}")


@contextmanager
def database(server: str) -> Iterator[URL]:
    """A database of our own on the server, with the tables."""
    url = url_for(server, "sync")
    name = f"history_{uuid4().hex[:12]}"
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        engine = create_engine(url.set(database=name))
        program.create(engine)
        engine.dispose()
        yield make_url(server).set(database=name)
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        admin.dispose()


def run(plan: Plan, server: str, redis: RedisServer, folder: Path) -> Ran:
    """Run a history on a PostgreSQL server's URL and a Redis of its own, and leave its logs in a folder."""
    with ExitStack() as stack:
        url = stack.enter_context(database(server))
        clients = []
        for number in range(plan.clients):
            proxy = stack.enter_context(Proxy(redis.address))
            client = Client(
                number, _given(plan, number, url, proxy), folder, proxy, _may_die(number, plan.clients)
            )
            stack.callback(client.kill)
            client.start()
            clients.append(client)
        for client in clients:
            client.await_ready()
        watching = create_engine(url_for(url, "sync"), isolation_level="AUTOCOMMIT")
        stack.callback(watching.dispose)
        begin = time.monotonic()
        ran = Ran(plan, [], {}, [], begin, begin)
        _go(plan, ran, clients, redis, watching)
        ran.end = time.monotonic()
        for client in clients:
            client.stop()
            ran.logs += client.logs
            ran.killed.update(client.killed)
        return ran


def _go(plan: Plan, ran: Ran, clients: list[Client], redis: RedisServer, watching: Any) -> None:
    ends = ran.begin + plan.seconds
    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(_watch, ran, redis, watching, clients, ends)
        if plan.faults:
            nemesis = Nemesis(f"{plan.seed} nemesis", redis, watching, clients, plan.pace, plan.only)
            nemesis.run(ends - 1.0)
            ran.broken = nemesis.broken
        watched.result()


def _given(plan: Plan, number: int, url: URL, proxy: Proxy) -> dict[str, Any]:
    is_sync = number >= 2 and number % 2 == 0
    return {
        "front": "sync" if is_sync else "async",
        "database": (url_for(url, "sync") if is_sync else url).render_as_string(hide_password=False),
        "redis": proxy.url,
        **{name: getattr(plan, name) for name in ("seed", "sessions", "writes", "rest", "timeout", "lease")},
        "local": plan.local,
        "broken": plan.broken,
    }


def _may_die(number: int, clients: int) -> bool:
    """The first always lives, and of four or more a synchronous one, too: what grows is seen in these."""
    return number != 0 and (clients < 4 or number != 2)


def _watch(ran: Ran, redis: RedisServer, watching: Any, clients: list[Client], ends: float) -> None:
    """Count keys and connections, and let proxies forget what they have passed on."""
    random = Random(0)
    while time.monotonic() < ends:
        for client in clients:
            client.proxy.requests.clear()
        try:
            keys = redis.command("DBSIZE", timeout=0.5)
        except (RedisError, OSError):  # it is down, or paused, as it should be now and then
            keys = None
        if keys is not None:
            ran.keys.append((time.monotonic(), keys))
        with watching.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            )
            ran.connections.append((time.monotonic(), found.scalar()))
        time.sleep(min(1.0 + random.random() * 0.1, max(0.0, ends - time.monotonic())))
