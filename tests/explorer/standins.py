"""What stands in for SQLAlchemy, for waiting and for the way to the store: the library's own paths run as they are.

- A read's plan, key and dependencies are those that the same statement got before (:class:`Known`).
- ``invoke_statement`` asks the world's database instead of a connection, and fills the capture (:class:`State`).
- A hit's rows are handed to the reader as they are (:meth:`Path._hit`), instead of being replayed.
- Every call of the store that others may notice is a step (:class:`Port`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent
from sqlalchemy.orm import Session

from sqlacache.read.flight import Flight, Flights
from sqlacache.read.identify import Identifier, Read
from sqlacache.read.path import ReadPath
from sqlacache.read.replay import MARKER, Capture
from sqlacache.store.stamps import Entry
from tests.explorer.pictures import is_fillable
from tests.explorer.scheduler import LOOKS, Actor, pause

if TYPE_CHECKING:
    from tests.explorer.world import World

REFUSED, RAISES, CANCELLED = "refused", "raises", "cancelled"
BEFORE, AFTER = "not reached", "its answer lost"
"""How a step of the store may go when the server does not answer: without having been done, or after."""

Value = tuple[int, ...]


class _Turn:
    """An event that lets the scheduler choose among those who wait for it."""

    def __init__(self) -> None:
        self.happened = False

    def set(self) -> None:
        self.happened = True

    def wait(self) -> None:
        pause("has waited for the load of another", ready=lambda: self.happened)
        told_of(waits=False)


flight_of_greenlets = SimpleNamespace(Event=_Turn, get_ident=lambda: id(getcurrent()), Lock=threading.Lock)
"""In place of ``threading`` in :mod:`sqlacache.read.flight`: actors take turns in one thread."""


class Known(Identifier):
    """Finds what was found out about the same statement before."""

    def run(self, state: Any, bind: Any, options: Any, read: Read) -> Any:
        for name in ("plan", "parameters", "dependencies", "names", "keys", "key", "timeout", "options"):
            setattr(read, name, getattr(state.known, name))


class Watched(Flights):
    """Notes which load an actor leads or waits for."""

    def enter(
        self, key: str, nonces: Sequence[Any], *, may_wait: bool, anew: bool = False
    ) -> tuple[Flight | None, bool]:
        found, leads = super().enter(key, nonces, may_wait=may_wait, anew=anew)
        told_of(flight=found, waits=found is not None and not leads)
        return found, leads


class Path(ReadPath):
    """The read path, whose hits are not replayed."""

    def __init__(self, binding: Any) -> None:
        super().__init__(binding)
        self.identifier = Known(binding)
        self._flights = Watched(asynchronous=False)

    def _look_up(self, read: Read, *, refresh: bool = False) -> Any:
        told_of(read=None, flight=None, waits=False, value=None, told=[])
        verdict = super()._look_up(read, refresh=refresh)
        told_of(read=read if is_fillable(read) else None, told=[])
        return verdict

    def _hit(self, state: Any, bind: Any, inherited: Any, read: Read, entry: Entry, tier: Any) -> Any:
        state.hit = tier or read.tier or self.binding.store.tier
        return self.binding.rows_of(entry)[0]


class State:
    """In place of SQLAlchemy's ``ORMExecuteState``."""

    def __init__(self, world: World, session: Session, known: Read) -> None:
        assert known.plan is not None
        self.world = world
        self.known = known
        self.session = session
        self.tables = known.plan.tables
        self.execution_options: dict[str, Any] = {}
        self.bind_arguments: dict[str, Any] = {}
        self.hit: str | None = None

    def invoke_statement(self, *, execution_options: Any, bind_arguments: Any) -> Value:
        value = self.load()
        capture = execution_options[MARKER]
        if isinstance(capture, Capture):
            capture.description = tuple((table, None, None, None, None, None, None) for table in self.tables)
            capture.rows = (value,)
        return value

    def load(self) -> Value:
        value: Value = self.world.step(LOOKS, lambda: self.world.data.read(self.tables), (CANCELLED,))
        told_of(value=value)
        return value


class Port:
    """The store of one process; each call that others may notice is a step."""

    tier = "remote"
    budget = float("inf")
    keeps_bytes = True

    def __init__(self, world: World, store: Any, *, faults: Sequence[str] = (BEFORE, AFTER)) -> None:
        self.world = world
        self.store = store
        self.faults = faults

    def _step(self, label: str, call: Callable[[], Any]) -> Any:
        return self.world.step(label, call, self.faults)

    def lookup(self, key: str, names: Any) -> Any:
        return self._step("looks up", lambda: self.store.lookup(key, names))

    def sample(self, names: Any, tables: Any, shapes: Any, ttl: float, within: float = 0) -> Any:
        return self._step("samples and registers", lambda: self.store.sample(names, tables, shapes, ttl))

    def registered(self, shapes: Any, names: Any, sample: Any) -> Any:
        return self.store.registered(shapes, names, sample)

    def fill(self, key: str, entry: Any, within: float = 0) -> Any:
        return self._step("fills", lambda: self.store.fill(key, entry))

    def shapes(self, tables: Any) -> Any:
        found = self.store.shapes(tables)
        told_of(told=[])  # what a writer does next depends on the registries that it saw last
        told(found)
        return found

    def begin_unread(self, token: str, tables: Any) -> Any:
        _writes_as(token)
        return self._step("is under way", lambda: self.store.begin_unread(token, tables))

    def end_unread(self, token: str, tables: Any) -> Any:
        return self._step("ends", lambda: self.store.end_unread(token, tables))

    def mark(self, token: str, touched: Any, revisions: Any, causes: Any) -> Any:
        _writes_as(token)
        return self._step("marks", lambda: self.store.mark(token, touched, revisions, causes))

    def settle(self, token: str, touched: Any, causes: Any) -> Any:
        return self._step("settles", lambda: self.store.settle(token, touched, causes))

    def unmark(self, token: str, touched: Any) -> Any:
        return self._step("unmarks", lambda: self.store.unmark(token, touched))


def _writes_as(token: str) -> None:
    actor = getcurrent()
    if isinstance(actor, Actor):
        actor.token = token


def told_of(**what: Any) -> None:
    """Note what the operation of the actor has kept."""
    actor = getcurrent()
    if isinstance(actor, Actor):
        for name, value in what.items():
            setattr(actor, name, value)


def told(answer: Any) -> None:
    """Note what the actor was answered: what it does next depends on it."""
    actor = getcurrent()
    if isinstance(actor, Actor):
        actor.told.append(answer)
