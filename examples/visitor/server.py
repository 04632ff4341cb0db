"""The shop's workers, each in a process of its own, which never outlive the visitor's ``with`` block."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
ANNOUNCED = re.compile(r"Uvicorn running on (http://\S+)")


class ShopFailed(Exception):
    """The shop did not start, or is gone."""


class Worker:
    """uvicorn with the example application on a port of its own."""

    def __init__(self, name: str, log: Path, port: int, environment: Mapping[str, str]) -> None:
        self.name = name
        self._log = log
        command = [sys.executable, "-m", "uvicorn", "--factory", "examples.shop.app:create_app"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--no-use-colors"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us; we end it
            )
        self.pid = self._process.pid
        self.address = ""

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"

    def await_start(self, patience: float = 60.0) -> None:
        """Wait until it has said where it listens. Raises :class:`ShopFailed`."""
        deadline = time.monotonic() + patience
        while not (found := ANNOUNCED.search(self.log())):
            self.check_alive()
            if time.monotonic() > deadline:
                raise ShopFailed(
                    f"{self} was not ready within {patience:.0f} seconds; its log:\n{self.log(40)}"
                )
            time.sleep(0.05)
        self.address = found.group(1)

    def check_alive(self) -> None:
        """Raise :class:`ShopFailed` with the log when the process has ended."""
        if self._process.poll() is not None:
            raise ShopFailed(
                f"{self} ended with exit status {self._process.returncode}; its log:\n{self.log(40)}"
            )

    def ask_to_stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """End the process, if it has not ended."""
        self.ask_to_stop()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log(self, lines: int | None = None) -> str:
        """What it wrote so far, or the last lines of it."""
        text = self._log.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:]) if lines else text


class Shop:
    """Some workers of the shop on one database and one backend, on ports of their own choosing unless one is given."""

    def __init__(self, database: str, backend: str, workers: int, port: int = 0) -> None:
        self.database = database
        self._environment = {"SHOP_DATABASE_URL": database, "SQLACACHE_BACKEND": backend}
        self._number = workers
        self._port = port
        self._stack = ExitStack()
        self.workers: list[Worker] = []

    def __enter__(self) -> Shop:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shop-")))
            stack.callback(self.stop)
            for number in range(self._number):
                name = f"worker {'ABCDEFGH'[number]}"
                port = self._port + number if self._port else 0
                self.workers.append(Worker(name, folder / f"{number}.log", port, self._environment))
            for worker in self.workers:
                worker.await_start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def stop(self) -> None:
        """End the workers; what they logged stays readable inside the ``with`` block."""
        for worker in self.workers:
            worker.ask_to_stop()
        for worker in self.workers:
            worker.stop()

    def check_alive(self) -> None:
        """Raise :class:`ShopFailed` with its log when a worker has ended."""
        for worker in self.workers:
            worker.check_alive()

    def log(self, lines: int) -> str:
        """The last lines of what each worker wrote."""
        return "\n".join(f"{worker}:\n{worker.log(lines)}" for worker in self.workers)
