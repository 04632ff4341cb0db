"""redis-py's asynchronous connections, as :mod:`.transport` uses them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import redis.asyncio.cluster
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ..front.port import Front

PARSER: Mapping[str, Any] = (
    {"parser_class": redis.asyncio.cluster.ClusterParser}
    if hasattr(redis.asyncio.cluster, "ClusterParser")
    else {}
)
"""Before redis-py 6, only this one knows a cluster's redirections."""


def of_url(url: str) -> dict[str, Any]:
    """Return what a URL says, as arguments of a pool."""
    return dict(parse_url(url))


def no_retry() -> Retry:
    """Return what keeps redis-py from trying again by itself."""
    return Retry(NoBackoff(), 0)


def introducing(introduce: Callable[[Any], Coroutine[Any, Any, None]]) -> Any:
    """Return ``introduce``, a coroutine function of a connection, as redis-py calls what follows a connect."""
    return introduce


def pool(front: Front, options: Mapping[str, Any]) -> Any:
    """Return a pool; who finds all of its connections taken waits for one."""
    return BlockingConnectionPool(**options)


def master_pool(
    service: str,
    nodes: Any,
    front: Front,
    url: str,
    options: Mapping[str, Any],
    of_sentinels: Mapping[str, Any],
) -> Any:
    """Return a pool of connections to the master that sentinels name."""
    asked = Sentinel(nodes, sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]  # redis-py leaves it without types
    encrypted = of_url(url).get("connection_class") is SSLConnection
    return _MasterPool(service, asked, ssl=encrypted, **options)  # type: ignore[no-untyped-call]  # as above


def client(pool: Any) -> Any:
    """Return a redis-py client over a pool."""
    return Redis(connection_pool=pool)


def cluster_client(url: str, options: Mapping[str, Any]) -> Any:
    """Return redis-py's client of a cluster."""
    return RedisCluster.from_url(url, **options)


def pubsub(pool: Any) -> Any:
    """Return what listens to channels, on a connection of its own."""
    return Redis(connection_pool=pool).pubsub()


class _MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    async def release(self, connection: Any) -> None:
        """Take a connection back; one to a former master is closed."""
        if (connection.host, connection.port) != self.master_address:
            await connection.disconnect(nowait=True)
        await super().release(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close connections, with ``inuse_connections`` all of them, and those to the sentinels."""
        await super().disconnect(inuse_connections=inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                with suppress(RedisError, OSError):
                    await sentinel.aclose()
