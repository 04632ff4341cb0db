"""Ways in which a session with a ``get_bind()`` of its own was not left as it was.

SQLAlchemy documents sessions that override ``get_bind(self, mapper=None, clause=None)``. A statement that a listener
invokes anew, as the cache does to load a miss, gives it more than that: every read was a ``TypeError``. Now they are
bypassed.

A session that picks a replica at random is asked twice:

1. The cache asks: replica A. It is a miss, under A's key.
2. SQLAlchemy asks, to load it: replica B, whose rows were stored under A's key,
3. and served to a session that asked for A, which may be another database altogether.

Now rows are stored only when they came from the engine that was asked for.

A sharded session was asked for its bind before it had chosen a shard: its ``shard_chooser`` was called without an
instance, and its error was that of every read. An INSERT's bind was asked for twice, too. Now nobody else asks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import create_engine, insert, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Session

import sqlacache
from sqlacache.decisions import Decision
from tests.support.models import Base, Tag

UNSYNCHRONISED = {"synchronize_session": False}


class Decisions(sqlacache.Observer):
    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def decided(self, decision: Decision, scope: Any) -> None:
        self.seen.append((decision.decision, decision.reason))


@pytest.fixture
def decisions() -> Decisions:
    return Decisions()


@pytest.fixture
def make_bound(tmp_path: Path, decisions: Decisions) -> Iterator[Callable[[str], Engine]]:
    """Make databases that hold one tag, which has the database's name, and bind them."""
    cache = sqlacache.configure_sync("mem://", {"*": {}}, telemetry=None, observers=[decisions])
    engines = []

    def make(name: str) -> Engine:
        engine = create_engine(f"sqlite:///{tmp_path / name}")
        engines.append(engine)
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Tag(id=1, name=name))
            session.commit()
        cache.bind(engine)
        return engine

    yield make
    cache.disconnect()
    for engine in engines:
        engine.dispose()


def test_a_session_with_the_documented_get_bind_is_bypassed_and_right(
    make_bound: Callable[[str], Engine], decisions: Decisions
) -> None:
    engine = make_bound("only")

    class Routing(Session):
        def get_bind(self, mapper: Any = None, clause: Any = None) -> Any:  # type: ignore[override]  # as documented
            return engine

    for _ in range(2):
        with Routing() as session:
            assert session.scalars(select(Tag.name)).all() == ["only"]
            tag = session.get(Tag, 1)
            assert tag is not None and tag.users == []
    assert set(decisions.seen) == {("bypass", "rewritten")}


def test_rows_of_a_replica_chosen_by_chance_are_not_taken_for_those_of_another(
    make_bound: Callable[[str], Engine], decisions: Decisions
) -> None:
    replicas = {name: make_bound(name) for name in ("a", "b")}
    chance = itertools.cycle(replicas)

    class Replicated(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, bind: Any = None, **kw: Any) -> Any:
            return bind if bind is not None else replicas[next(chance)]

    for _ in range(3):
        with Replicated() as session:
            assert session.scalars(select(Tag.name)).one() in replicas
    for name, engine in replicas.items():
        with Session(engine) as session:
            assert session.scalars(select(Tag.name)).all() == [name]
    assert ("miss", "absent") in decisions.seen


def test_a_sharded_session_asks_its_shards_and_is_asked_for_nothing(
    make_bound: Callable[[str], Engine], decisions: Decisions
) -> None:
    shards = {name: make_bound(name) for name in ("a", "b")}

    def shard_of(mapper: Any, instance: Any, clause: Any = None) -> Any:
        return (
            instance.name
        )  # as SQLAlchemy's example does: there is always an instance, or the statement says more

    chooser = {
        "execute_chooser": lambda context: list(shards),
        "identity_chooser": lambda *args, **kw: list(shards),
    }
    if sqlalchemy.__version__.startswith("1."):
        chooser["id_chooser"] = chooser.pop("identity_chooser")
    for _ in range(2):
        with ShardedSession(shard_chooser=shard_of, shards=shards, **chooser) as session:
            assert sorted(tag.name for tag in session.scalars(select(Tag)).all()) == ["a", "b"]
    assert set(decisions.seen) == {("bypass", "rewritten")}


def test_a_session_is_asked_for_the_bind_of_a_write_only_by_sqlalchemy(
    make_bound: Callable[[str], Engine],
) -> None:
    engine = make_bound("only")
    asked = []

    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **kw: Any) -> Any:
            asked.append(type(clause).__name__)
            return engine

    with Routing() as session:
        session.execute(insert(Tag).values(id=2, name="new"))
        session.execute(update(Tag).where(Tag.id == 2).values(name="newer"), execution_options=UNSYNCHRONISED)
    assert len(asked) == 2
