"""``sqlacache explain KEY`` says what the application would find, and which write did it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import pytest
from sqlalchemy import func, select, update

from sqlacache.cli.connect import Where, connected
from sqlacache.tags import touch
from sqlacache.write.dml import Change, RowChange
from tests.support.models import Order, User
from tests.support.redis_server import RedisServer

from .conftest import Command, Shop

pytestmark = pytest.mark.integration


def told(cli: Command, key: str | None) -> Any:
    assert key is not None
    return json.loads(cli("explain", key, "--json").well)


def test_an_entry_that_holds_is_a_hit_with_its_size_age_and_stamps(
    cli: Command, shop: Shop, prefix: str
) -> None:
    key = shop.get(User, 1).key
    assert key is not None
    text = cli("explain", key).well
    assert text.startswith("HIT: 1 row(s) would be served")
    assert " bytes since 20" in text and " UTC, kept for 60 min more\n" in text
    assert "  stamps      * v1, users#table v1, users:#key v1, users:1 v1\n" in text
    assert "changed" not in text and "hit if" not in text

    with connected(
        Where(os.environ.get("SQLACACHE_BACKEND") or shop.cache.settings.backend.url, prefix, "shop")
    ) as one:
        size = one.call(b"STRLEN", f"{prefix}:1:shop:e:{key}")
    found = told(cli, key)
    assert (found["decision"], found["size"], found["rows"]) == ("hit", size, 1)
    assert 3500 < found["ttl"] <= 3600


def test_a_miss_names_the_write_that_caused_it(cli: Command, shop: Shop) -> None:
    key = shop.get(User, 1).key
    assert key is not None
    shop.rename(1, "Ada")
    text = cli("explain", key).well
    assert text.startswith("MISS (row_invalidated)")
    assert "row_update: UPDATE users of users:1 (name) at 20" in text and f" UTC by {os.getpid()}@" in text
    assert "  changed     users:1: v1 -> v3\n" in text and "users:#key v1, users:1 v1 -> v3\n" in text
    assert "  hit if      nobody had written users:1 since it was stored\n" in text


@pytest.mark.parametrize("what", ["row", "condition", "bulk", "touched", "everything", "nothing"])
def test_it_says_what_the_next_read_of_the_application_then_is_told(
    cli: Command, shop: Shop, what: str
) -> None:
    statement = (
        select(User).where(User.plan == "free") if what == "condition" else select(User).where(User.id == 2)
    )
    key = shop.ask(statement).key
    if what == "row":
        shop.rename(2, "Eve")
    elif what == "condition":
        shop.write(update(User).where(User.id == 3).values(plan="paid"))
    elif what == "bulk":
        shop.write(update(User).values(plan="paid"))
    elif what == "touched":
        shop.cache.touched("users", columns={"name"}, pks=[2])
    elif what == "everything":
        shop.cache.invalidate_all()
    found = told(cli, key)
    decision = shop.ask(statement)
    assert decision.key == key
    assert (found["decision"], found["reason"]) == (decision.decision, decision.reason)
    assert [(one["stamp"], one["was"], one["now"]) for one in found["changed"]] == [
        tuple(one) for one in decision.changed
    ]
    cause = found["cause"] and {**found["cause"], "keys": tuple(found["cause"]["keys"])}
    assert (cause is None) == (decision.cause is None)
    if decision.cause is not None:
        columns = cause["columns"]
        assert {**cause, "columns": columns and tuple(columns)} == asdict(decision.cause)


def test_a_writer_between_its_phases_is_seen(cli: Command, shop: Shop) -> None:
    key = shop.get(User, 1).key
    store: Any = shop.cache.bindings[0].store
    row = RowChange({"id": "1"}, {"id": "1"})
    change = Change("users", "update", frozenset({"name"}), (row,), "row_update", "UPDATE users")
    revision, shapes = store.shapes(["users"])["users"]
    touched = touch([change], {"users": shapes}, {"users": ("id",)})
    store.mark("a-writer", touched, {"users": revision}, {})
    found = told(cli, key)
    assert found["reason"] == "write_in_flight"
    assert [one["stamp"] for one in found["stamps"] if one["in_flight"]] == ["users:1"]
    assert json.loads(cli("stats", "--json").well)["tables"][0]["writers"] == 1
    store.unmark("a-writer", touched)
    assert not any(one["in_flight"] for one in told(cli, key)["stamps"])
    assert json.loads(cli("stats", "--json").well)["tables"][0]["writers"] == 0


def test_with_the_fleet_switched_off_every_entry_is_bypassed(cli: Command, shop: Shop) -> None:
    key = shop.get(User, 1).key
    shop.cache.set_mode("off", fleet=True)
    found = told(cli, key)
    assert (found["decision"], found["reason"]) == ("bypass", "disabled")
    assert found["advice"] == "the mode of all processes were on again (sqlacache mode on)"


def test_an_unknown_key_is_told_in_one_line(cli: Command, shop: Shop) -> None:
    shop.get(User, 1)
    assert "nothing is stored under 'users:get:0000' in 'shop'" in cli("explain", "users:get:0000").problem


def test_bytes_that_are_no_entry_are_told_in_one_line(
    cli: Command, shop: Shop, server: RedisServer, prefix: str
) -> None:
    key = shop.get(User, 1).key
    assert key is not None
    server.command("SET", f"{prefix}:1:shop:e:{key}", "hello")
    assert "is no entry that a read would take" in cli("explain", key).problem
    server.command("DEL", f"{prefix}:1:shop:e:{key}")
    server.command("LPUSH", f"{prefix}:1:shop:e:{key}", "hello")
    assert "WRONGTYPE" in cli("explain", key).problem


def test_rows_are_never_opened(cli: Command, shop: Shop, server: RedisServer, prefix: str) -> None:
    key = shop.get(User, 1).key
    name = f"{prefix}:1:shop:e:{key}"
    data = server.command("GET", name)
    server.command("SET", name, data[:-40] + bytes(40))
    assert told(cli, key)["decision"] == "hit", "what only the rows' checksum tells, the command cannot know"


def test_what_was_stored_by_another_run_of_the_server_is_void(
    cli: Command, shop: Shop, server: RedisServer, prefix: str
) -> None:
    key = shop.ask(select(func.count()).select_from(Order)).key
    server.command("SET", f"{prefix}:generation", "1|another run|0123456789abcdef")
    assert told(cli, key)["reason"] == "generation_changed"


def test_what_others_wrote_to_redis_tells_the_terminal_nothing_and_looks_like_no_line_of_ours(
    cli: Command, shop: Shop, server: RedisServer, prefix: str
) -> None:
    key = shop.get(User, 1).key
    assert key is not None
    said = "\x1b]0;gotcha\x07\n  hit if      \ud800"
    cause = json.dumps(["row_update", "users", ["users:1\n"], None, said, 1e9, 1, "\x9b31m", None])
    server.command("SET", f"{prefix}:1:shop:s:users:1", b"0123456789abcdef|9|3600000||" + cause.encode())
    text = cli("explain", key).well
    assert "\\x1b]0;gotcha\\x07\\n  hit if      \\ud800" in text
    assert all(char.isprintable() or char == "\n" for char in text)
    assert [one[:12] for one in text.splitlines()].count("  hit if    ") == 1
    assert told(cli, key)["cause"]["statement"] == said


def test_a_cause_from_beyond_all_calendars_is_none(
    cli: Command, shop: Shop, server: RedisServer, prefix: str
) -> None:
    key = shop.get(User, 1).key
    assert key is not None
    for at in ("Infinity", "NaN", "-1", "1e300"):
        cause = f'["row_update","users",[],null,"",{at},1,"host",null]'
        server.command("SET", f"{prefix}:1:shop:s:users:1", f"0123456789abcdef|9|3600000||{cause}")
        assert cli("explain", key).well.startswith("MISS (backend_evicted)")
        assert "Infinity" not in cli("explain", key, "--json").well
        assert shop.cache.explain_key(key).cause is None
