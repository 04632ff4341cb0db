"""What a get is given: only a model and a key of the very types that are loaded can take the short way."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import inspect
from sqlalchemy.orm import aliased, load_only, scoped_session, sessionmaker

from sqlacache import DirectSession
from sqlacache.direct import ways

from .conftest import World
from .models import Person, Seat, Word

VERSION = tuple(int(part) for part in sqlalchemy.__version__.split(".")[:2])

ARGUMENTS: dict[str, dict[str, Any]] = {
    "options": {"options": [load_only(Person.id)]},
    "no-options": {"options": []},
    "populate_existing": {"populate_existing": True},
    "with_for_update": {"with_for_update": True},
    "with_for_update-false": {"with_for_update": False},
    "identity_token": {"identity_token": "shard"},
    "execution_options": {"execution_options": {"sqlacache_skip": True}},
}


@pytest.mark.parametrize("named", ARGUMENTS.values(), ids=ARGUMENTS)
def test_an_argument_beside_model_and_key_is_sqlalchemys(world: World, named: dict[str, Any]) -> None:
    world.warm(Person, 1)
    ways.clear()
    with world.session() as session, world.plain() as plain:
        made, loaded = session.get(Person, 1, **named), plain.get(Person, 1, **named)
        assert dict(ways) == {"arguments": 1}
        assert inspect(made).unloaded == inspect(loaded).unloaded
        assert inspect(made).key == inspect(loaded).key


def test_arguments_that_say_nothing_do_not_matter(world: World) -> None:
    world.warm(Person, 1)
    sessions = scoped_session(sessionmaker(world.engine, class_=DirectSession, future=True))
    ways.clear()
    sessions.get(Person, 1)
    sessions.remove()
    with world.session() as session:
        session.get(Person, 1, options=None, with_for_update=None, identity_token=None, execution_options={})
    assert dict(ways) == {"direct": 2}


class Ident(int):
    pass


KEYS: dict[str, tuple[Any, Any]] = {
    "text-for-a-number": (Person, "1"),
    "bool-for-a-number": (Person, True),
    "float-for-a-number": (Person, 1.0),
    "kind-of-a-number": (Person, Ident(1)),
    "list": (Person, [1]),
    "mapping": (Person, {"id": 1}),
    "list-of-several": (Seat, [1, "a"]),
    "mapping-of-several": (Seat, {"row": 1, "letter": "a"}),
    "number-for-a-text": (Seat, (1, 2)),
}


@pytest.mark.parametrize(("entity", "ident"), KEYS.values(), ids=KEYS)
def test_a_key_is_of_the_very_type_that_is_loaded(world: World, entity: Any, ident: Any) -> None:
    world.warm(Person, 1)
    world.warm(Seat, (1, "a"))
    for _ in range(3):
        ways.clear()
        with world.session() as session, world.plain() as plain:
            made, loaded = session.get(entity, ident), plain.get(entity, ident)
            assert dict(ways) == {"key": 1}
            assert (made is None) == (loaded is None)
            if made is not None:
                assert repr(inspect(made).key) == repr(inspect(loaded).key)


def test_a_tuple_of_one_is_the_key_as_well(world: World) -> None:
    world.warm(Person, 1)
    ways.clear()
    with world.session() as session:
        assert session.get(Person, (1,)).name == "Ann"
    assert dict(ways) == {"direct": 1}


WRONG: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "no-key": ((Person,), {}),
    "too-many-values": ((Person, (1, 2)), {}),
    "too-few-values": ((Seat, 1), {}),
    "no-values": ((Person, ()), {}),
    "a-number-of-a-thousand-digits": ((Person, 10**999), {}),
    "half-a-character": ((Word, "\ud800"), {}),
    "no-model": ((object, 1), {}),
    "nothing": ((None, 1), {}),
    "does-not-hash": (([], 1), {}),
    "an-alias": ((aliased(Person), 1), {}),
    "names-that-are-not-the-keys": ((Person, {"name": 1}), {}),
    "unknown-argument": ((Person, 1), {"nonsense": None}),
    "another-unknown-argument": ((Person, 1), {"nonsense": 1}),
}


@pytest.mark.parametrize(("given", "named"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_as_ever(
    world: World, given: tuple[Any, ...], named: dict[str, Any]
) -> None:
    world.warm(Person, 1)
    world.warm(Seat, (1, "a"))
    world.warm(Word, "one")
    told = []
    for session in (world.session(), world.plain()):
        with session, pytest.raises(Exception) as refused:
            session.get(*given, **named)
        told.append((type(refused.value), str(refused.value).replace("DirectSession", "Session")))
    assert told[0] == told[1]
