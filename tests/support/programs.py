"""What tests of several servers or processes start, and programs of their own that they run."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from .postgres import Unavailable
from .redis_server import binaries

ROOT = Path(__file__).resolve().parents[2]


def started(stack: ExitStack, server: AbstractContextManager[Any]) -> Any:
    """Enter a server; without one the test is skipped, or fails when one was promised."""
    try:
        return stack.enter_context(server)
    except Unavailable as why:
        missing(why)


def missing(why: object) -> None:
    """Skip the test for want of a server, or fail it when ``SQLACACHE_REQUIRE_SERVERS=1`` promised one."""
    if os.environ.get("SQLACACHE_REQUIRE_SERVERS") == "1":
        pytest.fail(f"SQLACACHE_REQUIRE_SERVERS=1, but: {why}", pytrace=False)
    pytest.skip(str(why))


def run_with_redis(program: str, *arguments: str, timeout: float = 90) -> str:
    """Run a program that starts a Redis, without any loop of pytest's around; return what it wrote to stderr."""
    if not binaries():
        missing(Unavailable("no redis-server here"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "telemetry")])}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr
