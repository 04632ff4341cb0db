"""A hit is a hit: whoever is told of reads is told the same of one that took the short way."""

from __future__ import annotations

import inspect as python_inspect
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

from sqlacache import DirectSession, Observer, configure_sync
from sqlacache.direct import ways
from sqlacache.direct_way import _shareable
from sqlacache.events import binding_of

from .conftest import World
from .models import Config, Person, Seat, Word

ITS_OWN = ("at", "lookup_seconds", "age", "site")


@pytest.mark.parametrize(
    ("entity", "ident"), [(Person, 1), (Person, 99), (Seat, (1, "a"))], ids=["one", "none", "two"]
)
def test_the_decision_is_the_same(world: World, entity: Any, ident: Any) -> None:
    world.warm(Person, 1)
    world.warm(entity, ident)
    told = []
    for kind, way in ((Session, {}), (DirectSession, {"direct": 1})):
        ways.clear()
        with world.cache.record() as seen, world.session(class_=kind) as session:
            session.get(entity, ident)
        assert dict(ways) == way
        [decision] = seen.decisions
        told.append(decision._replace(**dict.fromkeys(ITS_OWN)))
        assert 0 <= decision.lookup_seconds < 60
        assert decision.age is not None and decision.age >= 0
    assert told[0] == told[1]
    assert told[0].decision == "hit"


def test_an_observer_that_raises_harms_nobody(world: World) -> None:
    class Raising(Observer):
        def decided(self, decision: Any, scope: Any) -> None:
            raise RuntimeError("no")

    world.warm(Person, 1)
    world.cache.add_observer(Raising())
    ways.clear()
    with world.session() as session:
        assert session.get(Person, 1).name == "Ann"
    assert dict(ways) == {"direct": 1}
    assert world.cache.observers.errors["Raising"] == 1


@pytest.fixture
def debugged(world: World) -> Iterator[Any]:
    engine = create_engine(world.plain_engine.url, future=True)
    cache = configure_sync(
        models={"*": {"timeout": 3600}}, telemetry=None, name="debugged", debug=True, history=10
    )
    with cache.bound(engine):
        yield cache, sessionmaker(engine, class_=DirectSession, future=True)
    engine.dispose()


def test_with_debug_the_line_that_asked_is_known(debugged: Any) -> None:
    cache, sessions = debugged
    for _ in range(3):
        with cache.record() as seen, sessions() as session:
            session.get(Person, 1)
            line = python_inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]  # CPython has frames
    [decision] = seen.decisions
    assert ways["direct"] == 1
    assert (decision.site.file, decision.site.line) == (__file__, line)
    assert decision.parameters == {"pk_1": "<int>"}
    assert cache.history.decisions[-1] == decision


def test_an_entry_that_is_used_stays_when_room_is_wanted(world: World) -> None:
    world.warm(Word, "one")
    store: Any = binding_of(world.engine.dialect).store  # type: ignore[union-attr]  # it is bound
    world.warm(Person, 1)
    world.warm(Person, 2)
    with world.session() as session:
        assert session.why_not_direct(Person, 1) is None
        session.get(Person, 1)
    assert list(store._entries)[-1].startswith("direct_people:get")
    last = list(store._entries)[-1]
    with world.session() as session:
        session.get(Word, "one")
    assert list(store._entries)[-1] != last


def test_a_shape_that_is_used_stays_when_room_is_wanted(world: World) -> None:
    world.warm(Person, 1)
    identifier: Any = binding_of(world.engine.dialect).reads.identifier  # type: ignore[union-attr]  # it is bound
    [plan] = [plan for plan in identifier._plans.values() if plan.tables == ("direct_people",)]
    before = plan.asked
    with world.session() as session:
        session.get(Person, 1)
    assert plan.asked > before


def test_asking_why_loads_nothing_and_counts_nothing(world: World) -> None:
    world.warm(Person, 1)
    ways.clear()
    with world.cache.record() as seen, world.session() as session:
        assert session.why_not_direct(Person, 1) is None
        assert session.why_not_direct(Person, 2).startswith("miss: ")
        assert not session.in_transaction()
        assert not list(session.identity_map)
    assert not seen.decisions
    assert not ways


@pytest.mark.parametrize(
    "value",
    [[1], {}, set(), bytearray(b"x"), (1, [2]), object(), Exception()],
    ids=lambda value: type(value).__name__,
)
def test_what_can_be_changed_in_place_is_not_shared(world: World, value: Any) -> None:
    mapper, dialect = sqlalchemy.inspect(Person), world.engine.dialect
    assert _shareable(mapper, {"id": 1, "name": value}, dialect) is None
    assert _shareable(mapper, {"name": (1, "a", None, frozenset({b"x"}))}, dialect) is not None


def test_what_a_deserialiser_made_is_made_anew(world: World) -> None:
    with world.session() as session:
        session.add(Config(id=3, value=5))
        session.commit()
    world.warm(Config, 3)
    with world.session() as session:
        assert session.why_not_direct(Config, 3).startswith("values: ")
        assert session.get(Config, 3).value == 5
