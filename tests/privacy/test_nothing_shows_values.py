"""Marked values are put everywhere; then everything that leaves the process but the rows themselves is searched."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import selectinload

from sqlacache import CacheError
from tests.support.processes import until
from tests.support.redis_server import RedisServer

from .conftest import Application
from .people import Person, Seat, Ticket

pytestmark = pytest.mark.integration

NAME = "zqmarker"
EMAIL = f"{NAME}@example.com"
NUMBER = 987_123_456
SECRETS = (NAME, str(NUMBER))


class Told:
    """What was told to whom, as text."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}

    def add(self, where: str, *texts: object) -> None:
        self.texts.setdefault(where, []).extend(map(str, texts))

    def found_in(self) -> set[str]:
        """Return where a secret shows."""
        return {
            where
            for where, texts in self.texts.items()
            if any(secret in one for one in texts for secret in SECRETS)
        }


class Traces:
    """Spans of one application."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.registry = CollectorRegistry()

    @property
    def telemetry(self) -> dict[str, Any]:
        return {"tracer_provider": self.provider, "registry": self.registry, "query_text": True}

    def add_to(self, told: Told) -> None:
        for span in self.exporter.get_finished_spans():
            kind = span.name.split()[0]
            told.add(f"span {kind}", span.to_json())
        told.add("metrics", generate_latest(self.registry).decode())


@contextmanager
def overheard(server: RedisServer, prefix: str, told: Told) -> Iterator[None]:
    """Listen to every channel of the prefix."""
    client = server.client()
    pubsub = client.pubsub()
    pubsub.psubscribe(f"{prefix}:*")
    until(lambda: (pubsub.get_message(timeout=0.01) or {}).get("type") == "psubscribe", "the subscription")
    going_on = [True]

    def listen() -> None:
        while going_on:
            message = pubsub.get_message(timeout=0.05)
            if message is not None and message["type"] == "pmessage":
                told.add("announcements", message["data"])

    thread = Thread(target=listen)
    thread.start()
    try:
        yield
    finally:
        until(lambda: told.texts.get("announcements"), "an announcement")
        going_on.clear()
        thread.join()
        pubsub.close()
        client.close()


def stored(server: RedisServer, prefix: str, told: Told) -> None:
    """Tell what is in Redis, but for the entries' own bytes."""
    client = server.client()
    for key in client.scan_iter(match=f"{prefix}:*", count=1000):
        kind = client.type(key)
        told.add("redis keys", key)
        if b":e:" in key:
            continue
        value = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"zset": lambda key: client.zrange(key, 0, -1),
        }
        told.add("redis values", value[kind](key))
    client.close()


def use(one: Application, other: Application, told: Told) -> list[str]:
    """Read and write the marked values in every way; return keys of entries."""
    with one.session() as session:
        session.add(Person(email=EMAIL, nick=NAME, age=NUMBER, active=True))
        session.add(Seat(hall=1, holder=EMAIL, row=NUMBER))
        session.add(Ticket(id=3, owner=EMAIL, code=NUMBER))
        session.commit()
    reads = (
        select(Person).where(Person.nick == NAME),
        select(Person.email).where(Person.email.in_([EMAIL, "ann@example.com"])),
        select(Person).where(Person.age == NUMBER),
        select(func.count()).select_from(Ticket).where(Ticket.code.in_([NUMBER, 5])),
        select(Seat).where(Seat.holder == EMAIL),
        select(Person, Ticket).join(Ticket, Ticket.owner == Person.email).where(Person.email == EMAIL),
        select(Person).where(Person.email == EMAIL).options(selectinload(Person.tickets)),
    )
    for _ in range(2):
        with one.cache.record() as seen, other.cache.record():
            for application in (one, other):
                application.get(Person, EMAIL)
                application.get(Seat, (1, EMAIL))
                for read in reads:
                    application.ask(read)
    keys = [decision.key for decision in seen.decisions if decision.key is not None]
    assert {decision.decision for decision in seen.decisions} == {"hit"}
    with one.session() as session:
        for read in reads:
            explain(told, one.cache.explain(session, read))
        explain(told, one.cache.explain_get(session, Person, EMAIL))
        explain(told, one.cache.explain_get(session, Seat, (1, EMAIL)))
    with one.session() as session:  # by row, and in bulk
        person = session.get(Person, EMAIL)
        person.nick, person.age = f"{NAME}2", NUMBER + 1
        session.flush()
        session.execute(update(Ticket).where(Ticket.code == NUMBER).values(owner=EMAIL, code=NUMBER + 1))
        session.execute(update(Seat).where(Seat.holder == EMAIL).values(row=NUMBER + 1))
        session.commit()
    with other.session() as session:
        for read in reads:
            explain(told, other.cache.explain(session, read))
    for key in keys:
        explain(told, other.cache.explain_key(key))
    other.get(Person, EMAIL)
    for read in reads:
        other.ask(read)
    one.cache.invalidate(Person, pks=[EMAIL])
    one.cache.touched("seats", pks=[(1, EMAIL)])
    for wrong in (
        lambda: one.cache.invalidate(Ticket, pks=[EMAIL]),
        lambda: one.cache.touched("seats", pks=EMAIL),
    ):
        with pytest.raises(CacheError) as caught:
            wrong()
        told.add("errors", caught.value)
    return keys


