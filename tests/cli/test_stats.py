"""``stats`` counts what lies on the server, and says when it has not looked at all of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.support.models import Order, Stock, User
from tests.support.redis_server import RedisServer

from .conftest import Command, Shop

pytestmark = pytest.mark.integration


def test_each_table_has_its_entries_bytes_stamps_and_shapes(
    cli: Command, shop: Shop, server: RedisServer, prefix: str
) -> None:
    keys = [shop.get(User, 1).key, shop.get(User, 2).key, shop.ask(select(User.name)).key]
    shop.ask(select(func.count()).select_from(Order))
    shop.get(Stock, ("north", 7))
    found = json.loads(cli("stats", "--json").well)
    tables = {one.pop("table"): one for one in found["tables"]}
    stored = sum(server.command("STRLEN", f"{prefix}:1:shop:e:{key}") for key in keys)
    # users: the table's, that of all keys, two keys, and that of every row's name
    assert tables["users"] == {"entries": 3, "bytes": stored, "stamps": 5, "shapes": 2, "writers": 0}
    assert (tables["orders"]["entries"], tables["orders"]["shapes"]) == (1, 1)
    assert tables["stock"]["stamps"] == 3
    assert (found["mode"], found["fence"], found["partial"]) == (None, None, False)
    assert found["generation"].split("|")[1] == server.info()["run_id"]
    assert found["maxmemory"] == 256 << 20 and found["used_memory"] > 100_000


def test_people_get_a_table_and_what_holds_for_all(
    cli: Command, shop: Shop, server: RedisServer, prefix: str
) -> None:
    shop.get(User, 1)
    shop.cache.set_mode("write_only", fleet=True)
    server.command("SET", f"{prefix}:fence", "7", "PX", 60000)
    text = cli("stats").well
    assert next(line.split() for line in text.splitlines() if line.startswith("users"))[:2] == ["users", "1"]
    assert "mode        write_only" in text and "fence       writers of protocol 7" in text
    assert "memory      " in text and " of 256.0 MiB, " in text


def test_more_keys_than_the_limit_are_told_to_be_partial(
    cli: Command, shop: Shop, server: RedisServer
) -> None:
    shop.get(User, 1)
    server.command("EVAL", "for i = 1, 3000 do redis.call('SET', 'foreign:' .. i, 1, 'PX', 60000) end", 0)
    done = cli("stats", "--limit", "5", "--database", "shop")
    assert done.status == 0 and "partial: looked at about 5 of " in done.err
    assert "partial" not in cli("stats", "--limit", "1000000").err


def test_tables_are_told_apart_whatever_their_names(
    cli: Command, shop: Shop, server: RedisServer, prefix: str
) -> None:
    shop.get(User, 1)
    root = f"{prefix}:1:shop:"
    for table in ("users:old", "a?b", "\x1b[31mred", "users(x)"):
        server.command("SET", f"{root}s:{table}#table", b"0123456789abcdef|1|60000||", "PX", 60000)
        server.command("SET", f"{root}s:{table}:1", b"0123456789abcdef|1|60000||", "PX", 60000)
        server.command("SET", f"{root}e:{table}:get:00", b"12345", "PX", 60000)
    server.command("LPUSH", f"{root}e:users:get:ff", "of another type")
    found = {one["table"]: one for one in json.loads(cli("stats", "--json").well)["tables"]}
    for table in ("users:old", "a?b", "\x1b[31mred", "users(x)"):
        assert (found[table]["entries"], found[table]["bytes"], found[table]["stamps"]) == (1, 5, 2), table
    assert (found["users"]["entries"], found["users"]["stamps"]) == (2, 3)
    assert "\\x1b[31mred" in cli("stats").well


def test_another_prefix_another_database_and_foreign_keys_do_not_count(
    cli: Command, shop: Shop, open_shop: Callable[..., Shop], server: RedisServer, prefix: str
) -> None:
    other = open_shop({"url": server.url, "timeout": 5.0}, "other")
    shop.get(User, 1)
    for key in (1, 2, 3):
        other.get(User, key)
    server.command("SET", f"{prefix}x:1:shop:e:users:get:00", "foreign", "PX", 60000)
    server.command("SET", f"{prefix}:2:shop:e:users:get:00", "of another format", "PX", 60000)

    def entries(*arguments: str) -> Any:
        return json.loads(cli("stats", "--json", *arguments).well)["tables"][0]["entries"]

    assert (entries("--database", "shop"), entries("--database", "other")) == (1, 3)


def test_with_several_databases_one_has_to_be_named(
    cli: Command, shop: Shop, open_shop: Callable[..., Shop], server: RedisServer
) -> None:
    shop.get(User, 1)
    key = shop.decisions[-1].key
    assert cli("explain", str(key)).status == 0
    open_shop({"url": server.url, "timeout": 5.0}, "a:b*c").get(User, 1)
    for command in (["stats"], ["explain", "x"], ["touched", "users"], ["invalidate", "--all", "--yes"]):
        assert "a:b*c, shop; say which with --database" in cli(*command).problem
    assert shop.get(User, 1).decision == "hit"
    assert cli("stats", "--database", "a:b*c").status == 0


def test_a_prefix_under_which_there_is_nothing_is_told(cli: Command) -> None:
    problem = cli("stats", "--prefix", "nobody").problem
    assert "nothing is cached under the prefix 'nobody'" in problem
    assert "--prefix: takes 1 to 64 letters" in cli("stats", "--prefix", "a*b").problem
