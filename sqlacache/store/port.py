"""The port that every store implements.

Calls look synchronous on purpose: SQLAlchemy's event handlers are, also inside an ``AsyncSession``. A store that does
asynchronous I/O awaits in the greenlet (``sqlalchemy.util.await_only``), so that one read path and one write path serve
both fronts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import inf
from typing import Any, Protocol

from ..decisions import Cause, FillOutcome
from ..tags import Shape, TableTouch
from .stamps import Entry, Sample


class Store(Protocol):
    """Entries, stamps and registered shapes of one database under one prefix."""

    tier: str
    """What a hit from here is called: ``local`` or ``remote``."""

    budget: float
    """Seconds that all calls of one read may take together; what is left is given as ``within``."""

    keeps_bytes: bool
    """Whether :meth:`fill` wants the rows' byte form (:attr:`.Entry.encoded`)."""

    def lookup(self, key: str, names: Sequence[str]) -> Sample:
        """Return the entry and the stamps named, as they are at one moment."""
        ...

    def at_hand(self, key: str, names: Sequence[str]) -> Sample | None:
        """Return what :meth:`lookup` would, if that takes nobody outside of this process; ``None`` otherwise."""
        ...

    def unconfirmed(self, key: str) -> Entry | None:
        """Return what this process has of an entry, which holds if :meth:`confirm` says so; ``None`` if nothing."""
        ...

    async def confirm(self, key: str, names: Sequence[str], entry: Entry) -> Sample | None:
        """Ask only whether an ``entry`` of :meth:`unconfirmed` holds; ``None`` if it does not.

        For who has more to do with an entry that holds than to decode it, and does as if nothing were here otherwise.
        Raises :class:`~sqlacache.errors.TransportError`.
        """
        ...

    def peek(self, key: str, names: Sequence[str]) -> Sample:
        """Do as :meth:`lookup` does, without counting as a use of the entry (for explanations)."""
        ...

    def sample(
        self,
        names: Sequence[str],
        tables: Iterable[str],
        shapes: Iterable[Shape],
        ttl: float,
        within: float = inf,
    ) -> tuple[Sample, bool]:
        """Register ``shapes`` and seed the stamps that are missing, then return the stamps.

        The second value is ``False`` when a writer of one of ``tables`` is under way and something had to be registered
        or seeded: nothing was, and nothing read now may be filled (rules b and c of DESIGN section 5). Stamps live at
        least ``ttl`` seconds from now, or longer if they were to.
        """
        ...

    def registered(self, shapes: Iterable[Shape], names: Sequence[str], sample: Sample) -> bool:
        """Tell whether ``shapes`` are known to be registered under the table stamps of ``sample``.

        ``sample`` is what a lookup of the stamps ``names`` brought; a miss is filled under it only if this is so, and
        asks :meth:`sample` otherwise. A registration holds under one table stamp (rule d): what this process registered
        counts as long as the table's stamp is the same. No I/O.
        """
        ...

    def fill(self, key: str, entry: Entry, within: float = inf) -> FillOutcome:
        """Store an entry, unless it is larger than everything the store may hold or its stamps are known to be gone.

        One that was sampled under another generation (:attr:`.Entry.under`) is never served.
        """
        ...

    def learn(self, key: str, entry: Entry, what: Any) -> None:
        """Keep ``what`` was made of an entry's rows with it (:attr:`.Entry.learned`), if it is here and still kept."""
        ...

    def shapes(self, tables: Iterable[str]) -> Mapping[str, tuple[Hashable, tuple[Shape, ...]]]:
        """Return the registered shapes of ``tables``, each with the registry's revision.

        They may be those that this process saw last: :meth:`mark` refuses when they are out of date, and they are up to
        date after that.
        """
        ...

    def mark(
        self,
        token: str,
        touched: Mapping[str, TableTouch],
        revisions: Mapping[str, Hashable],
        causes: Mapping[str, Cause],
    ) -> dict[str, int] | None:
        """Phase one: replace the touched stamps and mark them in flight by the writer ``token``.

        A stamp that is not there is not made. The writer is under way on each table until it settles or unmarks, or its
        lease ends. Where no registry is found, the table's stamp is replaced as well.
        Returns how many existing stamps were replaced, by table; or ``None``, having done nothing, when a registry's
        revision is no longer the one given (look at :meth:`shapes` again).
        """
        ...

    def settle(self, token: str, touched: Mapping[str, TableTouch], causes: Mapping[str, Cause]) -> None:
        """Phase two: replace the same stamps again, those seeded meanwhile too (rule e), and unmark them."""
        ...

    def unmark(self, token: str, touched: Mapping[str, TableTouch]) -> None:
        """Take back phase one's marks, after a rollback; what it replaced stays replaced."""
        ...

    def begin_unread(self, token: str, tables: Iterable[str]) -> bool:
        """Let the writer ``token`` be under way on ``tables``, if no shape of them was ever registered here.

        ``False``, having done nothing, where one was, or where a store cannot tell without a round trip: then the
        writer goes through both phases.
        """
        ...

    def end_unread(self, token: str, tables: Iterable[str]) -> bool:
        """End what :meth:`begin_unread` began; ``False`` if a shape has come meanwhile (the lease had ended)."""
        ...

    def delete_everything(self) -> int:
        """Remove every entry; return how many there were. Stamps stay (they are replaced by an invalidation)."""
        ...

    def purge(self, tables: Iterable[str]) -> int:
        """Delete the bytes of every entry that depends on one of ``tables``; return how many there were."""
        ...
