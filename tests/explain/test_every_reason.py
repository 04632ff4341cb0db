"""For every reason a real situation: the explanation says what the next read is told, and what would have helped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import column, create_engine, func, select, table, text, update
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from sqlacache import configure_sync
from sqlacache.decisions import BYPASS_REASONS, MISS_REASONS
from sqlacache.reasons import BYPASSES, MISSES
from tests.support.databases import SQLiteDatabases
from tests.support.models import Team, User
from tests.support.reading import UNCACHED, Watcher

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

ONE = select(User.id, User.name).where(User.id == 1)
FREE = select(User.id, User.plan).where(User.plan == "free")


@dataclass
class Stage:
    """An engine, and the cache that was made for the situation."""

    engine: Any
    cache: Any = None

    def configured(self, **options: Any) -> None:
        self.cache = configure_sync(**{"models": {"*": {"timeout": 60}}, "telemetry": None, **options})
        self.cache.bind(self.engine)

    @property
    def store(self) -> Any:
        return self.cache.bindings[0].store

    def session(self, bind: Any = None) -> Session:
        return Session(self.engine if bind is None else bind)

    def read(self, statement: Any) -> None:
        with self.session() as session:
            session.execute(statement).all()

    def write(self, statement: Any) -> None:
        with self.session() as session:
            session.execute(statement)
            session.commit()

    @property
    def key(self) -> str:
        (key,) = self.store._entries
        return str(key)

    @contextmanager
    def writer(self) -> Iterator[None]:
        """A writer of everything between its phases."""
        commit = self.cache.bindings[0].writes.everything_is_written("a long commit")
        yield
        commit.settle()


@pytest_asyncio.fixture
async def stage(sqlite_databases: SQLiteDatabases) -> AsyncIterator[Stage]:
    async with sqlite_databases.fresh() as url:
        engine = create_engine(url.replace("+aiosqlite", ""), poolclass=QueuePool, pool_size=1)
        made = Stage(engine)
        yield made
        made.cache.disconnect()
        engine.dispose()


Situation = Iterator[tuple[Session, Any]]


def disabled(stage: Stage) -> Situation:
    stage.configured(mode="write_only")
    yield stage.session(), ONE


def not_configured(stage: Stage) -> Situation:
    stage.configured(models={Team: {}})
    yield stage.session(), ONE


def opted_out(stage: Stage) -> Situation:
    stage.configured(models={User: None, "*": {}})
    yield stage.session(), ONE


def locking_read(stage: Stage) -> Situation:
    stage.configured()
    yield stage.session(), ONE.with_for_update()


def raw_sql(stage: Stage) -> Situation:
    stage.configured()
    yield stage.session(), ONE.where(text("1 = 1"))


def untracked_source(stage: Stage) -> Situation:
    with stage.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE elsewhere (id INTEGER)")
    stage.configured()
    elsewhere = table("elsewhere", column("id"))
    yield stage.session(), select(User.id, elsewhere.c.id).where(User.id == elsewhere.c.id)


def nondeterministic(stage: Stage) -> Situation:
    stage.configured()
    yield stage.session(), select(User.id, func.random())


def connection_state(stage: Stage) -> Situation:
    stage.configured()
    session = stage.session()
    session.execute(text("CREATE TEMP TABLE users AS SELECT * FROM users"))
    session.commit()
    session.connection()  # the same one, which is all that the pool has
    yield session, ONE


def dirty_transaction(stage: Stage) -> Situation:
    stage.configured()
    session = stage.session()
    session.execute(update(User).values(plan="x"), execution_options={"synchronize_session": False})
    yield session, ONE


def isolation(stage: Stage) -> Situation:
    stage.configured()
    yield stage.session(stage.engine.execution_options(isolation_level="READ UNCOMMITTED")), ONE


def streaming(stage: Stage) -> Situation:
    stage.configured()
    yield stage.session(), ONE.execution_options(yield_per=10)


def refresh(stage: Stage) -> Situation:
    stage.configured()
    yield stage.session(), select(User).execution_options(populate_existing=True)


def unkeyable_params(stage: Stage) -> Situation:
    stage.configured(vary=lambda session: object())
    yield stage.session(), ONE


def rewritten(stage: Stage) -> Situation:
    class Routing(Session):
        def get_bind(self, mapper: Any = None, clause: Any = None) -> Any:  # type: ignore[override]
            return stage.engine

    stage.configured()
    yield Routing(), ONE


def absent(stage: Stage) -> Situation:
    stage.configured()
    yield stage.session(), ONE


def warmed(change: Callable[[Stage], Any], statement: Any = ONE) -> Callable[[Stage], Situation]:
    """A situation of an entry to which something happened."""

    def situation(stage: Stage) -> Situation:
        stage.configured()
        stage.read(statement)
        change(stage)
        yield stage.session(), statement

    return situation


def write_in_flight(stage: Stage) -> Situation:
    stage.configured()
    stage.read(ONE)
    stage.store.delete_everything()
    with stage.writer():
        yield stage.session(), ONE


def capacity_evicted(stage: Stage) -> None:
    stage.store.max_bytes = stage.store.bytes
    stage.read(select(User.id, User.name).where(User.id == 2))


def backend_evicted(stage: Stage) -> None:
    names = [name for name, _, _ in stage.store._entries[stage.key].stamps]
    del stage.store._stamps[names[-1]]


def unknown(stage: Stage) -> None:
    entry = stage.store._entries[stage.key]
    stage.store._entries[stage.key] = replace(entry, stamps=entry.stamps[:-1])


SITUATIONS: dict[str, Callable[[Stage], Situation]] = {
    "absent": absent,
    "expired": warmed(lambda stage: stage.store.with_expiry(stage.key, 1.0)),
    "row_invalidated": warmed(lambda stage: stage.write(update(User).where(User.id == 1).values(name="x"))),
    "condition_invalidated": warmed(
        lambda stage: stage.write(update(User).where(User.id == 1).values(plan="x")), FREE
    ),
    "table_invalidated": warmed(lambda stage: stage.write(text("UPDATE users SET name = 'x'"))),
    "manual_invalidated": warmed(lambda stage: stage.cache.touched("users")),
    "write_in_flight": write_in_flight,
    "capacity_evicted": warmed(capacity_evicted),
    "backend_evicted": warmed(backend_evicted),
    "unknown": warmed(unknown),
    **{
        situation.__name__: situation
        for situation in (
            *(disabled, not_configured, opted_out, locking_read, raw_sql, untracked_source, nondeterministic),
            *(
                connection_state,
                dirty_transaction,
                isolation,
                streaming,
                refresh,
                unkeyable_params,
                rewritten,
            ),
        )
    },
}
ON_REDIS = {"generation_changed", "corrupt", "protocol_mismatch", "backend_unavailable"}
"""Those of a server are in ``tests/redis/test_explained.py``."""


def test_no_reason_is_without_a_situation() -> None:
    assert {*SITUATIONS, *ON_REDIS, "writer_under_way"} == {*MISS_REASONS, *BYPASS_REASONS}


@pytest.mark.parametrize("reason", SITUATIONS)
def test_the_explanation_says_what_the_next_read_is_told(reason: Any, stage: Stage) -> None:
    entered: AbstractContextManager[tuple[Session, Any]] = contextmanager(SITUATIONS[reason])(stage)
    seen = Watcher()
    with entered as (session, statement), session:
        told = stage.cache.explain(session, statement)
        stage.cache.add_observer(seen)
        session.execute(statement).all()
        stage.cache.remove_observer(seen)
    (decision,) = seen.decisions
    assert (decision.decision, decision.reason) == ("miss" if reason in MISSES else "bypass", reason)
    assert (told.decision, told.reason, told.key) == (decision.decision, reason, decision.key)
    assert (told.changed, told.cause) == (decision.changed, decision.cause)
    words: Any = {**MISSES, **BYPASSES}[reason]
    changed = ", ".join(change.stamp for change in told.changed)
    assert told.advice == words.hit_if.format(changed=changed)
    lines = str(told).splitlines()
    assert f"  hit if      {told.advice}" in lines
    assert told.cause is not None or words.means in lines[0]


def test_that_a_writer_is_under_way_is_left_open_by_an_explanation_and_found_by_the_read(
    stage: Stage,
) -> None:
    stage.configured()
    seen = Watcher()
    with stage.writer(), stage.session() as session:
        told = stage.cache.explain(session, ONE)
        stage.cache.add_observer(seen)
        session.execute(ONE).all()
        stage.cache.remove_observer(seen)
    assert [decision.reason for decision in seen.decisions] == ["writer_under_way"]
    assert (told.decision, told.reason) == ("miss", "absent")
    assert [one for one in told.unknown if "writer_under_way" in one]
