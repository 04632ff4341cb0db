"""The cache is switched, unbound and bound again while readers and writers run.

Writers only ever raise quantities, and commit some of what they write; so every reader knows a floor, what was
committed when it began, and a ceiling, what anybody had tried to commit when it ended. An answer below the floor is
stale; one above the ceiling was never committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import joinedload, selectinload

from sqlacache.decisions import Decision
from sqlacache.observers import Observer
from tests.support.databases import Database
from tests.support.models import Order, OrderLine
from tests.support.reading import UNCACHED

LINES = (1, 2, 3)
WRITES = 120
READERS = 4
NEVER_COMMITTED = 1_000_000

pytestmark = pytest.mark.skipif(UNCACHED, reason="is about the cache's modes and binding")

_mine: ContextVar[list[Decision]] = ContextVar("decisions of this task")


class _PerTask(Observer):
    def decided(self, decision: Decision, scope: Any) -> None:
        if (decisions := _mine.get(None)) is not None:
            decisions.append(decision)


def _by_get(session: Any, line: int) -> Any:
    return session.get(OrderLine, line).quantity


def _by_column(session: Any, line: int) -> Any:
    return session.execute(select(OrderLine.quantity).where(OrderLine.id == line)).scalar()


def _by_list(session: Any, line: int) -> Any:
    found = session.execute(select(OrderLine).where(OrderLine.order_id.in_([1, 4]))).scalars().all()
    return next(one.quantity for one in found if one.id == line)


def _by_sum(session: Any, line: int) -> Any:
    return session.execute(select(func.sum(OrderLine.quantity)).where(OrderLine.id == line)).scalar()


def _by_eager(how: Any) -> Callable[[Any, int], Any]:
    def read(session: Any, line: int) -> Any:
        orders = session.execute(select(Order).options(how(Order.lines))).unique().scalars()
        return next(one.quantity for order in orders for one in order.lines if one.id == line)

    return read


READS = (_by_get, _by_column, _by_list, _by_sum, _by_eager(joinedload), _by_eager(selectinload))


@dataclass
class Load:
    """Readers and writers, and what they know of each other."""

    database: Database
    cache: Any
    committed: dict[int, int] = field(default_factory=lambda: dict.fromkeys(LINES, 0))
    tried: dict[int, int] = field(default_factory=lambda: dict.fromkeys(LINES, 10))
    locks: dict[int, asyncio.Lock] = field(default_factory=dict)
    written: int = 0
    reads: int = 0
    hits: int = 0
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    switched: int = 0
    """How often the cache was switched: a reader during which it was not switched knows the mode."""

    async def run(self, disturb: Callable[[Load], Coroutine[Any, Any, None]]) -> None:
        """Run readers, writers and ``disturb`` until everything is written; then read once more."""
        one_writer = asyncio.Lock()  # SQLite has only one at a time
        sqlite = self.database.dialect == "sqlite"
        self.locks = {line: one_writer if sqlite else asyncio.Lock() for line in LINES}
        work = [self._write(line) for line in LINES] + [self._read(number) for number in range(READERS)]
        tasks = [asyncio.create_task(self._until_one_fails(each)) for each in (*work, disturb(self))]
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()
        for read in READS:
            for line in LINES:
                await self._read_once(read, line)

    async def _until_one_fails(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BaseException:
            self.written = (
                WRITES  # the others come to their end by themselves, instead of being cancelled somewhere
            )
            raise
        finally:
            self.progress.set()

    @property
    def over(self) -> bool:
        return self.written >= WRITES

    async def _write(self, line: int) -> None:
        number = 10
        while not self.over:
            number += 1
            async with self.locks[line], self.database.sessions() as session:
                await self._write_once(session, line, number)
            self.written += 1
            self.progress.set()
            await asyncio.sleep(0)

    async def _write_once(self, session: Any, line: int, number: int) -> None:
        past_unit_of_work = update(OrderLine).where(OrderLine.id == line)
        if number % 4 == 0:  # a write that is not committed, and read by its own session
            await session.execute(past_unit_of_work.values(quantity=NEVER_COMMITTED))
            assert await session.run_sync(lambda sync: _by_column(sync, line)) == NEVER_COMMITTED
            await session.rollback()
            return
        if number % 2:
            (await session.get(OrderLine, line)).quantity = number
            await session.flush()
        else:
            await session.execute(past_unit_of_work.values(quantity=number))
        await asyncio.sleep(0)
        self.tried[line] = number
        await session.commit()
        self.committed[line] = number

    async def _read(self, number: int) -> None:
        while not self.over:
            number += 1
            await self._read_once(READS[number % len(READS)], LINES[number // len(READS) % len(LINES)])

    async def _read_once(self, read: Callable[[Any, int], Any], line: int) -> None:
        decisions: list[Decision] = []
        _mine.set(decisions)
        floor, mode, switched = self.committed[line], self.cache.mode, self.switched
        async with self.database.sessions() as session:
            found = await session.run_sync(lambda sync: read(sync, line))
        self.reads += 1
        self.progress.set()
        hits = [decision for decision in decisions if decision.decision == "hit"]
        self.hits += bool(hits)
        assert found >= floor, f"stale: {found} although {floor} was committed before; {decisions}"
        assert found <= self.tried[line], f"never committed: {found}; {decisions}"
        if mode != "on" and switched == self.switched:
            assert not hits, f"served in mode {mode}: {hits}"


@pytest.fixture
async def load(database: Database, cache: Any) -> Load:
    """Readers and writers of the seeded order lines, none of which has reached its floor yet."""
    observer = _PerTask()
    cache.add_observer(observer)
    return Load(database, cache)


async def _some_reads(load: Load, count: int) -> None:
    """Let others run until ``count`` more reads were answered."""
    until = load.reads + count
    while load.reads < until and not load.over:
        load.progress.clear()
        await load.progress.wait()


async def test_nothing_stale_is_read_around_a_switch_of_the_mode(load: Load) -> None:
    async def switch(load: Load) -> None:
        turn = 0
        while not load.over:
            for mode in ("off", "on", "write_only", "on", "off", "write_only", "on"):
                load.switched += 1
                await load.cache.set_mode(mode)
                load.switched += 1
                turn += 1
                await _some_reads(load, 1 + turn % 4)
        await load.cache.set_mode("on")

    await load.run(switch)
    assert load.switched > 20
    assert load.hits, "nothing was ever served: the test proves nothing"


async def test_nothing_stale_is_read_while_the_cache_is_unbound_and_bound_again(load: Load) -> None:
    async def bind_again(load: Load) -> None:
        turn = 0
        while not load.over:
            await load.cache.disconnect()
            load.switched += 1
            await _some_reads(load, turn % 3)
            await load.cache.bind(load.database.engine)
            turn += 1
            await _some_reads(load, 2 + turn % 7)

    await load.run(bind_again)
    assert load.switched > 2
    assert load.hits, "nothing was ever served: the test proves nothing"


async def test_nothing_stale_is_read_while_everything_is_invalidated_again_and_again(load: Load) -> None:
    async def invalidate(load: Load) -> None:
        while not load.over:
            await load.cache.invalidate_all()
            await _some_reads(load, 3)
            await load.cache.invalidate(OrderLine, pks=LINES)
            await _some_reads(load, 3)

    await load.run(invalidate)
    assert load.hits, "nothing was ever served: the test proves nothing"
