"""A database, a store and processes that read and write through the library's own paths.

What runs is :meth:`.ReadPath.read`, with what it decides by (``decide``, ``Flights``), and :meth:`.WritePath.commit`
with both phases, ``touch`` and ``Owed``, over a store of the library. What is told anew here is in
:mod:`tests.explorer.standins`; and what a transaction wrote is in its ledger before COMMIT, a step of :class:`Data`.
"""

from __future__ import annotations

import sqlite3
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from greenlet import getcurrent
from sqlalchemy.orm import Session

from sqlacache.errors import TransportError
from sqlacache.read import flight
from sqlacache.write.ledger import ledger_of
from sqlacache.write.owed import Owed
from tests.explorer.pictures import essence, flights_of, memory_of, owed_of
from tests.explorer.processes import Data, Left, Process, Versions
from tests.explorer.scheduler import Actor, Choice, Violation, alone, pause
from tests.explorer.standins import (
    AFTER,
    BEFORE,
    CANCELLED,
    RAISES,
    REFUSED,
    Port,
    State,
    Value,
    flight_of_greenlets,
    told,
)

LOST = "lost"
SLOW = "slow"
"""A lease may end while its writer is still at it: nothing is promised then, until it has settled."""


class World:
    """One run's database, store, processes and actors.

    Fewer orders than there are need to be explored:

    - **A writer that dies** does nothing until its lease has ended, as one that is slow does nothing: what others do
      meanwhile is explored with the latter, and it dies as its lease ends.
    - **A last look into the database** by a reader that will not store what it finds, nor read again, changes nothing
      and is told the newest: when that happens makes no difference, and it happens at once.

    Without ``reduces`` all of them are explored; a test compares.
    """

    reduces = True

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
        self.excused: set[tuple[str, int]] = set()
        """Tables and versions whose writer died after the store had forgotten it: commit() did not return."""
        self.granted = dict(self.budget)
        self.processes = {name: self.process(name, **options) for name in processes}
        self.session = _SESSION
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
            for at, one in enumerate(what):
                actor.reads = what[at:]
                self.read(process, one)

        actor = Actor(name, run)
        actor.process = process
        self._add(actor)

    def read(self, name: str, what: str) -> str | None:
        """Read; return the tier of a hit."""
        process, actor = self.processes[name], getcurrent()
        actor.told, actor.floor, actor.read, actor.value = [], None, None, None
        actor.process = name
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
        actor.told, actor.floor, actor.flight, actor.waits = [], None, None, False
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
        if any(
            version < last.get(table, 0) and not self.is_excused(table, last[table])
            for table, version in zip(tables, value)
        ):
            raise Violation(f"backwards: {who}, after {last}")
        actor.last = {**last, **dict(zip(tables, value))}

    def writer(self, name: str, process: str, *what: str, mortal: bool = True) -> None:
        """Add somebody who commits one transaction after the other."""

        def run() -> None:
            for at, one in enumerate(what):
                actor.writes = what[at:]
                self.write(process, one)

        actor = Actor(name, run, mortal=mortal)
        self._add(actor)

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
        actor.wrote, actor.process, actor.is_forgotten = {}, name, False

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
                process.tokens += [actor.token] if actor.token is not None else []
            self.acknowledge(actor.wrote, [process] if process.binding.owed else self.processes.values())
        actor.is_writing, actor.told, actor.token = False, [], None

    def acknowledge(self, versions: Versions, processes: Iterable[Process]) -> None:
        """From now on, whoever begins to read in ``processes`` sees this or newer."""
        for process in processes:
            for table, version in versions.items():
                process.acknowledged[table] = max(process.acknowledged[table], version)

    def deliverer(self, name: str, process: str, *, mortal: bool = False) -> None:
        """Add somebody who delivers what a process owes, as the task that looks after its backend does.

        When it dies, or a writer there does, their process has, with all that it owes.
        """
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

        actor = Actor(name, run, mortal=mortal)
        actor.process, actor.owes = process, lambda: bool(owed)
        here.is_mortal = mortal
        self._add(actor)

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
            if not actor.is_alive:  # but for `reduces`, of which dying and this are one step
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
            found += [Choice(f"{label} is lost", self._losing(label, lose)) for label, lose in self.losses()]
        return found

    def _land(self, left: Left) -> None:
        left.may_land, left.wrote = False, self.data.commit(left.tables)

    def _end_left(self, left: Left) -> None:
        self.left.remove(left)
        self.end_lease(left.token)
        self.acknowledge(left.wrote, self.processes.values())

    def died(self, actor: Actor) -> None:
        if self.processes[actor.process].is_mortal:
            self._end_process(self.processes[actor.process])
            self._end_dead(actor)
        elif self.reduces:
            self._end_dead(actor)

    def _end_dead(self, actor: Actor) -> None:
        self.end_lease(actor.token)
        actor.token = None
        if actor.is_forgotten:
            self.excused.update(actor.wrote.items())  # what is stored meanwhile stays to its timeout
        else:
            self.acknowledge(actor.wrote, self.processes.values())

    def _end_process(self, process: Process) -> None:
        """Let nothing be left of a process: what it owed is what the promise excepts. Another takes its place."""
        for actor in self.actors:
            actor.is_alive &= actor.process != process.name
        for token in process.tokens:
            self.end_lease(token)
        self.excused.update(process.owing.items())
        process.owing = {}
        process.binding.owed = Owed(process.binding.manager, process.binding.database)
        process.acknowledged = dict(min((one.acknowledged for one in self.processes.values()), key=_sum))

    def _end_early(self, actor: Actor) -> None:
        self.budget[SLOW] -= 1
        actor.is_forgotten = True
        self.end_lease(actor.token)

    def is_excused(self, table: str, version: int) -> bool:
        """Tell whether a version is of a writer that the store has forgotten, and that has not told it again."""
        return (table, version) in self.excused or any(
            one.is_forgotten and one.is_writing and one.wrote.get(table) == version for one in self.actors
        )

    def end_lease(self, token: Any) -> None:
        marks = [stamp.marks for stamp in self.store._stamps.values()]
        for tokens in (*self.store._writers.values(), *marks):
            if token in tokens:
                tokens[token] = 0.0

    def end_leases(self) -> None:
        self.store.end_leases()

    def _losing(self, label: str, lose: Callable[[], Any]) -> Callable[[], None]:
        def take() -> None:
            self.budget[LOST] -= 1
            lose()
            if self.forgets_writers(label):
                for actor in self.actors:
                    actor.is_forgotten |= actor.is_writing

        return take

    def forgets_writers(self, lost: str) -> bool:
        """Tell whether with this the store forgets who is under way."""
        return False

    def losses(self) -> list[tuple[str, Callable[[], Any]]]:
        """Return what the store may lose."""
        stamps = self.store._stamps
        return [(f"the stamp {name}", lambda name=name: stamps.pop(name)) for name in stamps]

    # -- what is looked at ---------------------------------------------------------------------------------------------

    def fingerprint(self) -> Any:
        """Return all that what happens from now on may depend on, but for the actors."""
        processes = self.processes.values()
        return (
            *(self.data.versions, [one.acknowledged for one in processes]),
            *(
                [flights_of(one.path._flights) for one in processes],
                [owed_of(one.binding.owed) for one in processes],
            ),
            [one.owing for one in processes],
            [(one.writer, one.token, one.may_land, one.wrote) for one in self.left],
            [(one.wrote, one.is_forgotten) if one.is_writing else None for one in self.actors],
            sorted(self.excused),
            self.stored(),
        )

    def essence(self, told: Any) -> Any:
        return essence(told)

    def on_its_way(self, actor: Actor) -> Any:
        """Return what a read keeps while it asks the store, beyond what it asks next."""

    def tables_of(self, process: str, what: str) -> Sequence[str]:
        return self.processes[process].tables_of(what)

    def stored(self) -> Any:
        """Return what the store has."""
        tokens = {one.token: f"({one.name})" for one in self.actors if one.token is not None}
        return memory_of(self.store, tokens, reduces=self.reduces)

    def settled(self) -> None:
        """When everybody is done and every lease has ended, what is read twice is a hit, and current."""
        for name, process in self.processes.items():
            if process.binding.owed.tables:
                raise Violation(f"process {name} still holds back {set(process.binding.owed.tables)}")
        if self.budget != self.granted:
            self.end_leases()  # a fault may leave marks that end by themselves
        # What is to be told from now on is the newest, but for what is excused.
        newest = {
            table: max(one for one in range(version + 1) if (table, one) not in self.excused)
            for table, version in self.data.versions.items()
        }
        self.acknowledge(newest, self.processes.values())
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


_SESSION = Session()


def _sum(versions: Versions) -> int:
    return sum(versions.values())


def what_of(tables: Sequence[str], value: Value) -> str:
    return ", ".join(f"{table} {version}" for table, version in zip(tables, value))


class exploring:  # used as a context manager, like a function
    """Within this block, loads that actors share are waited for as actors wait."""

    def __enter__(self) -> None:
        self._before = flight.threading
        flight.threading = flight_of_greenlets  # type: ignore[assignment]  # what it uses of it is there

    def __exit__(self, *error: object) -> None:
        flight.threading = self._before
