"""What a cache decided while it was watched, and assertions about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect

from ..canonical import Private
from ..decisions import Decision, Drop, Invalidation, Verification
from ..observers import Observer

if TYPE_CHECKING:
    from ..core import Core


class Recorder(Observer):
    """Keeps every decision and invalidation, in order."""

    def __init__(self, cache: Core | None = None) -> None:
        self._cache = cache
        self.decisions: list[Decision] = []
        self.invalidations: list[Invalidation] = []
        self.drops: list[Drop] = []
        self.verifications: list[Verification] = []

    def decided(self, decision: Decision, scope: Any) -> None:
        self.decisions.append(decision)

    def invalidated(self, invalidation: Invalidation | None, scope: Any) -> None:
        if invalidation is not None:
            self.invalidations.append(invalidation)

    def dropped(self, drop: Drop) -> None:
        self.drops.append(drop)

    def verified(self, verification: Verification) -> None:
        self.verifications.append(verification)

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.decisions)

    def __len__(self) -> int:
        return len(self.decisions)

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
        columns = list(table.primary_key.columns)
        values = list(key) if isinstance(key, (tuple, list)) else [key]
        if len(values) != len(columns):
            raise ValueError(f"{model.__name__}: a primary key has {len(columns)} value(s), got {key!r}")
        named = {column.name: self._texts(table, column, value) for column, value in zip(columns, values)}
        wanted = {",".join(texts) for texts in zip(*(named[name] for name in sorted(named)))}
        return [decision for decision in found if decision.op == "get" and wanted & _keys(decision, table)]

    def _texts(self, table: Any, column: Any, value: Any) -> list[str]:
        """Return a key's value as tags have it, by each database that the cache is bound to."""
        texts = [str(value)]
        for binding in self._cache.bindings if self._cache is not None else ():
            normalise = binding.canonical.of(column)
            conceal = binding.settings.digests.conceal
            try:
                text = str(value) if normalise is None else normalise(value)
                if conceal is not None and isinstance(text, Private):
                    text = conceal(table.fullname, column.name, text)
                texts.append(text)
            except ValueError:  # not a value of this column: no read can have had it as its key
                texts.append(str(value))
        return texts

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
        assert found, (
            f"no {called} seen (an object that a session holds already is not read again); "
            f"seen: {self.summary() or 'nothing at all'}"
        )
        last = found[-1]
        wanted = kind + (f" ({reason})" if reason else "")
        got = last.decision + (f" ({last.reason})" if last.reason else "")
        assert last.decision == kind and reason in (None, last.reason), (
            f"the last of {called} was a {got}, not a {wanted}; seen: {self.summary()}"
        )
        return last

    def summary(self) -> str:
        """Return the decisions in short, for messages."""
        return ", ".join(
            f"{decision.op} {'/'.join(decision.tables) or '?'} {decision.decision}"
            + (f" ({decision.reason})" if decision.reason else "")
            for decision in self.decisions
        )


def _keys(decision: Decision, table: Any) -> set[str]:
    """Return the primary keys of ``table`` among a decision's tags: ``42`` of ``users(id,name):42``."""
    pattern = re.compile(rf"{re.escape(table.fullname)}(?:\([^?]*\))?:(.*)", re.S)
    return {found[1] for found in map(pattern.fullmatch, decision.tags) if found}


@contextmanager
def record(cache: Core) -> Iterator[Recorder]:
    """Record what ``cache`` decides inside the block; the recorder stays usable after it."""
    recorder = Recorder(cache)
    cache.add_observer(recorder)
    try:
        yield recorder
    finally:
        cache.remove_observer(recorder)
