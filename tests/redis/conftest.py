"""Fixtures of the tests that need Redis: servers, a cluster, sentinels, a proxy and worker processes, all real.

Where no server can be had, the tests are skipped, or fail when ``SQLACACHE_REQUIRE_SERVERS=1`` promised one. The server
at ``SQLACACHE_TEST_REDIS_URL`` is used where a test needs no control over it (``redis_url``); a test that uses it keeps
to keys under ``prefix``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.support.databases import SQLiteDatabases
from tests.support.programs import started
from tests.support.proxy import Proxy
from tests.support.redis_cluster import RedisCluster, redis_cluster
from tests.support.redis_sentinel import RedisSentinel, redis_sentinel
from tests.support.redis_server import Binary, RedisServer, binaries
from tests.support.redis_server import redis_server as run_server
from tests.support.workers import Worker, workers


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of a Redis that all tests share, perhaps with others: use keys under ``prefix``, and never FLUSHALL."""
    given = os.environ.get("SQLACACHE_TEST_REDIS_URL")
    with ExitStack() as stack:
        yield given or started(stack, run_server()).url


@pytest_asyncio.fixture
async def file(sqlite_databases: SQLiteDatabases) -> AsyncIterator[str]:
    """URL of a fresh, seeded database on SQLite."""
    async with sqlite_databases.fresh() as url:
        yield url


@pytest.fixture
def prefix() -> str:
    """A prefix for keys that no other test has."""
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture(params=binaries() or [None], ids=str)
def every_binary(request: pytest.FixtureRequest) -> Binary | None:
    """Each Redis version that is here, one test for each: hand it on as ``binary=``."""
    found: Binary | None = request.param
    return found


@pytest.fixture
def make_redis() -> Iterator[Callable[..., RedisServer]]:
    """Start a server with ``make_redis(binary=None, **options)``, see :mod:`tests.support.redis_server`."""
    with ExitStack() as stack:
        yield lambda binary=None, **options: started(stack, run_server(binary, **options))


@pytest.fixture
def redis_server(make_redis: Callable[..., RedisServer]) -> RedisServer:
    """A server of this test's own, empty, that keeps nothing on disk unless told to."""
    return make_redis()


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[RedisCluster]:
    """A cluster of three masters that all tests share: use keys under ``prefix``, and break nothing."""
    with ExitStack() as stack:
        yield started(stack, redis_cluster())


@pytest.fixture
def make_cluster() -> Iterator[Callable[..., RedisCluster]]:
    """Start a cluster with ``make_cluster(nodes=3, replicas=0, proxied=False, binary=None, **options)``."""
    with ExitStack() as stack:
        yield lambda *args, **options: started(stack, redis_cluster(*args, **options))


@pytest.fixture
def make_sentinel() -> Iterator[Callable[..., RedisSentinel]]:
    """Start a watched master with ``make_sentinel(replicas=1, sentinels=1, down_after=500, **options)``."""
    with ExitStack() as stack:
        yield lambda *args, **options: started(stack, redis_sentinel(*args, **options))


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., Proxy]]:
    """Put a proxy in front of a server with ``make_proxy(server)``: a :class:`RedisServer` or the URL of one."""
    with ExitStack() as stack:

        def make(server: RedisServer | str) -> Proxy:
            parts = urlsplit(server if isinstance(server, str) else server.url)
            login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
            assert parts.hostname is not None
            return stack.enter_context(Proxy((parts.hostname, parts.port or 6379), login))

        yield make


@pytest.fixture
def proxy(redis_url: str, make_proxy: Callable[..., Proxy]) -> Proxy:
    """A proxy in front of the server that all tests share."""
    return make_proxy(redis_url)


@pytest.fixture
def start_workers(
    prefix: str,
) -> Callable[..., AbstractAsyncContextManager[list[Worker]]]:
    """:func:`tests.support.workers.workers` with this test's prefix: ``start_workers(2, url, backend=redis_url)``."""

    def start(n: int, url: str, **options: Any) -> AbstractAsyncContextManager[list[Worker]]:
        return workers(n, url, **{"prefix": prefix, **options})

    return start
