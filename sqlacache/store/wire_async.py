"""redis-py's asynchronous connections, as :mod:`.transport` uses them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

import redis.asyncio.cluster
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as TimedOut

from ..front.patience import Patience
from ..front.port import Front
from .connecting import Connecting, Undecided
from .lane import Lane, Values, transport_of
from .tls import share

NO_CONNECTION = "No connection available"
"""What redis-py says, and this, when every connection of the pool is taken for too long."""
Failed = Callable[[BaseException], None]

WAITED = 1.25
"""How many times the limit of a call a lookup waits for a connection and an answer together."""

PARSER: Mapping[str, Any] = (
    {"parser_class": redis.asyncio.cluster.ClusterParser}
    if hasattr(redis.asyncio.cluster, "ClusterParser")
    else {}
)
"""Before redis-py 6, only this one knows a cluster's redirections."""
TO_BE_REFUSED = 0.001
"""Seconds that a server has to refuse our certificate: TLS 1.3 has us begin before it looks, and who writes to a
connection that it has closed is not told why."""
LONG = 3600.0
"""Seconds: a limit that is never reached."""
_CONNECTING = "sqlacache_connecting"
"""Where a connection has the limit within which it is to be connected."""


def of_url(url: str) -> dict[str, Any]:
    """Return what a URL says, as arguments of a pool."""
    return dict(parse_url(url))


def no_retry() -> Retry:
    """Return what keeps redis-py from trying again by itself."""
    return Retry(NoBackoff(), 0)


def introducing(introduce: Callable[[Any], Coroutine[Any, Any, None]]) -> Any:
    """Return ``introduce``, a coroutine function of a connection, as redis-py calls what follows a connect."""

    async def connected(connection: Any) -> None:
        connecting = vars(connection).pop(_CONNECTING, None)
        if connecting is not None:
            connecting.end()
        with waiting(connection):
            if isinstance(connection, SSLConnection):
                await asyncio.sleep(TO_BE_REFUSED)
                # With a limit, redis-py looks what is there between two commands.
                connection.socket_timeout = LONG
            await introduce(connection)

    return connected


class waiting:
    """Waits for a connection's answers with :class:`Patience`, instead of redis-py's limits."""

    __slots__ = ("_connection", "_patience", "_timeout")

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        connection = self._connection
        self._timeout, connection.socket_timeout = connection.socket_timeout, None
        self._patience = Patience(self._timeout, TimedOut)
        self._patience.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.socket_timeout = self._timeout
        self._patience.__exit__(kind, error, trace)


def pool(front: Front, options: Mapping[str, Any], failed: Failed) -> Any:
    """Return a pool; who finds all of its connections taken waits for one.

    ``failed`` is told when one could not be opened and nobody waits for it any more.
    """
    made = _Pool(**options)
    made.failed = failed
    return made


def master_pool(
    service: str,
    nodes: Any,
    front: Front,
    url: str,
    options: Mapping[str, Any],
    of_sentinels: Mapping[str, Any],
    failed: Failed,
) -> Any:
    """Return a pool of connections to the master that sentinels name; ``failed`` as for :func:`pool`."""
    asked = Sentinel(nodes, sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]  # redis-py leaves it without types
    encrypted = of_url(url).get("connection_class") is SSLConnection
    made = _MasterPool(service, asked, ssl=encrypted, **options)  # type: ignore[no-untyped-call]  # as above
    made.failed = failed
    made.asked_before = len(nodes)
    return made


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


def lane_at_hand(pool: Any) -> Lane | None:
    """Return the connection that lookups share if it is open."""
    lanes = pool.lanes
    if lanes and lanes[-1].is_open and pool.is_welcome(lanes[-1].connection):
        found: Lane = lanes[-1]
        return found
    return None


async def lane(pool: Any, timeout: float) -> Lane | _Rest | None:
    """Return the connection that lookups share, as soon as it is open; ``None`` if there is none.

    Raises :class:`.connecting.Undecided` if that takes too long, and what went wrong.
    """
    ends_at = time.monotonic() + WAITED * timeout
    opened: Lane | None = await pool.lane(timeout)
    return None if opened is None else _Rest(opened, ends_at)


class _Rest:
    """The lane, for who has waited for it to be opened."""

    def __init__(self, lane: Lane, ends_at: float) -> None:
        self.run = lane.run
        self._lane = lane
        self._ends_at = ends_at

    async def ask(self, command: tuple[str | bytes, ...]) -> Values | None:
        """Ask, and wait for what is left of a lookup's time. Raises :class:`.connecting.Undecided` then."""
        left = max(0.0, self._ends_at - time.monotonic())
        with Patience(left, Undecided, "the time went by while the connection was being opened"):
            return await self._lane.ask(command)


