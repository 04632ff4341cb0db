"""What one process does a million times: every kind of read and write, and whatever goes wrong with them.

Each operation is an ordinary function of a :class:`Work` and a generator, called inside SQLAlchemy's greenlet on the
asynchronous front, where it may wait for coroutines with ``await_only``, and in a thread on the other one.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, func, insert, literal, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only, greenlet_spawn

from sqlacache import InBackground, Observer
from tests.histories import program
from tests.histories.program import Group, Item, Note

NEW_AT = 1_000_000
"""Above every version there is: what is asked for with such a number is new, and nothing is found."""


@dataclass
class Work:
    """What operations work with."""

    engine: Any
    """Synchronous face of the engine that is bound."""
    async_engine: Any
    """``None`` on the other front."""
    elsewhere: Any
    """Another engine of the same database, bound, without a pool: for other loops and threads. Its synchronous face."""
    cache: Any
    cycle: Callable[[], Any]
    """Configure a cache, bind a new engine, use both, and take leave of them; a coroutine on the asynchronous front."""
    unbound: Callable[[], Any]
    """Make an engine of the same database that no cache is bound to: its synchronous face."""
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    """Operations that raised, by name and error."""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def is_async(self) -> bool:
        return self.async_engine is not None

    def new(self) -> int:
        """Return a number that nobody has had."""
        return NEW_AT + next(self.numbers)

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    def step(self, random: Random) -> None:
        """Do one operation."""
        name, operation = random.choices(NAMED, cum_weights=WEIGHTS)[0]
        try:
            operation(self, random)
        except Exception as error:
            self.failed[f"{name}: {type(error).__name__}"] += 1
        else:
            self.done[name] += 1


Operation = Callable[[Work, Random], None]
OPERATIONS: dict[str, tuple[float, Operation]] = {}
"""By name: how often of 1,000, and the function."""


def often(share: float) -> Callable[[Operation], Operation]:
    def note(operation: Operation) -> Operation:
        OPERATIONS[operation.__name__] = (share, operation)
        return operation

    return note


# -- reads -------------------------------------------------------------------------------------------------------------


@often(810)
def get(work: Work, random: Random) -> None:
    with work.session() as session:
        session.get(Item, random.randint(1, program.GROUPS * program.ITEMS))


@often(120)
def read(work: Work, random: Random) -> None:
    with work.session() as session:
        random.choice(program.READS)(session, random)


@often(10)
def read_columns(work: Work, random: Random) -> None:
    with work.session() as session:
        session.execute(select(Item.id, Item.version).where(Item.id.in_(random.sample(range(1, 9), 3)))).all()


@often(15)
def ask_with_new_values(work: Work, random: Random) -> None:
    """Lists of which each is asked for once: entries and tags that come and go."""
    with work.session() as session:
        session.execute(select(Item).where(Item.version == work.new()).order_by(Item.id)).scalars().all()


@often(2)
def ask_in_a_new_form(work: Work, random: Random) -> None:
    """Statements of which each is analysed once: with aliases, a subquery and a label of their own."""
    number = work.new()
    inner = select(Item.id, Item.version).where(Item.group_id == 1).subquery(f"inner_{number}")
    statement = select(inner.c.id.label(f"label_{number}"), literal(number)).where(inner.c.version >= 0)
    with work.session() as session:
        session.execute(statement).all()


@often(3)
def consume_half(work: Work, random: Random) -> None:
    streamed = {"yield_per": 2} if random.random() < 0.5 else {}
    with work.session() as session:
        found = session.execute(select(Item).order_by(Item.id), execution_options=streamed)
        next(iter(found), None)


# -- writes ------------------------------------------------------------------------------------------------------------


@often(15)
def write(work: Work, random: Random) -> None:
    """Through the unit of work and in bulk, inserts and deletes; one in five is rolled back."""
    with work.session() as session:
        random.choice(program.WRITES)(session, random, f"w{work.new()}")
        (session.rollback if random.random() < 0.2 else session.commit)()


@often(2)
def write_at_savepoints(work: Work, random: Random) -> None:
    with work.session() as session:
        for _ in range(2):
            nested = session.begin_nested()
            session.execute(update(Item).where(Item.id == 1).values(version=Item.version + 1))
            (nested.rollback if random.random() < 0.5 else nested.commit)()
        session.commit()


@often(0.7)
def write_raw(work: Work, random: Random) -> None:
    """SQL of which each text is new, on a session and on a connection that commits by itself."""
    number = work.new()
    if random.random() < 0.5:
        with work.session() as session:
            session.execute(
                text(f"UPDATE items SET version = version + 1, writer = 'w{number}' WHERE id = 2")
            )
            session.commit()
        return
    with work.engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql(
            f"UPDATE items SET version = version + 1, writer = 'w{number}' WHERE id = 3"
        )


@often(0.1)
def write_to_a_new_table(work: Work, random: Random) -> None:
    table = Table(f"new_{work.new()}", MetaData(), Column("id", Integer, primary_key=True))
    with work.engine.begin() as connection:
        table.create(connection)
        connection.execute(insert(table).values(id=1))
    with work.session() as session:
        session.execute(select(table)).all()
    with work.engine.begin() as connection:
        table.drop(connection)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@often(2)
def fail(work: Work, random: Random) -> None:
    """A read that its database refuses, one that it cannot parse, or a write that breaks a rule."""
    what = random.randrange(3)
    try:
        with work.session() as session:
            if what == 0:
                session.execute(select(literal(1) / (Item.version - Item.version)).limit(1)).all()
            elif what == 1:
                session.execute(text("SELECT nothing FROM items")).all()
            else:
                session.add(Item(id=1, group_id=1))
                session.commit()
    except Exception as error:
        if "Error" not in type(error).__name__:
            raise
    else:
        raise AssertionError(f"{what} should have failed")


@often(0.3)
def time_out(work: Work, random: Random) -> None:
    try:
        with work.session() as session:
            session.execute(text("SET LOCAL statement_timeout = 1"))
            session.execute(update(Item).where(Item.id == 4).values(version=Item.version + 1))
            session.execute(text("SELECT pg_sleep(1)"))
    except Exception as error:
        if "timeout" not in str(error):
            raise


@often(2)
def abandon(work: Work, random: Random) -> None:
    """Leave a session to the garbage collector: after a read, in a result, in a transaction that wrote, unflushed."""
    session = Session(work.engine)
    what = random.randrange(4)
    if what == 0:
        session.execute(select(Item).where(Item.group_id == 1)).scalars().all()
    elif what == 1:
        next(iter(session.execute(select(Item).where(Item.group_id == 2)).scalars()), None)
    else:
        session.execute(update(Item).where(Item.id < 0).values(version=0))  # which nobody waits for
        session.add(program.Hold(seconds=0))
        if what == 2:
            session.flush()


MAY_END_EARLY: tuple[Operation, ...] = (*(get, read, ask_with_new_values) * 3, write, write_at_savepoints)
"""Mostly reads: after a COMMIT whose end is not known, nothing of what it wrote is stored until its lease has ended."""


@often(4)
def cancel(work: Work, random: Random) -> None:
    """Cancel a task somewhere in a read or a commit; on the other front, there is nothing that can be cancelled."""
    inner = random.choice(MAY_END_EARLY)
    if not work.is_async:
        return inner(work, random)

    async def run() -> None:
        task = asyncio.ensure_future(greenlet_spawn(inner, work, random))
        for _ in range(int(10 ** random.uniform(0.0, 2.2))):  # turns of the loop, in which others get on, too
            await asyncio.sleep(0)
            if task.done():
                break
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return await_only(run())


@often(1)
def give_up(work: Work, random: Random) -> None:
    """Let the time for an operation be over before it is."""
    inner = random.choice(MAY_END_EARLY)
    if not work.is_async:
        return inner(work, random)

    async def run() -> None:
        task = asyncio.wait_for(greenlet_spawn(inner, work, random), 10 ** random.uniform(-4.0, -2.0))
        await asyncio.gather(task, return_exceptions=True)

    return await_only(run())


@often(0.5)
def close_in_flight(work: Work, random: Random) -> None:
    """Close a session while it reads."""
    if not work.is_async:
        with work.session() as session:
            found = session.execute(select(Item), execution_options={"yield_per": 2})
            for _ in found:
                session.close()
                break
        return None

    async def run() -> None:
        async with AsyncSession(work.async_engine) as session:
            task = asyncio.ensure_future(session.execute(select(Item).where(Item.version == work.new())))
            for _ in range(random.randint(1, 20)):
                await asyncio.sleep(0)
            await asyncio.gather(session.close(), return_exceptions=True)
            await asyncio.gather(task, return_exceptions=True)

    return await_only(run())


# -- the cache's own face ----------------------------------------------------------------------------------------------


def _wait(what: Any) -> Any:
    return await_only(what) if asyncio.iscoroutine(what) else what


@often(1)
def explain(work: Work, random: Random) -> None:
    statement = select(Item).where(Item.version == work.new())
    session: Any = AsyncSession(work.async_engine) if work.is_async else Session(work.engine)
    try:
        _wait(work.cache.explain(session, statement))
        _wait(work.cache.explain_get(session, Item, random.randint(1, 20)))
    finally:
        _wait(session.close())


@often(1)
def record(work: Work, random: Random) -> None:
    """Record, and sometimes leave the recorder to the garbage collector."""
    recording = work.cache.record()
    seen = recording.__enter__()
    get(work, random)
    assert seen.decisions
    if random.random() < 0.8:
        recording.__exit__(None, None, None)


class _Nobody(Observer):
    def decided(self, decision: Any, scope: Any) -> None: ...


@often(1)
def listen(work: Work, random: Random) -> None:
    """Add and remove hooks and observers; one in twenty has a thread of its own."""
    remove = work.cache.on_evict(lambda eviction: None)
    observer: Any = InBackground(_Nobody()) if random.random() < 0.05 else _Nobody()
    work.cache.add_observer(observer)
    write(work, random)
    work.cache.remove_observer(observer)
    remove()


@often(0.3)
def tell(work: Work, random: Random) -> None:
    """Invalidate, touch, ask for health, go past the cache."""
    _wait(work.cache.invalidate(Item, [random.randint(1, 20)]))
    _wait(work.cache.touched("items", ["version"], [random.randint(1, 20)]))
    _wait(work.cache.health())
    with work.cache.bypassed():
        get(work, random)


@often(0.03)
def switch(work: Work, random: Random) -> None:
    _wait(work.cache.set_mode("off"))
    _wait(work.cache.set_mode("on"))
    _wait(work.cache.purge(Note))


@often(0.2)
def configure_anew(work: Work, random: Random) -> None:
    _wait(work.cycle())


@often(0.2)
def use_an_engine_that_nobody_bound(work: Work, random: Random) -> None:
    engine = work.unbound()
    with Session(engine) as session:
        session.execute(select(func.count()).select_from(Group)).scalar()
    engine.dispose()


@often(0.2)
def read_elsewhere(work: Work, random: Random) -> None:
    """Read and write from a thread that comes and goes, with a loop of its own on the asynchronous front."""

    def act() -> None:
        with Session(work.elsewhere) as session:
            session.get(Item, 5)
            session.execute(update(Item).where(Item.id == 5).values(version=Item.version + 1))
            session.commit()

    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(greenlet_spawn(act)) if work.is_async else act()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    _wait(asyncio.to_thread(thread.join)) if work.is_async else thread.join()
    if errors:
        raise errors[0]


NAMED: list[tuple[str, Operation]] = [(name, operation) for name, (_, operation) in OPERATIONS.items()]
WEIGHTS = list(itertools.accumulate(share for share, _ in OPERATIONS.values()))
