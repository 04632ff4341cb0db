"""Columns that are excluded: a read that uses one, in whatever way, is left to the database, and nothing is stored."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import case, column, exists, func, literal_column, select, table, union_all, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import aliased, defer, joinedload, load_only, selectinload, undefer

from sqlacache import ConfigError, configure_sync
from tests.support.redis_server import RedisServer

from .conftest import Application
from .people import Person, Seat, Ticket

EXCLUDE = {Person: {"exclude": {"secret"}}, Ticket: {"exclude": ["note"]}, "*": {"timeout": 60}}
SECRET = "xyzzy-secret"
other = aliased(Person)

USING = {
    "entity": select(Person),
    "column": select(Person.secret),
    "where": select(Person.nick).where(Person.secret == SECRET),
    "in": select(Person.nick).where(Person.secret.in_([SECRET, "s"])),
    "order": select(Person.nick).order_by(Person.secret),
    "group": select(func.count()).select_from(Person).group_by(Person.secret),
    "function": select(func.lower(Person.secret)),
    "case": select(case((Person.secret == "s", 1), else_=0)),
    "join": select(Ticket.id).join(Person, Person.secret == Ticket.owner),
    "alias": select(other.secret),
    "subquery": select(select(Person.secret.label("x")).subquery().c.x),
    "scalar": select(Ticket.id, select(Person.secret).where(Person.email == Ticket.owner).scalar_subquery()),
    "exists": select(Ticket.id).where(exists().where(Person.secret == Ticket.owner)),
    "union": union_all(select(Person.nick), select(Person.secret)),
    "core": select(Person.__table__),
    "core_column": select(Person.__table__.c.secret),
    "undeferred": select(Ticket).options(undefer(Ticket.note)),
    "attribute_called_otherwise": select(Ticket.__table__.c.remark),
    "joined": select(Ticket).options(joinedload(Ticket.person)),
}
NOT_USING = {
    "columns": select(Person.nick, Person.age),
    "loaded_only": select(Person).options(load_only(Person.nick)),
    "deferred": select(Person).options(defer(Person.secret)),
    "deferred_by_the_mapping": select(Ticket),
    "count": select(func.count()).select_from(Person),
    "other_table": select(Seat),
    "join": select(Ticket.id).join(Person, Person.email == Ticket.owner),
    "exists": select(exists().where(Person.nick == "ann")),
}


@pytest.fixture
def application(start: Callable[..., Application]) -> Application:
    return start(models=EXCLUDE)


@pytest.mark.parametrize("statement", USING.values(), ids=USING)
def test_a_read_that_uses_it_is_left_to_the_database(statement: Any, application: Application) -> None:
    for _ in range(2):
        with application.cache.record() as seen:
            application.ask(statement)
        assert {(one.decision, one.reason) for one in seen.decisions} == {("bypass", "opted_out")}
    with application.session() as session:
        told = application.cache.explain(session, statement)
        assert (told.decision, told.reason) == ("bypass", "opted_out")
        assert "is used, which the configuration excludes" in str(told)
        # Nor is it cached by force.
        application.cache.execute(session, statement)
        with application.cache.record() as seen:
            application.cache.execute(session, statement)
    assert seen.decisions[-1].reason == "opted_out"


@pytest.mark.parametrize("statement", NOT_USING.values(), ids=NOT_USING)
def test_a_read_that_does_not_use_it_is_cached(statement: Any, application: Application) -> None:
    application.ask(statement)
    assert application.decided(lambda: application.ask(statement)) == ("hit", None)


def test_rows_by_their_key_are_cached_where_the_column_is_deferred(application: Application) -> None:
    assert application.decided(lambda: application.get(Person, "ann@example.com")) == ("bypass", "opted_out")
    application.get(Ticket, 1)
    assert application.decided(lambda: application.get(Ticket, 1)) == ("hit", None)
    with application.session() as session:
        ticket = session.get(Ticket, 1)
        with application.cache.record() as seen:
            assert ticket.note is None  # loads it alone
    assert {one.reason for one in seen.decisions} <= {"opted_out", "refresh"}  # the latter on SQLAlchemy 1.4
    assert [one.decision for one in seen.decisions] == ["bypass"]


def test_relationships_are_left_to_the_database_where_what_they_load_uses_it(
    application: Application,
) -> None:
    for _ in range(2):
        with application.session() as session:
            ticket = session.get(Ticket, 1)
            with application.cache.record() as seen:
                assert ticket.person.nick == "ann"
                assert [one.id for one in ticket.person.tickets] == [1]
        reasons = [one.reason for one in seen.decisions]
    assert reasons == ["opted_out", None]
    eager = select(Person).options(defer(Person.secret), selectinload(Person.tickets))
    application.ask(eager)
    with application.cache.record() as seen:
        application.ask(eager)
    assert [one.decision for one in seen.decisions] == ["hit", "hit"]


def test_text_and_views_of_such_a_table_are_left_to_the_database(start: Callable[..., Application]) -> None:
    application = start(models=EXCLUDE, depends_on={"nicks": ["people"]})
    with application.engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW nicks AS SELECT nick FROM people")
    view = table("nicks", column("nick"))
    by_hand = {"sqlacache_depends_on": ["people"], "sqlacache_force": True}
    for statement, options in (
        (select(literal_column("secret")).select_from(Person), by_hand),
        (select(literal_column("secret")).select_from(table("vault")), by_hand),
        (select(view.c.nick), {"sqlacache_force": True}),
    ):
        with application.cache.record() as seen, application.session() as session:
            with suppress(OperationalError):  # there is no vault
                session.execute(statement, execution_options=options)
        assert seen.decisions[-1].reason == "opted_out"


@pytest.mark.integration
def test_nothing_of_it_reaches_redis(
    on_redis: Callable[..., Application], server: RedisServer, prefix: str
) -> None:
    application = on_redis(models=EXCLUDE, expose_values=True)
    for statement in (*USING.values(), *NOT_USING.values()):
        application.ask(statement)
    with application.session() as session:
        session.execute(update(Person).where(Person.nick == "ann").values(secret=SECRET))
        session.get(Person, "bob@example.com").secret = SECRET
        session.commit()
    for statement in (*USING.values(), *NOT_USING.values()):
        application.ask(statement)
    client = server.client()
    dumped = [key + (client.dump(key) or b"") for key in client.scan_iter(match=f"{prefix}:*", count=1000)]
    client.close()
    assert any(b":e:" in one for one in dumped)  # reads that do not use it are there
    assert not any(SECRET.encode() in one or b"?secret" in one for one in dumped)


def test_what_is_written_to_it_evicts_nothing_of_what_does_not_use_it(application: Application) -> None:
    names = NOT_USING["columns"]
    application.ask(names)
    with application.session() as session:
        session.get(Person, "ann@example.com").secret = SECRET
        session.commit()
    assert application.decided(lambda: application.ask(names)) == ("hit", None)


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (
            {Person: {"exclude": {"sekret"}}},
            r"\[Person\]\['exclude'\]: takes columns of Person \(active, age, email, nick, secret\), got 'sekret'$",
        ),
        (
            {Person: {"exclude": "secret"}},
            r"models\[Person\]\['exclude'\]: takes a collection of names, got 'secret'",
        ),
        (
            {Person: {"exclude": {"email"}}},
            r"'email' is a part of the primary key, .* give None for the class",
        ),
        (
            {"*": {"exclude": {"sekret"}}},
            r"models\['\*'\]\['exclude'\]: takes columns of mapped classes \(.*secret.*\), got 'sekret'",
        ),
        (
            {"tests.privacy.people.Ticket": {"exclude": {"notes"}}},
            r"\['tests.privacy.people.Ticket'\]\['exclude'\]: takes columns of Ticket \(.*note.*remark\), got 'notes'",
        ),
    ],
    ids=["unknown", "text", "key", "any", "path"],
)
def test_what_cannot_be_excluded_is_an_error(
    models: Any, said: str, start: Callable[..., Application]
) -> None:
    with pytest.raises(ConfigError, match=said):
        start(models=models)


def test_a_column_is_excluded_for_everybody_who_reads_its_table(start: Callable[..., Application]) -> None:
    application = start(models={"*": {"exclude": {"secret"}}, Person: {"timeout": 5}})
    assert application.decided(lambda: application.ask(USING["column"])) == ("bypass", "opted_out")
    application.ask(NOT_USING["columns"])
    assert application.decided(lambda: application.ask(NOT_USING["columns"])) == ("hit", None)
    assert configure_sync(models={"*": {"exclude": ()}}, telemetry=None).settings.models == {
        "*": {"exclude": ()}
    }