class _Pool(BlockingConnectionPool):
    """A pool that has a lane beside its connections; all of them have one TLS context."""

    failed: Failed | None = None
    asked_before = 0
    """Other servers that are asked before a connection is opened."""
    lanes: tuple[Lane, ...] = ()
    """The last one is in use; those before it take no more lookups, and wait for their last answers."""
    _has_lane = True
    _lane_opening: Connecting | None = None

    def __init__(self, *args: Any, timeout: float, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "timeout": None})
        self._patience = timeout
        self._openings: dict[Any, Connecting] = {}
        """Connections that are being opened; also those that lie in the pool, as nobody waits for them any more."""

    async def lane(self, timeout: float) -> Lane | None:
        """Return the lane when it is open, or ``None`` if there is none."""
        found = lane_at_hand(self)
        if found is not None:
            return found
        if self.lanes and self.lanes[-1].is_open:  # to a former master
            await self._close_lanes()
        if not self._has_lane:
            return None
        if self._lane_opening is None:
            self._lane_opening = Connecting(
                partial(self._open_lane, timeout), partial(setattr, self, "_lane_opening", None), self.failed
            )
        await self._lane_opening.wait(WAITED * timeout)
        return self.lanes[-1] if self.lanes and self.lanes[-1].is_open else None

    async def _open_lane(self, timeout: float) -> None:
        connection = self.make_connection()
        try:
            await self._connect(connection)
            transport = transport_of(connection)
            if transport is None:
                self._has_lane = False
                await connection.disconnect(nowait=True)
                return
            await self._close_lanes(only_idle=True)
            self.lanes = (*self.lanes, Lane(connection, transport, timeout))
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def get_connection(self, *named: Any) -> Any:
        """Return a connection that is open. Raises what went wrong."""
        with Patience(self._patience, ConnectionLost, NO_CONNECTION):
            connection = await super().get_connection(*named)  # type: ignore[no-untyped-call]  # as above
        try:
            await self._ensure(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def ensure_connection(self, connection: Any) -> None:
        """Do nothing: :meth:`get_connection` has more time for that than for finding a connection that is free."""

    async def _ensure(self, connection: Any) -> None:
        opening = self._openings.get(connection)
        if opening is None and connection.is_connected:
            if not await _says_something(connection):
                return
            await connection.disconnect(nowait=True)
            opening = self._openings.get(connection)
        if opening is None:
            opening = self._openings[connection] = Connecting(
                partial(self._open, connection), partial(self._openings.pop, connection), self.failed
            )
        await opening.wait()

    async def _open(self, connection: Any) -> None:
        try:
            await self._connect(connection)
            if not self.is_welcome(connection):
                raise ConnectionLost("the master is another server now")
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def _connect(self, connection: Any) -> None:
        """Connect; :func:`introducing` ends the first limit, and sets one for the rest."""
        timeout, connection.socket_connect_timeout = connection.socket_connect_timeout, None
        try:
            seconds = timeout * (1 + self.asked_before)
            with Patience(seconds, TimedOut, "Timeout connecting to server") as connecting:
                setattr(connection, _CONNECTING, connecting)
                await connection.connect()
        finally:
            vars(connection).pop(_CONNECTING, None)
            connection.socket_connect_timeout = timeout

    def make_connection(self) -> Any:
        connection: Any = super().make_connection()  # type: ignore[no-untyped-call]  # as above
        if isinstance(connection, SSLConnection):
            share(connection, self.connection_kwargs)
        return connection

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close connections, with ``inuse_connections`` all of them; the lane in any case."""
        for opening in list(self._openings.values()):
            if inuse_connections:
                await opening.stop()
            elif not opening.is_awaited:
                opening.cancel()
        if inuse_connections and self._lane_opening is not None:
            await self._lane_opening.stop()
        await self._close_lanes()
        await super().disconnect(inuse_connections=inuse_connections)

    async def _close_lanes(self, *, only_idle: bool = False) -> None:
        """Close the lanes; with ``only_idle``, not those from which somebody waits for an answer."""
        lanes, self.lanes = self.lanes, ()
        for lane in lanes:
            if only_idle and lane.is_used:
                self.lanes = (*self.lanes, lane)
            else:
                await lane.close()

    def is_welcome(self, connection: Any) -> bool:
        """Tell whether lookups may go by an open connection."""
        return True


async def _says_something(connection: Any) -> bool:
    """Tell whether an idle connection has something to read, if only that it was closed."""
    looks = getattr(connection, "can_read", None) or connection.can_read_destructive  # before redis-py 8
    try:
        return bool(await looks())
    except (RedisError, OSError):
        return True


class _MasterPool(SentinelConnectionPool, _Pool):
    def is_welcome(self, connection: Any) -> bool:
        return bool((connection.host, connection.port) == self.master_address)

    async def release(self, connection: Any) -> None:
        """Take a connection back; one to a former master is closed."""
        if connection not in self._openings and not self.is_welcome(connection):
            await connection.disconnect(nowait=True)
        await super().release(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close connections, with ``inuse_connections`` all of them, and those to the sentinels."""
        await super().disconnect(inuse_connections=inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                with suppress(RedisError, OSError):
                    await sentinel.aclose()
