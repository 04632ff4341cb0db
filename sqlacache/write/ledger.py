"""What a database connection has written and not yet committed.

The ledger belongs to the DBAPI connection (it lives in the pool's ``info`` of it), where every write passes: ORM and
Core, and every session that shares the connection. Savepoints are marks in it: rolling back to one forgets what came
after it, releasing one forgets only the mark.

The pool lives longer than a session that nobody closed, and takes its connection back when the garbage collector finds
what was handed out. An execution context holds that, and so a ledger holds contexts weakly::

    1. A session writes, and is left to the garbage collector with its transaction open.
    2. Its connection's record, which the pool has, holds the ledger, which would hold the context of the last write,
       which holds the connection: nobody would ever give it back.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..tags import EVERYTHING
from .dml import Change, DmlPlan, RowChange

INFO_KEY = "sqlacache"
"""Key of the ledger in the connection's ``info``."""
KEPT = "_sqlacache_inserting"
"""Attribute of SQLAlchemy's connection that keeps :attr:`Ledger.inserting`."""


class Inserted(Change):
    """A row whose primary key became known after its INSERT ran."""

    __slots__ = ()


def _without(row: RowChange, key: tuple[str, ...]) -> bool:
    return row.old is None and row.new is not None and any(column not in row.new for column in key)


@dataclass(frozen=True)
class Pending:
    """What the statement about to run writes, before anything was read back."""

    changes: list[Change]
    """As the statement has them, without what follows from them."""
    matched: Callable[[], list[Any] | None]
    """Returns the conditions that tell which rows it writes; ``None`` where those do not tell it alone."""


@dataclass
class Mark:
    """A savepoint: how much had been written when it was set."""

    name: str
    changes: int
    outermost: bool
    """SQLite: no transaction was open, so that releasing it commits."""


