"""Invalidations that could not be delivered: kept, retried until they are, and meanwhile bypassed by this process.

::

    1. Phase one of a commit does not reach the backend. The tables it writes are held: this process neither serves nor
       fills what depends on them, from before COMMIT on.
    2. The database commits. What was written is owed.
    3. Other processes that still reach the backend serve what they have: the promise's stated exception.
    4. The backend answers again. What is owed is marked and settled under the registry as it is now, so that shapes
       registered meanwhile are touched, too. Then the tables are released.

A process that ends before step 4 takes with it what it owes: ``disconnect()`` waits for the delivery, and says what it
could not deliver. An engine that is unbound takes nothing: the cache owes, for each of its databases.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..forks import renew
from ..tags import EVERYTHING, ChangeLike
from .dml import Change

if TYPE_CHECKING:
    from ..core import Core
    from .path import WritePath

MAX_OWED = 1000
"""Changes kept one by one; more become one invalidation of everything."""


class _Debt(NamedTuple):
    path: WritePath
    changes: tuple[ChangeLike, ...]
    not_before: float
    """On the monotonic clock: a COMMIT of unknown outcome may land as late as the lease allows."""
    undo: tuple[Callable[[], None], ...]
    """Take back what marks the failed attempt may have left, which else stay to the end of their lease."""
    undo_until: float
    """On the monotonic clock: when those marks have ended by themselves."""


class Owed:
    """What a cache owes to the backend for one database, whichever of the engines on it wrote."""

    def __init__(self, manager: Core, database: str) -> None:
        self._manager = manager
        self.database = database
        self._debts: list[_Debt] = []
        self._count = 0
        self._held: Counter[str] = Counter()
        self.forked()
        renew(self)

    def forked(self) -> None:
        self._lock = threading.Lock()  # parent and child both deliver what is owed

    def __len__(self) -> int:
        return len(self._debts)

    @property
    def tables(self) -> frozenset[str]:
        """The tables that this process bypasses."""
        return frozenset(self._held)

    def meets(self, tables: Iterable[str]) -> bool:
        """Tell whether reads of ``tables`` have to be bypassed."""
        held = self._held
        if not held:
            return False
        if self._debts:
            self._manager.recovery.start()  # the loop that was at it may have ended
        return EVERYTHING in held or any(table in held for table in tables)

    def hold(self, changes: Iterable[ChangeLike]) -> None:
        """Bypass what ``changes`` write, from before they are committed."""
        with self._lock:
            self._held.update({change.table for change in changes})

    def release(self, changes: Iterable[ChangeLike]) -> None:
        """Take back :meth:`hold`: nothing was committed, or it was delivered."""
        with self._lock:
            self._held.subtract({change.table for change in changes})
            self._held = +self._held

    def owe(
        self,
        path: WritePath,
        changes: Sequence[ChangeLike],
        undo: Callable[[], None],
        *,
        after: float = 0.0,
    ) -> None:
        """Keep what was committed (and is held), to be delivered on ``path`` in ``after`` seconds at the earliest."""
        now = time.monotonic()
        debt = _Debt(path, tuple(changes), now + after, (undo,), now + self._manager.settings.lease)
        with self._lock:
            self._debts.append(debt)
            self._count += len(debt.changes)
            self._manager.owing.add(self)
        self._collapse()
        self._manager.recovery.start()
        self._tell()

    def hasten(self, undo: Callable[[], None]) -> None:
        """Deliver what was owed with ``undo`` as soon as possible: nothing more is to come."""
        with self._lock:
            self._debts = [
                debt._replace(not_before=0.0) if undo in debt.undo else debt for debt in self._debts
            ]
        self._manager.recovery.start()

    async def deliver(self) -> None:
        """Deliver what is due. Raises :class:`~sqlacache.errors.TransportError` when the backend is gone again."""
        while True:
            now = time.monotonic()
            debt = next((debt for debt in self._debts if debt.not_before <= now), None)
            if debt is None:
                return
            call = self._manager.front.call
            await call(debt.path.replace, debt.changes)
            for undo in debt.undo if debt.undo_until > time.monotonic() else ():
                await call(undo)
            with self._lock:
                still_owed = any(one is debt for one in self._debts)
                if still_owed:  # else it was made part of an invalidation of everything meanwhile
                    self._debts = [one for one in self._debts if one is not debt]
                    self._count -= len(debt.changes)
                if not self._debts:
                    self._manager.owing.discard(self)
            if still_owed:
                self.release(debt.changes)
            self._tell()

    def _collapse(self) -> None:
        with self._lock:
            if self._count <= MAX_OWED:
                return
            everything = Change.of_everything("invalidations owed")
            debts, self._debts = self._debts, []
            for debt in debts:
                self._held.subtract({change.table for change in debt.changes})
            self._held[EVERYTHING] += 1
            self._held = +self._held
            # Marks that failed attempts may have left end with their lease.
            latest = max(debt.not_before for debt in debts)
            self._debts.append(_Debt(debts[-1].path, (everything,), latest, (), 0.0))
            self._count = 1
        self._tell()

    def describe(self) -> str:
        """Return what is owed, for people."""
        tables = ", ".join(sorted(self._held))
        return f"{self.database}: {len(self._debts)} invalidation(s) of {tables}"

    def _tell(self) -> None:
        self._manager.tell_owed()
