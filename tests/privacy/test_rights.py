"""SECURITY.md's users of Redis: they can do all that they are for, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import NoPermissionError
from sqlalchemy import select

from sqlacache.write.dml import Change
from sqlacache.write.phases import Commit
from tests.support.processes import until
from tests.support.programs import started
from tests.support.redis_server import Binary, RedisServer, binaries, redis_server

from .conftest import Application
from .people import Person, Ticket

pytestmark = pytest.mark.integration

SECURITY = (Path(__file__).resolve().parents[2] / "SECURITY.md").read_text(encoding="utf-8")


def acl(role: str) -> list[str]:
    """Return the words of a line of SECURITY.md."""
    found = re.search(rf"<!-- acl: {role} -->\n```\n(ACL SETUSER .*)\n```", SECURITY)
    assert found is not None
    return found[1].split()


@pytest.fixture(scope="module", params=binaries() or [None], ids=str)
def of_each_version(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of each version that is here, with the users."""
    binary: Binary | None = request.param
    with ExitStack() as stack:
        server = started(stack, redis_server(binary))
        for role in ("application", "looking"):
            _, _, user, *rights = acl(role)
            server.command("ACL SETUSER", user, *(f">{role}" if one[0] == ">" else one for one in rights))
        yield server


@pytest.fixture
def guarded(of_each_version: RedisServer) -> RedisServer:
    """An empty one."""
    of_each_version.command("FLUSHALL")
    return of_each_version


def url_of(server: RedisServer, user: str, password: str) -> str:
    return server.url.replace("://", f"://{user}:{password}@").replace("/0", "/1")


def called(server: RedisServer) -> set[str]:
    client = server.client()
    stats: Any = client.info("commandstats")
    client.close()
    return {name.removeprefix("cmdstat_").partition("|")[0] for name, of in stats.items() if of["calls"]}


def use_everything(one: Application, other: Application) -> None:
    ann = select(Person.nick).where(Person.nick == "ann")
    for application in (one, other):
        for _ in range(2):
            application.get(Person, "ann@example.com")
            application.ask(ann)
        assert application.decided(lambda application=application: application.ask(ann)) == ("hit", None)
    with one.session() as session:
        session.get(Person, "ann@example.com").nick = "anna"
        session.flush()
        session.commit()
    until(lambda: other.ask(ann) == [], "the other to hear of it")
    with one.session() as session:  # refused after phase one
        session.get(Ticket, 1).code = 1
        session.commit()
    one.cache.invalidate(Person, pks=["ann@example.com"])
    one.cache.invalidate_all()
    one.ask(ann)
    one.cache.set_mode("write_only", fleet=True, ttl=60)
    assert one.decided(lambda: one.ask(ann)) == ("bypass", "disabled")
    one.cache.set_mode("on", fleet=True)
    one.ask(ann)
    assert one.cache.purge(Person) >= 1
    with one.cache.record() as seen:
        one.ask(select(Person.age))
    assert [decision.fill for decision in seen.decisions] == ["stored"]


def test_the_application_can_do_all_it_does_and_nothing_else(
    guarded: RedisServer, start: Callable[..., Application]
) -> None:
    guarded.command("CONFIG RESETSTAT")
    backend = {"url": url_of(guarded, "shop", "application"), "timeout": 5.0, "bound": 0.4}
    one = start(backend=backend, prefix="shop")
    other = start(backend=backend, prefix="shop", local="pushed")
    evicted: list[Any] = []
    other.cache.on_evict(evicted.append)
    use_everything(one, other)
    for application in (one, other):
        assert application.cache.health().status == "ok"
    assert evicted
    granted = {word[1:] for word in acl("application") if word[0] == "+"}
    assert granted - called(guarded) == set()  # nothing that nobody needs
    client = guarded.client(db=1, username="shop", password="application")
    for command in (
        ["GET", "another:key"],
        ["SET", "another:key", "x"],
        ["FLUSHALL"],
        ["CONFIG", "GET", "*"],
        ["KEYS", "*"],
        ["PUBLISH", "another", "x"],
        ["EVAL", "return redis.call('GET', 'another:key')", "0"],
    ):
        with pytest.raises(NoPermissionError if command[0] != "EVAL" else Exception):
            client.execute_command(*command)
    client.close()


def test_somebody_who_looks_sees_it_all_and_changes_nothing(
    guarded: RedisServer, start: Callable[..., Application], cli: Any
) -> None:
    backend = {"url": url_of(guarded, "shop", "application"), "timeout": 5.0}
    one = start(backend=backend, prefix="shop")
    with one.cache.record() as seen:
        one.get(Person, "ann@example.com")
    binding = one.cache.bindings[0]
    writer = Commit(binding.writes, [Change("seats", "update", None, None, "raw_write", "")])
    writer.mark()
    guarded.command("CONFIG RESETSTAT")
    url = url_of(guarded, "looking", "looking")
    looked: dict[str, Any] = {"url": url, "SQLACACHE_PREFIX": "shop"}
    commands = (
        ["explain", str(seen.decisions[0].key)],
        ["stats"],
        ["health"],
        ["mode"],
        ["tail", "--for", "10ms"],
    )
    for command in commands:
        status, said = cli(*command, **looked)
        assert (command, status, said) == (command, 0, said)
    granted = {word[1:].partition("|")[0] for word in acl("looking") if word[0] == "+"}
    assert granted - called(guarded) == set()
    for command in (["invalidate", "people"], ["mode", "off"]):
        status, said = cli(*command, **looked)
        assert status == 2 and "no permissions" in said
    writer.unmark()
    assert one.decided(lambda: one.get(Person, "ann@example.com")) == ("hit", None)
