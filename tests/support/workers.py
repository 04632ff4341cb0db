"""Real worker processes for tests, and the client that drives them; :mod:`tests.support.worker` is what they run.

::

    async with workers(2, database_url, backend=redis_url, prefix=prefix) as [a, b]:
        await a.call("get", model="User", key=1)
        await b.call("update", model="User", key=1, values={"name": "new"})
        value, decision = await a.decided("get", model="User", key=1)
        assert value["name"] == "new" and decision["reason"] == "row_invalidated"
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from .fronts import FRONT, Front

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0
LONGEST_ANSWER = 1 << 26


class WorkerFailed(AssertionError):
    """A worker answered with an error, or not in time."""

    def __init__(self, text: str, error: str = "") -> None:
        super().__init__(text)
        self.error = error
        """Name of the exception's class in the worker."""


class WorkerDied(WorkerFailed):
    """A worker ended before it answered."""


class Worker:
    """One worker process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Any) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    def __repr__(self) -> str:
        return f"<Worker pid {self.pid}>"

    @property
    def returncode(self) -> int | None:
        """``None`` while it runs; ``-9`` once it was killed."""
        return self._process.returncode

    @property
    def stderr(self) -> str:
        """What the worker has written to its standard error and output."""
        self._log.seek(0)
        text: str = self._log.read().decode(errors="replace")
        return text

    async def call(self, do: str, *, timeout: float = PATIENCE, **arguments: Any) -> Any:
        """Let the worker do something and return the value it answers with.

        Raises :class:`WorkerFailed` when it answers with an error or not within ``timeout`` seconds, and
        :class:`WorkerDied` when it ends first; both carry its standard error.
        """
        number = next(self._numbers)
        answer = self.send(number, do, arguments)
        try:
            return await asyncio.wait_for(answer, timeout)
        except asyncio.TimeoutError:
            raise WorkerFailed(
                f"{self!r} did not answer {do} {arguments} in {timeout} s\n{self.stderr}"
            ) from None
        finally:
            self._waiting.pop(number, None)

    def send(self, number: int, do: str, arguments: dict[str, Any]) -> asyncio.Future[Any]:
        """Send a command without waiting; the future gets its answer."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_looked_at)
        self._waiting[number] = answer
        if self._reading.done():
            answer.set_exception(self._death())
        else:
            assert self._process.stdin is not None
            line = json.dumps({"id": number, "do": do, **arguments})
            self._process.stdin.write(f"{line}\n".encode())
        return answer

    def start(self, do: str, *, timeout: float = PATIENCE, **arguments: Any) -> asyncio.Task[Any]:
        """Do as :meth:`call` does, in a task of its own."""
        return asyncio.create_task(self.call(do, timeout=timeout, **arguments))

    async def decided(self, read: str, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Do a read and return its value and the one decision it led to."""
        answer = await self.call("decided", read=read, **arguments)
        if len(answer["decisions"]) != 1:
            raise WorkerFailed(f"{self!r}: {read} {arguments} led to {answer['decisions']}")
        return answer["value"], answer["decisions"][0]

    # -- its end -------------------------------------------------------------------------------------------------------

    async def kill(self) -> None:
        """Kill the process and wait until it is gone; one that is gone stays gone."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._ended(PATIENCE)

    async def killed(self, timeout: float = PATIENCE) -> None:
        """Wait until the process was killed, as :meth:`arm` had it; fails when it ended in another way."""
        await self._ended(timeout)
        if self.returncode != -signal.SIGKILL:
            raise WorkerFailed(f"{self!r} ended with {self.returncode}\n{self.stderr}")

    async def exit(self) -> None:
        """Let the worker disconnect its cache and end."""
        await self.call("exit")
        await self._ended(PATIENCE)

    def pause(self) -> None:
        """Stop the process (SIGSTOP): its connections stay, and it does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a stopped process go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def close(self) -> None:
        """Kill the process if it still runs, and let go of everything."""
        await self.kill()
        self._log.close()

    async def _ended(self, timeout: float) -> None:
        try:
            await asyncio.wait_for(asyncio.shield(self._reading), timeout)
        except asyncio.TimeoutError:
            raise WorkerFailed(f"{self!r} did not end in {timeout} s\n{self.stderr}") from None

    # -- places to be killed or held at --------------------------------------------------------------------------------

    async def arm(self, step: str, when: str = "before", action: str = "kill", nth: int = 1) -> None:
        """Let the ``nth`` call of ``step`` kill the process, or ``hold`` its task, ``before`` or ``after``.

        Steps are ``commit`` (the driver's real COMMIT) and the methods of the store: ``store.lookup``,
        ``store.sample``, ``store.fill``, ``store.shapes``, ``store.mark``, ``store.settle``, ``store.unmark``. A call
        of ``store.mark`` that did nothing (another registry of shapes: it is called again) has no ``after``.
        """
        await self.call("arm", step=step, when=when, action=action, nth=nth)

    async def reached(self, step: str, when: str = "before", timeout: float = PATIENCE) -> None:
        """Wait until a task is held at the step."""
        await self.call("reached", step=step, when=when, timeout=timeout)

    async def release(self, step: str, when: str = "before") -> None:
        """Let the task that is held at the step go on."""
        await self.call("release", step=step, when=when)

    # ------------------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            waiting = self._waiting.pop(answer["id"], None)
            if waiting is None or waiting.done():
                continue
            if "error" in answer:
                text = f"{self!r}: {answer['error']}: {answer['text']}\n{self.stderr}"
                waiting.set_exception(WorkerFailed(text, answer["error"]))
            else:
                waiting.set_result(answer["value"])
        await self._process.wait()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(self._death())

    def _death(self) -> WorkerDied:
        return WorkerDied(f"{self!r} ended with {self.returncode}\n{self.stderr}")


def _looked_at(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()


@asynccontextmanager
async def workers(
    n: int,
    url: str,
    *,
    database: str | None = None,
    pool_size: int = 5,
    bind: bool = True,
    environment: dict[str, str] | None = None,
    fronts: Sequence[Front] = (),
    module: str = "tests.support.worker",
    **configure: Any,
) -> AsyncIterator[list[Worker]]:
    """Run ``n`` workers for the time of the block; they are bound and answer when it begins, and killed at its end.

    Args:
        n: How many.
        url: The database's SQLAlchemy URL, seeded with the tests' rows.
        database: Its name, for ``bind()``.
        pool_size: Connections of each worker's pool.
        bind: ``False`` leaves binding to the command ``bind``.
        environment: Further environment variables.
        fronts: Of each worker; where there are none, those of the test run.
        module: What they run: :mod:`tests.support.worker`, or one that adds commands to it.
        configure: For ``sqlacache.configure()``, as JSON can carry it: ``backend``, ``prefix``, ``lease``, ...
    """
    setup = {"url": url, "database": database, "pool_size": pool_size, "bind": bind, "configure": configure}
    started: list[Worker] = []
    try:
        for _ in range(n):
            started.append(await _start(module, environment or {}))
        await asyncio.gather(
            *(
                worker.call("start", **setup, front=front)
                for worker, front in zip_longest(started, fronts, fillvalue=FRONT)
            )
        )
        yield started
    finally:
        for worker in started:
            await worker.close()


async def _start(module: str, environment: dict[str, str]) -> Worker:
    log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the worker
    path = os.pathsep.join([str(ROOT), str(ROOT / "telemetry"), os.environ.get("PYTHONPATH", "")])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), **environment},
        limit=LONGEST_ANSWER,
    )
    return Worker(process, log)
