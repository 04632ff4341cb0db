"""Helpers for tests: of applications, and of stores.

Assert what the cache decided, without mocks::

    with sqlacache.testing.record(cache) as seen:
        await session.get(User, 42)
    seen.assert_hit(User, 42)

Prove that a store keeps the rules that the cache relies on: see :mod:`sqlacache.testing.contract`.
"""

from __future__ import annotations

from .recorder import Recorder, record

__all__ = ["Recorder", "record"]
