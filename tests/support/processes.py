"""Child processes that end with this process, and waiting for what others bring about."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

# The shell waits for a line on its standard input: the name of a signal for the server. When this process is gone,
# however it went, the input closes without one: the server is killed, and its folder is removed.
KEEPER = """
"$@" >>"$SERVER_LOG" 2>&1 &
echo $!
read -r signal
kill -"${signal:-KILL}" $!
wait
[ -n "$signal" ] || rm -rf "$SERVER_FOLDER"
"""

# Below the ports that systems hand out by themselves, so that one is still free when its server starts again;
# a Redis Cluster listens on a second port, 10,000 above.
PORTS = range(12_000, 22_000)
BUS = 10_000


class Kept:
    """A child process in a temporary ``folder``, which ends when this process does and then leaves nothing there.

    ``pid`` is its own, not its keeper's.
    """

    def __init__(self, command: Sequence[str], *, folder: Path, log: Path) -> None:
        self._keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, "SERVER_LOG": str(log), "SERVER_FOLDER": str(folder)},
            start_new_session=True,
            text=True,
        )
        assert self._keeper.stdout is not None
        self.pid = int(self._keeper.stdout.readline())

    def end(self, signal: str = "KILL", patience: float = 20.0) -> None:
        """Send a signal that ends the process, and return when it has ended."""
        try:
            self._keeper.communicate(f"{signal}\n", timeout=patience)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, 9)
            self._keeper.communicate()
            raise TimeoutError(f"process {self.pid} did not end within {patience} s of {signal}") from None

    def state(self) -> str:
        """One letter for what the process does, as ``ps`` shows it: ``S`` sleeps, ``T`` is stopped, ``Z`` has ended."""
        if Path("/proc/self/stat").exists():
            try:
                return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                return "Z"
        shown = subprocess.run(["ps", "-o", "state=", "-p", str(self.pid)], capture_output=True, text=True)
        return shown.stdout.strip()[:1] or "Z"


def until(condition: Callable[[], Any], what: str, patience: float = 15.0) -> Any:
    """Ask again and again, blocking, until ``condition()`` is true, and return what it gave.

    Raises :class:`TimeoutError`, naming ``what`` was waited for, after ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        given = condition()
        if given:
            return given
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience} s in vain for: {what}")
        time.sleep(0.005)


async def eventually(condition: Callable[[], Awaitable[Any] | Any], what: str, patience: float = 15.0) -> Any:
    """Do as :func:`until` does, without blocking the loop; ``condition`` may be a coroutine function."""
    deadline = time.monotonic() + patience
    while True:
        given = condition()
        if asyncio.iscoroutine(given):
            given = await given
        if given:
            return given
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience} s in vain for: {what}")
        await asyncio.sleep(0.005)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, nor on the one 10,000 above."""
    for port in random.sample(_ours(), 200):
        if _is_free(port) and _is_free(port + BUS):
            return port
    raise OSError(f"no free port found in {PORTS}")


def _ours() -> range:
    """Return this process's part of :data:`PORTS`: a server of another one may be down, and want its port back."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return PORTS[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def memory_folder(room: int = 1 << 28) -> str | None:
    """Where files live in memory, if there is such a place with room; else ``None``, for the usual temporary folder."""
    folder = "/dev/shm"
    if os.access(folder, os.W_OK | os.X_OK) and shutil.disk_usage(folder).free >= room:
        return folder
    return None