@dataclass(eq=False)
class Ledger:
    """Uncommitted changes of one DBAPI connection, in order."""

    changes: list[Change] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    read_first: bool = False
    """The transaction's first statement was a read (SQLite: it holds a snapshot of that moment)."""
    transaction_state: bool = False
    """SET LOCAL and its kind: what rows mean has changed until the transaction ends."""
    session_state: bool = False
    """SET and its kind: what rows mean has changed until the connection is reset or closed."""
    fresh: int | None = None
    """Where the changes of the statement about to run begin."""
    pending: Pending | None = None
    """Set while old values of the fresh changes may still be read back."""
    coarse: DmlPlan | None = None
    """Set while the statement about to run, of which the table was noted, may still be noted row by row."""
    ends: bool = False
    """The statement about to run is a COMMIT in text."""
    may_end: bool = False
    """The statement about to run may commit (MySQL)."""
    ending: bool = False
    """The transaction is being ended in two phases: what is sent for it is no write of anybody's."""
    unkeyed: dict[str, int] = field(default_factory=dict)
    """Tables into which rows went whose primary key is not known, with how many rows (or more: see savepoints)."""
    keyless: Change | None = None
    """Of the statement last accounted for: the rows that it inserts, if their primary key is not known beforehand."""
    epoch: int = 0
    """The binding that has seen everything of the open transaction."""
    _inserting: weakref.ref[Any] | None = None
    _last_context: weakref.ref[Any] | None = None

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def last_context(self) -> Any:
        """The execution context last accounted for: batches of one statement share it."""
        return self._last_context() if self._last_context is not None else None

    @property
    def inserting(self) -> Any:
        """The execution context of an INSERT that has run and whose result may tell the keys of :attr:`keyless`.

        SQLAlchemy sets the result up after the call; it is looked at before anything else happens on the connection.
        The result may be gone by then: until this is set to ``None``, SQLAlchemy's connection keeps the context."""
        return self._inserting() if self._inserting is not None else None

    @inserting.setter
    def inserting(self, context: Any) -> None:
        before = self.inserting
        if before is not None:
            vars(before.root_connection).pop(KEPT, None)
        self._inserting = None
        if context is not None:
            vars(context.root_connection)[KEPT] = context
            self._inserting = weakref.ref(context)

    def tables(self) -> set[str]:
        """Return the tables written; :data:`~sqlacache.tags.EVERYTHING` among them if that is not known."""
        return {change.table for change in self.changes}

    def clear(self) -> None:
        """Forget everything that belongs to the transaction."""
        self.changes.clear()
        self.marks.clear()
        self.unkeyed.clear()
        self.read_first = self.transaction_state = False
        self._last_context = self.keyless = self.inserting = None
        self.ends = self.may_end = False
        self.forget_statement()

    def begin(self, context: Any) -> None:
        """Account for the statement of an execution context from now on.

        The one before may have been run by a listener, so that nobody asked for what was noted of it.
        """
        self._last_context, self.keyless = weakref.ref(context), None
        self.forget_statement()

    def forget_statement(self) -> None:
        """Forget which statement is about to run, not what was noted of it."""
        self.fresh = self.pending = self.coarse = None

    def savepoint(self, name: str, *, outermost: bool = False) -> None:
        """Set a mark."""
        self.marks.append(Mark(name, len(self.changes), outermost))

    def roll_back_to(self, name: str | None) -> None:
        """Forget what was written since the mark ``name`` (``None``: the last); the mark stays, as in SQL."""
        at = self._find(name)
        if at is None:
            return
        del self.changes[self.marks[at].changes :]
        del self.marks[at + 1 :]

    def release(self, name: str | None) -> Mark | None:
        """Forget the mark ``name`` and those after it; what was written stays written."""
        at = self._find(name)
        if at is None:
            return None
        mark = self.marks[at]
        del self.marks[at:]
        return mark

    def _find(self, name: str | None) -> int | None:
        for at in range(len(self.marks) - 1, -1, -1):
            if name is None or self.marks[at].name == name:
                return at
        return None

    def add(self, changes: Iterable[Change]) -> None:
        """Note what a statement is about to write."""
        self.keyless = self.inserting = None
        for change in changes:
            self.changes.append(change)
            if change.unkeyed:
                self.unkeyed[change.table] = self.unkeyed.get(change.table, 0) + change.unkeyed
                self.keyless = change

    def complete(self, change: Change, rows: tuple[RowChange, ...]) -> bool:
        """Give a change its rows again, now with their primary keys; tell whether it is there."""
        for at in range(len(self.changes) - 1, -1, -1):
            if self.changes[at] is change:
                self.changes[at] = replace(change, rows=rows, unkeyed=0)
                left = self.unkeyed.get(change.table, 0) - change.unkeyed
                if left > 0:
                    self.unkeyed[change.table] = left
                else:
                    self.unkeyed.pop(change.table, None)
                return True
        return False

    def resolved(self, keys: Mapping[str, tuple[str, ...]]) -> list[Change]:
        """Return the changes with inserted rows whose key became known afterwards in place of those without.

        A row is written once by its statement and noted once more by an :class:`Inserted`. When as many became known as
        had no key, the rows without are the same rows; otherwise all stay, and the ones without widen.
        """
        if not self.unkeyed:
            return [change for change in self.changes if not isinstance(change, Inserted)]
        settled = {table for table in self.unkeyed if self._all_known(table, keys.get(table, ()))}
        kept: list[Change] = []
        for change in self.changes:
            if isinstance(change, Inserted) and change.table not in self.unkeyed:
                continue
            if change.unkeyed and change.table in settled and change.rows is not None:
                key = keys[change.table]
                rows = tuple(row for row in change.rows if not _without(row, key))
                if rows:
                    kept.append(replace(change, rows=rows, unkeyed=0))
                continue
            kept.append(change)
        return kept

    def _all_known(self, table: str, key: tuple[str, ...]) -> bool:
        missing = 0
        written: set[tuple[str, ...]] = set()
        became_known: set[tuple[str, ...]] = set()
        for change in self.changes:
            if change.table != table or change.rows is None:
                continue
            missing += change.unkeyed
            for row in change.rows:
                if row.new is not None and not _without(row, key):
                    values = tuple(row.new[column] for column in key)
                    (became_known if isinstance(change, Inserted) else written).add(values)
        return bool(key) and len(became_known - written) >= missing

    def is_everything(self) -> bool:
        """Tell whether anything at all may have been written."""
        return EVERYTHING in self.tables()


def ledger_of(connection: Any) -> Ledger:
    """Return the ledger of a connection (SQLAlchemy's, or what its pool hands out), made when it is not there."""
    info = connection.info
    ledger = info.get(INFO_KEY)
    if ledger is None:
        ledger = info[INFO_KEY] = Ledger()
    return ledger  # type: ignore[no-any-return]  # info is an untyped dict


def existing_ledger(connection: Any) -> Ledger | None:
    """Return the ledger of a connection, if it has one."""
    return connection.info.get(INFO_KEY)  # type: ignore[no-any-return]  # info is an untyped dict
