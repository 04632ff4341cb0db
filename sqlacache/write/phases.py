"""Both phases of one commit: what it touches is marked in flight before, and settled after."""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..decisions import CallSite, Cause, EvictionCause, Invalidation, Parameters, TableChange
from ..errors import TransportError
from ..tags import ChangeLike, TableTouch, touch

if TYPE_CHECKING:
    from ..debugging import Origins
    from .path import WritePath

MAX_TAGS_TOLD = 20
"""Tags that an invalidation record and a stamp's cause carry at most."""


_process: tuple[int, str] = (0, "")
_numbers = itertools.count(1)


def writer_token() -> str:
    """Return a writer's token, which nobody else has, in no process on the same store."""
    global _process
    if _process[0] != os.getpid():
        _process = (os.getpid(), secrets.token_hex(8))
    return f"{_process[1]}-{next(_numbers):x}"


class _Causes(Mapping[str, Cause]):
    """The cause of each table touched, made when it is asked for: few writes have stamps to replace on every table."""

    __slots__ = ("_at", "_host", "_made", "_origins", "_touched", "_traceparent")

    def __init__(
        self,
        touched: Mapping[str, TableTouch],
        at: float,
        host: str,
        traceparent: str | None,
        origins: Origins,
    ) -> None:
        self._touched, self._at, self._host, self._traceparent = touched, at, host, traceparent
        self._origins = origins
        self._made: dict[str, Cause] = {}

    def __getitem__(self, table: str) -> Cause:
        made = self._made.get(table)
        if made is None:
            made = self._made[table] = self._make(self._touched[table])
        return made

    def _make(self, what: TableTouch) -> Cause:
        return Cause(
            what.cause,
            what.table,
            tuple(what.keys)[:MAX_TAGS_TOLD],
            None if what.columns is None else tuple(sorted(what.columns)),
            what.statement,
            self._at,
            os.getpid(),
            self._host,
            self._traceparent,
            *_origin(what, self._origins),
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._touched)

    def __len__(self) -> int:
        return len(self._touched)


