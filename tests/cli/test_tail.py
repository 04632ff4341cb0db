"""``tail`` prints what processes announce, as they do, until it has seen enough."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import update

from tests.support.models import Order, Tag, Team, User
from tests.support.redis_server import RedisServer

from .conftest import Command, Shop

pytestmark = pytest.mark.integration

Tail = Callable[..., "subprocess.Popen[str]"]


def _hear_of_ctrl_c() -> None:
    """A shell's background job, as tests may be, ignores SIGINT, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def tail(prefix: str) -> Iterator[Tail]:
    """Start ``sqlacache tail`` in a process of its own, and return when it listens."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, url: str, listening: int = 1) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "sqlacache.cli", "tail", "--prefix", prefix, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hear_of_ctrl_c,
            env={**os.environ, "SQLACACHE_BACKEND": url, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        started.append(process)
        assert process.stderr is not None
        for _ in range(listening):
            assert "listening to the commits of" in process.stderr.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wrote(shop: Shop) -> None:
    shop.rename(1, "Ada")
    shop.write(update(Team).values(name="blue"))
    with shop.session() as session:
        session.add(Tag(name="new"))
        session.query(Order).delete()
        session.commit()


def test_commits_are_printed_with_their_cause_and_lag(shop: Shop, server: RedisServer, tail: Tail) -> None:
    shop.get(User, 1)
    process = tail("--count", "4", url=server.url)
    wrote(shop)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    lines = [line.split("  ") for line in out.splitlines()]
    assert [(line[1], line[2]) for line in lines[:2]] == [
        ("users", "row_update (rows)"),
        ("teams", "bulk_write (conditions)"),
    ]
    assert {line[1] for line in lines[2:]} == {"tags", "orders"}
    assert lines[0][3:5] == ["users:1", f"UPDATE users (name) by {os.getpid()}@{os.uname().nodename}"]
    assert all(line[-1].startswith("lag ") for line in lines)


def test_machines_get_a_line_of_json_for_each(shop: Shop, server: RedisServer, tail: Tail) -> None:
    shop.get(User, 1)
    process = tail("--count", "1", "--json", url=server.url)
    shop.rename(1, "Ada")
    found = json.loads(process.communicate(timeout=60)[0])
    assert found["database"] == "shop" and found["lag_s"] >= 0
    cause: Any = {"table": "users", "cause": "row_update", "columns": ["name"], "statement": "UPDATE users"}
    assert cause.items() <= found.items()
    assert (found["tags"], found["pid"]) == (["users:1"], os.getpid())


def test_only_the_tables_and_causes_asked_for_are_printed(
    shop: Shop, server: RedisServer, tail: Tail
) -> None:
    shop.get(User, 1)
    tables = tail("--table", "tags", "--table", "orders", "--count", "2", "--json", url=server.url)
    causes = tail("--cause", "bulk_write", "--count", "1", "--json", url=server.url)
    wrote(shop)
    found = [json.loads(line) for line in tables.communicate(timeout=60)[0].splitlines()]
    assert {one["table"] for one in found} == {"tags", "orders"}
    assert json.loads(causes.communicate(timeout=60)[0])["table"] == "teams"


def test_of_several_databases_each_line_says_which(
    shop: Shop, open_shop: Callable[..., Shop], server: RedisServer, tail: Tail
) -> None:
    other = open_shop({"url": server.url, "timeout": 5.0}, "other:one")
    shop.get(User, 1)
    other.get(User, 1)
    process = tail("--count", "2", url=server.url, listening=2)
    other.rename(2, "Eve")
    shop.rename(2, "Eve")
    out = process.communicate(timeout=60)[0]
    assert [line.split("  ")[1] for line in out.splitlines()] == ["other:one users", "shop users"]


def test_ctrl_c_ends_it_well(shop: Shop, server: RedisServer, tail: Tail) -> None:
    shop.get(User, 1)
    process = tail(url=server.url)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_it_ends_well_when_nobody_reads_any_more(shop: Shop, server: RedisServer, tail: Tail) -> None:
    shop.get(User, 1)
    process = tail("--count", "100000", url=server.url)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    shop.rename(1, "Ada")
    assert process.wait(timeout=60) == 0
    assert process.stderr is not None and process.stderr.read() == ""


def test_a_server_that_comes_back_is_listened_to_again(
    open_shop: Callable[..., Shop], make_server: Callable[..., RedisServer], tail: Tail
) -> None:
    own = make_server()
    shop = open_shop({"url": own.url, "timeout": 5.0})
    shop.get(User, 1)
    process = tail("--count", "1", "--database", "shop", url=own.url)
    assert process.stderr is not None
    own.kill()
    assert "announcements may have been missed" in process.stderr.readline()
    own.start(empty=True)
    while "listening to the commits of shop" not in process.stderr.readline():
        pass
    shop.cache.invalidate(User)
    assert "users  explicit" in process.communicate(timeout=60)[0]


def test_after_its_time_it_ends_with_nothing_printed(cli: Command, shop: Shop) -> None:
    shop.get(User, 1)
    assert cli("tail", "--for", "10ms").well == ""
    assert cli("tail", "--count", "0").well == ""


def test_a_cause_that_there_is_not_is_told(cli: Command) -> None:
    assert "--cause: takes one of row_insert, row_update" in cli("tail", "--cause", "rain").problem
