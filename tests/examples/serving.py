"""The examples as processes of their own: what starts them, waits for them, and ends them."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import sqlalchemy
from sqlalchemy.engine import URL, make_url

from tests.support.processes import Kept, until

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
IS_SQLALCHEMY_1 = sqlalchemy.__version__.startswith("1.")
SYNC_DRIVER = "postgresql+psycopg2" if IS_SQLALCHEMY_1 else "postgresql+psycopg"


class Served:
    """A process under way, and what it has written so far."""

    def __init__(self, process: Kept, log: Path) -> None:
        self.pid = process.pid
        self._process, self._log = process, log
        self.address = ""

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def announced(self, pattern: str) -> str:
        """Wait for a line of its own making, and return what the pattern's first group found there."""
        try:
            found = until(lambda: re.search(pattern, self.log()) or self._ended(), pattern, PATIENCE)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it wrote:\n{self.log()}") from None
        return str(found.group(1))

    def _ended(self) -> None:
        if self._process.state() == "Z":
            raise RuntimeError(f"the process has ended; it wrote:\n{self.log()}")


@contextmanager
def process(
    folder: Path, module: str, arguments: Sequence[str], environment: Mapping[str, str], announces: str = ""
) -> Iterator[Served]:
    """Run ``python -m module`` for the time of the block, then end it as a service manager does (SIGTERM).

    With ``announces``, a pattern, wait until it has said where it listens.
    """
    name = f"{module.rpartition('.')[2]}-{uuid4().hex[:6]}"
    log = folder / f"{name}.log"
    log.touch()
    home = folder / name
    home.mkdir()
    settings = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'telemetry'}",
        "PYTHONUNBUFFERED": "1",
        **environment,
    }
    unset = [word for each in os.environ if each.startswith("SQLACACHE_") for word in ("-u", each)]
    command = ["env", *unset, *(f"{key}={value}" for key, value in settings.items())]
    running = Kept([*command, sys.executable, "-m", module, *arguments], folder=home, log=log)
    served = Served(running, log)
    try:
        if announces:
            served.address = served.announced(announces)
        yield served
    finally:
        running.end("TERM")
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def fresh_database(server_url: str) -> Iterator[URL]:
    """Give the URL (asyncpg) of a new database on a PostgreSQL, which is dropped afterwards."""
    url, name = make_url(server_url), f"examples_{uuid4().hex[:8]}"
    server = sqlalchemy.create_engine(url.set(drivername=SYNC_DRIVER), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield url.set(database=name)
    finally:
        with server.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        server.dispose()


def text_of(url: URL, driver: str) -> str:
    """Return a URL for another driver, as text for an environment."""
    return url.set(drivername=driver).render_as_string(hide_password=False)


def client(address: str) -> httpx.Client:
    """Return a client that opens a connection for each request, so that any worker may answer the next one."""
    return httpx.Client(
        base_url=address, timeout=30, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False
    )


def figure(exposition: str, name: str, **labels: str) -> float:
    """Return the sum of a metric's values that have these labels."""
    total = 0.0
    for line in exposition.splitlines():
        found = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
        if found is not None:
            given = dict(re.findall(r'(\w+)="([^"]*)"', found.group(1)))
            if labels.items() <= given.items():
                total += float(found.group(2))
    return total


def answer(response: httpx.Response) -> Any:
    """Return what a page answered, which must be no error."""
    assert response.is_success, response.text
    return response.json()
