"""Helpers for the tests of applications: assert what the cache decided, without mocks.

::

    with sqlacache.testing.record(cache) as seen:
        await session.get(User, 42)
    seen.assert_hit(User, 42)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect

from .decisions import Decision, Drop, Invalidation
from .observers import Observer

if TYPE_CHECKING:
    from .manager import CacheManager


class Recorder(Observer):
    """Keeps every decision and invalidation, in order."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.invalidations: list[Invalidation] = []
        self.drops: list[Drop] = []

    def decided(self, decision: Decision, scope: Any) -> None:
        self.decisions.append(decision)

    def invalidated(self, invalidation: Invalidation | None, scope: Any) -> None:
        if invalidation is not None:
            self.invalidations.append(invalidation)

    def dropped(self, drop: Drop) -> None:
        self.drops.append(drop)

    @property
    def hits(self) -> list[Decision]:
        """The reads that were hits."""
        return [decision for decision in self.decisions if decision.decision == "hit"]

    @property
    def misses(self) -> list[Decision]:
        """The reads that were misses."""
        return [decision for decision in self.decisions if decision.decision == "miss"]

    @property
    def bypasses(self) -> list[Decision]:
        """The reads that went past the cache."""
        return [decision for decision in self.decisions if decision.decision == "bypass"]

    def of(self, model: type, key: Any = None) -> list[Decision]:
        """Return the decisions about reads of ``model``; with ``key``, about gets of that primary key.

        A composite key is a tuple in the order of the model's primary key.
        """
        mapper: Any = inspect(model)
        tables = {table.fullname for table in mapper.tables}
        found = [decision for decision in self.decisions if tables.intersection(decision.tables)]
        if key is None:
            return found
        table = mapper.local_table
        values = key if isinstance(key, (tuple, list)) else (key,)
        named = dict(zip((column.name for column in table.primary_key.columns), values))
        wanted = ",".join(_canonical(named[name]) for name in sorted(named))
        tag = f"{table.fullname}:{wanted}"
        return [decision for decision in found if decision.op == "get" and tag in decision.tags]

    def assert_hit(self, model: type, key: Any = None) -> Decision:
        """Assert that the last read of ``model`` (and ``key``) was a hit; return its decision."""
        return self._assert(model, key, "hit", None)

    def assert_miss(self, model: type, key: Any = None, *, reason: str | None = None) -> Decision:
        """Assert that the last read of ``model`` (and ``key``) was a miss, for ``reason`` if given."""
        return self._assert(model, key, "miss", reason)

    def assert_bypass(self, model: type | None = None, *, reason: str | None = None) -> Decision:
        """Assert that the last read (of ``model``, if given) went past the cache, for ``reason`` if given."""
        return self._assert(model, None, "bypass", reason)

    def assert_invalidated(self, model: type, *, cause: str | None = None) -> Invalidation:
        """Assert that something invalidated ``model``'s table, for ``cause`` if given; return the last such record."""
        mapper: Any = inspect(model)
        table = mapper.local_table.fullname
        found = [
            record
            for record in self.invalidations
            for change in record.changes
            if change.table in (table, "*") and cause in (None, change.cause)
        ]
        assert found, f"nothing invalidated {table} ({cause or 'any cause'}); seen: {self.invalidations!r}"
        return found[-1]

    def _assert(self, model: type | None, key: Any, kind: str, reason: str | None) -> Decision:
        found = self.decisions if model is None else self.of(model, key)
        called = (
            "reads"
            if model is None
            else f"reads of {model.__name__}" + (f" {key!r}" if key is not None else "")
        )
        assert found, f"no {called} seen; seen: {self.summary()}"
        last = found[-1]
        wanted = kind + (f" ({reason})" if reason else "")
        got = last.decision + (f" ({last.reason})" if last.reason else "")
        assert last.decision == kind and reason in (None, last.reason), (
            f"last of {called} was a {got}, not a {wanted}"
        )
        return last

    def summary(self) -> str:
        """Return the decisions in short, for messages."""
        return ", ".join(
            f"{decision.op} {'/'.join(decision.tables) or '?'} {decision.decision}"
            + (f" ({decision.reason})" if decision.reason else "")
            for decision in self.decisions
        )


def _canonical(value: Any) -> str:
    return str(value)


@contextmanager
def record(cache: CacheManager) -> Iterator[Recorder]:
    """Record what ``cache`` decides inside the block; the recorder stays usable after it."""
    recorder = Recorder()
    cache.add_observer(recorder)
    try:
        yield recorder
    finally:
        cache.remove_observer(recorder)
