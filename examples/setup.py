"""What the shop of the demonstration runs on: several workers on PostgreSQL and Redis, or one on SQLite alone."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .servers.keeping import Unavailable
from .servers.postgres import postgres_server
from .servers.redis import redis_server

CHOICES = ("auto", "full", "simple")
WORKERS = 2


@dataclass(frozen=True)
class SetUp:
    """Where the shop keeps its rows and what it caches, and how many processes serve it."""

    database: str
    """SQLAlchemy URL."""
    backend: str
    workers: int
    told: str
    """In words."""


@contextmanager
def set_up(choice: str = "auto") -> Iterator[SetUp]:
    """Start what the shop needs, for the time of the block.

    Args:
        choice: ``full`` is PostgreSQL, Redis and two workers, ``simple`` is SQLite, ``mem://`` and one worker;
            ``auto`` is the full one where it can be had.

    Raises :class:`Unavailable` when ``full`` cannot be had.
    """
    with ExitStack() as stack:
        yield _simple(stack) if choice == "simple" else _full(stack, or_simple=choice == "auto")


def _full(stack: ExitStack, *, or_simple: bool) -> SetUp:
    started = ExitStack()
    try:
        for driver in ("asyncpg", "redis"):
            if importlib.util.find_spec(driver) is None:
                raise Unavailable(f"{driver} is not installed")
        backend = started.enter_context(redis_server())
        database = started.enter_context(postgres_server())
    except Unavailable as why:
        started.close()
        if not or_simple:
            raise
        return _simple(stack, f" (the full set-up is not to be had here: {why})")
    except BaseException:
        started.close()
        raise
    stack.push(started)
    return SetUp(database, backend, WORKERS, f"{WORKERS} workers on PostgreSQL and Redis")


def _simple(stack: ExitStack, because: str = "") -> SetUp:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shop-")))
    return SetUp(
        f"sqlite+aiosqlite:///{folder / 'shop.sqlite'}",
        "mem://",
        1,
        f"1 worker on SQLite and mem://{because}",
    )
