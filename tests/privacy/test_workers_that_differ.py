"""Workers on one Redis with different keys, or of which one shows values: nobody is served what another made stale."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from sqlacache.write.dml import Change
from sqlacache.write.phases import Commit
from tests.support.processes import until
from tests.support.redis_server import RedisServer

from .conftest import Application
from .people import Person

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
ANN = select(Person.nick, Person.age).where(Person.nick == "ann")
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "keyed": {"digest_key": "x" * 16},
    "other_key": {"digest_key": "y" * 16},
    "exposed": {"expose_values": True},
}
PAIRS = [("default", "keyed"), ("keyed", "other_key"), ("keyed", "exposed"), ("exposed", "default")]
IDS = [f"{one} and {other}" for one, other in PAIRS]


def grow(application: Application, email: str = "ann@example.com") -> int:
    """Write a row; return what its age is now."""
    with application.session() as session:
        person = session.get(Person, email)
        person.age += 1
        age: int = person.age
        session.commit()
    return age


def age(application: Application) -> int:
    found: int = application.get(Person, "ann@example.com").age
    assert application.ask(ANN) == [("ann", found)]
    return found


@pytest.mark.parametrize(("mine", "yours"), PAIRS, ids=IDS)
@pytest.mark.parametrize("local", [None, "validated"])
def test_a_commit_of_a_worker_with_another_key_is_seen_at_once(
    mine: str, yours: str, local: str | None, on_redis: Callable[..., Application]
) -> None:
    """
    1. A has stored the row and the list.
    2. B, with another key, commits. A's stamps have names that B does not know.
    3. A reads what B wrote, and B what A writes, over and over; neither serves anything.
    """
    a, b = on_redis(**OPTIONS[mine], local=local), on_redis(**OPTIONS[yours], local=local)
    assert age(a) == age(a) == 40
    assert a.decided(lambda: age(a)) == ("hit", None)
    for writer, reader in ((b, a), (a, b), (b, a), (b, a), (a, b)):
        written = grow(writer)
        assert age(reader) == written
        assert age(reader) == age(writer) == written
    assert a.decided(lambda: age(a)) == ("bypass", "protocol_mismatch")
    assert b.decided(lambda: age(b)) == ("bypass", "protocol_mismatch")
    for one in (a, b):
        health = one.cache.health()
        assert health.status == "degraded" and "another digest_key or expose_values" in health.reasons[0]
        with one.session() as session:
            told = one.cache.explain_get(session, Person, "ann@example.com")
        assert (told.decision, told.reason) == ("bypass", "protocol_mismatch")


@pytest.mark.parametrize(("mine", "yours"), PAIRS[1:3], ids=IDS[1:3])
def test_a_worker_that_only_reads_is_not_served_what_it_stored_before(
    mine: str, yours: str, on_redis: Callable[..., Application]
) -> None:
    """
    1. A has stored the row. B only writes, and reads nothing.
    2. B marks. A looks the row up: what it has is of another generation; and it may not fill while the fence is there.
    3. B commits and settles. The fence ends. A reads, stores and serves what B wrote.
    4. B commits again: step 1.
    """
    a = on_redis(**OPTIONS[mine], lease=0.3)
    b = on_redis(**OPTIONS[yours], lease=0.3)
    for _ in range(2):
        until(lambda: a.decided(lambda: age(a)) == ("hit", None), "the fence to end")
        with b.session() as session:
            session.execute(update(Person).where(Person.nick == "ann").values(age=Person.age + 1))
            before = age(a)
            session.commit()
        assert age(a) == before + 1


@pytest.mark.parametrize(("mine", "yours"), PAIRS[:2], ids=IDS[:2])
def test_a_reader_between_the_phases_of_a_writer_with_another_key(
    mine: str, yours: str, on_redis: Callable[..., Application]
) -> None:
    """
    1. B has marked: the generation is its own, and the fence is there.
    2. A samples: it takes the generation over, and raises the fence anew. It reads the old row, and may not store it.
    3. B's COMMIT lands and it settles. A must read the new row.
    """
    a, b = on_redis(**OPTIONS[mine]), on_redis(**OPTIONS[yours])
    assert age(a) == 40
    binding = b.cache.bindings[0]
    commit = Commit(binding.writes, [Change("people", "update", None, None, "raw_write", "")])
    commit.mark()
    assert a.decided(lambda: age(a)) == ("bypass", "protocol_mismatch")
    with a.engine.connect() as connection:  # past the hooks
        connection.connection.cursor().execute("UPDATE people SET age = 99 WHERE nick = 'ann'")
        connection.connection.commit()
    commit.settle()
    assert age(a) == age(b) == 99


def test_the_pushed_tier_hears_of_a_worker_with_another_key(
    on_redis: Callable[..., Application], server: RedisServer
) -> None:
    backend = {"url": server.url, "timeout": 5.0, "bound": 0.4}
    a = on_redis(**OPTIONS["keyed"], local="pushed", backend=backend)
    b = on_redis(**OPTIONS["other_key"])
    age(a)
    for _ in range(3):
        written = grow(b)
        until(partial(lambda wanted: age(a) == wanted, written), "the bound of the pushed tier")


@pytest.mark.parametrize("settings", OPTIONS)
def test_workers_with_one_key_share_and_evict_each_others_entries(
    settings: str, on_redis: Callable[..., Application]
) -> None:
    a, b = on_redis(**OPTIONS[settings]), on_redis(**OPTIONS[settings])
    age(a)
    assert b.decided(lambda: age(b)) == ("hit", None)
    written = grow(b)
    assert a.decided(lambda: age(a))[0] == "miss"
    assert age(a) == written


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.privacy.conftest import Application
from tests.privacy.people import Person

application = Application(sys.argv[2], prefix=sys.argv[3], backend={"url": sys.argv[4], "timeout": 5.0})
with application.session() as session:
    session.get(Person, "ann@example.com").age = int(sys.argv[5])
    session.commit()
print(application.cache.settings.digests.scheme)
application.close()
"""


@pytest.mark.parametrize("key", [None, "z" * 16], ids=["default", "keyed"])
def test_processes_agree_out_of_the_box_and_differ_by_their_environment(
    key: str | None, on_redis: Callable[..., Application], people: str, prefix: str, server: RedisServer
) -> None:
    one = on_redis()
    age(one)
    assert one.decided(lambda: age(one)) == ("hit", None)
    environment = {**os.environ, **({} if key is None else {"SQLACACHE_DIGEST_KEY": key})}
    arguments = [str(ROOT), people, prefix, server.url, "77"]
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    is_alike = int(ended.stdout) == one.cache.settings.digests.scheme
    assert is_alike == (key is None)
    decided = one.decided(lambda: one.get(Person, "ann@example.com"))
    assert decided == (("miss", "row_invalidated") if key is None else ("bypass", "protocol_mismatch"))
    assert age(one) == 77
