"""What the programs of this package share: their options, their server, and what they say of where they run."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path

from tests.support.postgres import postgres_server


def add_common(parser: argparse.ArgumentParser, *, url: str = "SQLAlchemy URL (asyncpg)") -> None:
    """Add ``--json`` and ``--postgres``; ``url`` says what the latter takes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples and figures there, too")
    parser.add_argument(
        "--postgres",
        metavar="URL",
        default=os.environ.get("SQLACACHE_TEST_POSTGRES_URL"),
        help=f"{url} of a server; by default one is started from a wheel",
    )


def server(url: str | None) -> AbstractContextManager[str]:
    """Give the URL of a PostgreSQL: ``url``, or that of one that is started."""
    return nullcontext(url) if url else postgres_server()


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
