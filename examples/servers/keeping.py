"""A server that ends with the process that started it, however that process ends."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The shell waits for its standard input to close, which happens when this process closes it or is gone.
KEEPER = 'signal=$1; shift; "$@" >"$SERVER_LOG" 2>&1 & read -r _; kill -"$signal" $!; wait'


class Unavailable(Exception):
    """No such server can be had here; says why."""


@contextmanager
def kept(command: Sequence[Any], home: Path, *, end: str, user: Mapping[str, Any]) -> Iterator[None]:
    """Run a server in ``home`` for the time of the block, writing ``home/log``; the signal ``end`` ends it.

    ``user`` is what makes it run as another user, as :class:`subprocess.Popen` takes it.
    """
    keeper = subprocess.Popen(
        ["sh", "-c", KEEPER, "sh", end, *map(str, command)],
        stdin=subprocess.PIPE,
        cwd=home,
        env={**os.environ, "SERVER_LOG": str(home / "log")},
        start_new_session=True,  # Ctrl-C reaches us; we end it
        **user,
    )
    try:
        yield
    finally:
        if keeper.stdin is not None:
            keeper.stdin.close()
        keeper.wait(timeout=30)


def logged(home: Path) -> str:
    """Return the end of what the server wrote."""
    log = home / "log"
    return log.read_text(errors="replace")[-2000:] if log.exists() else "no log"
