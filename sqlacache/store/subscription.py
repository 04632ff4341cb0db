"""Listening to what other processes announce: one connection per process, in a task or thread that comes back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ..errors import SerializationError
from ..forks import renew
from ..front.port import Worker
from ..logs import SUBSCRIPTION_FAILED, Seldom, log
from .announcing import Announcement, decode
from .breaker import describe
from .transport import FAILURES, Transport

LONGEST_WAIT = 1.0
"""Seconds between attempts to connect, at most."""


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
        self._worker: Worker | None = None
        self._seldom = Seldom()
        self.forked()
        renew(self)
        self.unreadable = 0
        """Messages that were none of ours."""

    def forked(self) -> None:
        self._lock = threading.Lock()

    @property
    def is_under_way(self) -> bool:
        """Whether somebody listens in this process."""
        return self._worker is not None and self._worker.is_alive

    @property
    def was_begun(self) -> bool:
        """Whether somebody listened here or in the process that this one was forked from."""
        return self._worker is not None

    def add(self, channel: str, listener: Listener, *, resets: tuple[str, ...] = ()) -> None:
        """Hand what arrives on ``channel`` to ``listener``; whatever arrives on ``resets`` means that it lost track."""
        with self._lock:
            listeners = dict(self._listeners)  # whoever listens goes on with those that were there
            for name in (channel, *resets):
                others = [one for one in listeners.get(name.encode(), ()) if one is not listener]
                listeners[name.encode()] = [
                    *others,
                    listener,
                ]  # once, if two engines of one database share it
            self._resets |= {name.encode() for name in resets}
            self._listeners = listeners

    def remove(self, listener: Listener) -> None:
        """Hand ``listener`` nothing more; channels of which nobody hears are left."""
        with self._lock:
            kept = {
                name: [one for one in listeners if one is not listener]
                for name, listeners in self._listeners.items()
            }
            self._listeners = {name: listeners for name, listeners in kept.items() if listeners}

    @property
    def is_wanted(self) -> bool:
        """Whether anybody is to hear of anything."""
        return bool(self._listeners)

    def start(self) -> None:
        """Begin to listen, in the running loop or in a thread."""
        with self._lock:
            if self._listeners and not self.is_under_way:
                self._worker = self._transport.front.start(self._run, "sqlacache subscription")

    async def stop(self) -> None:
        """Stop listening."""
        worker, self._worker = self._worker, None
        self._listeners = {}
        if worker is not None:
            await worker.stop()

    def _is_mine(self) -> bool:
        """Tell whether who asks is to go on listening."""
        with self._lock:
            return self._worker is not None and self._worker.is_current

    async def _run(self) -> None:
        wait = 0.05
        while self._is_mine():
            began = time.monotonic()
            try:
                await self._listen()
            except FAILURES as error:
                self._lost(describe(error))
            except Exception as error:
                # Whatever it was: a task that ended would leave the pushed tier off for good.
                if (suppressed := self._seldom.passes()) is not None:
                    log(
                        SUBSCRIPTION_FAILED,
                        "the subscription failed and begins anew",
                        exc_info=error,
                        error=type(error).__name__,
                        suppressed=suppressed,
                    )
                self._lost(describe(error))
            if time.monotonic() - began > 5 * LONGEST_WAIT:
                wait = 0.05
            await self._transport.front.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _listen(self) -> None:
        pubsub = self._transport.pubsub()
        try:
            self._confirmed.clear()
            subscribed: set[bytes] = set()
            asked_at = sent_at = 0.0
            has_looked = False
            while self._is_mine():
                new = self._listeners.keys() - subscribed  # also what was added meanwhile
                if new:
                    await pubsub.subscribe(*new)
                    subscribed |= new
                gone = subscribed - self._listeners.keys()
                if gone and self._listeners:  # else nobody listens in a moment
                    await pubsub.unsubscribe(*gone)
                    subscribed -= gone
                    self._confirmed -= gone
                now = time.monotonic()
                is_due = now - asked_at >= self._beat
                if is_due and not sent_at:
                    if await self._transport.is_at_master(pubsub):  # else nothing is proved
                        sent_at = now
                        await pubsub.ping()
                    now = asked_at = time.monotonic()  # a busy loop may have taken a while to send it
                elif is_due and has_looked:
                    raise TimeoutError("no answer to a PING")
                elif is_due:
                    has_looked = True  # and looks again: a busy loop has not read what is there
                patience = min(
                    LONGEST_WAIT, asked_at + self._beat - now
                )  # a thread may be told to stop meanwhile
                message = await pubsub.get_message(timeout=max(0.001, patience))
                if message is None:
                    continue
                has_looked = False
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
        listeners = self._listeners
        found = {id(one): one for each in listeners.values() for one in each}
        if confirmed is not None:
            for channel in listeners.keys() - confirmed:
                for one in listeners[channel]:
                    found.pop(id(one), None)
        return list(found.values())

    def _lost(self, why: str) -> None:
        for listener in self._everyone():
            listener.lost(why)
