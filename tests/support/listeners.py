"""Which SQLAlchemy event listeners belong to the library."""

from __future__ import annotations

from typing import Any

from sqlalchemy.event import registry


def listeners_of_ours() -> set[tuple[Any, ...]]:
    """Every listener that is registered now and was defined in sqlacache, as SQLAlchemy's own registry has them.

    The registry is private; it is the same in SQLAlchemy 1.4, 2.0 and 2.1, and there is no public way to ask.
    """
    found = set()
    for key, owners in list(registry._key_to_collection.items()):
        for reference in list(owners.values()):
            listener = reference()
            module = getattr(listener, "__module__", None) or ""
            if module == "sqlacache" or module.startswith("sqlacache."):
                found.add(key)
    return found
