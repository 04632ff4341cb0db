"""Connections to Redis: a pool per process and event loop (or for all threads), opened when used, bounded in time.

A connection asks the server for its run id when it connects. Every answer comes with the run id of the connection it
came over, so that a server that restarted, or another one that took over, is noticed with the first answer.

Pools belong to an event loop and to a process: after a fork, or in another loop, new ones are made. Pools whose loop is
closed are forgotten; their sockets close when they are collected.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

import redis
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import TimeoutError as TimedOut

from ..backend import Sentinel
from ..errors import TransportError
from ..forks import renew
from ..front.asynchronous import AsyncFront
from ..front.port import Front
from . import connecting, wire_async, wire_blocking
from .breaker import Breaker, describe
from .scripts import Script

FAILURES = (RedisError, OSError, asyncio.TimeoutError)
_VERSION = tuple(int(part) for part in redis.__version__.split(".")[:2])
_NAMED = ("MGET",) if _VERSION < (5, 3) else ()
"""Before 5.3, a pool wants to know the name of the command that a connection is for."""

_NOT_SERVING = (ReadOnlyError, MasterDownError, ClusterDownError)
_NOT_SERVING_CODES = ("READONLY", "MASTERDOWN", "CLUSTERDOWN", "LOADING", "BUSY", "UNKILLABLE")
"""Of errors that redis-py has no class for, or that a script of Redis 6.2 wraps in another error."""

RUN = object()
"""Stands, as the second argument of a script, for the run id of the connection that it goes over."""


UNKNOWN_RUN = b"?"
"""The run id of a server that does not tell it."""


MAX_CONNECTIONS = 16
"""Per process and event loop: one thread sends and reads them all, and each costs a handshake of several commands."""
LATE = 1.5
"""A timeout that took this many times as long was looked at late."""
CONNECT = "CONNECT"
"""What a connection that could not be opened counts as, when there is no command that waits for it."""
LEAST_TIME = 0.005
"""With fewer seconds left of a read's time, no call is begun."""
BUSY_TIME = 0.05
"""What a call has all the same if it was the event loop that took the time, in seconds that do not count its turns."""
TIMEOUTS = (TimedOut, TimeoutError, asyncio.TimeoutError)

_OF_MASTER = frozenset({"host", "port", "path", "connection_class"})
"""What a URL says of a server's address."""
_PROBES = frozenset((b"PING", b"CLUSTER"))
_LANED = _PROBES | {b"MGET"}
"""Commands that go by the lane (lookups), or see that it is open before the first lookup needs it."""
ASKED_AGAIN = 1.0
"""Seconds after which sentinels are asked again whether the master is still the master."""
_COMMON = ("socket_timeout", "socket_connect_timeout", "protocol", "retry")
"""What connections to sentinels have in common with those to their master."""


class Answer(NamedTuple):
    """What a server said, and which run of it did."""

    value: Any
    run: bytes


