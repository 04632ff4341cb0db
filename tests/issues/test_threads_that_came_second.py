"""A cache for one event loop never had two callers between two lines; threads are.

1. Two threads asked for the first time what is mapped. One had noted which mappers there are and was still at sorting
   them by table. The other found nothing new and took what was there: nothing. Its read's table was mapped by nobody,
   and so that it stayed uncached was remembered.
2. Two threads registered a shape of the same table. Both found what was known of its registry out of date; one deleted
   it; the other's deletion raised ``KeyError`` out of a read.
3. The engine was bound while threads worked with it. Those that held a connection were counted. Another took one,
   wrote and began its COMMIT, before it was listened to. A reader stored what was before; then the COMMIT landed.
4. Two threads had a hit for the first time. Both made an engine to replay it on. One lent its session a connection of
   its own; the other put its engine in the place of the first, on which the session was then told to execute: it had no
   connection there, and the read raised.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.orm import Session

from sqlacache import configure_sync
from sqlacache.models import Models
from sqlacache.read import path
from sqlacache.read.replay import lend, replay_engine
from sqlacache.store.breaker import Breaker
from sqlacache.store.layout import Layout
from sqlacache.store.redis_commit import Commits
from sqlacache.store.transport import Transport
from sqlacache.tags import Shape
from tests.support.databases import Database, SQLiteDatabases
from tests.support.fronts import SQLiteConnection
from tests.support.models import User
from tests.support.storm import restless
from tests.support.threads import in_thread


def both(work: Any) -> list[Any]:
    """Let two threads do the same at the same time."""
    begin = threading.Barrier(2)

    def do() -> Any:
        begin.wait()
        return work()

    with ThreadPoolExecutor(2) as pool:
        return [thread.result() for thread in [pool.submit(do), pool.submit(do)]]


def test_two_threads_find_what_is_mapped() -> None:
    with restless():
        for _ in range(30):
            models = Models()
            for found in both(lambda models=models: models.mappers(User.__table__)):
                assert found


def test_two_threads_register_a_shape() -> None:
    transport = Transport("redis://127.0.0.1:1", timeout=1, options={}, breaker=Breaker())
    commits = Commits(transport, Layout("prefix", "database"), lease=30)
    shape = Shape("users", (), ("name",))

    class Forgetful(dict[str, Any]):
        """What another thread deletes in between."""

        def get(self, *key: Any) -> Any:
            found = super().get(*key)
            self.clear()
            return found

    commits._shapes = Forgetful(users=(b"revision", ()))
    commits.registered([shape])
    assert not commits._shapes


async def test_two_threads_make_the_engine_that_hits_are_replayed_on(
    sqlite_databases: SQLiteDatabases, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sqlite_databases.fresh() as url:
        database = Database(url, "sync")
        await in_thread(_hit_for_the_first_time, database.engine.sync_engine, monkeypatch)
        await database.dispose()


def _hit_for_the_first_time(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = configure_sync(models={"*": {"timeout": 3600}}, telemetry=None)
    made, lent = threading.Barrier(2, timeout=20), threading.Barrier(2, timeout=20)

    def make(of: Any) -> Any:
        made.wait()
        return replay_engine(of)

    def lend_slowly(*given: Any) -> None:
        lend(*given)
        lent.wait()

    def name() -> Any:
        with Session(engine) as session:
            return session.execute(select(User.name).where(User.id == 1)).scalar()

    with cache.bound(engine):
        assert name() == "ann"
        monkeypatch.setattr(path, "replay_engine", make)
        monkeypatch.setattr(path, "lend", lend_slowly)
        with cache.record() as seen:
            assert both(name) == ["ann", "ann"]
    assert [decision.decision for decision in seen] == ["hit", "hit"]


async def test_a_thread_writes_while_the_engine_is_being_bound(
    sqlite_databases: SQLiteDatabases, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sqlite_databases.fresh() as url:
        database = Database(url, "sync")
        await in_thread(_written_while_being_bound, database.engine.sync_engine, monkeypatch)
        await database.dispose()


def _written_while_being_bound(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = configure_sync(models={"*": {"timeout": 3600}}, telemetry=None)
    listen, commit = event.listen, SQLiteConnection.commit
    at_commit, go_on = threading.Event(), threading.Event()

    def held(connection: SQLiteConnection) -> None:
        at_commit.set()
        assert go_on.wait(20)
        commit(connection)

    def write() -> None:
        with Session(engine) as session:
            session.execute(update(User).where(User.id == 1).values(name="zed"))
            session.commit()

    def name() -> Any:
        with Session(engine) as session:
            return session.execute(select(User.name).where(User.id == 1)).scalar()

    def slowly(target: Any, event_name: str, *rest: Any, **options: Any) -> None:
        if target is engine and event_name == "checkout" and not writers:
            writers.append(pool.submit(write))
            assert at_commit.wait(20)
        listen(target, event_name, *rest, **options)

    writers: list[Any] = []
    monkeypatch.setattr(SQLiteConnection, "commit", held)
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(event, "listen", slowly)
        with cache.bound(engine):
            assert writers
            assert [name(), name()] == ["ann", "ann"]
            go_on.set()
            writers[0].result()
            assert name() == "zed"
