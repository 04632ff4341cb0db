"""The world a program runs in: a database, a cache, sessions that stay open, and the comparison after every step."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import sessionmaker

from sqlacache.decisions import Decision
from sqlacache.observers import Observer
from tests.support.fronts import SESSION, configure

from .gates import answered, at_commit
from .programs import SLOTS, Program, Read, Step
from .schema import WRITES_ALSO, Order, User, reset
from .sessions import Slot, make_engine, prepare

BY_WRITE = frozenset({"row_invalidated", "condition_invalidated", "table_invalidated"})
UNCOMMITTED = frozenset({"write", "read", "peek", "savepoint", "begin_nested"})
"""Steps that change nothing for anybody else: after them, only some of what is watched is compared, in turn."""
FEW = 2
BY_WRITER = frozenset({"write", "read", "peek", "savepoint", "begin_nested", "release", "rollback_nested"})
"""Steps that SQLite's only writer makes, if there is one, whichever session was drawn."""


class Mismatch(AssertionError):
    """A read through the cache differs from the same read without it."""


@dataclass
class Figures:
    """What the comparisons of a run came to."""

    steps: int = 0
    compared: int = 0
    second_reads: int = 0
    second_hits: int = 0
    first_reads: int = 0
    first_hits: int = 0
    evicted: int = 0
    """Reads that missed because of a write, having been stored before."""
    needless: int = 0
    """Those of them whose result had not changed."""
    needless_by_kind: Counter[str] = field(default_factory=Counter)
    evicted_by_kind: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    """Steps that the database or SQLAlchemy refused."""

    @property
    def hit_ratio(self) -> float:
        """Share of second reads that were hits."""
        return self.second_hits / max(1, self.second_reads)

    @property
    def needless_ratio(self) -> float:
        """Share of evicted reads whose result had not changed."""
        return self.needless / max(1, self.evicted)


class _Watcher(Observer):
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def decided(self, decision: Decision, scope: Any) -> None:
        self.decisions.append(decision)


