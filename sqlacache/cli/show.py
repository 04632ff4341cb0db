"""Output: text that is safe for a terminal, tables, JSON, and the units people read."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from math import isfinite
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import CacheError

WIDTH = 180
"""Characters of a line where output does not go to a terminal."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def safe(text: object) -> str:
    """Return text that tells a terminal to do nothing: whoever can write to Redis chooses names that are shown here."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


def line(text: object = "") -> None:
    """Write a line to standard output, at once."""
    sys.stdout.write(f"{safe(text)}\n")
    sys.stdout.flush()


def lines(text: str) -> None:
    """Write several lines."""
    for one in text.split("\n"):
        line(one)


def notice(text: object) -> None:
    """Write a line to standard error."""
    sys.stderr.write(f"sqlacache: {safe(' '.join(str(text).split()))}\n")
    sys.stderr.flush()


def as_json(value: Any, *, indent: int | None = 2) -> None:
    """Write a value as JSON; with ``indent=None`` on one line. It has ASCII characters only."""
    sys.stdout.write(f"{json.dumps(_plain(value), indent=indent)}\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    """Return a value for JSON, which has no infinity: somebody may have stored one."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def console() -> Console:
    """Return where tables are drawn: as wide as the terminal, or wide enough for most where there is none."""
    is_terminal = sys.stdout.isatty()
    return Console(
        file=sys.stdout, width=None if is_terminal else WIDTH, markup=False, highlight=False, emoji=False
    )


def table(columns: Mapping[str, bool], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table; ``columns`` tells of each whether it holds numbers."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, is_number in columns.items():
        made.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in rows:
        made.add_row(*(Text(safe(cell)) for cell in row))
    return made


def size(count: float | None) -> str:
    """Return a number of bytes as people read it."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Return a duration as people read it."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def moment(at: float) -> str:
    """Return a time given in seconds since the epoch; as it is if it is none."""
    try:
        return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
    except (ValueError, OverflowError, OSError):
        return f"{at!r} s"


def seconds(where: str, given: str) -> float:
    """Read a duration such as ``90``, ``90s``, ``15m``, ``1h`` or ``2d``. Raises :class:`CacheError`."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)?", given.strip(), re.ASCII)
    value = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if not value:
        raise CacheError(f"{where}: takes a time above 0 such as 90, 90s, 15m, 1h or 2d, got {given!r}")
    return value
