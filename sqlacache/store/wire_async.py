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
from .lane import Lane, transport_of
from .tls import share

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
    return _Pool(**options)


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


async def close(client: Any) -> None:
    """Close redis-py's client."""
    await client.aclose()


def pubsub(pool: Any) -> Any:
    """Return what listens to channels, on a connection of its own."""
    return Redis(connection_pool=pool).pubsub()


async def lane(pool: Any, timeout: float) -> Lane | None:
    """Return the connection that lookups share; ``None`` while somebody else opens it."""
    found: Lane | None = await pool.lane(timeout)
    return found


class _Pool(BlockingConnectionPool):
    """A pool that has a lane beside its connections; all of them have one TLS context."""

    _lanes: tuple[Lane, ...] = ()
    """The last one is in use; those before it take no more lookups, and wait for their last answers."""
    _is_opening = False
    _has_lane = True

    async def lane(self, timeout: float) -> Lane | None:
        if self._lanes and self._lanes[-1].is_open:
            if self._is_welcome(self._lanes[-1].connection):
                return self._lanes[-1]
            await self._close_lanes()
        if self._is_opening or not self._has_lane:
            return None
        self._is_opening = True
        connection = self.make_connection()
        try:
            await connection.connect()
            transport = transport_of(connection)
            if transport is None:
                self._has_lane = False
                await connection.disconnect(nowait=True)
                return None
            await self._close_lanes(only_idle=True)
            lane = Lane(connection, transport, timeout)
            self._lanes = (*self._lanes, lane)
            return lane
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            self._is_opening = False

    def make_connection(self) -> Any:
        connection: Any = super().make_connection()  # type: ignore[no-untyped-call]  # as above
        if isinstance(connection, SSLConnection):
            share(connection, self.connection_kwargs)
        return connection

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close connections, with ``inuse_connections`` all of them; the lane in any case."""
        await self._close_lanes()
        await super().disconnect(inuse_connections=inuse_connections)

    async def _close_lanes(self, *, only_idle: bool = False) -> None:
        """Close the lanes; with ``only_idle``, not those from which somebody waits for an answer."""
        lanes, self._lanes = self._lanes, ()
        for lane in lanes:
            if only_idle and lane.is_used:
                self._lanes = (*self._lanes, lane)
            else:
                await lane.close()

    def _is_welcome(self, connection: Any) -> bool:
        return True


class _MasterPool(SentinelConnectionPool, _Pool):
    def _is_welcome(self, connection: Any) -> bool:
        return bool((connection.host, connection.port) == self.master_address)

    async def release(self, connection: Any) -> None:
        """Take a connection back; one to a former master is closed."""
        if not self._is_welcome(connection):
            await connection.disconnect(nowait=True)
        await super().release(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close connections, with ``inuse_connections`` all of them, and those to the sentinels."""
        await super().disconnect(inuse_connections=inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                with suppress(RedisError, OSError):
                    await sentinel.aclose()
