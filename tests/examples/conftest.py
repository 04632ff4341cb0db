"""The servers that the examples start, for tests: skipped where there are none, failing where they were promised."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from examples import setup
from examples.servers.keeping import Unavailable
from examples.servers.redis import redis_server


@contextmanager
def needed() -> Iterator[None]:
    """Skip or fail what needs a server that the block cannot start."""
    try:
        yield
    except Unavailable as why:
        promised = os.environ.get("SQLACACHE_REQUIRE_SERVERS") == "1"
        (pytest.fail if promised else pytest.skip)(str(why))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of a Redis that keeps nothing."""
    with needed(), redis_server() as url:
        yield url


@pytest.fixture(scope="session")
def full() -> None:
    """Nothing but the knowledge that the demonstration's full set-up can be had."""
    with needed(), setup.set_up("full"):
        pass
