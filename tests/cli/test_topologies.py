"""The same commands on a cluster, through sentinels, and over a socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.models import Stock, User
from tests.support.redis_cluster import RedisCluster, redis_cluster
from tests.support.redis_sentinel import RedisSentinel, redis_sentinel
from tests.support.redis_server import RedisServer

from .conftest import Command, Shop, started

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    with ExitStack() as stack:
        yield started(stack, redis_cluster())


@pytest.fixture
def sentinel() -> Iterator[RedisSentinel]:
    with ExitStack() as stack:
        yield started(stack, redis_sentinel())


def works(cli: Command, shop: Shop, url: str, *options: str) -> None:
    """Use every command that speaks to a server."""
    key = str(shop.get(User, 1).key)
    shop.get(User, 2)
    shop.get(Stock, ("north", 7))
    found = json.loads(cli("stats", "--json", *options, url=url).well)
    assert {one["table"]: (one["entries"], one["stamps"]) for one in found["tables"]} == {
        "users": (2, 4),
        "stock": (1, 3),
    }
    assert cli("explain", key, *options, url=url).well.startswith("HIT")
    assert cli("touched", "users", "--pks", "1", *options, url=url).well.startswith("users: 1 stamp replaced")
    assert cli("explain", key, *options, url=url).well.startswith("MISS (manual_invalidated)")
    assert [shop.get(User, one).decision for one in (1, 2)] == ["miss", "hit"]
    assert cli("invalidate", "--all", "--yes", *options, url=url).status == 0
    assert [shop.get(User, one).decision for one in (1, 2)] == ["miss", "miss"]
    assert "it has something of stock, users" in cli("touched", "nope", *options, url=url).problem
    assert cli("mode", "off", *options, url=url).status == 0
    assert shop.get(User, 1).reason == "disabled"
    assert cli("mode", "on", *options, url=url).status == 0
    assert cli("tail", "--for", "10ms", *options, url=url).status == 0
    assert cli("health", *options, url=url).well.startswith("ok: ")


def test_on_a_cluster(cli: Command, open_shop: Callable[..., Shop], cluster: RedisCluster) -> None:
    url = f"{cluster.url}?cluster=true"
    works(cli, open_shop({"url": url, "timeout": 5.0}), url)
    assert len(json.loads(cli("health", "--json", url=url).well)["nodes"]) == 3


def test_through_sentinels(cli: Command, open_shop: Callable[..., Shop], sentinel: RedisSentinel) -> None:
    nodes = ",".join(f"{host}:{port}" for host, port in sentinel.sentinels)
    asked = {"service": sentinel.service, "nodes": sentinel.sentinels}
    shop = open_shop({"url": "redis://", "timeout": 5.0, "sentinel": asked})
    works(cli, shop, "redis://", "--sentinel", nodes, "--service", sentinel.service)


def test_over_a_socket(cli: Command, open_shop: Callable[..., Shop], server: RedisServer) -> None:
    works(cli, open_shop({"url": server.unix_url, "timeout": 5.0}), server.unix_url)


@pytest.mark.parametrize(
    "options",
    [
        ("--sentinel", "127.0.0.1:1"),
        ("--service", "shop"),
        ("--sentinel", "127.0.0.1", "--service", "shop"),
        ("--sentinel", "127.0.0.1:1", "--service", "shop"),
    ],
    ids=" ".join,
)
def test_sentinels_that_cannot_be_asked_are_told(cli: Command, options: tuple[str, ...]) -> None:
    assert cli("stats", *options).problem
