"""A database, a store and processes that read and write through the library's own paths.

What runs is :meth:`.ReadPath.read`, with what it decides by (``decide``, ``Flights``), and :meth:`.WritePath.commit`
with both phases, ``touch`` and ``Owed``, over a store of the library. What stands in for SQLAlchemy, and is the only
part told anew here:

- a read's plan, key and dependencies are those that the same statement got before (:class:`Known`);
- ``invoke_statement`` asks :class:`Data` instead of a connection, and fills the capture (:class:`State`);
- a hit's rows are handed to the reader as they are (:meth:`Path._hit`), instead of being replayed;
- what a transaction wrote is in its ledger before COMMIT, which is a step of :class:`Data`.
"""

from __future__ import annotations

import sqlite3
import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from greenlet import getcurrent
from sqlalchemy.orm import Session

from sqlacache.errors import TransportError
from sqlacache.read import flight
from sqlacache.read.identify import Identifier, Read
from sqlacache.read.path import ReadPath
from sqlacache.read.replay import MARKER, Capture
from sqlacache.store.stamps import Entry, StampView
from sqlacache.write.ledger import ledger_of
from sqlacache.write.owed import Owed
from tests.explorer.bank import bank
from tests.explorer.scheduler import Actor, Choice, Violation, alone, pause

REFUSED, RAISES, CANCELLED = "refused", "raises", "cancelled"
BEFORE, AFTER = "not reached", "its answer lost"
"""How a step of the store may go when the server does not answer: without having been done, or after."""
LOST = "lost"
SLOW = "slow"
"""A lease may end while its writer is still at it: nothing is promised then, until it has settled."""

Value = tuple[int, ...]
Versions = dict[str, int]


class Data:
    """The database: a version per table, which every commit that writes the table raises."""

    def __init__(self) -> None:
        self.versions: Versions = {"accounts": 0, "owners": 0}
        self.ever = [dict(self.versions)]

    def commit(self, tables: Iterable[str]) -> Versions:
        for table in tables:
            self.versions[table] += 1
        self.ever.append(dict(self.versions))
        return {table: self.versions[table] for table in tables}

    def read(self, tables: Sequence[str]) -> Value:
        return tuple(self.versions[table] for table in tables)

    def was(self, tables: Sequence[str], value: Value) -> bool:
        """Tell whether a value was ever committed."""
        return any(tuple(then[table] for table in tables) == value for then in self.ever)


class _Turn:
    """An event that lets the scheduler choose among those who wait for it."""

    def __init__(self) -> None:
        self.happened = False

    def set(self) -> None:
        self.happened = True

    def wait(self) -> None:
        pause("has waited for the load of another", ready=lambda: self.happened)


flight_of_greenlets = SimpleNamespace(Event=_Turn, get_ident=lambda: id(getcurrent()), Lock=threading.Lock)
"""In place of ``threading`` in :mod:`sqlacache.read.flight`: actors take turns in one thread."""


class Known(Identifier):
    """Finds what was found out about the same statement before."""

    def run(self, state: Any, bind: Any, options: Any, read: Read) -> Any:
        for name in ("plan", "parameters", "dependencies", "names", "keys", "key", "timeout", "options"):
            setattr(read, name, getattr(state.known, name))


class Path(ReadPath):
    """The read path, whose hits are not replayed."""

    def __init__(self, binding: Any) -> None:
        super().__init__(binding)
        self.identifier = Known(binding)

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
        return self.world.step("reads the database", lambda: self.world.data.read(self.tables), (CANCELLED,))


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


def told(answer: Any) -> None:
    """Note what the actor was answered: what it does next depends on it."""
    actor = getcurrent()
    if isinstance(actor, Actor):
        actor.told.append(answer)


def essence(answer: Any) -> Any:
    """Return of an answer what decisions depend on: no times, causes or versions."""
    kind = type(answer)
    if kind in (str, int, bool, type(None)):
        return answer
    if kind is Entry:
        return [stamp[2] for stamp in answer.stamps], answer.rows
    if kind is StampView:
        return answer.nonce, answer.in_flight
    if kind is dict:
        return [(essence(key), essence(value)) for key, value in answer.items()]
    if isinstance(answer, (list, tuple)):
        return [essence(one) for one in answer]
    return answer


