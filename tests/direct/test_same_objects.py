"""What the short way makes is what SQLAlchemy makes: the same object in the same state, that goes on the same."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, inspect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import object_session

from sqlacache.direct import ways

from .conftest import World
from .models import DIRECT, THROUGH, Document, Person, Pet, Reconstructed, Refusing, Seat, Versioned

CASES = [
    *(pytest.param(entity, key, "direct", id=name) for name, (entity, key) in DIRECT.items()),
    *(pytest.param(entity, key, way, id=name) for name, (entity, key, way) in THROUGH.items()),
]


def portrait(session: Any, found: Any) -> Any:
    """Everything that can be seen of an object and its session without touching them."""
    seen: dict[str, Any] = {
        "in_transaction": session.in_transaction(),
        "nested": session.in_nested_transaction(),
        "identity_map": sorted(session.identity_map.keys(), key=repr),
        "new": _text(list(session.new)),
        "dirty": _text(list(session.dirty)),
        "deleted": _text(list(session.deleted)),
    }
    if found is None:
        return seen
    state = inspect(found)
    values = {name: value for name, value in vars(found).items() if value is not state}
    of_state = {
        name: value
        for name, value in vars(state).items()
        if name not in ("session_id", "runid", "_instance_dict", "manager", "obj")
    }
    if isinstance(found, Reconstructed):
        assert values["fresh"] == []
    return {
        **seen,
        "class": type(found),
        "values": [(name, type(value), _text(value)) for name, value in values.items()],
        "state": {name: _text(value) for name, value in of_state.items()},
        "flags": [
            (name, getattr(state, name))
            for name in ("transient", "pending", "persistent", "deleted", "detached", "modified", "expired")
        ],
        "unloaded": state.unloaded,
        "expired_attributes": set(state.expired_attributes),
        "committed": _text(dict(state.committed_state)),
        "key": state.key,
        "key_types": [type(value) for value in state.key[1]],
        "identity": state.identity,
        "mapper": state.mapper,
        "load": (state.load_path.path, tuple(state.load_options)),
        "callables": _text(dict(state.callables or {})),
        "is_new_instance": state.insert_order,
        "session": object_session(found) is session and found in session,
        "map": session.identity_map.get(state.key) is found,
        "weak": state.obj() is found,
        "history": {
            attribute.key: _text(attribute.history)
            for attribute in state.attrs
            if attribute.key in vars(found)
        },
        "runid": isinstance(state.runid, int),
    }


def _text(value: Any) -> str:
    """A value without addresses."""
    return re.sub(r"0x[0-9a-f]+", "0x", repr(value))


@contextmanager
def sent(engine: Any) -> Iterator[list[Any]]:
    """The statements that reach a database."""
    statements: list[Any] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize(("entity", "key", "way"), CASES)
def test_an_object_is_in_the_same_state(world: World, entity: Any, key: Any, way: str) -> None:
    for one in (entity, key), next(case for case in DIRECT.values() if case[0] is Person), (entity, key):
        world.warm(*one)
    if (entity, key) == DIRECT["composite-key-not-there"]:
        world.warm(*DIRECT["composite-key"])
    for expire in (True, False):
        ways.clear()
        with world.session(expire_on_commit=expire) as ours, world.plain(expire_on_commit=expire) as theirs:
            made, loaded = ours.get(entity, key), theirs.get(entity, key)
            assert dict(ways) == {way: 1}
            assert portrait(ours, made) == portrait(theirs, loaded)
            assert ours.get(entity, key) is made


def test_a_get_that_loads_nothing_still_begins_a_transaction(world: World) -> None:
    world.warm(Person, 99)
    world.warm(Person, 1)
    world.warm(Person, 99)
    ways.clear()
    with world.session() as session:
        assert not session.in_transaction()
        assert session.get(Person, 99) is None
        assert session.in_transaction()
        assert dict(ways) == {"direct": 1}


DIRECT_OBJECTS = {name: case for name, case in DIRECT.items() if not name.endswith("not-there")}


def lazy(session: Any, found: Any) -> Any:
    return [
        (relation.key, repr([one.id for one in value] if isinstance(value, list) else value and value.id))
        for relation in inspect(type(found)).relationships
        for value in [getattr(found, relation.key)]
    ]


def deferred_columns(session: Any, found: Any) -> Any:
    told = {}
    for name in sorted(inspect(found).unloaded):
        try:
            told[name] = _text(getattr(found, name))
        except InvalidRequestError as error:  # raiseload
            told[name] = str(error)
    return told


def columns(found: Any) -> list[str]:
    attributes = inspect(type(found)).column_attrs
    return [one.key for one in attributes if not isinstance(found, Refusing) or one.key != "text"]


def refreshed(session: Any, found: Any) -> Any:
    session.refresh(found)


def expired(session: Any, found: Any) -> Any:
    session.expire(found)
    return [getattr(found, name) for name in columns(found)]


def committed(session: Any, found: Any) -> Any:
    session.commit()
    return [getattr(found, name) for name in columns(found)]


def rolled_back(session: Any, found: Any) -> Any:
    session.rollback()
    return [getattr(found, name) for name in columns(found)]


def in_savepoint(session: Any, found: Any) -> Any:
    with session.begin_nested():
        _change(found)
        session.flush()
    session.commit()


def savepoint_rolled_back(session: Any, found: Any) -> Any:
    nested = session.begin_nested()
    _change(found)
    session.flush()
    nested.rollback()
    return [getattr(found, name) for name in columns(found)]


def _change(found: Any) -> None:
    """Set columns of kinds that any value of them tells."""
    for name, value in (
        ("name", "new"),
        ("active", False),
        ("taken", None),
        ("count", 7),
        ("title", "new"),
        ("text", "new"),
    ):
        if hasattr(type(found), name) and not getattr(type(found), name).property.columns[0].primary_key:
            setattr(found, name, value)


def changed(session: Any, found: Any) -> Any:
    _change(found)
    seen = inspect(found).modified, found in session.dirty
    session.commit()
    return seen


def deleted(session: Any, found: Any) -> Any:
    if not isinstance(found, Person):
        session.delete(found)
        session.commit()
        return inspect(found).detached
    return None


def pickled(session: Any, found: Any) -> Any:
    copy = pickle.loads(pickle.dumps(found))
    state = inspect(copy)
    values = {name: value for name, value in vars(copy).items() if value is not state}
    merged = session.merge(copy, load=False)
    return values, state.detached, state.key, state.load_path.path, merged is found


def merged(session: Any, found: Any) -> Any:
    key = inspect(found).identity
    names = [column.key for column in inspect(type(found)).primary_key]
    return session.merge(type(found)(**dict(zip(names, key)))) is found


def expunged(session: Any, found: Any) -> Any:
    session.expunge(found)
    before = inspect(found).detached
    session.add(found)
    return before, inspect(found).persistent


def closed(session: Any, found: Any) -> Any:
    session.close()
    return inspect(found).detached, session.in_transaction(), list(session.identity_map.keys())


THEN: list[Callable[[Any, Any], Any]] = [
    lazy,
    deferred_columns,
    refreshed,
    expired,
    committed,
    rolled_back,
    in_savepoint,
    savepoint_rolled_back,
    changed,
    deleted,
    pickled,
    merged,
    expunged,
    closed,
]


@pytest.mark.parametrize("then", THEN, ids=[one.__name__ for one in THEN])
def test_an_object_goes_on_the_same(world: World, then: Callable[[Any, Any], Any]) -> None:
    for name, (entity, key) in DIRECT_OBJECTS.items():
        world.warm(entity, key)
        ways.clear()
        outcomes = []
        for open_session, engine in ((world.plain, world.plain_engine), (world.session, world.engine)):
            with open_session() as session:
                found = session.get(entity, key)
                with sent(engine) as statements:
                    told = then(session, found)
                after = portrait(session, found) if inspect(found).persistent else inspect(found).detached
                outcomes.append((told, after, writes(statements)))
        assert dict(ways) == {"direct": 1}, name
        assert outcomes[0] == outcomes[1], name


def writes(statements: list[Any]) -> list[Any]:
    return [one for one in statements if not one[0].startswith("SELECT")]


def test_two_gets_do_not_share_an_object(world: World) -> None:
    world.warm(Person, 1)
    ways.clear()
    with world.session() as one, world.session() as other:
        first, second = one.get(Person, 1), other.get(Person, 1)
        first.name = "changed"
        assert second.name == "Ann"
        assert dict(ways) == {"direct": 2}


def test_each_load_has_a_number_of_its_own(world: World) -> None:
    world.warm(Person, 1)
    world.warm(Pet, 1)
    with world.session() as session:
        one, other = session.get(Person, 1), session.get(Pet, 1)
        assert inspect(one).runid != inspect(other).runid


def test_what_is_changed_is_seen_by_the_next_get(world: World) -> None:
    world.warm(Seat, (1, "a"))
    world.write(Seat, (1, "a"), taken=False)
    with world.session() as session:
        assert session.get(Seat, (1, "a")).taken is False


def test_a_version_that_was_read_is_the_one_an_update_asks_for(world: World) -> None:
    world.warm(Versioned, 1)
    with world.session() as session:
        session.get(Versioned, 1).text = "mine"
        with sent(world.engine) as statements:
            session.commit()
    [(statement, parameters)] = writes(statements)
    assert "version" in statement.partition("WHERE")[2]
    assert parameters[-1] == 1


def test_a_deferred_column_is_loaded_when_it_is_asked_for(world: World) -> None:
    world.warm(Document, 1)
    with world.session() as session:
        found = session.get(Document, 1)
        assert {"body", "notes"} <= inspect(found).unloaded
        assert (found.body, found.notes) == ("b", "n")
