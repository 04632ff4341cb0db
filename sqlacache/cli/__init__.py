"""``sqlacache``, the command line: what the cache on a Redis server does and why, without the application.

It takes the extra ``sqlacache[cli]``. :mod:`.app` has the commands; docs/cli.md shows each with its output.

Exit status: 0, or for ``health`` 0 (well), 1 (degraded), 2 (unreachable); 1 for what was not confirmed or was stopped;
2 for everything that could not be done, with one line on standard error that says why.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line, of this process unless given; return the exit status."""
    try:
        import rich  # noqa: F401  # whether the extra is there
        import typer  # noqa: F401
    except ImportError as error:
        sys.stderr.write(
            f"sqlacache: the command line takes an extra: pip install 'sqlacache[cli]' ({error})\n"
        )
        return 2
    from .app import run

    return run(sys.argv[1:] if arguments is None else arguments)