@dataclass(eq=False)
class Left:
    """A commit of which its writer does not know whether it will come; its stamps stay in flight to the lease's end."""

    writer: str
    token: str | None
    tables: tuple[str, ...]
    may_land: bool = True
    wrote: Versions = field(default_factory=dict)


class Process:
    """What one process has."""

    def __init__(self, world: World, name: str, store: Any) -> None:
        self.name = name
        self.bank = bank(name)
        self.binding: Any = self.bank.binding
        self.binding.store = store
        self.binding.owed = Owed(self.binding)
        self.binding.dirty.clear()
        self.path = Path(self.binding)
        self.writes = self.binding.writes
        self.acknowledged: Versions = {"accounts": 0, "owners": 0}
        """Which versions its readers have to see at least."""
        self.owing: Versions = {}
        """Which of those are not delivered to the others."""


class World:
    """One run's database, store, processes and actors."""

    def __init__(
        self,
        store: Any,
        *,
        processes: Sequence[str] = ("A",),
        budget: dict[str, int] | None = None,
        **options: Any,
    ) -> None:
        self.data = Data()
        self.store = store
        self.budget = dict(budget or {})
        self.actors: list[Actor] = []
        self.is_over = False
        self.left: list[Left] = []
        self.granted = dict(self.budget)
        self.processes = {name: self.process(name, **options) for name in processes}
        self.session = Session()
        self.hits = 0

    def process(self, name: str, **options: Any) -> Process:
        return Process(self, name, Port(self, self.store, **options))

    # -- what actors do ------------------------------------------------------------------------------------------------

    def step(self, label: str, call: Callable[[], Any], faults: Sequence[str] = ()) -> Any:
        """Let others go on, then do something that others can see."""
        how = pause(label, faults)
        if how == BEFORE:
            told(how)
            raise TransportError("the server does not answer")
        if how == CANCELLED:
            told(how)
            raise CancelledError
        actor = getcurrent()
        if actor.floor is None:
            self._begin(actor)
        answer = call()
        if how == AFTER:
            told(how)
            raise TransportError("the answer was lost")
        told(answer)
        return answer

    def _begin(self, actor: Actor) -> None:
        actor.floor = {name: dict(one.acknowledged) for name, one in self.processes.items()}

    def reader(self, name: str, process: str, *what: str) -> None:
        """Add somebody who reads one thing after the other."""

        def run() -> None:
            for one in what:
                self.read(process, one)

        self._add(Actor(name, run))

    def read(self, name: str, what: str) -> str | None:
        """Read; return the tier of a hit."""
        process, actor = self.processes[name], getcurrent()
        actor.told, actor.floor = [what], None
        self.prepare(actor, process)
        state = State(self, self.session, process.bank.reads[what])
        try:
            value = process.path.read(state, process.bank.engine, None)
            if value is None:  # left to SQLAlchemy
                value = state.load()
        except CancelledError:
            value = None
        if value is not None:
            self._check(actor, process, state.tables, value)
        actor.told, actor.floor = [], None
        return state.hit

    def prepare(self, actor: Any, process: Process) -> None:
        """Begin a read: with its first question, unless it may be answered without one."""
        if self.decides_first:
            pause("reads")
            self._begin(actor)

    def _check(self, actor: Actor, process: Process, tables: Sequence[str], value: Value) -> None:
        who = f"{actor.name} reads {what_of(tables, value)}"
        if not self.data.was(tables, value):
            raise Violation(f"{who}: never committed")
        floor = actor.floor[process.name]
        if any(version < floor[table] for table, version in zip(tables, value)):
            raise Violation(f"stale: {who}; commit() had returned for {floor}")
        last = actor.last or {}
        if any(version < last.get(table, 0) for table, version in zip(tables, value)):
            raise Violation(f"backwards: {who}, after {last}")
        actor.last = {**last, **dict(zip(tables, value))}

    def writer(self, name: str, process: str, *what: str, mortal: bool = True) -> None:
        """Add somebody who commits one transaction after the other."""

        def run() -> None:
            for one in what:
                self.write(process, one)

        self._add(Actor(name, run, mortal=mortal))

    def write(self, name: str, what: str) -> None:
        process, actor = self.processes[name], getcurrent()
        changes = process.bank.changes[what]
        tables = tuple(dict.fromkeys(change.table for change in changes))
        driver = SimpleNamespace(in_transaction=False)
        pooled: Any = SimpleNamespace(info={}, dbapi_connection=driver)
        ledger = ledger_of(pooled)
        ledger.epoch = process.binding.epoch
        ledger.add(changes)
        actor.told, actor.floor, actor.is_writing, actor.token = [what], {}, True, None
        actor.wrote, actor.process = {}, name

        def execute() -> None:
            how = pause("commits", (REFUSED, RAISES, CANCELLED))
            told(how)
            if how == REFUSED:
                driver.in_transaction = True
                raise sqlite3.OperationalError("database is locked")
            if how == CANCELLED:
                self.left.append(Left(actor.name, actor.token, tables))
                raise CancelledError
            actor.wrote = self.data.commit(tables)
            if how == RAISES:
                raise sqlite3.OperationalError("disk I/O error")

        try:
            process.writes.commit(pooled, execute)
        except sqlite3.OperationalError:
            pass
        except CancelledError:
            pass
        else:
            if process.binding.owed:
                process.owing.update(actor.wrote)
            self.acknowledge(actor.wrote, [process] if process.binding.owed else self.processes.values())
        actor.is_writing, actor.told, actor.token = False, [], None

    def acknowledge(self, versions: Versions, processes: Iterable[Process]) -> None:
        """From now on, whoever begins to read in ``processes`` sees this or newer."""
        for process in processes:
            for table, version in versions.items():
                process.acknowledged[table] = max(process.acknowledged[table], version)

    def deliverer(self, name: str, process: str) -> None:
        """Add somebody who delivers what a process owes, as the task that looks after its backend does."""
        here = self.processes[process]
        owed = here.binding.owed

        def run() -> None:
            pause("finds something owed", ready=lambda: bool(owed) or self._writers_are_done())
            while owed:
                actor = getcurrent()
                actor.told = ["delivers"]
                coroutine = owed.deliver()
                try:
                    coroutine.send(None)
                except StopIteration:
                    self.acknowledge(here.owing, self.processes.values())
                except TransportError:
                    pass

        self._add(Actor(name, run))

    def _writers_are_done(self) -> bool:
        return not any(one.is_writing and one.is_alive for one in self.actors)

    def _add(self, actor: Actor) -> None:
        self.actors.append(actor)
        actor.go_on()

    def warm(self, process: str, *what: str) -> None:
        """Read before the story begins."""
        alone("earlier", lambda: [self.read(process, one) for one in what])

    # -- what nobody does ----------------------------------------------------------------------------------------------

    def events(self) -> list[Choice]:
        found = []
        for left in self.left:
            if left.may_land:
                found.append(Choice(f"the COMMIT of {left.writer} lands", lambda left=left: self._land(left)))
            found.append(Choice(f"the lease of {left.writer} ends", lambda left=left: self._end_left(left)))
        for actor in self.actors:
            if actor.token is None:
                continue
            if not actor.is_alive:
                found.append(
                    Choice(f"the lease of {actor.name} ends", lambda actor=actor: self._end_dead(actor))
                )
            elif actor.is_writing and self.budget.get(SLOW, 0):
                found.append(
                    Choice(
                        f"the lease of {actor.name} ends too early",
                        lambda actor=actor: self._end_early(actor),
                    )
                )
        if self.budget.get(LOST, 0):
            found += [Choice(f"{label} is lost", self._losing(lose)) for label, lose in self.losses()]
        return found

    def _land(self, left: Left) -> None:
        left.may_land, left.wrote = False, self.data.commit(left.tables)

    def _end_left(self, left: Left) -> None:
        self.left.remove(left)
        self.end_lease(left.token)
        self.acknowledge(left.wrote, self.processes.values())

    def _end_dead(self, actor: Actor) -> None:
        self.end_lease(actor.token)
        actor.token = None
        self.acknowledge(actor.wrote, self.processes.values())

    def _end_early(self, actor: Actor) -> None:
        self.budget[SLOW] -= 1
        actor.mortal = False  # one that dies, too, leaves what it committed to the entries' timeout
        self.end_lease(actor.token)

    def end_lease(self, token: Any) -> None:
        marks = [stamp.marks for stamp in self.store._stamps.values()]
        for tokens in (*self.store._writers.values(), *marks):
            if token in tokens:
                tokens[token] = 0.0

    def end_leases(self) -> None:
        self.store.end_leases()

    def _losing(self, lose: Callable[[], Any]) -> Callable[[], None]:
        def take() -> None:
            self.budget[LOST] -= 1
            lose()

        return take

    def losses(self) -> list[tuple[str, Callable[[], Any]]]:
        """Return what the store may lose."""
        stamps = self.store._stamps
        return [(f"the stamp {name}", lambda name=name: stamps.pop(name)) for name in stamps]

    # -- what is looked at ---------------------------------------------------------------------------------------------

    def fingerprint(self) -> Any:
        floors = [one.acknowledged for one in self.processes.values()]
        flights = [self._flights(one.path._flights) for one in self.processes.values()]
        owed = [
            (
                one.binding.owed.tables,
                [(debt.changes, debt.not_before > 0) for debt in one.binding.owed._debts],
            )
            for one in self.processes.values()
        ]
        return (
            self.data.versions,
            floors,
            flights,
            owed,
            [(one.writer, one.token, one.may_land, one.wrote) for one in self.left],
            [one.wrote for one in self.actors],
            self.stored(),
        )

    def essence(self, told: Any) -> Any:
        return essence(told)

    def _flights(self, flights: Any) -> Any:
        who = {id(actor): actor.name for actor in self.actors}
        return [
            [(where, who.get(one.leader), one.nonces, essence(one.entry)) for where, one in kept.items()]
            for kept in (flights._flights, flights._landed)
        ] + [flights._approaching]

    def stored(self) -> Any:
        """Return what the store has."""
        store = self.store
        stamps = [
            (name, one.nonce, [(token, until > 0) for token, until in one.marks.items()])
            for name, one in sorted(store._stamps.items())
        ]
        entries = [(key, essence(entry)) for key, entry in sorted(store._entries.items())]
        writers = [
            (table, [(token, until > 0) for token, until in tokens.items()])
            for table, tokens in sorted(store._writers.items())
        ]
        shapes = [(table, list(found)) for table, found in sorted(store._shapes.items())]
        return stamps, entries, writers, shapes

    def settled(self) -> None:
        """When everybody is done and every lease has ended, what is read twice is a hit, and current."""
        for name, process in self.processes.items():
            if process.binding.owed.tables:
                raise Violation(f"process {name} still holds back {set(process.binding.owed.tables)}")
        if self.budget != self.granted:
            self.end_leases()  # a fault may leave marks that end by themselves
        # What is to be told from now on is the newest.
        self.acknowledge(self.data.versions, self.processes.values())
        for name in self.processes:
            for what in self.looked_at:
                hits: list[Any] = []
                alone(
                    "afterwards",
                    lambda name=name, what=what, hits=hits: hits.extend(
                        self.read(name, what) for _ in range(3)
                    ),
                )
                if hits[-1] is None:
                    raise Violation(f"a read of {what} is never a hit again")

    def look(self) -> None:
        """Read once more, whoever else is at it. Raises :class:`Violation`."""
        for name in self.processes:
            for what in self.looked_at:
                alone("afterwards", lambda name=name, what=what: self.read(name, what))

    decides_first = False
    """Whether a read may be decided before the store is asked: by what is owed."""

    looked_at: Sequence[str] = ("row",)

    def close(self) -> None:
        self.is_over = True


def what_of(tables: Sequence[str], value: Value) -> str:
    return ", ".join(f"{table} {version}" for table, version in zip(tables, value))


class exploring:  # used as a context manager, like a function
    """Within this block, loads that actors share are waited for as actors wait."""

    def __enter__(self) -> None:
        self._before = flight.threading
        flight.threading = flight_of_greenlets  # type: ignore[assignment]  # what it uses of it is there

    def __exit__(self, *error: object) -> None:
        flight.threading = self._before
