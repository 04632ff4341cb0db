"""Which SQLAlchemy event listeners belong to the library."""

from __future__ import annotations

import gc
from typing import Any

from sqlalchemy.event import registry


def listeners_of_ours() -> set[tuple[Any, ...]]:
    """Every listener that is registered now and was defined in sqlacache, as SQLAlchemy's own registry has them.

    The registry is private; it is the same in SQLAlchemy 1.4, 2.0 and 2.1, and there is no public way to ask.
    """
    found = set()
    # A collection while the registry is copied would run weak references' callbacks, which remove from it.
    collecting = gc.isenabled()
    gc.disable()
    try:
        registered = [
            (key, list(owners.values())) for key, owners in list(registry._key_to_collection.items())
        ]
    finally:
        if collecting:
            gc.enable()
    for key, references in registered:
        for reference in references:
            listener = reference()
            module = getattr(listener, "__module__", None) or ""
            if module == "sqlacache" or module.startswith("sqlacache."):
                found.add(key)
    return found