class Commit:
    """Both phases of one commit."""

    def __init__(self, path: WritePath, changes: Sequence[ChangeLike]) -> None:
        self.path = path
        self.binding = path.binding
        self.changes = changes
        self.token = writer_token()
        self.touched: dict[str, TableTouch] = {}
        self.causes: Mapping[str, Cause] = {}
        self.replaced: dict[str, int] = {}
        self.origins: Origins = {}
        """Where what is written comes from, with ``debug=True``."""
        self.scopes: list[Any] = []
        self.traceparent: str | None = None
        self.at = time.time()
        self.phase_one: float | None = None
        self.marked = False
        self.undelivered = False
        """Phase one did not reach the backend: what is written is held, and owed once it is committed."""
        self.deferred = False
        """The whole commit is owed already, for when its lease has ended or it is settled."""
        self.marked_at = 0.0

    def mark(self, *, called: bool = False) -> None:
        """Phase one. The registry of shapes may change under us: then look again.

        A commit is not marked while the cache is off, but a call (``called``) is: switching on again is fenced by one.
        """
        if not self.changes or (self.binding.manager.mode == "off" and not called):
            return
        began = time.perf_counter()
        self._prepare()
        store = self.binding.store
        while True:
            revisions = self._touch()
            try:
                replaced = store.mark(self.token, self.touched, revisions, self.causes)
            except TransportError as error:
                self._failed("mark", error, called=called)
                break
            except BaseException:
                # Cancelled on the way: nothing is committed, and no mark may stay.
                with suppress(TransportError):  # then the marks end with their lease
                    self._release()
                self.binding.observers.invalidated(None, self.scopes)
                raise
            if replaced is not None:
                self.replaced = replaced
                break
        self.marked = True
        self.marked_at = time.perf_counter()
        self.phase_one = self.marked_at - began

    def _failed(self, operation: str, error: TransportError, *, called: bool) -> None:
        """Go on without the backend: what is written is owed to it. Or refuse, if that is asked for."""
        if operation == "mark" and (called or self.binding.settings.on_error == "raise"):
            self.binding.observers.invalidated(None, self.scopes)
            raise error
        if not self.undelivered:
            self.undelivered = True
            self.binding.owed.hold(self.changes)

    def defer(self) -> None:
        """Owe what could not be marked and nobody sees end: at once when it is settled, else when a lease has ended."""
        self.deferred = True
        self.binding.owed.hold(self.changes)
        self.binding.owed.owe(self.path, self.changes, self._release, after=self.binding.settings.lease)

    def _prepare(self) -> None:
        if self.binding.observers:
            tables = list(dict.fromkeys(change.table for change in self.changes))
            self.scopes, self.traceparent = self.binding.observers.invalidation_started(
                self.binding.settings.name, tables
            )

    def _touch(self) -> dict[str, Hashable]:
        tables = {change.table for change in self.changes}
        registered = self.binding.store.shapes(tables)
        shapes = {table: found for table, (_, found) in registered.items()}
        self.touched = touch(self.changes, shapes, self.binding.keys, self.binding.settings.digests.conceal)
        self.causes = _Causes(self.touched, self.at, self.path.host, self.traceparent, self.origins)
        return {table: revision for table, (revision, _) in registered.items()}

    def settle(self, *, called: bool = False) -> None:
        """Phase two."""
        if self.deferred:
            self.binding.owed.hasten(self._release)
        if self.deferred or not self.changes:
            return
        committed_at = time.perf_counter()
        if not self.marked:
            if self.binding.manager.mode == "off":
                return
            # The cache was switched on between the phases: what a reader filled before COMMIT landed must go.
            self.mark()
            committed_at = time.perf_counter()
        try:
            self._settle()
        except BaseException:
            # Cancelled on the way: the database has committed, so that this must be carried out all the same.
            self._settle()
            self.binding.observers.invalidated(None, self.scopes)
            raise
        if self.binding.observers or self.scopes:
            now = time.perf_counter()
            self.binding.observers.invalidated(self._record(committed_at, now, called=called), self.scopes)

    def _settle(self) -> None:
        if not self.undelivered:
            try:
                self.binding.store.settle(self.token, self.touched, self.causes)
                return
            except TransportError as error:
                self._failed("settle", error, called=False)
        self.binding.owed.owe(self.path, self.changes, self._release)

    def _release(self) -> None:
        self.binding.store.unmark(self.token, self.touched)

    def leave(self) -> None:
        """Leave the stamps in flight until their lease ends: whether and when the database commits is not known."""
        if self.undelivered:
            self.binding.owed.owe(self.path, self.changes, self._release, after=self.binding.settings.lease)
        if self.changes and self.marked:
            now = time.perf_counter()
            self.binding.observers.invalidated(self._record(now, now, called=False), self.scopes)

    def unmark(self) -> None:
        """Take phase one back: nothing was committed."""
        if not self.marked:
            return
        if self.undelivered:
            self.binding.owed.release(self.changes)
        else:
            with suppress(TransportError):  # then the marks end with their lease
                self._release()
        self.binding.observers.invalidated(None, self.scopes)

    def _record(self, committed_at: float, now: float, *, called: bool) -> Invalidation:
        statements = dict.fromkeys(what.statement for what in self.touched.values() if what.statement)
        return Invalidation(
            self.binding.settings.name,
            self.binding.database,
            tuple(self._change(what) for what in self.touched.values()),
            "; ".join(statements),
            self.at,
            os.getpid(),
            self.path.host,
            self.traceparent,
            None if called else self.phase_one,
            None if called else committed_at - self.marked_at,
            now - committed_at,
        )

    def _change(self, what: TableTouch) -> TableChange:
        names = what.names()
        told = list(what.keys) or names
        cause: EvictionCause = what.cause
        evicted = self.replaced.get(what.table, 0)
        return TableChange(
            what.table,
            cause,
            what.scope,
            what.rows,
            tuple(told[:MAX_TAGS_TOLD]),
            len(names),
            None if what.columns is None else tuple(sorted(what.columns)),
            evicted,
            what.bumped and evicted > 0,
            *_origin(what, self.origins),
        )


def _origin(what: TableTouch, origins: Origins) -> tuple[CallSite | None, Parameters | None]:
    return origins.get((what.table, what.cause, what.statement), (None, None)) if origins else (None, None)
