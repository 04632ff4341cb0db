"""What the allocators of a process have from the system, and how much of it is in use: malloc's and Python's own.

Resident memory alone does not tell a leak: what objects of many sizes and ages leave free between those that stay is
not given back. What is in use tells. Python takes what is larger than 512 bytes from malloc, as C libraries do, and
keeps arenas of its own, mapped by itself, for the rest.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
from functools import cache
from typing import Any

MB = 1024 * 1024
M_MMAP_THRESHOLD = -3
LARGE = 300 * 1024
"""Bytes from which on malloc maps a piece for itself; what asyncio receives into, 256 KiB, is of the heap as always."""
FIELDS = (
    "arena",
    "ordblks",
    "smblks",
    "hblks",
    "hblkhd",
    "usmblks",
    "fsmblks",
    "uordblks",
    "fordblks",
    "keepcost",
)
PYTHONS = re.compile(r"in allocated blocks *= *([\d,]+)|bytes/arena *= *([\d,]+)")
"""Lines of ``sys._debugmallocstats``: bytes in use, and bytes of all arenas."""


class _Told(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


@cache
def _glibc() -> Any:
    """The C library, or ``None`` if it is not a glibc that tells (2.33 and newer)."""
    try:
        library: Any = ctypes.CDLL(None)
        library.mallinfo2.restype = _Told
        library.malloc_trim.argtypes = [ctypes.c_size_t]
    except (OSError, AttributeError, TypeError):
        return None
    return library


def of_allocators() -> dict[str, float]:
    """MB in use and free, by allocator; empty where they do not tell."""
    library = _glibc()
    python = _of_python()
    if library is None or python is None:
        return {}
    told = library.mallinfo2()
    used, mapped = python
    return {
        "used memory": (told.uordblks + told.hblkhd + used) / MB,
        "used memory of malloc": (told.uordblks + told.hblkhd) / MB,
        "used memory of Python": used / MB,
        "free memory of malloc": told.fordblks / MB,
        "free memory of Python": (mapped - used) / MB,
    }


def _of_python() -> tuple[int, int] | None:
    """Bytes that are in use and bytes of its arenas; ``None`` if Python does not tell."""
    tell = getattr(sys, "_debugmallocstats", None)
    if tell is None:
        return None
    with tempfile.TemporaryFile() as told:  # it writes to a file's number and nowhere else
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(told.fileno(), 2)
        try:
            tell()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        told.seek(0)
        found = PYTHONS.findall(told.read().decode())
    used = [int(one.replace(",", "")) for one, _ in found if one]
    arenas = [int(one.replace(",", "")) for _, one in found if one]
    return (used[0], arenas[0]) if used and arenas else None


def set_large_apart() -> None:
    """Keep the lists of all objects that are made to measure out of the heap, where they would leave holes of a MB."""
    library = _glibc()
    if library is not None:
        library.mallopt(M_MMAP_THRESHOLD, LARGE)


def trim() -> None:
    """Let malloc give back to the system what it has free, where it can be told to."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
