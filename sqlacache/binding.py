"""A cache bound to one engine: everything that the way of a read and the way of a write share."""

from __future__ import annotations

import itertools
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import SingletonThreadPool, StaticPool
from sqlalchemy.schema import Table

from .canonical import Canonical
from .copying import copied
from .debugging import Debug
from .events import listen_to, stop_listening_to
from .forks import renew
from .leaving import Leaving
from .listening import Told
from .logs import CATALOG_UNREADABLE, log
from .read.path import ReadPath
from .read.replay import MARKER, Capture
from .read.statement import key_of, selects
from .store.stamps import Entry
from .tags import EVERYTHING, Shape
from .write.catalog import Catalog, read_catalog
from .write.commit import DialectHooks
from .write.consequences import Consequences
from .write.dml import Change
from .write.ledger import INFO_KEY, Ledger, existing_ledger, ledger_of
from .write.path import WritePath
from .write.phases import Commit
from .write.rawsql import classify

if TYPE_CHECKING:
    from .core import Core

_epochs = itertools.count(1)

MAX_SHAPES = 64
"""Shapes of one table that reads may be narrowed to; further ones are widened."""


class _Keys(Mapping[str, tuple[str, ...]]):
    """Primary-key columns (sorted names) by table; empty where their equality is not ours."""

    def __init__(self, binding: Binding, canonical: Canonical) -> None:
        self._binding = binding
        self._canonical = canonical
        self._known: dict[Table, tuple[str, ...]] = {}

    def __getitem__(self, name: str) -> tuple[str, ...]:
        table = self._binding.table(name)
        if table is None:
            raise KeyError(name)
        key = self._known.get(table)
        if key is None:
            key = self._known[table] = key_of(table, self._canonical)
        return key

    def __iter__(self) -> Iterator[str]:
        return iter(self._binding.models.tables())

    def __len__(self) -> int:
        return len(self._binding.models.tables())


