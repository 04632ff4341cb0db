"""What the programs of this package share: their options, their servers, and what they say of where they run."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.support.postgres import Unavailable, postgres_server
from tests.support.redis_server import redis_server

from .parts import Place


def add_common(parser: argparse.ArgumentParser, *, url: str = "SQLAlchemy URL (asyncpg)") -> None:
    """Add ``--json`` and ``--postgres``; ``url`` says what the latter takes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples and figures there, too")
    add_postgres(parser, url=url)


def add_postgres(parser: argparse.ArgumentParser, *, url: str = "SQLAlchemy URL (asyncpg)") -> None:
    """Add ``--postgres``."""
    parser.add_argument(
        "--postgres",
        metavar="URL",
        default=os.environ.get("SQLACACHE_TEST_POSTGRES_URL"),
        help=f"{url} of a server; by default one is started from a wheel",
    )


def add_redis(parser: argparse.ArgumentParser) -> None:
    """Add ``--redis``."""
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="URL of a server whose keys are the benchmark's to make and remove, in several of its databases;"
        " by default one is started",
    )


def rounds(given: str) -> int:
    """Read the option ``--rounds``."""
    if not given.isdecimal() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"takes a number above 0, got {given!r}")
    return int(given)


def server(url: str | None) -> AbstractContextManager[str]:
    """Give the URL of a PostgreSQL: ``url``, or that of one that is started."""
    return nullcontext(url) if url else postgres_server()


@contextmanager
def place(postgres: str | None, redis: str | None) -> Iterator[Place]:
    """Give the servers to measure on; one that has no URL is started for the time of the block.

    Raises :class:`Unavailable` where one cannot be started, or does not answer.
    """
    if postgres:
        asyncio.run(_reach_postgres(postgres))
    if redis:
        _reach_redis(redis)
    with server(postgres) as postgres_url:
        if redis:
            yield Place(postgres_url, redis)
            return
        with redis_server() as started:
            yield Place(postgres_url, started.url)


async def _reach_postgres(url: str) -> None:
    try:
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.connect():
            pass
    except (SQLAlchemyError, OSError, ImportError) as why:
        raise Unavailable(f"--postgres: {_first_line(why)}") from why


def _reach_redis(url: str) -> None:
    try:
        with Redis.from_url(url) as client:
            client.ping()
    except (RedisError, ValueError) as why:
        raise Unavailable(f"--redis: {_first_line(why)}") from why


def _first_line(why: Exception) -> str:
    return (str(why).splitlines() or [""])[0] or type(why).__name__


def progress(text: str) -> None:
    """Show ``text`` in place of what was shown before, where somebody looks."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def about(packages: Sequence[str]) -> dict[str, str]:
    """Return what is measured on: Python, the versions of ``packages``, the machine."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{package: version(package) for package in packages},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
