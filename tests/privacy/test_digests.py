"""How values appear in names: which are shown, what a digest is made of, and that both ways come to the same one."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import (
    Boolean,
    Column,
    Date,
    Enum,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from sqlacache import ConfigError, configure_sync
from sqlacache.canonical import Private, canonicaliser, escaped
from sqlacache.digests import EXPOSED, LEAST_KEY, Digests
from sqlacache.store.layout import scheme_of, spoken
from sqlacache.store.records import decode_shape, encode_shape
from sqlacache.tags import Shape, is_key, touch
from sqlacache.write.dml import Change, RowChange

from .conftest import Application
from .people import Person, Seat, Ticket

HIDING = Digests("app")
LEAP_DAY = datetime.date(2024, 2, 29)
KEYED = Digests("app", "a key of sixteen or more")

ROW = Shape("people", ("email",), None, keyed=True)
SEAT = Shape("seats", ("hall", "holder"), None, keyed=True)
NICK = Shape("people", ("nick",), frozenset({"email", "nick"}))
AGE = Shape("people", ("age", "team_id"), None)


def test_the_integers_of_a_primary_key_are_shown_and_nothing_else_is() -> None:
    conceal = HIDING.conceal
    assert conceal is not None
    ann, five = Private("ann"), "5"
    assert Shape("users", ("id",), None, keyed=True).tag(["42"], conceal) == "users:42"
    assert ROW.tag([ann], conceal) == f"people:{conceal('people', 'email', 'ann')}"
    assert SEAT.tag(["1", ann], conceal) == f"seats:1,{conceal('seats', 'holder', 'ann')}"
    assert NICK.tag([ann], conceal) == f"people(email,nick)?nick={conceal('people', 'nick', 'ann')}"
    digests = conceal("people", "age", five), conceal("people", "team_id", five)
    assert AGE.tag([five, five], conceal) == f"people?age={digests[0]}&team_id={digests[1]}"
    assert AGE.tag([five, "null"], conceal) == f"people?age={digests[0]}&team_id=null"
    assert digests[0] != digests[1]  # knowing one value of one column says nothing of others


def test_exposed_values_are_shown_as_they_are() -> None:
    assert EXPOSED.conceal is None
    assert ROW.tag([Private("ann")], EXPOSED.conceal) == ROW.tag(["ann"]) == "people:ann"


@pytest.mark.parametrize(
    ("type_", "value", "is_shown"),
    [
        (Integer(), 5, True),
        (SmallInteger(), 5, True),
        (postgresql.UUID(as_uuid=True), uuid.UUID(int=5), True),
        (String(10), "5", False),
        (Boolean(), True, False),
        (Enum("a", "b", name="letters"), "a", False),
        (Date(), LEAP_DAY, False),
    ],
    ids=["integer", "smallint", "uuid", "string", "boolean", "enum", "date"],
)
def test_integers_and_uuids_alone_may_be_shown(type_: Any, value: Any, is_shown: bool) -> None:
    column: Column[Any] = Column("id", type_)
    Table("t", MetaData(), column)
    text = canonicaliser(column, postgresql.dialect())
    assert text is not None
    assert isinstance(text(value), Private) is not is_shown
    assert not isinstance(text(None), Private)


def test_the_key_is_the_prefix_or_what_was_given() -> None:
    names = [
        digests.conceal("people", "email", "ann")  # type: ignore[misc]  # none of them is exposed
        for digests in (
            Digests("app"),
            Digests("app"),
            Digests("other"),
            Digests("app", "x" * 16),
            Digests("app", "y" * 16),
        )
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 4


def test_each_scheme_has_a_number_of_its_own_that_does_not_tell_its_key() -> None:
    schemes = [Digests("app").scheme, Digests("app", "x" * 16).scheme, Digests("b", "x" * 16).scheme]
    assert schemes[1] == schemes[2] != schemes[0]
    assert EXPOSED.scheme == Digests("app", "x" * 16, exposed=True).scheme == 0
    for scheme in (*schemes, 1, 2**40 - 1, 0):
        assert scheme_of(spoken(1, scheme), 1) == scheme
        assert scheme_of(spoken(2, scheme), 1) is None
    assert spoken(1, 0) == 1  # as it was released


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.sampled_from([HIDING, KEYED]))
def test_a_digest_is_bounded_and_of_harmless_characters(value: str, digests: Digests) -> None:
    assert digests.conceal is not None
    name = ROW.tag([Private(escaped(value))], digests.conceal)
    digest = name.removeprefix("people:~")
    assert len(digest) == 24 and set(digest) <= set("0123456789abcdef")
    assert is_key(name)


def test_two_values_with_one_digest_widen_an_eviction_and_narrow_none() -> None:
    def colliding(table: str, column: str, text: str) -> str:
        return "~same"

    shapes = {"people": (ROW, NICK)}
    keys = {"people": ("email",)}
    row = RowChange(
        {"email": Private("ann"), "nick": Private("a")}, {"email": Private("ann"), "nick": Private("b")}
    )
    change = Change("people", "update", frozenset({"nick"}), (row,), "row_update", "")
    names = touch([change], shapes, keys, colliding)["people"].names()
    assert names == ["people:~same", "people(email,nick)?nick=~same"]


def test_a_registered_shape_tells_which_columns_are_shown_and_may_not_tell_it() -> None:
    shape = Shape("seats", ("hall", "holder"), None, keyed=True, shown=(True, False))
    assert decode_shape(encode_shape(shape)) == shape == SEAT
    assert decode_shape(encode_shape(shape)).shown == (True, False)
    assert decode_shape(encode_shape(SEAT)).shown == ()


READS = {
    "key": lambda one: one.get(Person, "ann@example.com"),
    "composite": lambda one: one.get(Seat, (1, "ann@example.com")),
    "string": lambda one: one.ask(select(Person.nick).where(Person.nick == "ann")),
    "in": lambda one: one.ask(select(Person.nick).where(Person.nick.in_(["ann", "bob"]))),
    "integer": lambda one: one.ask(select(Ticket.code).where(Ticket.code == 1234)),
    "boolean": lambda one: one.ask(select(Person.nick).where(Person.active.is_(True))),
    "null": lambda one: one.ask(select(Ticket.id).where(Ticket.note.is_(None))),
    "reference": lambda one: one.ask(select(Ticket.id).where(Ticket.owner == "ann@example.com")),
}
WRITES = {
    "key": update(Person).where(Person.email == "ann@example.com").values(nick="ann"),
    "composite": update(Seat).where(Seat.hall == 1, Seat.holder == "ann@example.com").values(row=8),
    "string": update(Person).where(Person.email == "ann@example.com").values(nick="x"),
    "in": update(Person).where(Person.email == "bob@example.com").values(nick="x"),
    "integer": update(Ticket).where(Ticket.id == 1).values(code=1),
    "boolean": update(Person).where(Person.email == "ann@example.com").values(active=False),
    "null": update(Ticket).where(Ticket.id == 1).values(note="x"),
    "reference": update(Ticket).where(Ticket.id == 1).values(owner=None),
}
OTHERS = {
    "key": update(Person).where(Person.email == "bob@example.com").values(nick="y"),
    "composite": update(Seat).where(Seat.hall == 2, Seat.holder == "ann@example.com").values(row=8),
    "string": update(Person).where(Person.email == "bob@example.com").values(nick="y"),
    "integer": update(Ticket).where(Ticket.id == 2).values(code=1),
    "reference": update(Ticket).where(Ticket.id == 2).values(owner=None),
}


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize(
    "options", [{}, {"digest_key": "x" * 16}, {"expose_values": True}], ids=["", "key", "exposed"]
)
def test_what_a_commit_changed_is_evicted_and_no_more(
    kind: str, options: dict[str, Any], start: Callable[..., Application]
) -> None:
    one = start(**options)
    read = READS[kind]
    read(one)
    for statement in (OTHERS.get(kind), WRITES[kind]):
        if statement is None:
            continue
        assert one.decided(lambda: read(one))[0] == "hit"
        with one.session() as session:
            session.execute(statement, execution_options={"synchronize_session": False})
            session.commit()
        kept = "hit" if statement is not WRITES[kind] else "miss"
        assert one.decided(lambda: read(one))[0] == kept
    assert one.decided(lambda: read(one))[0] == "hit"


def test_values_given_by_a_person_find_what_they_are_about(start: Callable[..., Application]) -> None:
    one = start()
    one.get(Person, "ann@example.com")
    one.get(Seat, (1, "ann@example.com"))
    with one.cache.record() as seen:
        one.get(Person, "ann@example.com")
        seen.assert_hit(Person, "ann@example.com")
        one.get(Person, "bob@example.com")
        seen.assert_miss(Person, "bob@example.com")
        one.get(Seat, (1, "ann@example.com"))
        seen.assert_hit(Seat, (1, "ann@example.com"))
    assert one.cache.invalidate(Person, pks=["bob@example.com"]) == 1
    with one.session() as session:
        assert one.cache.explain_get(session, Person, "ann@example.com").decision == "hit"
        assert one.cache.explain_get(session, Person, "bob@example.com").reason == "manual_invalidated"
    assert one.cache.touched("seats", pks=[(1, "ann@example.com")]) == 1
    with one.session() as session:
        assert one.cache.explain_get(session, Seat, (1, "ann@example.com")).reason == "manual_invalidated"


def test_the_environment_has_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLACACHE_DIGEST_KEY", "x" * LEAST_KEY)
    cache = configure_sync(telemetry=None, digest_key="y" * LEAST_KEY)
    assert cache.settings.digests.scheme == Digests("sqlacache", "x" * LEAST_KEY).scheme
    assert "x" * LEAST_KEY not in repr(cache.settings)
    monkeypatch.setenv("SQLACACHE_DIGEST_KEY", "short-secret")
    with pytest.raises(ConfigError) as caught:
        configure_sync(telemetry=None)
    assert str(caught.value).startswith(
        "digest_key (from SQLACACHE_DIGEST_KEY): takes a secret text of 16 char"
    )
    assert "short-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"digest_key": "fifteen-letters"}, "digest_key: takes a secret text .* got 15 characters"),
        ({"digest_key": b"bytes of a key, long"}, "digest_key: .* got bytes"),
        ({"expose_values": "yes"}, "expose_values: takes True or False, got 'yes'"),
    ],
    ids=["short", "bytes", "word"],
)
def test_a_wrong_setting_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        configure_sync(telemetry=None, **given)


def test_the_keys_of_entries_are_digests_under_the_same_key(start: Callable[..., Application]) -> None:
    keys = set()
    for options in ({}, {"digest_key": "x" * 16}, {"digest_key": "y" * 16}, {"expose_values": True}):
        one = start(**options)
        with one.cache.record() as seen:
            one.ask(select(Person.nick).where(Person.nick == "ann"))
        keys.add(seen.decisions[-1].key)
        one.close()
    assert len(keys) == 4  # without the key, nobody can say which value an entry is of


def test_sqlite_dates_are_values_like_others() -> None:
    column: Column[Any] = Column("day", Date())
    Table("t", MetaData(), column)
    text = canonicaliser(column, sqlite.dialect())
    assert text is not None
    assert isinstance(text(LEAP_DAY), Private)
