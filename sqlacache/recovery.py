"""The task that brings a cache back after its backend failed: it probes the server, then delivers what is owed.

It runs in the event loop that noticed the failure, as long as there is something to do; another loop takes over if that
one ends. The first probe comes at once and later ones at most a second apart.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from .errors import TransportError

if TYPE_CHECKING:
    from .manager import CacheManager

logger = logging.getLogger("sqlacache")

FIRST_WAIT = 0.05
LONGEST_WAIT = 1.0
"""Seconds between probes."""


class Recovery:
    """Looks after one cache's backend."""

    def __init__(self, manager: CacheManager) -> None:
        self._manager = manager
        self._task: asyncio.Task[None] | None = None
        self._loop: Any = None
        self._pid = 0
        """Whose task it is: after a fork, the parent's goes on in the parent alone."""

    @property
    def is_needed(self) -> bool:
        """Whether the server is to be probed or something is owed."""
        manager = self._manager
        breaker = manager.backend.breaker
        return (breaker is not None and breaker.is_open) or any(binding.owed for binding in manager.bindings)

    def start(self) -> None:
        """Begin, unless it is under way; without a running loop, somebody else will."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        is_ours = self._task is not None and not self._task.done() and self._pid == os.getpid()
        if is_ours and (self._loop is loop or self._loop.is_running()):
            return  # this one, or another loop of this process, is at it
        self._loop, self._pid = loop, os.getpid()
        self._task = loop.create_task(self._run(), name="sqlacache recovery")

    async def _run(self) -> None:
        wait = FIRST_WAIT
        me = asyncio.current_task()
        while (
            self.is_needed and self._task is me
        ):  # another loop may have taken over while this one stood still
            try:
                await self._once()
                wait = FIRST_WAIT
            except TransportError as error:
                logger.debug("%s: the backend does not answer: %s", self._manager.name, error)
                wait = min(wait * 2, LONGEST_WAIT)
            except Exception as error:
                logger.exception("%s: recovery failed, and is tried again", self._manager.name)
                self._manager.observers.backend_failed(self._manager.name, "recovery", error)
                wait = min(wait * 2, LONGEST_WAIT)
            if self.is_needed:
                await asyncio.sleep(wait)

    async def _once(self) -> None:
        manager = self._manager
        breaker = manager.backend.breaker
        if breaker is not None and breaker.is_open:
            await manager.backend.transport.probe()
            breaker.reset()
            logger.info("%s: the backend answers again", manager.name)
        for binding in manager.bindings:
            if binding.owed:
                await binding.owed.deliver()

    async def drain(self, limit: float) -> list[str]:
        """Wait at most ``limit`` seconds for what is owed, end the task, and say what was not delivered."""
        owing = [binding for binding in self._manager.bindings if binding.owed]
        if owing:
            self.start()
            task = self._task
            if task is not None and self._loop is asyncio.get_running_loop():
                await asyncio.wait([task], timeout=limit)
        await self.stop()
        return [binding.owed.describe() for binding in owing if binding.owed]

    async def stop(self) -> None:
        """End the task."""
        task, self._task = self._task, None
        if task is None or task.done() or self._loop is not asyncio.get_running_loop():
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