def explain(told: Told, explanation: Any) -> None:
    told.add("explanations", explanation)
    told.add("explanations as data", json.dumps(explanation.to_dict()))


@pytest.mark.parametrize("exposed", [False, True], ids=["hidden", "exposed"])
def test_no_value_is_shown_anywhere_unless_values_are_exposed(
    exposed: bool,
    on_redis: Callable[..., Application],
    server: RedisServer,
    prefix: str,
    cli: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "sqlacache")
    told = Told()
    traces = Traces(), Traces()
    settings = {
        "expose_values": exposed,
        "digest_key": "a key of all workers",
        "debug": True,
        "history": 1000,
    }
    one = on_redis(telemetry=traces[0].telemetry, **settings)
    other = on_redis(telemetry=traces[1].telemetry, verify=1.0, **settings)
    one.cache.on_evict(lambda eviction: told.add("evictions", eviction))
    other.cache.on_evict(lambda eviction: told.add("evictions elsewhere", eviction))

    def fails(eviction: Any) -> None:
        raise LookupError(eviction.table)

    one.cache.on_evict(fails)
    key = {"SQLACACHE_DIGEST_KEY": settings["digest_key"]}
    with overheard(server, prefix, told):
        keys = use(one, other, told)
        for arguments in (
            ["touched", "people", "--pks", EMAIL],
            ["touched", "seats", "--pks", f"hall=1:holder={EMAIL}"],
            ["invalidate", "people", "--pks", EMAIL, "--json"],
            ["invalidate", "seats", "--pks", EMAIL],  # a key of two columns
        ):
            told.add("cli", cli(*arguments, **key)[1])
        for one_key in (*keys[:3], keys[-1]):
            told.add("cli", cli("explain", one_key)[1], cli("explain", one_key, "--json")[1])
        for command in ("stats", "health"):
            told.add("cli", cli(command)[1], cli(command, "--json")[1])
        stored(server, prefix, told)
        # A write past the hooks: what is verified is a mismatch, which is logged.
        other.get(Person, EMAIL)
        with other.engine.connect() as connection:
            raw = connection.connection.cursor()
            raw.execute("UPDATE people SET nick = 'zqmarker3' WHERE email = ?", (EMAIL,))
            connection.connection.commit()
        other.get(Person, EMAIL)
    until(lambda: "evictions elsewhere" in told.texts, "the other to hear of it")
    assert "sqlacache.verification.mismatch" in {getattr(each, "event", None) for each in caplog.records}
    for each in caplog.records:
        told.add("logs", each.getMessage(), each.__dict__)
    for trace in traces:
        trace.add_to(told)
    told.add("health", one.cache.health().to_dict(), repr(one.cache), one.cache.settings)
    looked_at = {
        "redis keys", "redis values", "announcements", "span sqlacache.lookup", "span sqlacache.invalidate",
        "span sqlacache.receive", "metrics", "logs", "explanations", "explanations as data", "evictions",
        "evictions elsewhere", "cli", "errors", "health",
    }  # fmt: skip
    assert set(told.texts) == looked_at
    never = {"span sqlacache.receive", "metrics", "errors", "health"}
    assert told.found_in() == (looked_at - never if exposed else set())
    assert settings["digest_key"] not in str(told.texts)


def test_a_statement_with_text_in_it_is_not_cached_and_shows_nothing(
    on_redis: Callable[..., Application],
) -> None:
    application = on_redis()
    with application.cache.record() as seen, application.session() as session:
        session.execute(text(f"SELECT * FROM people WHERE nick = '{NAME}'"))
        session.execute(text(f"/*by='{NAME}'*/ UPDATE people SET nick = '{NAME}'"))
        session.commit()
    assert NAME not in str(seen.decisions) + str(seen.invalidations)
    assert {one.statement for one in seen.invalidations} == {"SQL"}
