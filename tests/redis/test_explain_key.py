"""An entry that one process stored and another one's commit voided is explained by its key, in either of them."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sqlacache.errors import TransportError
from tests.support.fleet import LOCAL, caught_up, listed, reading, settled, user
from tests.support.models import User
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.writes import change

pytestmark = pytest.mark.integration


@pytest.fixture(params=["server", "cluster"])
def backend(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "cluster":
        cluster: RedisCluster = request.getfixturevalue("shared_cluster")
        return {"url": cluster.url, "cluster": True, "timeout": 2}
    return {"url": request.getfixturevalue("redis_url"), "timeout": 2}


@pytest.mark.parametrize("local", LOCAL, ids=str)
async def test_either_process_names_the_commit(
    file: str, backend: dict[str, Any], local: str | None, prefix: str
) -> None:
    if backend.get("cluster") and local == "pushed":
        pytest.skip("a cluster does not announce in order")
    async with (
        reading(file, backend, local=local, prefix=prefix) as near,
        reading(file, backend, local=local, prefix=prefix) as far,
    ):
        await settled(near, user(1), listed("free"))
        keys = [(await near.hit(read)).decisions[0].key for read in (user(1), listed("free"))]
        for reader in (near, far):
            assert [(await reader.cache.explain_key(key)).decision for key in keys] == ["hit", "hit"]
        await change(User, 1, name="zed")(far.database)
        await caught_up(near)
        for reader in (near, far):
            row, several = [await reader.cache.explain_key(key) for key in keys]
            assert (row.reason, several.reason) == ("row_invalidated", "condition_invalidated")
            assert row.cause == several.cause
            assert (row.cause.statement, row.cause.keys, row.cause.pid) == (
                "UPDATE users",
                ("users:1",),
                os.getpid(),
            )
            assert [stamp.was < stamp.now for stamp in row.changed] == [True]


async def test_a_backend_that_does_not_answer_is_said(
    file: str, redis_server: RedisServer, prefix: str
) -> None:
    async with reading(file, {"url": redis_server.url, "timeout": 2}, prefix=prefix) as near:
        await settled(near, user(1))
        key = (await near.hit(user(1))).decisions[0].key
        redis_server.kill()
        with pytest.raises(TransportError):
            await near.cache.explain_key(key)
