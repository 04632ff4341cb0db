"""redis-py's blocking connections under the names that :mod:`.wire_async` gives the asynchronous ones.

The coroutines here do their work before they return, and never suspend.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from inspect import signature
from typing import Any

import redis.cluster
from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import SSLConnection, parse_url
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as TimedOut
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from ..front.blocking import BlockingFront, finish

PARSER: Mapping[str, Any] = (
    {"parser_class": redis.cluster.ClusterParser} if hasattr(redis.cluster, "ClusterParser") else {}
)
"""Before redis-py 6, only this one knows a cluster's redirections."""
_KNOWS_WHICH = "inuse_connections" in signature(BlockingConnectionPool.disconnect).parameters
"""Before redis-py 7, a blocking pool closes the connections in use as well, whatever was meant."""


def of_url(url: str) -> dict[str, Any]:
    return dict(parse_url(url))  # type: ignore[no-untyped-call]  # redis-py leaves it without types


def no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


def introducing(introduce: Callable[[Any], Coroutine[Any, Any, None]]) -> Any:
    def connected(raw: Any) -> None:
        connection = _Connection(raw, None)
        finish(introduce(connection))
        raw.sqlacache_run = connection.sqlacache_run

    return connected


def waiting(connection: Any) -> AbstractContextManager[None]:
    """There is no loop that could be late."""
    return nullcontext()


def pool(front: BlockingFront, options: Mapping[str, Any], failed: Any) -> _Pool:
    return _Pool(BlockingConnectionPool(**options), front)  # type: ignore[no-untyped-call]  # as above


def master_pool(
    service: str,
    nodes: Any,
    front: BlockingFront,
    url: str,
    options: Mapping[str, Any],
    of_sentinels: Mapping[str, Any],
    failed: Any,
) -> _MasterPool:
    asked = Sentinel(nodes, sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]  # redis-py leaves it without types
    encrypted = of_url(url).get("connection_class") is SSLConnection
    return _MasterPool(_SentinelPool(service, asked, ssl=encrypted, **options), front)  # type: ignore[no-untyped-call]  # as above


def client(pool: _Pool) -> Redis:
    return Redis(connection_pool=pool.raw)


def cluster_client(url: str, options: Mapping[str, Any]) -> RedisCluster:
    return RedisCluster.from_url(url, **options)


async def close(client: Any) -> None:
    client.close()


def pubsub(pool: _Pool) -> _PubSub:
    return _PubSub(Redis(connection_pool=pool.raw).pubsub(), pool)  # type: ignore[no-untyped-call]  # as above


def lane_at_hand(pool: _Pool) -> None:
    """As for :func:`lane`."""


async def lane(pool: _Pool, timeout: float) -> None:
    """There is none: a thread waits for its answer without an event loop's turns."""


class _Connection:
    __slots__ = ("_front", "raw", "sqlacache_run")

    def __init__(self, raw: Any, front: BlockingFront | None) -> None:
        self.raw = raw
        self.sqlacache_run: bytes = getattr(raw, "sqlacache_run", b"")
        self._front = front

    @property
    def host(self) -> Any:
        return self.raw.host

    @property
    def port(self) -> Any:
        return self.raw.port

    async def on_connect(self) -> None:
        self.raw.on_connect()

    async def send_command(self, *command: Any) -> None:
        self.raw.send_command(*command)

    async def read_response(self) -> Any:
        ends_at = self._front.ends_at if self._front is not None else None
        if ends_at is not None and not self.raw.can_read(timeout=max(0.0, ends_at - time.monotonic())):
            raise TimedOut("the time of the call is up")
        return self.raw.read_response()

    async def disconnect(self, nowait: bool = False) -> None:
        self.raw.disconnect()


class _Pool:
    def __init__(self, raw: Any, front: BlockingFront) -> None:
        self.raw = raw
        self._front = front

    @property
    def connection_kwargs(self) -> Mapping[str, Any]:
        return self.raw.connection_kwargs  # type: ignore[no-any-return]  # redis-py leaves it without a type

    async def get_connection(self, *named: Any) -> _Connection:
        return _Connection(self.raw.get_connection(*named), self._front)

    async def release(self, connection: _Connection) -> None:
        self.raw.release(connection.raw)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        _disconnect(self.raw, inuse_connections)


def _disconnect(pool: Any, inuse_connections: bool) -> None:
    if _KNOWS_WHICH:
        pool.disconnect(inuse_connections=inuse_connections)
    elif inuse_connections:
        pool.disconnect()
    else:
        for idle in filter(None, tuple(pool.pool.queue)):
            idle.disconnect()


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    pass


class _MasterPool(_Pool):
    @property
    def master_address(self) -> Any:
        return self.raw.proxy.master_address

    async def get_master_address(self) -> Any:
        return self.raw.get_master_address()

    async def release(self, connection: _Connection) -> None:
        if (connection.host, connection.port) != self.master_address:
            connection.raw.disconnect()
        self.raw.release(connection.raw)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        _disconnect(self.raw, inuse_connections)
        if inuse_connections:
            for sentinel in self.raw.sentinel_manager.sentinels:
                with suppress(RedisError, OSError):
                    sentinel.close()


class _PubSub:
    def __init__(self, raw: Any, pool: _Pool) -> None:
        self._raw = raw
        self.connection_pool = pool

    @property
    def connection(self) -> Any:
        return self._raw.connection

    async def subscribe(self, *channels: bytes) -> None:
        self._raw.subscribe(*channels)

    async def ping(self) -> None:
        self._raw.ping()

    async def get_message(self, timeout: float) -> Any:
        return self._raw.get_message(timeout=timeout)

    async def aclose(self) -> None:
        self._raw.close()
