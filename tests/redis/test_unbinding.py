"""unbind() on a Redis: what is owed stays owed, other processes hear of what was under way, and nobody is listened to
for a database that has no engine any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from tests.support.databases import Database, SQLiteDatabases
from tests.support.fleet import count, reading, settled, user
from tests.support.models import User
from tests.support.processes import eventually
from tests.support.reading import Reader
from tests.support.redis_server import RedisServer
from tests.support.writes import change

pytestmark = pytest.mark.integration

TIMEOUT = 0.25


async def reason(reader: Reader) -> str:
    (decision,) = (await reader.current(user(1))).decisions
    return decision.reason or decision.decision


async def test_what_is_owed_when_its_engine_is_unbound_is_delivered(
    file: str, redis_server: RedisServer, make_proxy: Callable[..., Any], prefix: str
) -> None:
    """
    1. Redis does not answer. A commit is owed, and its engine unbound, disposed of and dropped.
    2. Another engine of the database, in the same process, must not be served what was; nor one that is bound only now.
    3. Redis answers again, and other processes hear of it.
    """
    proxy = make_proxy(redis_server)
    near = reading(file, {"url": proxy.url, "timeout": TIMEOUT}, prefix=prefix, name="near", lease=2)
    far = reading(file, {"url": redis_server.url, "timeout": 2}, prefix=prefix, name="far", lease=2)
    async with near as one, far as other:
        cache, gone = one.cache, Database(file)
        await cache.bind(gone.engine)
        await settled(other, user(1), count("free"))
        await settled(one, user(1))
        proxy.cut()
        await change(User, 1, name="owed", plan="pro")(gone)
        await cache.unbind(gone.engine)
        await gone.dispose()
        del gone
        late = Database(file)
        await cache.bind(late.engine)
        health = await cache.health()
        assert health.status == "owed" and "invalidation(s) of users" in health.reasons[0]
        for reader in (one, Reader(late, cache)):
            assert await reason(reader) == "backend_unavailable"
            assert cache.bindings[0].owed.meets(["users"])
        proxy.heal()

        async def is_well() -> bool:
            return bool((await cache.health()).status == "ok")

        await eventually(is_well, "what is owed to be delivered", patience=15)
        assert cache.owing == set()
        for reader in (one, other, Reader(late, cache)):
            await reader.current(user(1))
            await reader.current(count("free"))
        await late.dispose()


@pytest.mark.parametrize("local", ["validated", "pushed"])
async def test_another_process_hears_of_a_transaction_that_ended_after_its_engine_was_unbound(
    local: str, file: str, redis_url: str, prefix: str
) -> None:
    backend = {"url": redis_url, "timeout": 5}
    async with (
        reading(file, backend, prefix=prefix, name="near", local=local) as near,
        reading(file, backend, prefix=prefix, name="far") as far,
    ):
        kept = Database(file)
        await near.cache.bind(kept.engine)
        stays = Reader(kept, near.cache)
        await settled(far, user(1))
        await settled(stays, user(1))
        async with near.database.sessions() as session:
            await session.execute(update(User).where(User.id == 1).values(name="new"))
            await near.cache.unbind(near.database.engine)
            await session.commit()
        for reader in (far, stays):
            answer = await reader.current(user(1))
            assert "'new'" in repr(answer.value)
        await kept.dispose()


async def test_announcements_are_listened_to_only_for_databases_with_an_engine(
    file: str, sqlite_databases: SQLiteDatabases, redis_url: str, prefix: str
) -> None:
    backend = {"url": redis_url, "timeout": 5}
    async with (
        reading(file, backend, prefix=prefix, local="pushed") as reader,
        sqlite_databases.fresh() as url,
    ):
        cache, tenant = reader.cache, Database(url)
        subscription = cache.backend.subscription

        async def listening(channels: int) -> None:
            def confirmed() -> bool:
                return len(subscription._confirmed) == len(subscription._listeners) == channels

            await eventually(confirmed, f"{channels} channels")

        await listening(2)  # its announcements, and the generation
        for _ in range(2):
            await cache.bind(tenant.engine)
            await listening(3)
            await settled(Reader(tenant, cache), user(1))
            await cache.unbind(tenant.engine)
            await listening(2)
        await settled(reader, user(1))
        await cache.unbind(reader.database.engine)
        assert not subscription.is_under_way
        assert cache.backend._stores == {}
        await cache.bind(reader.database.engine)
        await listening(2)
        await settled(reader, user(1))
        await tenant.dispose()
