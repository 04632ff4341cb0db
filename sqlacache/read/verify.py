"""Verification: what the cache would have said, compared with what the database says.

::

    1. A lookup finds an entry whose stamps are all current.
    2. The statement runs on the database all the same. Its rows differ from the entry's.
    3. The stamps are looked at again. If one changed or is in flight, a writer came in between (it marks its stamps
       before COMMIT): ``raced``. If none did, nobody who is known has written what the read depends on, and the
       entry was stale: ``mismatch``.

A database may return rows in any order, and breaks ties in ORDER BY as it likes: rows are compared regardless of it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..decisions import Verification, VerificationOutcome
from ..errors import CacheError, TransportError
from ..logs import MISMATCH, Seldom, log
from ..store.stamps import Entry, decide

if TYPE_CHECKING:
    from ..binding import Binding
    from ..explanation import Explanation
    from .identify import Read


class Verifier:
    """Compares the answers of one bound engine's cache with its database's."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._fraction = binding.settings.verify
        self._seldom = Seldom()

    def wants(self, read: Read) -> bool:
        """Tell whether a hit is to be loaded, too, and compared.

        In a transaction that reads from a snapshot, the database may rightly say what was.
        """
        if read.snapshot:
            return False
        return self.is_shadow or (self._fraction > 0 and random.random() < self._fraction)

    @property
    def is_shadow(self) -> bool:
        """Whether everything is read from the database, and what the cache has is only compared."""
        return self._binding.manager.mode == "shadow"

    def compare(self, read: Read, entry: Entry, loaded: Sequence[tuple[Any, ...]]) -> VerificationOutcome:
        """Say what became of a verification, count it, and log a mismatch."""
        cached = self._binding.rows_of(entry)
        outcome: VerificationOutcome = "match"
        if not _same(cached, loaded):
            outcome = "mismatch" if self._still_holds(read, entry) else "raced"
        plan = read.plan
        assert plan is not None and read.key is not None  # of a hit
        verification = Verification(
            self._binding.settings.name,
            self._binding.database,
            plan.tables,
            read.key,
            read.tags(),
            outcome,
            len(cached),
            len(loaded),
            entry.stored_at,
            read.at,
        )
        if outcome == "mismatch":
            self._log(read, verification, cached, loaded)
        self._binding.observers.verified(verification)
        return outcome

    def _still_holds(self, read: Read, entry: Entry) -> bool:
        """Tell whether the entry would still be served; ``False`` too when nobody can say."""
        assert read.key is not None
        try:
            sample = self._binding.store.peek(read.key, read.names)
        except TransportError:
            return False
        # Whatever is stored under the key by now: it is this entry's stamps that are asked about.
        return decide(read.names, read.keys, sample._replace(entry=entry, gone=None)).entry is entry

    def _log(self, read: Read, found: Verification, cached: Sequence[Any], loaded: Sequence[Any]) -> None:
        suppressed = self._seldom.passes()
        if suppressed is None:
            return
        told = self._explained(read, found)
        missing = Counter(map(repr, loaded)) - Counter(map(repr, cached))
        extra = Counter(map(repr, cached)) - Counter(map(repr, loaded))
        log(
            MISMATCH,
            "%s: a stale entry would have been served: %s of %s, depends on %s, stored at %.3f: %d row(s) cached, "
            "%d in the database; %d row(s) are only in the database, %d only in the cache\n%s",
            found.cache,
            found.key,
            found.database,
            ", ".join(found.tags),
            found.stored_at,
            found.cached_rows,
            found.database_rows,
            missing.total(),
            extra.total(),
            told if told is not None else "nothing more is known of it",
            cache=found.cache,
            database=found.database,
            tables=found.tables,
            key=found.key,
            tags=found.tags,
            cached_rows=found.cached_rows,
            database_rows=found.database_rows,
            explanation=None if told is None else told.to_dict(),
            suppressed=suppressed,
        )

    def _explained(self, read: Read, found: Verification) -> Explanation | None:
        """Explain the entry as it lies in the store, where it holds: the statement, its stamps, when it was stored."""
        from ..explain import explain_key  # which explains reads, and so knows the way of a read

        binding, plan = self._binding, read.plan
        try:
            told = explain_key(binding, found.key, binding.manager.history)
        except CacheError:  # no answer any more
            return None
        if told is None or told.parts is None or plan is None:
            return told
        parts = told.parts._replace(database=found.database, sql=plan.sql, values=tuple(plan.order))
        return replace(told, parts=parts)


def _same(cached: Sequence[Any], loaded: Sequence[Any]) -> bool:
    if len(cached) != len(loaded):
        return False
    if all(one == other for one, other in zip(cached, loaded)):
        return True
    return Counter(map(repr, cached)) == Counter(map(repr, loaded))
