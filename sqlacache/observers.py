"""Observers: who is told of decisions, and the guard that keeps them from hurting a query.

Subclass :class:`Observer` and override what is of interest; every method has a do-nothing default, so a new kind of
record never breaks an old observer. An observer that raises is counted (:attr:`Observers.errors`), logged once per
kind of error, and never breaks a query or a commit.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .decisions import Decision, Drop, Invalidation, Load, Received, Verification
from .forks import renew
from .logs import OBSERVER_FAILED, log


class Observer:
    """Base of all observers. Methods run inside the query or commit they describe: keep them short.

    One that has to be slow, or may block, is put into an :class:`~sqlacache.InBackground`.
    """

    def bound(self, cache: str, tables: Sequence[str]) -> None:
        """Tell that ``cache`` was bound to a database with these mapped tables (to make metrics start at zero)."""

    def load_started(self, load: Load) -> Any:
        """Begin a miss's load; what is returned comes back as ``scope`` in the next two calls."""

    def load_finished(self, scope: Any, error: BaseException | None) -> None:
        """End the load begun with ``scope``, in the same task; ``error`` is what the database raised, if it did."""

    def decided(self, decision: Decision, scope: Any) -> None:
        """Receive a read's final decision; ``scope`` is ``None`` unless it was a miss that loaded."""

    def invalidation_started(self, cache: str, tables: Sequence[str]) -> tuple[Any, str | None]:
        """Begin an invalidation, before phase one; return a scope and the ``traceparent`` for stamps to carry."""
        return None, None

    def invalidated(self, invalidation: Invalidation | None, scope: Any) -> None:
        """Receive a finished invalidation; ``None`` when it came to nothing (a rollback, an error before COMMIT)."""

    def dropped(self, drop: Drop) -> None:
        """Receive entries dropped from memory without a write."""

    def verified(self, verification: Verification) -> None:
        """Hear how a hit compared with the database."""

    def received(self, received: Received) -> None:
        """Hear of a commit of another process (with a backend that processes share)."""

    def backend_failed(self, cache: str, operation: str, error: BaseException) -> None:
        """Hear that the backend failed in ``operation``, a command such as ``MGET``."""

    def owed(self, cache: str, count: int) -> None:
        """Hear how many invalidations are owed to the backend now."""

    def capacity(self, cache: str, entries: int, size: int) -> None:
        """Hear how many entries this process holds now, and the bytes of memory that ``max_bytes`` counts."""

    def observer_failed(self, observer: str) -> None:
        """Hear that an observer of this class (perhaps this one) raised; what this raises is only counted."""


class Observers:
    """A guarded fan-out to any number of observers. ``bool(observers)`` is whether anybody listens."""

    __slots__ = ("__weakref__", "_lock", "_members", "errors")

    def __init__(self, members: Sequence[Observer] = ()) -> None:
        self._members: tuple[Observer, ...] = tuple(members)
        self.errors: Counter[str] = Counter()
        """Exceptions raised, by the observer's class name."""
        self.forked()
        renew(self)

    def forked(self) -> None:
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._members)

    def add(self, observer: Observer) -> None:
        """Add an observer; adding one twice is an error."""
        with self._lock:
            if any(member is observer for member in self._members):
                raise ValueError(f"observer {observer!r} is already there")
            self._members = (*self._members, observer)

    def remove(self, observer: Observer) -> None:
        """Remove an observer; one that is not there is ignored."""
        with self._lock:
            self._members = tuple(member for member in self._members if member is not observer)

    def _failed(self, observer: Observer, method: str, error: Exception) -> None:
        name = type(observer).__name__
        with self._lock:
            self.errors[name] += 1
            is_first = self.errors[name] == 1
        if is_first:
            log(
                OBSERVER_FAILED,
                "observer %s.%s raised %r; further errors are only counted",
                name,
                method,
                error,
                observer=name,
                method=method,
                error=type(error).__name__,
            )
        for member in self._members:
            try:
                member.observer_failed(name)
            except Exception:
                self.errors[type(member).__name__] += 1  # and nobody is told: that could go on for ever

    def bound(self, cache: str, tables: Sequence[str]) -> None:
        for member in self._members:
            try:
                member.bound(cache, tables)
            except Exception as error:
                self._failed(member, "bound", error)

    def load_started(self, load: Load) -> list[tuple[Observer, Any]]:
        scopes = []
        for member in self._members:
            try:
                scopes.append((member, member.load_started(load)))
            except Exception as error:
                self._failed(member, "load_started", error)
        return scopes

    def load_finished(self, scopes: list[tuple[Observer, Any]], error: BaseException | None) -> None:
        for member, scope in reversed(scopes):
            try:
                member.load_finished(scope, error)
            except Exception as raised:
                self._failed(member, "load_finished", raised)

    def decided(self, decision: Decision, scopes: list[tuple[Observer, Any]] | None = None) -> None:
        for member in self._members:
            scope = next((s for m, s in scopes if m is member), None) if scopes else None
            try:
                member.decided(decision, scope)
            except Exception as error:
                self._failed(member, "decided", error)

    def invalidation_started(
        self, cache: str, tables: Sequence[str]
    ) -> tuple[list[tuple[Observer, Any]], str | None]:
        scopes, traceparent = [], None
        for member in self._members:
            try:
                scope, parent = member.invalidation_started(cache, tables)
            except Exception as error:
                self._failed(member, "invalidation_started", error)
            else:
                scopes.append((member, scope))
                traceparent = traceparent or parent
        return scopes, traceparent

    def invalidated(self, invalidation: Invalidation | None, scopes: list[tuple[Observer, Any]]) -> None:
        for member, scope in scopes:
            try:
                member.invalidated(invalidation, scope)
            except Exception as error:
                self._failed(member, "invalidated", error)

    def dropped(self, drop: Drop) -> None:
        for member in self._members:
            try:
                member.dropped(drop)
            except Exception as error:
                self._failed(member, "dropped", error)

    def verified(self, verification: Verification) -> None:
        for member in self._members:
            try:
                member.verified(verification)
            except Exception as error:
                self._failed(member, "verified", error)

    @property
    def listen(self) -> bool:
        """Whether any wants to hear of other processes' commits."""
        return any(type(member).received is not Observer.received for member in self._members)

    def received(self, received: Received) -> None:
        for member in self._members:
            try:
                member.received(received)
            except Exception as error:
                self._failed(member, "received", error)

    def backend_failed(self, cache: str, operation: str, error: BaseException) -> None:
        for member in self._members:
            try:
                member.backend_failed(cache, operation, error)
            except Exception as raised:
                self._failed(member, "backend_failed", raised)

    def owed(self, cache: str, count: int) -> None:
        for member in self._members:
            try:
                member.owed(cache, count)
            except Exception as error:
                self._failed(member, "owed", error)

    @property
    def weigh(self) -> bool:
        """Whether any wants to hear what this process holds."""
        return any(type(member).capacity is not Observer.capacity for member in self._members)

    def capacity(self, cache: str, entries: int, size: int) -> None:
        for member in self._members:
            try:
                member.capacity(cache, entries, size)
            except Exception as error:
                self._failed(member, "capacity", error)