class Transport:
    """Sends commands to one Redis server.

    Args:
        url: As redis-py takes it: ``redis://``, ``rediss://`` or ``unix://``.
        timeout: Seconds to wait for an answer, and for a connection, at most.
        options: Further arguments of redis-py's connections (``max_connections``, ``password``, ``ssl_ca_certs``...).
        breaker: Keeps calls from waiting for a server that does not answer.
        sentinel: Where to ask for the master's address; what the URL says of a host is not used then.
        front: How answers are waited for.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        options: Mapping[str, Any],
        breaker: Breaker,
        sentinel: Sentinel | None = None,
        front: Front | None = None,
    ) -> None:
        self.front: Front = front or AsyncFront()
        self._wire: Any = wire_blocking if self.front.is_blocking else wire_async
        self.url = url
        self.sentinel = sentinel
        self.timeout = timeout
        self.breaker = breaker
        self._options = {"max_connections": MAX_CONNECTIONS, **options}
        self.forked()
        renew(self)

    async def call(self, *command: Any, run_at: int = 0) -> Answer:
        """Send one command and return its answer. Raises :class:`~sqlacache.errors.TransportError`.

        With ``run_at``, the argument there becomes the run id of the connection used.
        """
        self.breaker.check()
        began = time.monotonic()
        try:
            answer = await self._ask(self._pool(), command, run_at)
        except NoScriptError:
            raise
        except FAILURES as failure:
            error = self._explained(failure)
            self._failed(error, name_of(command), time.monotonic() - began)
            raise TransportError(f"{name_of(command)}: {describe(error)}") from error
        self.breaker.succeeded()
        return answer

    def _failed(self, error: BaseException, name: str, took: float = 0.0) -> None:
        if not self._is_news(error):
            return
        if self._is_gone(error, took):
            self.breaker.failed(error, name)
        elif self.breaker.on_failure is not None:
            self.breaker.on_failure(name, error)

    @staticmethod
    def _is_news(error: BaseException) -> bool:
        """Tell whether an error is to be counted: that of a connection that many waited for counts once."""
        attempt = connecting.of(error)
        return not isinstance(error, connecting.Undecided) and (attempt is None or attempt.tell())

    def _not_opened(self, error: BaseException) -> None:
        """Hear that a connection could not be opened, which nobody waits for any more."""
        if not self.breaker.is_open:
            self._failed(error, CONNECT)

    def _is_gone(self, error: BaseException, took: float) -> bool:
        """Tell whether an error says that the server does not answer: a reason to stay away.

        None is that it answers, only not to this (out of memory, no permission); or that everybody waits for the
        connections there are; or that the event loop was busy, so that the time was up long ago when it was looked at.
        """
        is_late = isinstance(error, TIMEOUTS) and took > LATE * self.timeout and connecting.of(error) is None
        return not (isinstance(error, ResponseError) or is_late or wire_async.NO_CONNECTION in str(error))

    def _check(self, pool: Any) -> None:
        """Raise :class:`~sqlacache.errors.TransportError` while nobody is to wait for the server of ``pool``."""
        self.breaker.check()

    def in_time(self, seconds: float, call: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """Let a call take at most ``seconds``, what is left of a read's time; with enough, its own limit will do.

        If nothing is left, but the event loop is busy, then it was the loop that took the time of the calls before: the
        call has a few of its turns.

        What is returned raises :class:`~sqlacache.errors.TransportError` when the time is up.
        """
        return call if seconds >= self.timeout else self._limited(seconds, call)

    async def _limited(self, seconds: float, call: Coroutine[Any, Any, Any]) -> Any:
        if seconds <= LEAST_TIME:
            is_busy = False
            try:
                is_busy = await self.front.is_busy()
            finally:
                if not is_busy:
                    call.close()
            if not is_busy:
                raise TransportError("the calls before took the time that a read may wait for the cache")
            seconds = BUSY_TIME
        try:
            return await self.front.within(seconds, call)
        except asyncio.TimeoutError as error:
            raise TransportError(f"no answer in the {seconds:.3f} s left of what a read may wait") from error

    async def run(self, script: Script, keys: Sequence[Any], arguments: Sequence[Any]) -> Answer:
        """Run a script by its digest, and send it whole if the server does not have it."""
        run_at = 3 + len(keys) + arguments.index(RUN)
        try:
            return await self.call(b"EVALSHA", script.digest, len(keys), *keys, *arguments, run_at=run_at)
        except NoScriptError:
            return await self.call(b"EVAL", script.source, len(keys), *keys, *arguments, run_at=run_at)

    async def probe(self) -> None:
        """Ask whether the server answers, also while the breaker is open. Raises :class:`TransportError`."""
        try:
            await self._exchange(self._pool(), (b"PING",))
        except FAILURES as failure:
            error = self._explained(failure)
            raise TransportError(f"PING: {describe(error)}") from error

    def _explained(self, error: BaseException) -> BaseException:
        """Return an error that says what redis-py's does not."""
        if self.url.startswith("rediss:") and "Timeout connecting" in str(error):
            explained = TimedOut(
                f"{error}: neither a connection nor TLS (is it spoken at this port?) in {self.timeout} s"
            )
            vars(explained).update(vars(error))
            return explained
        return error

    async def close(self) -> None:
        """Close this loop's connections; those of other loops close with them."""
        pool = self._pools.pop(self.front.home(), None)
        self._pools.clear()
        if pool is not None:
            await pool.disconnect()

    def client(self) -> Any:
        """Return a redis-py client over this loop's pool, for what is not the protocol's own business."""
        return self._wire.client(self._pool())

    def pubsub(self) -> Any:
        """Return what listens to channels, on a connection of its own."""
        return self._wire.pubsub(self._pool())

    async def is_at_master(self, pubsub: Any) -> bool:
        """Tell whether ``pubsub`` listens to the master; ``False`` while no sentinel says who that is.

        Raises redis-py's error of a lost connection when the master is another server.
        """
        if self.sentinel is None:
            return True
        pool, connection = pubsub.connection_pool, pubsub.connection
        if not await self._see_who_is_master(pool, within=0.0):
            return False
        if (connection.host, connection.port) != pool.master_address:
            raise ConnectionLost("the master is another server now")
        return True

    async def _see_who_is_master(self, pool: Any, within: float = ASKED_AGAIN) -> bool:
        """Ask the sentinels, if they were not asked ``within`` so many seconds; return whether it is known.

        redis-py asks them when it connects. That is not enough::

            1. A replica is promoted. The old master is paused, or was not asked to step down yet (up to 10 s after a
               planned failover), and takes itself for the master.
            2. A writer connects, to the new master, and commits.
            3. A reader is still connected to the old master, which knows nothing of that commit.

        Hence they are asked again every second, and connections to anyone else than the master are closed. Without an
        answer, everything goes on as before.
        """
        now = time.monotonic()
        if now - getattr(pool, "sqlacache_asked_at", 0.0) < within:
            return True
        pool.sqlacache_asked_at = now
        try:
            # It closes the idle connections when the master is another one.
            await self.front.within(self.timeout, pool.get_master_address())
        except FAILURES:
            return False
        return True

    def _pool(self) -> Any:
        home = self.front.home()
        pool = self._pools.get(home)
        if pool is None:
            with self._lock:  # of several threads, one makes the pool of all
                pool = self._pools.get(home)
                if pool is None:
                    self._leave_closed_loops()
                    pool = self._pools[home] = self._make_pool()
        return pool

    def _leave_closed_loops(self) -> None:
        """Let the garbage collector have the pools of loops that ended: a pool holds its loop, and so would stay."""
        if not self.front.is_blocking:
            for loop in [loop for loop in self._pools if loop.is_closed()]:
                del self._pools[loop]

    def forked(self) -> None:
        """The parent's sockets are not ours, and what it knew of the server is not known here."""
        self._pools: Any = {} if self.front.is_blocking else weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self.breaker.forked()
        self.breaker.reset()

    def _make_pool(self) -> Any:
        options = self._of_connections()
        if self.sentinel is None:
            options.update(self._wire.of_url(self.url))
            return self._wire.pool(self.front, options, self._not_opened)
        kept = {key: value for key, value in self._wire.of_url(self.url).items() if key not in _OF_MASTER}
        common = {name: options[name] for name in _COMMON}
        return self._wire.master_pool(
            self.sentinel.service,
            self.sentinel.nodes,
            self.front,
            self.url,
            {**kept, **options},
            {**common, **self.sentinel.options},
            self._not_opened,
        )

    def _of_connections(self) -> dict[str, Any]:
        """Return what a pool of connections to a server takes, but for the URL's part."""
        return {
            "timeout": self.timeout,  # to wait for a free connection
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "protocol": 2,  # one form of answers from redis-py 5 to 8, and no HELLO
            "retry": self._wire.no_retry(),
            "decode_responses": False,
            "redis_connect_func": self._wire.introducing(
                _introduce if self.url.startswith("rediss:") else _introduce_in_the_clear
            ),
            **self._options,
        }

    async def _ask(self, pool: Any, command: Sequence[Any], run_at: int, *, asking: bool = False) -> Answer:
        """Exchange a command, and once more if the server had closed the connection before."""
        began = time.monotonic()
        try:
            return await self._exchange(pool, command, run_at, asking=asking)
        except (ConnectionLost, OSError) as error:
            waited = isinstance(error, TIMEOUTS) or wire_async.NO_CONNECTION in str(error)
            if waited or time.monotonic() - began > self.timeout / 2:
                raise
        return await self._exchange(pool, command, run_at, asking=asking)

    async def _exchange(
        self, pool: Any, command: Sequence[Any], run_at: int = 0, *, asking: bool = False
    ) -> Answer:
        if self.sentinel is not None:
            await self._see_who_is_master(pool)
        if command[0] in _LANED and not asking:
            lane = self._wire.lane_at_hand(pool) or await self._wire.lane(pool, self.timeout)
            if lane is not None and command[0] == b"MGET":
                self._check(pool)
                values = await lane.ask(command)
                if values is not None:
                    return Answer(values, lane.run)
        connection = await pool.get_connection(*_NAMED)
        try:
            if command[0] not in _PROBES:
                self._check(pool)  # again: others may have found out while this one waited for a connection
            if run_at:
                command = [*command[:run_at], connection.sqlacache_run, *command[run_at + 1 :]]
            with self._wire.waiting(connection):
                if asking:
                    await connection.send_command(b"ASKING")
                    await connection.read_response()
                await connection.send_command(*command)
                return Answer(await connection.read_response(), connection.sqlacache_run)
        except ResponseError as error:
            if not _is_not_serving(error):
                raise  # the connection is fine
            # Perhaps no longer the master: new connections ask for the address again, this one and the idle ones.
            await connection.disconnect(nowait=True)
            await pool.disconnect(inuse_connections=False)
            raise ConnectionLost(describe(error)) from error
        except BaseException:
            # An answer may still come: nobody must read it as that of another command.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)


