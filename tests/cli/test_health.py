"""``health`` and ``mode``: is the server well, does it suit, and what is every process told to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.models import User
from tests.support.redis_server import RedisServer

from .conftest import Command, Shop

pytestmark = pytest.mark.integration


def reasons(cli: Command, status: int = 1, **options: Any) -> str:
    done = cli("health", "--json", **options)
    assert done.status == status, done
    found = json.loads(done.out)
    assert found["status"] == ["ok", "degraded"][status]
    return " ".join(found["reasons"])


def test_a_server_that_suits_is_well(cli: Command, server: RedisServer) -> None:
    done = cli("health")
    assert done.well.startswith("ok: redis://127.0.0.1:")
    assert f"version {'.'.join(map(str, server.version))}, master, latency " in done.out
    assert "(allkeys-lru), evicted keys 0, run id " + server.info()["run_id"] in done.out
    [node] = json.loads(cli("health", "--json").well)["nodes"]
    assert node["maxmemory"] == 256 << 20 and 0 < node["latency"] < 5


def test_what_keeps_every_process_from_serving_is_degraded(
    cli: Command, server: RedisServer, prefix: str
) -> None:
    assert cli("mode", "off").well == "off: in every process, until it is switched\n"
    assert reasons(cli) == "the mode of all processes is off"
    cli("mode", "on")
    assert reasons(cli, 0) == ""
    server.command("SET", f"{prefix}:fence", "7", "PX", 60000)
    assert reasons(cli) == "a version of protocol 7 writes here, too"


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-random", "volatile-random"])
def test_a_policy_that_does_not_suit_is_degraded(
    cli: Command, make_server: Callable[..., RedisServer], policy: str
) -> None:
    own = make_server(maxmemory="64mb", maxmemory_policy=policy)
    assert f"maxmemory-policy {policy}: " in reasons(cli, url=own.url)


def test_without_a_limit_no_policy_matters(cli: Command, make_server: Callable[..., RedisServer]) -> None:
    assert reasons(cli, 0, url=make_server(maxmemory_policy="noeviction").url) == ""


def test_a_server_that_does_not_tell_its_run_id_is_degraded(
    cli: Command, make_server: Callable[..., RedisServer]
) -> None:
    own = make_server()
    own.command("ACL", "SETUSER", "shop", "on", ">secret", "~*", "&*", "+@all", "-info")
    url = own.url.replace("redis://", "redis://shop:secret@")
    found = reasons(cli, url=url)
    assert "it does not tell its run id" in found and "INFO is not to be had" in found


def test_a_replica_is_degraded(cli: Command, make_server: Callable[..., RedisServer]) -> None:
    master = make_server()
    replica = make_server(replicaof=f"127.0.0.1 {master.port}")
    replica.await_replication()
    assert "it is a replica" in reasons(cli, url=replica.url)


def test_a_server_that_is_not_there_is_unreachable(
    cli: Command, make_server: Callable[..., RedisServer]
) -> None:
    own = make_server(requirepass="secret")
    url = own.url
    assert cli("health", url=url).status == 0
    own.kill()
    done = cli("health", url=url)
    assert done.out == f"unreachable: redis://:***@127.0.0.1:{own.port}/0\n"
    assert "Connection refused" in done.problem and "secret" not in done.out + done.err
    assert json.loads(cli("health", "--json", url=url).out)["status"] == "unreachable"


def test_a_server_that_says_nothing_is_unreachable(
    cli: Command, make_server: Callable[..., RedisServer]
) -> None:
    own = make_server()
    with own.paused():
        assert "Timeout" in cli("health", url=f"{own.url}?timeout=0.1").problem


def test_the_mode_of_all_processes_is_shown_and_switched(cli: Command, shop: Shop) -> None:
    shop.get(User, 1)
    assert cli("mode").well == "on: each process has its own mode\n"
    assert cli("mode", "write_only", "--ttl", "1h").well == "write_only: in every process, for 60 min\n"
    found = json.loads(cli("mode", "--json").well)
    assert found["mode"] == "write_only" and 3500 < found["ttl"] <= 3600
    assert shop.get(User, 1).reason == "disabled"
    assert cli("mode", "on").well == "on: each process has its own mode\n"
    assert shop.get(User, 1).decision == "hit"


def test_it_can_be_switched_before_anything_is_cached(
    cli: Command, open_shop: Callable[..., Shop], server: RedisServer
) -> None:
    cli("mode", "off")
    assert open_shop({"url": server.url, "timeout": 5.0}).get(User, 1).reason == "disabled"


@pytest.mark.parametrize(
    "arguments",
    [
        ("shadow",),
        ("ON",),
        ("on", "--ttl", "1h"),
        ("--ttl", "1h"),
        ("off", "--ttl", "0"),
        ("off", "--ttl", "soon"),
    ],
    ids=" ".join,
)
def test_what_is_no_mode_or_time_changes_nothing(cli: Command, arguments: tuple[str, ...]) -> None:
    assert cli("mode", *arguments).problem
    assert json.loads(cli("mode", "--json").well)["mode"] is None


def test_bytes_that_are_no_mode_count_for_nobody(cli: Command, server: RedisServer, prefix: str) -> None:
    server.command("SET", f"{prefix}:mode", b"\xffwhat", "PX", 60000)
    assert cli("mode").well == "on: each process has its own mode\n"