class Binding:
    """One engine's part of a cache."""

    def __init__(self, manager: Core, engine: Engine, database: str) -> None:
        self.manager = manager
        self.settings = manager.settings
        self.observers = manager.observers
        self.engine: Any = engine
        self.database = database
        self.models = manager.models
        self.canonical = Canonical(engine.dialect)
        self._used: dict[str, Table] = {}
        self.keys: Mapping[str, tuple[str, ...]] = _Keys(self, self.canonical)
        self.views: frozenset[str] = frozenset()
        self.row_security: frozenset[str] = frozenset()
        self.pure_functions = self.settings.functions
        self._harmless: frozenset[str] | None = None
        self._writing: frozenset[str] = frozenset()
        self.consequences = Consequences(Catalog(), {}, {}, lambda name: ())
        self.dirty: weakref.WeakSet[Ledger] = weakref.WeakSet()
        """Ledgers that hold something uncommitted, where sessions share a connection."""
        self.store = manager.backend.open(
            database,
            max_bytes=self.settings.backend.max_bytes,
            lease=self.settings.lease,
            on_drop=Told(self.settings.name, database, self.observers).dropped,
        )
        self.owed = manager.owed_of(database)
        self.debug = Debug(self) if self.settings.debug else None
        self._shapes: dict[str, set[str]] = {}
        self.recipes: dict[Any, Any] = {}
        """What :mod:`.direct_way` knows of the models whose gets it has seen."""
        self.reads = ReadPath(self)
        self.writes = WritePath(self)
        self.hooks = DialectHooks(self)
        self.epoch = next(_epochs)
        self._held = f"_sqlacache_{self.epoch}"
        """Attribute of the engine that keeps this binding, as long as the engine is there."""
        self.attached = False
        """Whether it is listening to the engine."""
        self._unseen = 0
        """Connections that were checked out before the engine was bound, and are not back yet: at most so many."""
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        """Records of the connections that left the pool since, as long as some that left before are not back."""
        self._records: weakref.WeakSet[Any] = weakref.WeakSet()
        """Records of the connections that have a ledger of ours."""
        self.leaving: Leaving | None = None
        """Once the engine is unbound."""
        self._pool_before: Any = None
        self._before: Commit | None = None
        self.forked()
        renew(self)
        self._listeners = (
            ("checkout", self._checkout),
            ("checkin", self._checkin),
            ("detach", self._detach),
        )

    def forked(self) -> None:
        self._counting = threading.Lock()

    def attach(self) -> None:
        """Start listening to the engine.

        Connections that are checked out already may have a COMMIT under way that nobody will settle: until they are
        back, or the lease ends, everything counts as being written.
        """
        self._pool_before = self.engine.pool
        count = getattr(self._pool_before, "checkedout", None)
        self._unseen = sys.maxsize if count is not None else 0
        # In this order: the COMMIT of a connection that is seen as it leaves the pool is met, and whatever it wrote.
        # Those that threads took before are counted last.
        vars(self.engine)[self._held] = self
        self.hooks.install(self.engine)
        self.attached = True
        for name, listener in self._listeners:
            listen_to(self.engine, name, listener)
        if count is not None:
            with self._counting:
                self._unseen = max(0, count() - len(self._seen))
        if self._unseen:
            try:
                self._mark_what_was_before()
            except BaseException:
                self.detach()
                raise

    def _mark_what_was_before(self) -> None:
        before: Commit | None = self.writes.everything_is_written("a transaction begun before bind()")
        with self._counting:
            if self._unseen:
                self._before, before = before, None
        if before is not None:  # they came back meanwhile
            before.settle()

    def detach(self) -> None:
        """Stop listening; afterwards nothing of ours is left on the engine or its dialect."""
        self.attached = False
        with self._counting:
            before, self._before = self._before, None
            self._unseen = 0
        if before is not None:
            before.unmark()  # the next binding looks by itself who is out
        if self.leaving is None:
            self._let_go()
        else:
            self.leaving.give_up()

    def leave(self) -> None:
        """Serve and store nothing any more; stop listening once the transactions under way have ended."""
        self.attached = False
        found = [(record.info.get(INFO_KEY), record.in_use) for record in copied(self._records)]
        seen = [one for one in found if one[0] is not None and one[0].epoch == self.epoch]
        self.leaving = Leaving(seen, lambda: self._unseen > 0, self._let_go)
        self.leaving.look()

    @property
    def has_left(self) -> bool:
        """Whether the engine was unbound and nothing of ours is left on it."""
        return self.leaving is not None and self.leaving.is_over

    def _let_go(self) -> None:
        self.hooks.remove(self.engine)
        vars(self.engine).pop(self._held, None)
        for name, listener in self._listeners:
            stop_listening_to(self.engine, name, listener)
        for record in copied(self._records):
            ledger = record.info.get(INFO_KEY)
            if ledger is not None and ledger.epoch == self.epoch and not ledger.session_state:
                record.info.pop(INFO_KEY, None)

    def read_catalog(self, connection: Any) -> None:
        """Read from the database what the metadata does not know (on a synchronous connection)."""
        tables = self.models.tables()
        catalog = read_catalog(connection, tables.values())
        for what in catalog.unreadable:
            log(
                CATALOG_UNREADABLE,
                "%s: the database's catalog could not be read: %s",
                self.database,
                what,
                database=self.database,
                what=what,
            )
        self.row_security = catalog.row_security
        self.views = catalog.views
        collations_known = not any(what.startswith("columns") for what in catalog.unreadable)
        self.canonical = Canonical(self.engine.dialect, collations_known, catalog.inexact, catalog.strings)
        self.pure_functions = self.settings.functions.union(
            name for name, volatility in catalog.functions.items() if volatility == "immutable"
        )
        harmless = {name for name, volatility in catalog.functions.items() if volatility != "volatile"}
        self._harmless = catalog.built_in | harmless if catalog.built_in else None
        self._writing = frozenset(catalog.functions) - harmless
        self.keys = _Keys(self, self.canonical)
        self.consequences = Consequences(
            catalog, tables, self.settings.writes_also, lambda name: self.keys.get(name, ())
        )

    # -- events of the engine's pool and dialect -----------------------------------------------------------------------

    def _checkout(self, dbapi_connection: Any, record: Any, proxy: Any) -> None:
        ledger = ledger_of(record)
        if ledger.epoch != self.epoch:
            ledger.epoch = self.epoch
            self._records.add(record)
        if self.leaving is not None:
            self.leaving.checked_out(ledger)
        if self._unseen and self.engine.pool is self._pool_before:  # not another one, after dispose()
            self._seen.add(record)
            self._look_who_is_out(0)

    def _checkin(self, dbapi_connection: Any, record: Any) -> None:
        if self._unseen:
            self._records.add(record)
            self._seen.discard(record)
            self._look_who_is_out(1)  # this one, which the pool takes back in a moment
        self._ended(record)

    def _detach(self, dbapi_connection: Any, record: Any) -> None:
        if self._unseen:
            self._seen.discard(record)
            self._look_who_is_out(0)

    def _ended(self, record: Any) -> None:
        ledger = record.info.get(INFO_KEY) if self.leaving is not None else None
        if self.leaving is not None and ledger is not None:
            self.leaving.ended(ledger)

    def _look_who_is_out(self, returning: int) -> None:
        """Settle once every connection that was out before the engine was bound is back.

        A pool counts a connection as checked out from when it begins to open it. One that was being opened when the
        engine was bound counts as unseen until it is open: so nobody counts down, the pool is asked again and again.
        """
        before = None
        with self._counting:
            if self._unseen != sys.maxsize:  # else they are still to be counted
                unseen = self._pool_before.checkedout() - returning - len(self._seen)
                self._unseen = max(0, min(self._unseen, unseen))
                if not self._unseen:
                    self._seen.clear()
                    before, self._before = self._before, None
        if before is not None:
            before.settle()
        if self.leaving is not None:
            self.leaving.look()

    def executed(
        self, connection: Any, ledger: Ledger | None, cursor: Any, statement: str, context: Any
    ) -> None:
        """Take the rows of a miss that was just loaded, and look at what a statement left behind.

        ::

            1. A reader's SELECT is under way. The engine is unbound, and everything that was cached is forgotten.
            2. The SELECT ends, with this binding's hook still around it. Its rows must not be stored:
            3. a writer commits, seen by nobody; the engine is bound again, and they would be served.
        """
        if not self.attached:
            if self.leaving is not None and self.leaving.follows(ledger):
                self.writes.after_statement(connection, ledger, cursor, statement, context)
            return
        capture = context.execution_options.get(MARKER)
        if isinstance(capture, Capture):
            capture.clean = not (self.dirty_tables(connection) or self.has_session_state(connection))
            capture.take(context, cursor, statement)
        self.writes.after_statement(connection, ledger, cursor, statement, context)

    # -- what both ways ask --------------------------------------------------------------------------------------------

    @property
    def shares_connection(self) -> bool:
        """Whether sessions of this engine are on one DBAPI connection at the same time."""
        return isinstance(self.engine.pool, (StaticPool, SingletonThreadPool))

    def dirty_tables(self, connection: Any) -> set[str]:
        """Return the tables with uncommitted writes that a read on ``connection`` would see.

        Sessions of a pool with a single DBAPI connection share it, and see each other's uncommitted rows; then every
        uncommitted write counts, also for a session that holds no connection yet.
        """
        if self.shares_connection:
            return {table for ledger in copied(self.dirty) for table in ledger.tables()}
        if connection is None:
            return set()
        ledger = existing_ledger(connection)
        if ledger is None or ledger.epoch != self.epoch:
            return {EVERYTHING}  # checked out before the engine was bound: nobody saw what it wrote
        return ledger.tables() if ledger else set()

    def has_session_state(self, connection: Any) -> bool:
        """Tell whether a SET has changed what rows mean on this connection."""
        ledger = existing_ledger(connection)
        return ledger is not None and (ledger.session_state or ledger.transaction_state)

    def began_with_a_read(self, connection: Any) -> bool:
        """Tell whether SQLite's open transaction began with a read, and so holds a snapshot of that moment."""
        ledger = existing_ledger(connection)
        return ledger is not None and ledger.read_first

    def admit(self, shape: Shape) -> bool:
        """Tell whether a read may be narrowed to ``shape``: a table has a bounded number of them."""
        known = self._shapes.setdefault(shape.table, set())
        if shape.name in known:
            return True
        if len(known) >= MAX_SHAPES:
            return False
        known.add(shape.name)
        return True

    def can_replay(self, state: Any, replay: Engine) -> bool:
        """Tell whether the session's ``get_bind`` lets a bind be given (one that routes by itself may not)."""
        session = state.session
        if type(session).get_bind is Session.get_bind:
            return True
        return session.get_bind(**{**state.bind_arguments, "bind": replay}) is replay

    def use(self, table: Table) -> None:
        """Note that statements on this engine use ``table``: other metadata may have tables of the same name."""
        self._used[table.fullname] = table

    def suppose(self, table: Table) -> None:
        """Take ``table`` for the one of its name, as long as no statement has used another."""
        self._used.setdefault(table.fullname, table)

    def table(self, name: str) -> Table | None:
        """Return the table of a full name, as this engine's statements use it."""
        used = self._used.get(name)
        return used if used is not None else self.models.table(name)

    def may_write(self, function: str) -> bool:
        """Tell whether calling a function may write: not if it is built in, stable, immutable or declared pure.

        One that was made after the catalog was read is not known, and may.
        """
        harmless = self._harmless
        may = function in self._writing if harmless is None else function not in harmless
        return may and function not in self.settings.functions

    def is_read(self, state: Any) -> bool:
        """Tell whether a statement is a read, also where it is no SELECT construct: ``text("SELECT ...")``."""
        if state.is_select or selects(state.statement):
            return True
        statement = getattr(state.statement, "element", state.statement)
        text = getattr(statement, "text", None)
        return isinstance(text, str) and classify(text, self.engine.dialect.name) == "read"

    def follow(self, changes: Iterable[Change]) -> list[Change]:
        """Return ``changes`` with what the database itself writes in consequence."""
        return self.consequences.of(changes) if self.consequences else list(changes)

    # -- entries -------------------------------------------------------------------------------------------------------

    def entry(
        self,
        stamps: tuple[tuple[str, int, int], ...],
        description: tuple[tuple[Any, ...], ...],
        rows: tuple[tuple[Any, ...], ...],
        timeout: float,
        load_seconds: float,
        under: Any = None,
        trace: str | None = None,
    ) -> Entry:
        """Make an entry of captured rows. Raises :class:`~sqlacache.errors.SerializationError`."""
        data = self.settings.codec.encode_rows(description, rows)
        decoded = self.settings.codec.decode_rows(data)
        now = time.time()
        return Entry(
            stamps=stamps,
            description=decoded.description,
            rows=() if decoded.mutable else decoded.rows,
            data=data if decoded.mutable else None,
            stored_at=now,
            expires_at=now + timeout,
            load_seconds=load_seconds,
            size=len(data),
            count=len(rows),
            under=under,
            encoded=data if self.store.keeps_bytes else None,
            trace=trace,
        )

    def rows_of(self, entry: Entry) -> Sequence[tuple[Any, ...]]:
        """Return an entry's rows, of which the caller may do what it likes."""
        return entry.rows if entry.data is None else self.settings.codec.decode_rows(entry.data).rows
