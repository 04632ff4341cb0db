"""What brings a cache back after its backend failed: it probes the server, then delivers what is owed.

A task in the event loop that noticed the failure (another loop takes over if that one ends), or a thread, does it as
long as there is something to do. The first probe comes at once and later ones at most a second apart.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from .errors import TransportError
from .forks import renew
from .front.port import Worker
from .logs import BACKEND_BACK, BACKEND_LOST, BACKEND_PROBED, RECOVERY_FAILED, Seldom, log

if TYPE_CHECKING:
    from .core import Core

FIRST_WAIT = 0.05
LONGEST_WAIT = 1.0
"""Seconds between probes."""


class Recovery:
    """Looks after one cache's backend."""

    def __init__(self, manager: Core) -> None:
        self._manager = manager
        self._worker: Worker | None = None
        self._seldom = Seldom()
        self._told: float | None = None
        """When the outage began that was told of last."""
        self.forked()
        renew(self)

    def forked(self) -> None:
        self._lock = threading.Lock()

    @property
    def is_needed(self) -> bool:
        """Whether the server is to be probed or something is owed."""
        manager = self._manager
        breaker = manager.backend.breaker
        return (breaker is not None and breaker.is_open) or bool(manager.owing)

    def start(self) -> None:
        """Begin, unless it is under way; where nothing can be begun, somebody else will."""
        front = self._manager.front
        with self._lock:
            if front.can_start() and (self._worker is None or not self._worker.is_alive):
                self._worker = front.start(self._run, "sqlacache recovery")

    async def _run(self) -> None:
        wait = FIRST_WAIT
        while self._goes_on():
            try:
                await self._once()
                wait = FIRST_WAIT
            except TransportError as error:
                self._not_answered(error)
                wait = min(wait * 2, LONGEST_WAIT)
            except Exception as error:
                if (suppressed := self._seldom.passes()) is not None:
                    log(
                        RECOVERY_FAILED,
                        "%s: recovery failed, and is tried again",
                        self._manager.name,
                        exc_info=error,
                        cache=self._manager.name,
                        error=type(error).__name__,
                        suppressed=suppressed,
                    )
                self._manager.observers.backend_failed(self._manager.name, "recovery", error)
                wait = min(wait * 2, LONGEST_WAIT)
            if self.is_needed:
                await self._manager.front.sleep(wait)

    def _goes_on(self) -> bool:
        """Tell whether who asks is to go on: another loop may have taken over while this one stood still.

        Who is done is no longer under way from then on: what is owed a moment later begins anew.
        """
        with self._lock:
            is_mine = self._worker is not None and self._worker.is_current
            if is_mine and not self.is_needed:
                self._worker = None
            return is_mine and self.is_needed

    async def _once(self) -> None:
        manager = self._manager
        breaker = manager.backend.breaker
        opened = breaker.opened_at if breaker is not None else None
        if opened is not None:
            self._lost(opened, breaker.why)
            await manager.backend.transport.probe()
            breaker.reset()
            name, seconds = manager.name, round(time.time() - opened, 3)
            log(
                BACKEND_BACK,
                "%s: the backend answers again, after %.1f s",
                name,
                seconds,
                cache=name,
                seconds=seconds,
            )
        for owed in list(manager.owing):
            await owed.deliver()

    def _lost(self, opened: float, why: str) -> None:
        """Tell once of an outage."""
        if self._told != opened:
            self._told, name = opened, self._manager.name
            log(
                BACKEND_LOST,
                "%s: the backend does not answer, and is being probed: %s",
                name,
                why,
                cache=name,
                error=why,
            )

    def _not_answered(self, error: TransportError) -> None:
        name, why = self._manager.name, str(error)
        log(BACKEND_PROBED, "%s: the backend does not answer: %s", name, why, cache=name, error=why)

    async def deliver_now(self, limit: float) -> list[str]:
        """Deliver what is owed, here and now, for at most ``limit`` seconds; say what was not delivered."""
        ends_at = time.monotonic() + limit
        while self._manager.owing and time.monotonic() < ends_at:
            try:
                await self._once()
            except TransportError as error:
                self._not_answered(error)
            await self._manager.front.sleep(FIRST_WAIT)
        return [owed.describe() for owed in self._manager.owing]

    async def drain(self, limit: float) -> list[str]:
        """Wait at most ``limit`` seconds for what is owed, end, and say what was not delivered."""
        if self._manager.owing:
            self.start()
            if self._worker is not None:
                await self._worker.join(limit)
        await self.stop()
        return [owed.describe() for owed in self._manager.owing]

    async def stop(self) -> None:
        """End it."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.stop()
