"""The servers that a benchmark measures on, and what of its tests takes too long for every run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks.parts import Place
from tests.support.redis_server import Unavailable, redis_server

WHOLE = os.environ.get("SQLACACHE_TEST_BENCHMARKS") == "whole"
"""Run those tests, too, that take ten seconds and more: `make test-benchmarks`."""
whole = pytest.mark.skipif(not WHOLE, reason="takes too long for every run: make test-benchmarks")


@pytest.fixture(scope="session")
def place(postgres_url: str) -> Iterator[Place]:
    """A PostgreSQL and a Redis, both real."""
    try:
        with redis_server() as server:
            yield Place(postgres_url, server.url)
    except Unavailable as error:
        if os.environ.get("SQLACACHE_REQUIRE_SERVERS") == "1":
            raise
        pytest.skip(str(error))
