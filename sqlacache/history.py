"""What this process decided lately: a bounded memory that explanations are told from."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from .copying import copied
from .decisions import Cause, Decision, Invalidation
from .observers import Observer


class Past(NamedTuple):
    """What this process remembers of one entry."""

    decisions: tuple[Decision, ...]
    """Oldest first."""
    since: float
    """When remembering began, or the oldest decision that is still remembered: seconds since the epoch."""
    complete: bool
    """Nothing that this process decided since it was bound has been forgotten."""


class History(Observer):
    """Keeps the last decisions and invalidations.

    Args:
        size: How many of each.
    """

    def __init__(self, size: int) -> None:
        self._began = time.time()
        self._decisions: deque[Decision] = deque(maxlen=size)
        self._invalidations: deque[Invalidation] = deque(maxlen=size)
        self._forgot = False

    def bound(self, cache: str, tables: Sequence[str]) -> None:
        if not self._decisions:
            self._began = time.time()

    def decided(self, decision: Decision, scope: object) -> None:
        self._forgot = self._forgot or len(self._decisions) == self._decisions.maxlen
        self._decisions.append(decision)

    def invalidated(self, invalidation: Invalidation | None, scope: object) -> None:
        if invalidation is not None:
            self._invalidations.append(invalidation)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The last decisions, oldest first."""
        return copied(self._decisions)

    @property
    def invalidations(self) -> tuple[Invalidation, ...]:
        """The last invalidations by this process, oldest first."""
        return copied(self._invalidations)

    def completed(self, cause: Cause) -> Cause:
        """Return ``cause`` with where it came from, if this process wrote it and remembers."""
        if cause.pid != os.getpid():
            return cause
        for one in reversed(self.invalidations):
            if (one.at, one.pid, one.host) == (cause.at, cause.pid, cause.host):
                for change in one.changes:
                    if change.table == cause.table:
                        return replace(cause, site=change.site, parameters=change.parameters)
        return cause

    def of(self, key: str) -> Past:
        """Return what is remembered of the entry ``key``."""
        decisions = self.decisions
        since = decisions[0].at if self._forgot and decisions else self._began
        return Past(tuple(one for one in decisions if one.key == key), since, not self._forgot)
