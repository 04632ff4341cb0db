"""Listening to what other processes announce: one connection per process, in a task that comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from ..errors import SerializationError
from .announcing import Announcement, decode
from .breaker import describe
from .transport import FAILURES, Transport

logger = logging.getLogger("sqlacache")

LONGEST_WAIT = 1.0
"""Seconds between attempts to connect, at most."""


CANCEL_AGAIN = 0.1
"""Seconds after which a task that was cancelled and goes on is cancelled again: before Python 3.12, ``wait_for`` loses
a cancellation that meets the end of what it waits for, such as redis-py's sending of a command."""


class Listener(Protocol):
    """Hears what arrives on one channel."""

    def announced(self, announcement: Announcement) -> None:
        """Receive an announcement."""

    def lost(self, why: str) -> None:
        """Hear that announcements may have been missed."""

    def proved(self, sent_at: float) -> None:
        """Hear that whatever was announced before ``sent_at`` (on the monotonic clock) has arrived."""


class Subscription:
    """Subscribes to channels and keeps subscribed until it is stopped.

    Args:
        transport: Whose server it listens to.
        beat: Seconds between two PINGs.
    """

    def __init__(self, transport: Transport, *, beat: float) -> None:
        self._transport = transport
        self._beat = beat
        self._listeners: dict[bytes, list[Listener]] = {}
        self._sequences: dict[bytes, int] = {}
        self._resets: set[bytes] = set()
        self._confirmed: set[bytes] = set()
        """Channels that the server has confirmed; what it announces there arrives."""
        self._task: asyncio.Task[None] | None = None
        self.unreadable = 0
        """Messages that were none of ours."""

    @property
    def is_under_way(self) -> bool:
        """Whether the task runs."""
        return self._task is not None and not self._task.done()

    def add(self, channel: str, listener: Listener, *, resets: tuple[str, ...] = ()) -> None:
        """Hand what arrives on ``channel`` to ``listener``; whatever arrives on ``resets`` means that it lost track."""
        for name in (channel, *resets):
            listeners = self._listeners.setdefault(name.encode(), [])
            if not any(one is listener for one in listeners):  # two engines of one database share it
                listeners.append(listener)
        self._resets.update(name.encode() for name in resets)

    def start(self) -> None:
        """Begin to listen, in a task of the running loop."""
        if self._listeners and not self.is_under_way:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="sqlacache subscription")

    async def stop(self) -> None:
        """Stop listening."""
        task, self._task = self._task, None
        self._listeners.clear()
        if task is None or task.done():
            return
        loop = task.get_loop()
        if loop is asyncio.get_running_loop():
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=CANCEL_AGAIN)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    async def _run(self) -> None:
        wait = 0.05
        while self._task is asyncio.current_task():
            began = time.monotonic()
            try:
                await self._listen()
            except FAILURES as error:
                self._lost(describe(error))
            except Exception as error:
                # Whatever it was: a task that ended would leave the pushed tier off for good.
                logger.exception("the subscription failed and begins anew")
                self._lost(describe(error))
            if time.monotonic() - began > 5 * LONGEST_WAIT:
                wait = 0.05
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _listen(self) -> None:
        pubsub = self._transport.pubsub()
        try:
            self._confirmed.clear()
            subscribed: set[bytes] = set()
            asked_at = sent_at = 0.0
            while self._task is asyncio.current_task():
                if self._listeners.keys() - subscribed:  # also what was added meanwhile
                    await pubsub.subscribe(*(self._listeners.keys() - subscribed))
                    subscribed.update(self._listeners)
                now = time.monotonic()
                if now - asked_at >= self._beat:
                    if sent_at:
                        raise TimeoutError("no answer to a PING")
                    asked_at = now
                    if await self._transport.is_at_master(pubsub):  # else nothing is proved
                        sent_at = now
                        await pubsub.ping()
                message = await pubsub.get_message(timeout=max(0.001, asked_at + self._beat - now))
                if message is None:
                    continue
                if message["type"] == "pong":
                    proved, sent_at = sent_at, 0.0
                    for listener in self._everyone(self._confirmed):
                        listener.proved(proved)
                else:
                    self._take(message)
        finally:
            with contextlib.suppress(*FAILURES):
                await pubsub.aclose()

    def _take(self, message: Any) -> None:
        channel = message["channel"]
        if message["type"] == "subscribe":  # also when redis-py connected again by itself
            self._confirmed.add(channel)
            self._sequences.pop(channel, None)
            self._tell(channel, lambda listener: listener.lost("subscribed"))
            return
        if message["type"] != "message":
            return
        if channel in self._resets:
            self._tell(channel, lambda listener: listener.lost("the generation changed"))
            return
        try:
            announcement = decode(message["data"])
        except SerializationError as error:
            self.unreadable += 1
            why = str(error)
            self._tell(channel, lambda listener: listener.lost(why))
            return
        before = self._sequences.get(channel)
        self._sequences[channel] = announcement.sequence
        if before is not None and announcement.sequence not in (0, before + 1):
            gap = f"message {before} was followed by {announcement.sequence}"
            self._tell(channel, lambda listener: listener.lost(gap))
        self._tell(channel, lambda listener: listener.announced(announcement))

    def _tell(self, channel: bytes, tell: Callable[[Listener], None]) -> None:
        for listener in self._listeners.get(channel, ()):
            tell(listener)

    def _everyone(self, confirmed: set[bytes] | None = None) -> list[Listener]:
        """Return the listeners; with ``confirmed``, those that hear all of their channels.

        ::

            1. The process listens to database A. Binding B adds a listener, whose channels are subscribed to next.
            2. A PONG arrives. It proves nothing to the listener of B, whose announcements do not arrive yet.
        """
        found = {id(one): one for each in self._listeners.values() for one in each}
        if confirmed is not None:
            for channel in self._listeners.keys() - confirmed:
                for one in self._listeners[channel]:
                    found.pop(id(one), None)
        return list(found.values())

    def _lost(self, why: str) -> None:
        for listener in self._everyone():
            listener.lost(why)
