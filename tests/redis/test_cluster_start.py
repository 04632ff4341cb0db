"""A cluster whose first node is down when the cache begins: any other node that was named tells of the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cached import cached
from tests.support.fleet import settled, user
from tests.support.models import Tag, Team, User
from tests.support.reads import get
from tests.support.redis_cluster import RedisCluster
from tests.support.writes import change

pytestmark = pytest.mark.integration

Make = Callable[..., Any]
READS = [get(model, 1) for model in (User, Team, Tag)]


@pytest.fixture
def cluster(make_cluster: Make) -> RedisCluster:
    """The first node's slots are served by its replica, and the node itself is down."""
    made: RedisCluster = make_cluster(replicas=1)
    made.failover(made.nodes[0])
    return made


async def test_one_that_is_down_is_no_way_in(cluster: RedisCluster, file: str, prefix: str) -> None:
    given = {"url": cluster.url, "cluster": True, "timeout": 0.5}
    async with cached(file, given, prefix) as reader:
        await reader.bypass(user(1), "backend_unavailable")
        [reason] = (await reader.cache.health()).reasons
        assert f"127.0.0.1:{cluster.nodes[0].port}" in reason


@pytest.mark.parametrize("how", ["mapping", "url"])
async def test_another_one_tells_of_the_rest(cluster: RedisCluster, file: str, prefix: str, how: str) -> None:
    others = [node.address for node in cluster.nodes[1:]]
    given: Any = {"url": cluster.url, "cluster": True, "timeout": 0.5, "nodes": others}
    if how == "url":
        named = ",".join(f"{host}:{port}" for host, port in others)
        given = f"{cluster.url}?cluster=true&timeout=0.5&nodes={named}"
    async with cached(file, given, prefix) as one, cached(file, given, prefix) as other:
        assert (await one.cache.health()).status == "ok"
        for read in READS:
            await one.miss(read, {"absent"})
            await other.hit(read)
        await change(User, 1, name="seen")(one.database)
        await other.miss(user(1), {"row_invalidated"})
        await settled(other, user(1))