class World:
    """One database and its engines; :meth:`run` runs a program from the same rows every time."""

    def __init__(self, url: str, figures: Figures | None = None) -> None:
        self.url = url
        self.figures = figures if figures is not None else Figures()
        self.truth_engine = make_engine(url, 1)
        self.engine = make_engine(url, len(SLOTS) + 2)
        self.cache: Any = None
        self.watched: tuple[Read, ...] = ()
        self.done: list[Step] = []
        self._turn = 0
        self._slots: dict[int, Slot] = {}
        self._watcher = _Watcher()
        self._truth: dict[Read, Any] = {}
        self._before: dict[Read, Any] = {}
        self._fresh = sessionmaker(bind=self.engine, class_=SESSION)  # type: ignore[call-overload]  # typed for sync engines
        self._true = sessionmaker(bind=self.truth_engine, class_=AsyncSession)  # type: ignore[call-overload]  # typed for sync engines

    async def dispose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()
        await self.truth_engine.dispose()

    # -- running -------------------------------------------------------------------------------------------------------

    async def run(self, program: Program) -> None:
        """Run a program; raises :class:`Mismatch` with what led to it."""
        await self.start(program.watched)
        try:
            for step in program.steps:
                if step.kind != "nothing":
                    await self.step(step)
                    await self.check(few=step.kind in UNCOMMITTED)
        except BaseException:
            await self.stop()
            await self.dispose()
            raise
        await self.stop()

    async def start(self, watched: tuple[Read, ...]) -> None:
        """Put the rows back and bind a new cache."""
        async with self.truth_engine.begin() as connection:
            await connection.run_sync(reset)
        self.watched, self.done, self._turn = watched, [], 0
        self._truth.clear()
        self._before.clear()
        self._watcher.decisions.clear()
        self.cache = configure(
            models={"*": {"timeout": 3600}},
            telemetry=None,
            writes_also=WRITES_ALSO,
            name="machine",
            prefix=f"machine-{uuid4().hex[:8]}",  # on a shared backend, nothing of an earlier program is there
            lease=3600,
        )
        self.cache.add_observer(self._watcher)
        await self.cache.bind(self.engine)
        self._slots = {number: Slot(self.engine, expire=number == SLOTS[-1]) for number in SLOTS}
        await self.check()

    async def stop(self) -> None:
        """Close the sessions and unbind the cache."""
        for slot in self._slots.values():
            await slot.close()
        await self.cache.disconnect()

    async def step(self, step: Step) -> None:
        """Do one step."""
        self.done.append(step)
        self.figures.steps += 1
        slot = self._slots[step.slot]
        if step.kind in BY_WRITER:
            slot = self._writer() or slot
        act: Callable[[Slot, Any], Awaitable[None]] = getattr(self, f"_do_{step.kind}")
        self._truth.clear()
        try:
            await act(slot, step.what)
        except SQLAlchemyError as refused:
            kind = type(getattr(refused, "orig", None) or refused).__name__
            self.figures.refused[f"{step.kind} {kind}"] += 1
            await slot.recover()

    def _writer(self) -> Slot | None:
        """The session that holds SQLite's only write lock: no other could write."""
        if self.engine.dialect.name != "sqlite":
            return None
        return next((slot for slot in self._slots.values() if slot.holds_lock()), None)

    # -- steps ---------------------------------------------------------------------------------------------------------

    async def _do_write(self, slot: Slot, write: Any) -> None:
        await slot.session.run_sync(write)

    async def _do_commit(self, slot: Slot, _: Any) -> None:
        await slot.commit()

    async def _do_rollback(self, slot: Slot, _: Any) -> None:
        await slot.rollback()

    async def _do_close(self, slot: Slot, _: Any) -> None:
        await slot.close()

    async def _do_begin_nested(self, slot: Slot, _: Any) -> None:
        if len(slot.nested) < 2:
            slot.nested.append(await slot.session.begin_nested())

    async def _do_release(self, slot: Slot, _: Any) -> None:
        if slot.nested:
            await slot.nested.pop().commit()

    async def _do_rollback_nested(self, slot: Slot, _: Any) -> None:
        if slot.nested:
            await slot.nested.pop().rollback()

    async def _do_savepoint(self, slot: Slot, what: Any) -> None:
        """A write before a savepoint, one inside it, and its end."""
        before, inside, end = what
        await slot.session.run_sync(before)
        await slot.session.flush()
        savepoint = await slot.session.begin_nested()
        await slot.session.run_sync(inside)
        await slot.session.flush()
        await (savepoint.commit() if end == "release" else savepoint.rollback())

    async def _do_peek(self, slot: Slot, which: int) -> None:
        """A session reads without flushing what is pending."""
        read = self._watched_read(which)

        def both(session: Any) -> None:
            with session.no_autoflush:
                self._compare_own(session, read, "without autoflush")

        if not read.entities:
            await slot.session.run_sync(both)

    async def _do_read(self, slot: Slot, which: int) -> None:
        """A session reads what it and others wrote; with entities, only where it can be made to forget its objects."""
        read = self._watched_read(which)
        if read.entities and slot.nested:
            return

        def both(session: Any) -> None:
            session.flush()
            if read.entities:
                session.expunge_all()
            self._compare_own(session, read, "in the session itself")

        await slot.session.run_sync(both)

    def _watched_read(self, which: int) -> Read:
        return self.watched[which % len(self.watched)]

    def _compare_own(self, session: Any, read: Read, how: str) -> None:
        first = read(session)
        if read.entities:
            session.expunge_all()
        second = read(session)
        if read.entities:
            session.expunge_all()
        decisions = self._decided()
        with self.cache.bypassed():
            expected = read(session)
        if read.entities:
            session.expunge_all()
        self._watcher.decisions.clear()
        self._same(read, first, expected, f"{how}, first time", decisions)
        self._same(read, second, expected, f"{how}, second time", decisions)

    async def _do_race_select(self, slot: Slot, read: Read) -> None:
        """1. A reader's SELECT is answered. 2. A writer commits. 3. The reader stores what it has."""
        with answered(self.engine) as gate:
            slow = asyncio.create_task(self._ask(read))
            await gate.arrival(slow)
            try:
                await slot.commit()
            finally:
                gate.open()
                await slow
        self._decided()
        await self._check_one(read)

    async def _do_race_before_commit(self, slot: Slot, _: Any) -> None:
        await self._race_commit(slot, before=True)

    async def _do_race_after_commit(self, slot: Slot, _: Any) -> None:
        await self._race_commit(slot, before=False)

    async def _race_commit(self, slot: Slot, *, before: bool) -> None:
        """1. A writer is at its COMMIT. 2. Everything watched is read. 3. The writer goes on."""
        with at_commit(self.engine, before=before) as gate:
            writer = asyncio.create_task(slot.commit())
            await gate.arrival(writer)
            try:
                for read in self.watched:
                    await self._check_one(read, counted=False)
            finally:
                gate.open()
                self._truth.clear()
                await writer

    async def _do_autocommit(self, slot: Slot, write: Any) -> None:
        """A session on a connection where every statement takes effect at once."""
        engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        async with SESSION(engine) as session:
            await session.run_sync(write)
            await session.commit()

    async def _do_connection(self, slot: Slot, write: Any) -> None:
        """A session bound to a connection whose transaction somebody else ends."""
        async with self.engine.begin() as connection:
            async with AsyncSession(connection) as session:
                await session.run_sync(write)
                await session.flush()
                await session.commit()

    async def _do_invalidate(self, slot: Slot, what: str) -> None:
        if what == "all":
            await self.cache.invalidate_all()
        else:
            model: Any = {"User": User, "Order": Order}[what]
            await self.cache.invalidate(model, pks=[1, 2] if slot is self._slots[0] else None)

    async def _do_mode(self, slot: Slot, mode: str) -> None:
        """The cache is switched while the writer's transaction is open, and back after its commit."""
        await self.cache.set_mode(mode)
        await self.check()
        await slot.commit()
        self._truth.clear()
        await self.check()
        await self.cache.set_mode("on")

    async def _do_rebind(self, slot: Slot, _: Any) -> None:
        await self.cache.disconnect()
        await self.cache.bind(self.engine)

    # -- requests of the fixed workload -----------------------------------------------------------------------------

    async def write_at_once(self, write: Any) -> None:
        """Write and commit in a session of its own."""
        self._truth.clear()
        try:
            async with self._fresh() as session:
                await session.run_sync(write)
                await session.commit()
        except SQLAlchemyError as refused:
            self.figures.refused[type(refused).__name__] += 1

    async def read_at_once(self, read: Read) -> None:
        """Read once in a session of its own, and compare."""
        await self._check_one(read, again=False)

    # -- comparing -----------------------------------------------------------------------------------------------------

    async def check(self, *, few: bool = False) -> None:
        """Compare what is watched, through fresh sessions, with what the database says."""
        start = self._turn if few else 0
        chosen = (*self.watched[start:], *self.watched[:start])[: FEW if few else None]
        self._turn = (start + len(chosen)) % max(1, len(self.watched))
        for read in chosen:
            await self._check_one(read)

    async def _check_one(self, read: Read, *, counted: bool = True, again: bool = True) -> None:
        figures, on = self.figures, self.cache.mode == "on"
        if read not in self._truth:
            async with self._true() as session:
                self._truth[read] = await session.run_sync(read)
        expected = self._truth[read]
        self._decided()
        first = await self._ask(read)
        decisions = self._decided()
        self._same(read, first, expected, "another session, first time", decisions)
        if counted and on:
            figures.first_reads += 1
            figures.first_hits += _all_hits(decisions)
            if any(decision.reason in BY_WRITE for decision in decisions) and read in self._before:
                figures.evicted += 1
                figures.evicted_by_kind[read.kind] += 1
                if self._before[read] == first:
                    figures.needless += 1
                    figures.needless_by_kind[read.kind] += 1
        self._before[read] = first
        if not again:
            return
        second = await self._ask(read)
        decisions = self._decided()
        self._same(read, second, expected, "another session, second time", decisions)
        if counted and on:
            figures.second_reads += 1
            figures.second_hits += _all_hits(decisions)

    async def _ask(self, read: Read) -> Any:
        async with self._fresh() as session:
            return await session.run_sync(read)

    def _decided(self) -> list[Decision]:
        decisions, self._watcher.decisions = self._watcher.decisions, []
        for decision in decisions:
            self.figures.decisions[f"{decision.decision} {decision.reason or ''}".strip()] += 1
        return decisions

    def _same(self, read: Read, found: Any, expected: Any, how: str, decisions: list[Decision]) -> None:
        self.figures.compared += 1
        if found == expected:
            return
        told = [f"{d.op} {d.decision} {d.reason or d.tier} {','.join(d.tags)}" for d in decisions]
        program = Program(self.watched, tuple(self.done))
        raise Mismatch(
            f"{read} ({how})\n  returned {found!r}\n  expected {expected!r}\n  decided {told}\n{program}"
        )


def _all_hits(decisions: list[Decision]) -> bool:
    return bool(decisions) and all(decision.decision == "hit" for decision in decisions)


__all__ = ["BY_WRITE", "Figures", "Mismatch", "World", "prepare"]
