"""Whatever may make a get come out otherwise sends it through SQLAlchemy, and says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Column, Integer, String, create_engine, event, inspect, update
from sqlalchemy.orm import Session, declarative_base, relationship
from sqlalchemy.pool import SingletonThreadPool

from sqlacache import DirectSession, configure_sync
from sqlacache.direct import ways
from sqlacache.direct_way import REASONS
from sqlacache.events import binding_of
from sqlacache.write.dml import Change

from .conftest import World
from .models import Config, Person, Pet, Word

VERSION = tuple(int(part) for part in sqlalchemy.__version__.split(".")[:2])

Situation = Callable[[World], AbstractContextManager[Any]]
"""Gives a session (and perhaps what to get) in which the get of person 1 goes through SQLAlchemy."""


def _session(kind: type = DirectSession, **options: Any) -> Situation:
    return lambda world: world.session(class_=kind, **options)


class Executing(DirectSession):
    def execute(self, *arguments: Any, **named: Any) -> Any:
        return super().execute(*arguments, **named)


class Routing(DirectSession):
    def get_bind(self, *arguments: Any, **named: Any) -> Any:
        return super().get_bind(*arguments, **named)


class Behind(Session):
    def get(self, *arguments: Any, **named: Any) -> Any:
        return super().get(*arguments, **named)


class Mixed(DirectSession, Behind):
    pass


@contextmanager
def instance_method(world: World) -> Iterator[Any]:
    with world.session() as session:
        session.execute = lambda *given, **named: Session.execute(session, *given, **named)
        yield session


@contextmanager
def on_a_connection(world: World) -> Iterator[Any]:
    with world.engine.connect() as connection, world.session(bind=connection) as session:
        yield session


@contextmanager
def binds(world: World) -> Iterator[Any]:
    with world.session(binds={Pet: world.engine}) as session:
        yield session


@contextmanager
def translated(world: World) -> Iterator[Any]:
    with world.session(bind=world.engine.execution_options(schema_translate_map={"x": "y"})) as session:
        yield session


@contextmanager
def mode(world: World, mode: Any) -> Iterator[Any]:
    world.cache.set_mode(mode)
    with world.session() as session:
        yield session


@contextmanager
def bypassed(world: World) -> Iterator[Any]:
    with world.cache.bypassed(), world.session() as session:
        yield session


@contextmanager
def unbound(world: World) -> Iterator[Any]:
    world.cache.disconnect()
    with world.session() as session:
        yield session


def listening(name: str, target: Callable[[Any], Any] = lambda session: session) -> Situation:
    @contextmanager
    def situation(world: World) -> Iterator[Any]:
        with world.session() as session:
            on = target(session)
            listener = _listeners[name]
            event.listen(on, name, listener)
            try:
                yield session
            finally:
                event.remove(on, name, listener)

    return situation


_listeners: dict[str, Callable[..., None]] = {
    "do_orm_execute": lambda state: None,
    "after_begin": lambda session, transaction, connection: None,
    "loaded_as_persistent": lambda session, instance: None,
    "load": lambda target, context: None,
}


@contextmanager
def pending(world: World) -> Iterator[Any]:
    with world.session() as session:
        session.add(Word(text="new", count=0))
        yield session


@contextmanager
def changed(world: World) -> Iterator[Any]:
    with world.session() as session:
        session.word = session.get(Word, "one")
        session.word.count = 5
        yield session


@contextmanager
def being_deleted(world: World) -> Iterator[Any]:
    with world.session() as session:
        session.delete(session.get(Word, "one"))
        yield session


@contextmanager
def wrote(world: World) -> Iterator[Any]:
    with world.session() as session:
        session.execute(
            update(Person).where(Person.id == 1).values(name="mine"),
            execution_options={"synchronize_session": False},
        )
        yield session


@contextmanager
def has_it(world: World) -> Iterator[Any]:
    with world.session() as session:
        session.kept = session.get(Person, 1)
        yield session


@contextmanager
def has_it_expired(world: World) -> Iterator[Any]:
    with world.session() as session:
        session.kept = session.get(Person, 1)
        session.expire(session.kept)
        yield session


@contextmanager
def owing(world: World) -> Iterator[Any]:
    binding: Any = binding_of(world.engine.dialect)
    change = Change.of_everything("another process")
    binding.owed.hold([change])
    with world.session() as session:
        yield session
    binding.owed.release([change])


@contextmanager
def strict(world: World) -> Iterator[Any]:
    with world.session(bind=world.engine.execution_options(isolation_level="READ UNCOMMITTED")) as session:
        yield session


SITUATIONS: dict[str, tuple[str, Situation]] = {
    "execute-overridden": ("session", _session(Executing)),
    "get_bind-overridden": ("session", _session(Routing)),
    "get-of-a-mixin-behind": ("session", _session(Mixed)),
    "method-of-the-instance": ("session", instance_method),
    "connection": ("bind", on_a_connection),
    "binds": ("bind", binds),
    "not-bound": ("bind", unbound),
    "schema_translate_map": ("bypass", translated),
    "isolation": ("bypass", strict),
    "shadow": ("mode", lambda world: mode(world, "shadow")),
    "write_only": ("mode", lambda world: mode(world, "write_only")),
    "off": ("mode", lambda world: mode(world, "off")),
    "bypassed": ("mode", bypassed),
    "do_orm_execute-of-the-session": ("listeners", listening("do_orm_execute")),
    "do_orm_execute-of-the-class": ("listeners", listening("do_orm_execute", lambda session: DirectSession)),
    "do_orm_execute-of-every-session": ("listeners", listening("do_orm_execute", lambda session: Session)),
    "after_begin": ("listeners", listening("after_begin")),
    "loaded_as_persistent": ("listeners", listening("loaded_as_persistent")),
    "load-of-the-model": ("listeners", listening("load", lambda session: Person)),
    "load-of-every-model": ("listeners", listening("load", lambda session: sqlalchemy.orm.Mapper)),
    "pending": ("transaction", pending),
    "changed": ("transaction", changed),
    "being-deleted": ("transaction", being_deleted),
    "wrote": ("bypass", wrote),
    "has-it": ("held", has_it),
    "has-it-expired": ("held", has_it_expired),
    "owed": ("bypass", owing),
}


@pytest.mark.parametrize(("reason", "situation"), SITUATIONS.values(), ids=SITUATIONS)
def test_the_long_way_is_gone(world: World, reason: str, situation: Situation) -> None:
    world.warm(Word, "one")
    world.warm(Person, 1)
    with world.session() as session:
        assert session.why_not_direct(Person, 1) is None, "else nothing is shown"
    with situation(world) as session:
        told = session.why_not_direct(Person, 1)
        assert told is not None and told.startswith(f"{reason}: ")
        ways.clear()
        found = session.get(Person, 1)
        assert dict(ways) == {reason: 1}
        assert found.name == ("mine" if situation is wrote else "Ann")
        assert found is getattr(session, "kept", found)
        session.rollback()


def test_what_was_only_for_the_time_being_is_over_afterwards(world: World) -> None:
    world.warm(Person, 1)
    with listening("load", lambda session: Person)(world) as session:
        assert session.why_not_direct(Person, 1) is not None
    world.cache.set_mode("write_only")
    world.cache.set_mode("on")
    with pending(world) as session:
        session.rollback()
        assert session.why_not_direct(Person, 1) is None
        session.get(Person, 1)
        assert ways["direct"]


def _refusals(world: World, get: Callable[[Any], Any]) -> list[Any]:
    told = []
    for open_session in (world.session, world.plain):
        with pytest.raises(Exception) as refused:
            get(open_session)
        told.append((type(refused.value), str(refused.value)))
    return told


@pytest.mark.skipif(VERSION < (2, 0), reason="since 2.0")
def test_a_session_that_does_not_begin_by_itself_is_refused(world: World) -> None:
    world.warm(Person, 1)
    ours, theirs = _refusals(world, lambda open_session: open_session(autobegin=False).get(Person, 1))
    assert ours == theirs
    with world.session(autobegin=False) as session, session.begin():
        ways.clear()
        session.get(Person, 1)
        assert dict(ways) == {"direct": 1}


@pytest.mark.skipif(VERSION < (2, 0), reason="since 2.0.22")
def test_a_session_that_is_closed_for_good_is_refused(world: World) -> None:
    world.warm(Person, 1)

    def get(open_session: Any) -> Any:
        session = open_session(close_resets_only=False)
        session.close()
        return session.get(Person, 1)

    ours, theirs = _refusals(world, get)
    assert ours == theirs


def test_a_transaction_that_failed_is_refused(world: World) -> None:
    world.warm(Person, 1)

    def get(open_session: Any) -> Any:
        with open_session() as session:
            session.add(Word(text="one", count=1))
            with pytest.raises(sqlalchemy.exc.IntegrityError):
                session.flush()
            return session.get(Person, 1)

    ours, theirs = _refusals(world, get)
    assert ours == theirs
    assert ours[0] is sqlalchemy.exc.PendingRollbackError


def test_a_connection_that_was_lost_is_refused_as_ever(world: World) -> None:
    world.warm(Person, 1)
    told = []
    for kind in (DirectSession, Session):
        with world.session(class_=kind) as session:
            session.get(Pet, 1)
            session.connection().invalidate()
            if kind is DirectSession:
                assert session.why_not_direct(Person, 1).startswith("transaction: ")
            with pytest.raises(sqlalchemy.exc.PendingRollbackError) as refused:
                session.get(Person, 1)
            told.append(str(refused.value))
            session.rollback()
            assert session.get(Person, 1).name == "Ann"
    assert told[0] == told[1]


def test_inside_of_a_flush_sqlalchemy_answers(world: World) -> None:
    world.warm(Person, 1)
    with world.session() as session:
        told = []

        @event.listens_for(session, "after_flush_postexec")
        def ask(session: Any, context: Any) -> None:
            told.append(session.why_not_direct(Person, 1))

        session.add(Pet(id=9, name="x"))
        session.flush()
        assert told[0].startswith("transaction: ")


def test_a_model_that_gets_another_relationship_is_learned_again(world: World) -> None:
    base: Any = declarative_base()

    class Late(base):  # type: ignore[misc]  # made at run time
        __tablename__ = "words"
        text = Column(String(20), primary_key=True)
        count = Column(Integer)

    world.warm(Late, "one")
    with world.session() as session:
        assert session.why_not_direct(Late, "one") is None
        Late.same = relationship(
            Late,
            primaryjoin=Late.text == sqlalchemy.orm.remote(sqlalchemy.orm.foreign(Late.text)),
            viewonly=True,
            lazy="selectin",
        )
        assert session.why_not_direct(Late, "one").startswith("new: ")
        session.get(Late, "one")
    with world.session() as session:
        assert session.why_not_direct(Late, "one").startswith("model: ")


def test_a_key_that_the_database_spells_otherwise_stays_sqlalchemys(world: World) -> None:
    base: Any = declarative_base()

    class Name(base):  # type: ignore[misc]  # made at run time
        __tablename__ = "names"
        text = Column(String(collation="NOCASE"), primary_key=True)

    for engine in (world.engine, world.plain_engine):
        base.metadata.create_all(engine)
        with Session(engine, future=True) as session:
            session.add(Name(text="Ann"))
            session.commit()
    world.warm(Name, "Ann")
    for _ in range(3):
        ways.clear()
        with world.session() as session, world.plain() as plain:
            assert (
                inspect(session.get(Name, "ANN")).key
                == inspect(plain.get(Name, "ANN")).key
                == (Name, ("Ann",), None)
            )
        assert "direct" not in ways


def test_two_models_of_one_table_get_objects_of_their_own(world: World) -> None:
    base: Any = declarative_base()

    class Other(base):  # type: ignore[misc]  # made at run time
        __tablename__ = "words"
        text = Column(String(20), primary_key=True)
        count = Column(Integer)

    for entity in (Word, Other, Word, Other):
        world.warm(entity, "one")
        with world.session() as session:
            assert session.why_not_direct(entity, "one") is None
            assert type(session.get(entity, "one")) is entity


def test_a_subclass_whose_get_calls_ours_keeps_the_short_way(world: World) -> None:
    class Counting(DirectSession):
        asked = 0

        def get(self, *arguments: Any, **named: Any) -> Any:
            Counting.asked += 1
            return super().get(*arguments, **named)

    world.warm(Person, 1)
    ways.clear()
    with world.session(class_=Counting) as session:
        assert session.get(Person, 1).name == "Ann"
    assert (Counting.asked, dict(ways)) == (1, {"direct": 1})


def test_an_object_with_a_value_that_can_be_changed_is_never_shared(world: World) -> None:
    world.warm(Config, 1)
    for _ in range(3):
        with world.session() as session:
            assert session.why_not_direct(Config, 1).startswith("values: ")
            found = session.get(Config, 1)
            assert found.value == {"a": [1]}
            found.value["a"].append(2)


@pytest.mark.parametrize("named", [{"verify": 1.0}, {"vary": lambda session: "x"}], ids=["verify", "vary"])
def test_caches_that_look_twice_do_not_answer_directly(world: World, named: dict[str, Any]) -> None:
    engine = create_engine(world.plain_engine.url, future=True)
    cache = configure_sync(models={"*": {"timeout": 3600}}, telemetry=None, name="other", **named)
    with cache.bound(engine):
        for _ in range(3):
            ways.clear()
            with world.session(bind=engine) as session:
                assert session.get(Person, 1).name == "Ann"
        assert dict(ways) == {"mode": 1}
    engine.dispose()


def test_a_database_for_each_thread_is_asked_by_each_thread() -> None:
    engine = create_engine("sqlite://", poolclass=SingletonThreadPool, future=True)
    Word.__table__.create(engine)
    cache = configure_sync(models={"*": {"timeout": 3600}}, telemetry=None, name="threads")
    with cache.bound(engine), Session(engine, future=True) as session:
        session.add(Word(text="one", count=1))
        session.commit()
        ways.clear()
        for _ in range(3):
            with DirectSession(engine, future=True) as direct:
                assert direct.get(Word, "one").count == 1
        assert dict(ways) == {"mode": 3}
    engine.dispose()


@pytest.mark.skipif(VERSION < (2, 1), reason="since 2.1")
def test_a_session_with_options_of_its_own_goes_the_long_way(world: World) -> None:
    world.warm(Person, 1)
    with world.session(execution_options={"sqlacache_skip": True}) as session:
        assert session.why_not_direct(Person, 1).startswith("session: ")
        assert session.get(Person, 1).name == "Ann"


def test_every_reason_is_of_the_closed_list() -> None:
    from sqlacache import direct_way

    told = {left.reason for left in vars(direct_way).values() if isinstance(left, direct_way.Left)}
    assert told <= set(REASONS)
