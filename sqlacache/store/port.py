"""The port that every store implements.

Calls look synchronous on purpose: SQLAlchemy's event handlers are, also inside an ``AsyncSession``. A store that does
asynchronous I/O awaits in the greenlet (``sqlalchemy.util.await_only``), so that one read path and one write path serve
both fronts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ..decisions import Cause, FillOutcome
from ..tags import Shape, TableTouch
from .stamps import Entry, Sample


class Store(Protocol):
    """Entries, stamps and registered shapes of one database under one prefix."""

    tier: str
    """What a hit from here is called: ``local`` or ``remote``."""

    def lookup(self, key: str, names: Sequence[str]) -> Sample:
        """Return the entry and the stamps named, as they are at one moment."""
        ...

    def peek(self, key: str, names: Sequence[str]) -> Sample:
        """Do as :meth:`lookup` does, without counting as a use of the entry (for explanations)."""
        ...

    def sample(
        self, names: Sequence[str], tables: Iterable[str], shapes: Iterable[Shape], ttl: float
    ) -> tuple[Sample, bool]:
        """Register ``shapes`` and seed the stamps that are missing, then return the stamps.

        The second value is ``False`` when a writer of one of ``tables`` is under way and something had to be registered
        or seeded: nothing read now may be filled (rules b and c of DESIGN section 5). Stamps outlive ``ttl`` seconds.
        """
        ...

    def fill(self, key: str, entry: Entry) -> FillOutcome:
        """Store an entry, unless it is larger than everything the store may hold or its stamps are known to be gone."""
        ...

    def shapes(self, tables: Iterable[str]) -> Mapping[str, tuple[int, tuple[Shape, ...]]]:
        """Return the registered shapes of ``tables``, each with the registry's revision."""
        ...

    def mark(
        self,
        token: str,
        touched: Mapping[str, TableTouch],
        revisions: Mapping[str, int],
        causes: Mapping[str, Cause],
    ) -> dict[str, int] | None:
        """Phase one: replace the touched stamps and mark them in flight by the writer ``token``.

        Returns how many existing stamps were replaced, by table; or ``None``, having done nothing, when a registry's
        revision is no longer the one given (look at :meth:`shapes` again).
        """
        ...

    def settle(self, token: str, touched: Mapping[str, TableTouch], causes: Mapping[str, Cause]) -> None:
        """Phase two: replace the same stamps again and unmark them."""
        ...

    def unmark(self, token: str, touched: Mapping[str, TableTouch]) -> None:
        """Take back phase one's marks, after a rollback."""
        ...

    def delete_everything(self) -> int:
        """Remove every entry; return how many there were. Stamps stay (they are replaced by an invalidation)."""
        ...
