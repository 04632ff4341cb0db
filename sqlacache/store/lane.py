"""A connection that the lookups of an event loop share: those of one turn are sent together, answers come in order.

redis-py's pool lends a connection to one command at a time, in several turns of the event loop with a timer each: four
times what the system and the server take. A lookup may be repeated, and its answer is one array of byte strings; only
that is expected here. Where the server answers with an error, the lookup is sent again over one of the pool.

The connection is redis-py's, so that it is opened, encrypted and introduced as the others are; hiredis packs the
commands and reads the answers. What is redis-py's own affair and used here is ``_writer``, whose asyncio transport is
taken over. Without that attribute, or without hiredis, lookups go by the pool.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

try:
    import hiredis

    HAS_HIREDIS = True
except ImportError:
    HAS_HIREDIS = False
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import TimeoutError as TimedOut

Values = list[bytes | None]

AGAIN = 0.1
"""The part of the limit after which those who are overdue are looked at again."""


class Lane(asyncio.Protocol):
    """Sends lookups over a connection that is open, and is nobody else's.

    Args:
        connection: redis-py's.
        transport: What it sends by, which is taken from it: :func:`transport_of`.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, connection: Any, transport: Any, timeout: float) -> None:
        self.connection = connection
        self.run: bytes = connection.sqlacache_run
        """The run id of its server."""
        self.is_open = not transport.is_closing()
        """Whether it takes further lookups."""
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout * (1 - AGAIN)
        self._again = timeout * AGAIN
        self._looked_at = 0.0
        self._asked: deque[tuple[asyncio.Future[Values | None], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._unsent: list[bytes] = []
        self._reader = hiredis.Reader()
        self._transport = transport
        self._before = self._transport.get_protocol()
        self._transport.set_protocol(self)

    @property
    def is_used(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._asked)

    def ask(self, command: tuple[str | bytes, ...]) -> asyncio.Future[Values | None]:
        """Send a command; awaited, what is returned gives the array that the server answers, ``None`` for an error.

        Both raise redis-py's ConnectionError, and awaiting its TimeoutError.
        """
        if not self.is_open:
            raise ConnectionLost("the connection was lost")
        # First: what cannot be packed must not be among those that an answer comes for.
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub takes a tuple of one
        answered: asyncio.Future[Values | None] = self._loop.create_future()
        ends_at = self._loop.time() + self._timeout
        is_first = not self._asked
        self._asked.append((answered, ends_at))
        if self._timer is None:
            self._timer = self._loop.call_at(ends_at, self._look_at_time)
        if is_first:  # one at a time, it waits a turn of the loop less, at no more system calls
            self._write(packed)
            return answered
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(packed)
        return answered

    def _send(self) -> None:
        """Send what was asked in this turn of the loop: one system call, and the server is woken up once."""
        unsent, self._unsent = self._unsent, []
        self._write(b"".join(unsent))

    def _write(self, packed: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(packed)

    async def close(self) -> None:
        """Close the connection; lookups under way fail."""
        self._give_up("closed")
        await self.connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while True:
            try:
                answer = self._reader.gets()
            except hiredis.ProtocolError:
                return self._give_up("said what no server says")
            if answer is False:  # not all of it is there
                break
            if not self._asked or not isinstance(answer, (list, hiredis.ReplyError)):
                return self._give_up("said what nobody asked")
            answered, _ = self._asked.popleft()
            if not answered.done():
                answered.set_result(answer if isinstance(answer, list) else None)
        if not self._asked and (not self.is_open or self._reader.has_data()):
            self._give_up("nobody waits for what it says")

    def connection_lost(self, exc: Exception | None) -> None:
        self._give_up("closed by the server")
        self._before.connection_lost(exc)  # redis-py may be waiting for that

    def _give_up(self, why: str) -> None:
        self.is_open = False
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        while self._asked:
            answered, _ = self._asked.popleft()
            if not answered.done():
                answered.set_exception(ConnectionLost(f"the connection was lost: {why}"))

    def _look_at_time(self) -> None:
        """Let those go who have waited for too long; nobody new is to wait behind them.

        Who is found overdue has a last part of the limit left, however late that is: the loop may have been busy, and
        their lookups sent just now, or their answers here already.
        """
        now, self._timer = self._loop.time(), None
        before, self._looked_at = self._looked_at, now
        for answered, ends_at in self._asked:
            if ends_at > before:
                again_at = ends_at if ends_at > now else now + self._again
                self._timer = self._loop.call_at(again_at, self._look_at_time)
                return
            self.is_open = False
            if not answered.done():
                answered.set_exception(TimedOut("no answer"))
        if not self.is_open:
            self._give_up("it was silent")


def transport_of(connection: Any) -> Any:
    """Return the asyncio transport of an open connection of redis-py; ``None`` if a lane cannot be made of it."""
    if not HAS_HIREDIS:
        return None
    return getattr(getattr(connection, "_writer", None), "transport", None)
