"""The shop in a process of its own, which never outlives the visitor's ``with`` block."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
ANNOUNCED = re.compile(r"Uvicorn running on (http://\S+)")


class ShopFailed(Exception):
    """The shop did not start, or is gone."""


class Shop:
    """uvicorn with the example application on a port of its own choosing, unless one is given."""

    def __init__(self, port: int = 0, patience: float = 60.0) -> None:
        self._port = port
        self._patience = patience
        self._directory = tempfile.TemporaryDirectory(prefix="shop-")
        self.database = Path(self._directory.name, "shop.sqlite")
        self._log = Path(self._directory.name, "shop.log")
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def __enter__(self) -> Shop:
        command = [sys.executable, "-m", "uvicorn", "--factory", "examples.shop.app:create_app"]
        command += ["--host", "127.0.0.1", "--port", str(self._port), "--no-access-log", "--no-use-colors"]
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env={**os.environ, "SHOP_DATABASE": str(self.database)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C reaches us; we end it
                )
            self.address = self._announced()
        except BaseException:
            self.stop()
            self._directory.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._directory.cleanup()

    def _announced(self) -> str:
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            if found := ANNOUNCED.search(self.log()):
                return found.group(1)
            self.check_alive()
            time.sleep(0.05)
        raise ShopFailed(
            f"the shop was not ready within {self._patience:.0f} seconds; its log:\n{self.log(40)}"
        )

    def stop(self) -> None:
        """End the process, if it has not ended; what it logged stays readable inside the ``with`` block."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def check_alive(self) -> None:
        """Raise :class:`ShopFailed` with the log when the process has ended."""
        if self._process is None or self._process.poll() is not None:
            status = self._process.returncode if self._process else None
            raise ShopFailed(f"the shop ended with exit status {status}; its log:\n{self.log(40)}")

    def log(self, lines: int | None = None) -> str:
        """What the shop wrote so far, or the last lines of it."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-lines:]) if lines else text