def _is_not_serving(error: ResponseError) -> bool:
    """Tell whether an error says that the server, rather than the command, is in no state to be asked."""
    text = str(error)
    return isinstance(error, _NOT_SERVING) or any(
        text.startswith(f"{code} ") or f"-{code} " in text for code in _NOT_SERVING_CODES
    )


async def _introduce(connection: Any) -> None:
    """Connect as redis-py would, and learn which run of the server this is."""
    connection.sqlacache_run = UNKNOWN_RUN
    await connection.on_connect()
    await connection.send_command("INFO", "server")
    try:
        answer = await connection.read_response()
    except ResponseError:
        return  # a user without the right to ask: restarts go unnoticed (docs/operations.md)
    text = answer if isinstance(answer, bytes) else str(answer).encode()
    for line in text.splitlines():
        if line.startswith(b"run_id:"):
            connection.sqlacache_run = line[7:].strip()


async def _introduce_in_the_clear(connection: Any) -> None:
    try:
        await _introduce(connection)
    except ConnectionLost as error:
        if type(error) is not ConnectionLost:  # a subclass tells what the server said
            raise
        raise ConnectionLost(
            f"{error} At the first command: if this port speaks TLS, say rediss://"
        ) from error


def name_of(command: Sequence[Any]) -> str:
    """Return a command's name as text."""
    return command[0].decode() if isinstance(command[0], bytes) else str(command[0])
