"""Stores that leave out a rule: what :class:`.MemoryStore` does, but for a line or two. Each is found out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from sqlacache.store.memory import MemoryStore
from sqlacache.store.stamps import Entry, Sample
from sqlacache.tags import Shape, TableTouch


class DeletesAfterCommit(MemoryStore):
    """What most caches do: nothing before COMMIT, and afterwards the entries are deleted."""

    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        return {}

    def settle(self, token: str, touched: Any, causes: Any) -> None:
        self.delete_everything()


class BumpsAfterCommit(MemoryStore):
    """What the better ones do: nothing before COMMIT, and afterwards versions are raised."""

    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        return {}

    def settle(self, token: str, touched: Any, causes: Any) -> None:
        self.replace_now(touched, causes)


class BumpsBeforeCommit(MemoryStore):
    """Versions are raised before COMMIT, and nobody waits for it."""

    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        self.replace_now(touched, causes)
        return {}

    def settle(self, token: str, touched: Any, causes: Any) -> None:
        pass


class CountsWriters(MemoryStore):
    """Rule a left out: what is in flight is a number, from which whoever settles takes one."""

    def _release(self, token: str, touched: Mapping[str, TableTouch]) -> None:
        for table, what in touched.items():
            stamps = [self._stamps[name].marks for name in what.names() if name in self._stamps]
            for marks in (self._writers.get(table, {}), *stamps):
                marks.pop(token if token in marks else next(iter(marks), ""), None)


class _SeesNoWriters(MemoryStore):
    """Samples as if nobody was under way, in some cases."""

    def _is_blind(self, names: Sequence[str], shapes: Sequence[Shape]) -> bool:
        raise NotImplementedError

    def sample(
        self,
        names: Sequence[str],
        tables: Iterable[str],
        shapes: Iterable[Shape],
        ttl: float,
        within: float = inf,
    ) -> tuple[Sample, bool]:
        shapes = tuple(shapes)
        before = self._writers
        if self._is_blind(names, shapes):
            self._writers = {}
        try:
            return super().sample(names, tables, shapes, ttl)
        finally:
            self._writers = before

    def _are_registered(self, shapes: Sequence[Shape]) -> bool:
        return all(shape.name in self._shapes.get(shape.table, ()) for shape in shapes)


class SeedsDuringACommit(_SeesNoWriters):
    """Rule b left out: who seeds a stamp that was lost may fill, whoever is under way."""

    def _is_blind(self, names: Sequence[str], shapes: Sequence[Shape]) -> bool:
        return self._are_registered(shapes)


class RegistersDuringACommit(_SeesNoWriters):
    """Rule c left out: a new shape is registered while a writer is under way who does not know it."""

    def _is_blind(self, names: Sequence[str], shapes: Sequence[Shape]) -> bool:
        return not self._are_registered(shapes)


class RegistersNothing(MemoryStore):
    """Rule c left out: shapes are not registered before stamps are sampled."""

    def sample(
        self,
        names: Sequence[str],
        tables: Iterable[str],
        shapes: Iterable[Shape],
        ttl: float,
        within: float = inf,
    ) -> tuple[Sample, bool]:
        return super().sample(names, tables, (), ttl)


class DoesNotLookAgain(MemoryStore):
    """Rule c left out, for writers: a shape that was registered just before is not among what they touch."""

    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        return super().mark(token, touched, {}, causes)


class SettlesWhatItFound(MemoryStore):
    """Rule e left out: phase two replaces the stamps that were there in phase one."""

    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        found = {name for what in touched.values() for name in what.names() if name in self._stamps}
        self.__dict__.setdefault("found", {})[token] = found
        return super().mark(token, touched, revisions, causes)

    def settle(self, token: str, touched: Any, causes: Any) -> None:
        found = self.__dict__["found"].get(token, set())
        known = {
            table: replace(what, stamps={name: None for name in what.stamps if name in found})
            for table, what in touched.items()
        }
        for table in touched:
            self._writers.setdefault(table, {}).setdefault(
                token, inf
            )  # being forgotten, it would replace the table's
        super().settle(token, known, causes)
        self.unmark(token, touched)


class ForgetsThatItWasForgotten(MemoryStore):
    """Phase two of a writer whose lease has ended replaces what it knew of, as if nobody could have registered more."""

    def settle(self, token: str, touched: Any, causes: Any) -> None:
        for table in touched:
            self._writers.setdefault(table, {}).setdefault(token, inf)
        super().settle(token, touched, causes)


class ReplacesOnce(MemoryStore):
    """Rule e left out: phase two unmarks, and replaces nothing."""

    def settle(self, token: str, touched: Any, causes: Any) -> None:
        self.unmark(token, touched)


class TakesItForUnread(MemoryStore):
    """Writes of whole tables never replace anything, as if nobody had read them."""

    def begin_unread(self, token: str, tables: Iterable[str]) -> bool:
        before, self._revisions = self._revisions, {}
        try:
            return super().begin_unread(token, tables)
        finally:
            self._revisions = before


class DoesNotSeeAShapeCome(MemoryStore):
    """A table that nobody had read when its writer began is taken for one that nobody has read when it ends."""

    def end_unread(self, token: str, tables: Iterable[str]) -> bool:
        super().end_unread(token, tables)
        return True


class ServesInFlight(MemoryStore):
    """Stamps are replaced in both phases, and nothing is in flight between them."""

    def _replace(self, what: TableTouch, cause: Any, token: str | None, until: float) -> int:
        return super()._replace(what, cause, None, until)

    def _busy(self, table: str) -> bool:
        return False


class NeverEndsALease(MemoryStore):
    """A writer that died is in the way for ever."""

    @staticmethod
    def _alive(tokens: dict[str, float]) -> bool:
        return bool(tokens)


class FillsUnderWhatIsThere(MemoryStore):
    """Fills whatever stamps the entry carries with those of now."""

    def fill(self, key: str, entry: Entry, within: float = inf) -> Any:
        now = tuple(
            (name, self._stamps[name].version, self._stamps[name].nonce)
            for name, _, _ in entry.stamps
            if name in self._stamps
        )
        return super().fill(key, replace(entry, stamps=now))


def found_by() -> dict[type[MemoryStore], tuple[str, ...]]:
    """Return the stories that find each of them out; rule a has a test of its own, since its story is a long one."""
    return {
        DeletesAfterCommit: ("a reader meets a writer", "loads are shared", "a new shape arrives"),
        BumpsAfterCommit: ("a reader meets a writer", "a read of two tables meets a writer of both"),
        BumpsBeforeCommit: ("a reader meets a writer", "the server is away between the phases"),
        SeedsDuringACommit: ("a reader meets a writer",),
        RegistersDuringACommit: ("a new shape arrives",),
        RegistersNothing: ("a new shape arrives", "a read of two tables meets writers of each"),
        DoesNotLookAgain: ("a new shape arrives",),
        SettlesWhatItFound: ("a writer outlives its lease",),
        ReplacesOnce: ("a writer outlives its lease",),
        ForgetsThatItWasForgotten: ("a writer outlives its lease",),
        TakesItForUnread: ("a table that nobody has read is written",),
        DoesNotSeeAShapeCome: ("nobody had read it when a lease ended",),
        ServesInFlight: ("a reader meets a writer", "a read of two tables meets a writer of both"),
        NeverEndsALease: ("a reader meets a writer", "a commit of unknown outcome"),
        FillsUnderWhatIsThere: ("a reader meets a writer", "loads are shared"),
    }
