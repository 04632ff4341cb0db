"""The package sqlacache 0.1.3 of PyPI, which caches transparently, too: an environment and a process of its own.

It has the import name that this library has, so that it cannot be in this process. ``make bench`` installs it into
``.venv-peer``; :mod:`.peer_child` runs there and does what it is told over pipes: the same work on the same database,
when its turn comes, and it sleeps until then. Times are taken inside that process. A reference without any cache takes
part in it, too, so that other versions of SQLAlchemy, or another process, cannot pass for a difference between caches.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from .child import Ended, Process
from .contender import Contender
from .work import Work

VERSION = "0.1.3"
FOLDER = Path(__file__).resolve().parents[1] / ".venv-peer"
PYTHON = FOLDER / "bin" / "python"

PEER_NO_CACHE = f"{VERSION}, no cache"
PEER_MEMORY = f"{VERSION}, memory"
PEER_REDIS = f"{VERSION}, redis"


REQUIRED = "SQLACACHE_REQUIRE_PEER"
"""Environment variable: with ``1``, a benchmark or test without ``.venv-peer`` fails instead of leaving it out."""
SHOWN = ("SQLAlchemy", "asyncpg", "cashews", "redis", "hiredis")
"""Packages there whose versions the report gives."""


def versions() -> dict[str, str]:
    """Return the versions of what is installed in ``.venv-peer``, by the name of the package in small letters."""
    there = [str(path) for path in FOLDER.glob("lib/python*/site-packages")]
    return {one.metadata["Name"].lower(): one.version for one in distributions(path=there)}


def absent() -> str | None:
    """Return why the package cannot take part here, or ``None``. Raises :class:`Ended` where it has to."""
    found = versions().get("sqlacache") if PYTHON.exists() else None
    if found == VERSION:
        return None
    why = "not installed" if found is None else f"{found} is installed"
    why += f" in {FOLDER.name}, which `make bench` (or `make {FOLDER.name}/.installed`) prepares"
    if os.environ.get(REQUIRED) == "1":
        raise Ended(f"sqlacache {VERSION}: {why}")
    return why


@dataclass
class Peer(Contender):
    """A contender in the child."""

    where: str = "none"
    process: Process = field(default_factory=lambda: child(), repr=False)
    heap: str = "own"
    """What the garbage collector looks at while times are taken: its ``own`` garbage, or ``all`` that is there."""

    def absent(self) -> str | None:
        return absent()

    def open(self, url: Any, redis_url: str) -> None:
        self.process.start(url.render_as_string(hide_password=False), redis_url)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        await self.process.ask("bind", self.where)
        try:
            yield
        finally:
            await self.process.ask("unbind")

    async def ready(self, work: Work) -> str:
        return await self.process.ask("warm", work.name)

    async def warm(self, work: Work) -> Any:
        await self.ready(work)

    async def seconds(self, work: Work, times: int) -> float:
        return float(await self.process.ask("run", work.name, str(times), self.heap))

    async def change(self, work: Work, number: int) -> None:
        await self.process.ask("change", work.name, str(number))

    async def again(self, work: Work) -> str:
        return await self.process.ask("again", work.name)

    async def close(self) -> None:
        self.process.stop()


def child() -> Process:
    """Return a process of it, not yet started."""
    return Process(VERSION, [str(PYTHON), "-I", str(Path(__file__).with_name("peer_child.py"))])


def peers() -> Sequence[Peer]:
    """Make those in the child."""
    process, there = child(), versions()
    shown = ", ".join(f"{name} {there[name.lower()]}" for name in SHOWN if name.lower() in there)
    return (
        Peer(
            PEER_NO_CACHE,
            f"no cache, in the process of the next two: {shown or 'not installed'}",
            where="none",
            process=process,
        ),
        Peer(
            PEER_MEMORY,
            f"the package sqlacache {VERSION}, mem://, with room for 1,000,000 keys (of 1,000 by default, "
            "a list of 1,000 is never a hit)",
            where="memory",
            process=process,
        ),
        Peer(PEER_REDIS, f"the package sqlacache {VERSION}, Redis", where="redis", process=process),
    )
