"""A MariaDB for the time of a block, on a socket file, from the server that the system has (``mariadbd``).

It keeps everything in a temporary directory, writes nothing to disk that it need not, runs as an unprivileged user when
this process is root, and ends with this process, however this process ends.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from examples.servers.keeping import Unavailable, kept, logged

__all__ = ["Unavailable", "mariadb_server"]

SETTINGS = {
    "skip-networking": "1",
    "skip-name-resolve": "1",
    "skip-log-bin": "1",
    "character-set-server": "utf8mb4",  # as Debian configures it
    "performance-schema": "0",
    "max-connections": "100",
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "16M",
    "innodb-flush-log-at-trx-commit": "0",
    "innodb-flush-method": "nosync",
    "innodb-doublewrite": "0",
    "innodb-use-native-aio": "0",
    "innodb-buffer-pool-dump-at-shutdown": "0",
    "innodb-lock-wait-timeout": "20",
    "local-infile": "1",
}
FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin", "/opt/homebrew/bin")


@contextmanager
def mariadb_server() -> Iterator[str]:
    """Start a server for the time of the block and give its SQLAlchemy URL (asyncmy), of a user who may do anything.

    Raises :class:`Unavailable` when there is no ``mariadbd`` or no user to run it, or it does not start.
    """
    server, install = _binary("mariadbd"), _binary("mariadb-install-db")
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    home = Path(tempfile.mkdtemp(prefix="sqlacache-my-", dir=memory))
    try:
        user = _user(home)
        options = [f"--datadir={home / 'data'}", *(f"--user={name}" for name in user)]
        made = subprocess.run(
            [
                install,
                "--no-defaults",
                *options,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            capture_output=True,
            text=True,
            cwd=home,
        )
        if made.returncode:
            raise Unavailable(f"mariadb-install-db failed: {made.stderr.strip() or made.stdout.strip()}")
        at = home / "socket"
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        command = [
            server,
            "--no-defaults",
            *options,
            f"--socket={at}",
            f"--pid-file={home / 'pid'}",
            *settings,
        ]
        with kept(command, home, end="KILL", user={}):  # what it would save is thrown away
            _await_start(at, home)
            yield f"mariadb+asyncmy://root@/mysql?unix_socket={at}"
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _binary(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(FOLDERS))
    if found is None:
        raise Unavailable(f"{name} is not installed (Debian: mariadb-server)")
    return found


def _user(home: Path) -> list[str]:
    """The user that the server is to become: only needed where this process is root, as whom it refuses to run."""
    if os.geteuid() != 0:
        return []
    import pwd

    for name in ("mysql", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(home, found.pw_uid, found.pw_gid)
        return [name]
    raise Unavailable("running as root, and neither user mysql nor nobody exists to run MariaDB")


def _await_start(at: Path, home: Path, patience: float = 60.0) -> None:
    """Wait until the server takes connections, and greets."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience)
            try:
                connection.connect(str(at))
                if connection.recv(1):
                    return
            except OSError:
                pass
        time.sleep(0.02)
    raise Unavailable(f"MariaDB did not start: {logged(home)}")
