"""What the pages show: the last decisions and invalidations of this process, numbered in the order they came."""

from __future__ import annotations

import os
import socket
import time
from itertools import count
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

from sqlacache.decisions import Decision, Invalidation
from sqlacache.forks import renew
from sqlacache.observers import Observer

Record = TypeVar("Record")


class Counted(NamedTuple):
    """How many records there were since watching began."""

    seen: int
    kept: int
    dropped: int
    """Seen, and forgotten since: the oldest ones, to make room."""
    size: int
    """How many are kept at most."""


class Ring(Generic[Record]):
    """The last records, numbered from 1.

    No lock is needed, and so none slows a query down: to add is to take a number and to set one place of a list, to
    read is to copy that list.
    """

    def __init__(self, size: int) -> None:
        self._places: list[tuple[int, Record] | None] = [None] * size
        self._numbers = count(1)

    def add(self, record: Record) -> None:
        number = next(self._numbers)
        self._places[number % len(self._places)] = (number, record)

    def newest_first(self) -> list[tuple[int, Record]]:
        """Return what is kept, with its numbers."""
        kept = [place for place in self._places[:] if place is not None]
        return sorted(kept, key=itemgetter(0), reverse=True)

    def get(self, number: int) -> Record | None:
        """Return one record; ``None`` if it is not there yet, or no longer."""
        place = self._places[number % len(self._places)]
        return place[1] if place is not None and place[0] == number else None

    def counted(self) -> Counted:
        kept = self.newest_first()
        seen = kept[0][0] if kept else 0
        return Counted(seen, len(kept), seen - len(kept), len(self._places))


class Recent(Observer):
    """Keeps the last decisions and invalidations of one process; a forked child begins with none.

    Args:
        size: How many of each.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.host = socket.gethostname()
        self.forked()
        renew(self)

    def forked(self) -> None:
        self.pid = os.getpid()
        self.since = time.time()
        """When watching began: seconds since the epoch."""
        self.decisions: Ring[Decision] = Ring(self._size)
        self.invalidations: Ring[Invalidation] = Ring(self._size)

    def decided(self, decision: Decision, scope: object) -> None:
        self.decisions.add(decision)

    def invalidated(self, invalidation: Invalidation | None, scope: object) -> None:
        if invalidation is not None:
            self.invalidations.add(invalidation)
