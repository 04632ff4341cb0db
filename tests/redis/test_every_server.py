"""What a cache does every day, on each server that is here: Redis and Valkey, old and new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from tests.support.cached import cached
from tests.support.fleet import READS, caught_up, count, settled, user
from tests.support.models import User
from tests.support.reading import Reader
from tests.support.redis_server import Binary, RedisServer
from tests.support.writes import change

pytestmark = pytest.mark.integration

Make = Callable[..., Any]


async def see(committed: Reader, other: Reader) -> None:
    """Both read what is committed now, and then from the cache again."""
    await caught_up(other)
    for reader in (committed, other):
        for read in READS:
            await reader.current(read)
        await settled(reader, *READS)


@pytest.mark.parametrize("local", [None, "validated", "pushed"])
async def test_reads_commits_a_restart_and_the_calls(
    every_binary: Binary | None, make_redis: Make, file: str, prefix: str, local: Any
) -> None:
    server: RedisServer = make_redis(every_binary)
    given = {"url": server.url, "timeout": 2}
    async with (
        cached(file, given, prefix, local=local) as one,
        cached(file, given, prefix, local=local) as other,
    ):
        for reader in (one, other):
            await settled(reader, *READS)

        await change(User, 1, name="one", plan="pro")(one.database)
        await see(one, other)
        async with other.database.transaction() as session:
            await session.execute(update(User).where(User.plan == "free").values(plan="pro"))
        await see(other, one)

        await one.cache.set_mode("write_only", fleet=True, ttl=60)
        await caught_up(other)
        await other.bypass(user(1), "disabled")
        await one.cache.set_mode("on", fleet=True)
        await see(one, other)

        assert await one.cache.purge(User) > 0
        await one.miss(count("pro"), {"absent", "backend_evicted"})
        await see(one, other)

        server.save()
        server.restart()
        await see(one, other)
        assert (await one.cache.health()).status == "ok"
