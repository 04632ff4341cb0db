"""Which version of sqlacache runs: for the instrumentation scope and the build information."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version


@lru_cache(maxsize=1)
def library_version() -> str:
    """Return the installed version of sqlacache, ``unknown`` when it is not installed (run from its source)."""
    try:
        return version("sqlacache")
    except PackageNotFoundError:
        return "unknown"
