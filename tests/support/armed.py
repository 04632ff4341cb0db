"""Places in a worker process where it kills itself, or waits: before and after the steps of a read or a commit."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

STORE = ("lookup", "sample", "fill", "shapes", "mark", "settle", "unmark")
COMMIT = "commit"


class Arms:
    """Wraps the methods of the bound store (``store.mark``, ...) and the driver's own ``commit``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._armed: dict[tuple[str, str], _Arm] = {}
        self._steps: set[str] = set()
        self._wrapped: set[type] = set()

    async def find(self, cache: Any) -> None:
        """Wrap what there is; to be called once the cache is bound."""
        for binding in cache.bindings:
            for name in dir(binding.store):
                found = getattr(binding.store, name)
                if not name.startswith("_") and callable(found):
                    step = f"store.{name}"
                    setattr(binding.store, name, self._around(step, found))
                    self._steps.add(step)
        missing = {f"store.{name}" for name in STORE} - self._steps
        if missing:
            raise LookupError(f"the store has no longer: {', '.join(sorted(missing))}")
        async with self._engine.connect() as connection:
            driver = type((await connection.get_raw_connection()).dbapi_connection)
        if driver not in self._wrapped:
            original = driver.commit
            driver.commit = lambda connection: self._around(COMMIT, original)(connection)
            self._wrapped.add(driver)
        self._steps.add(COMMIT)

    def arm(self, step: str, when: str, action: str, nth: int) -> None:
        """Let the ``nth`` call of a step kill the process, or hold its task until it is released."""
        if step not in self._steps:
            raise LookupError(f"no step {step!r}; there are {', '.join(sorted(self._steps))}")
        if when not in ("before", "after") or action not in ("kill", "hold"):
            raise ValueError(f"arm: before or after, kill or hold; got {when!r}, {action!r}")
        self._armed[step, when] = _Arm(action, nth)

    async def reached(self, step: str, when: str) -> None:
        """Wait until a task is held at the step."""
        await self._armed[step, when].arrived.wait()

    def release(self, step: str, when: str) -> None:
        """Let the task that is held go on; later ones pass."""
        self._armed.pop((step, when)).opened.set()

    def disarm(self) -> None:
        """Release everybody; nothing is armed afterwards."""
        while self._armed:
            self._armed.popitem()[1].opened.set()

    def _around(self, step: str, original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._armed:
                return original(*args, **kwargs)
            _wait(self._come(step, "before"))
            result = original(*args, **kwargs)
            if inspect.isawaitable(result):
                return self._after(step, result)
            if not _did_nothing(step, result):
                _wait(self._come(step, "after"))
            return result

        return call

    async def _after(self, step: str, result: Any) -> Any:
        value = await result
        arm = None if _did_nothing(step, value) else self._come(step, "after")
        if arm is not None:
            await arm.opened.wait()
        return value

    def _come(self, step: str, when: str) -> _Arm | None:
        arm = self._armed.get((step, when))
        return arm if arm is not None and arm.come() else None


def _wait(arm: _Arm | None) -> None:
    """Hold whoever came to an arm, a task or a thread, until it is opened."""
    if arm is None:
        return
    if threading.get_ident() == arm.loop._thread_id:  # type: ignore[attr-defined]  # asyncio's own loops have it
        await_only(arm.opened.wait())
    else:
        asyncio.run_coroutine_threadsafe(arm.opened.wait(), arm.loop).result()


def _did_nothing(step: str, result: Any) -> bool:
    """Tell whether a step has not happened yet: phase one looks again when the registry of shapes was another one."""
    return step == "store.mark" and result is None


class _Arm:
    def __init__(self, action: str, nth: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.action = action
        self.left = nth
        self.arrived = asyncio.Event()
        self.opened = asyncio.Event()

    def come(self) -> bool:
        self.left -= 1
        if self.left:
            return False
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self.loop.call_soon_threadsafe(self.arrived.set)
        return True
