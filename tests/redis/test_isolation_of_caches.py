"""Several managers, prefixes and databases on one Redis never see each other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from sqlacache import configure
from tests.support.databases import Database, SQLiteDatabases
from tests.support.fleet import LOCAL, MODELS, READS, caught_up, count, reading, settled, user
from tests.support.models import Order, Team, User
from tests.support.processes import eventually
from tests.support.reading import Reader
from tests.support.reads import get
from tests.support.redis_server import RedisServer
from tests.support.writes import change

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def files(sqlite_databases: SQLiteDatabases) -> AsyncIterator[list[str]]:
    async with sqlite_databases.fresh() as one, sqlite_databases.fresh() as other:
        yield [one, other]


@pytest_asyncio.fixture
async def apart(files: list[str], redis_server: RedisServer) -> AsyncIterator[dict[str, Reader]]:
    """Readers that have a Redis in common, and nothing else, or a prefix, or a database."""
    one, other = files
    which: dict[str, tuple[str, dict[str, Any]]] = {
        "first": (one, {"prefix": "shop"}),
        "another-prefix": (one, {"prefix": "shop2"}),
        "another-database": (other, {"prefix": "shop"}),
        "a-longer-prefix": (one, {"prefix": "shop:1"}),
        "a-shorter-prefix": (one, {"prefix": "sho"}),
    }
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(
                reading(url, {"url": redis_server.url, "timeout": 2}, name=name, **options)
            )
            for name, (url, options) in which.items()
        }


async def test_what_one_caches_is_news_to_the_others(apart: dict[str, Reader]) -> None:
    for reader in apart.values():
        for read in READS:
            await reader.miss(read, {"absent"})
            await reader.hit(read)


async def test_invalidate_all_touches_only_its_own(
    apart: dict[str, Reader], redis_server: RedisServer
) -> None:
    for reader in apart.values():
        await settled(reader, *READS)
    redis_server.command("SET", "session:1", "not ours")
    for name, reader in apart.items():
        await reader.cache.invalidate_all()
        await reader.miss(user(1), {"manual_invalidated"})
        for other in apart:
            if other != name:
                await apart[other].hit(count("free"))
        await settled(reader, *READS)
    assert redis_server.command("GET", "session:1") == b"not ours"


async def test_purge_deletes_the_bytes_of_one_model_and_nobody_elses(
    apart: dict[str, Reader], redis_server: RedisServer
) -> None:
    with redis_server.client() as server:
        for reader in apart.values():
            await settled(reader, user(1), count("free"), get(Team, 1), get(Order, 1))

        def entries(reader: Reader) -> set[bytes]:
            layout = reader.cache.bindings[0].store.layout
            return set(server.scan_iter(layout.entries.encode()))

        for name, reader in apart.items():
            before = {other: entries(one) for other, one in apart.items() if other != name}
            assert len(entries(reader)) == 4
            mine = reader.cache.bindings[0].store.layout.entry("", "users").encode()
            assert await reader.cache.purge(User) == 2
            left = [key for key in entries(reader) if key.startswith(mine)]
            assert len(left) == 2
            assert all(b"users" not in key[len(mine) :] for key in left)
            assert {other: entries(one) for other, one in apart.items() if other != name} == before
            await reader.miss(user(1), {"manual_invalidated", "absent", "backend_evicted"})
            await reader.hit(get(Team, 1))


async def test_purge_passes_by_keys_of_other_kinds(
    apart: dict[str, Reader], redis_server: RedisServer
) -> None:
    reader = apart["first"]
    await settled(reader, user(1))
    layout = reader.cache.bindings[0].store.layout
    redis_server.command("RPUSH", layout.entry("users:get:list", "users"), "x")
    redis_server.command("SET", layout.entry("users:get:noise", "users"), "noise")
    assert await reader.cache.purge(User) >= 1
    assert not redis_server.command("KEYS", "shop:*e:users:get:[0-9a-f]*")
    await reader.current(user(1))


async def test_a_commit_in_one_database_is_no_news_in_the_other(apart: dict[str, Reader]) -> None:
    for name in ("first", "another-database"):
        await settled(apart[name], *READS)
    await change(User, 1, name="new")(apart["first"].database)
    await apart["first"].miss(user(1), {"row_invalidated"})
    await apart["another-database"].hit(user(1))


@pytest.mark.parametrize("local", LOCAL)
async def test_two_databases_of_one_manager(
    files: list[str], redis_server: RedisServer, local: str | None
) -> None:
    """The second is bound while the first is listened to: its announcements must be listened to before it serves.

    1. A PONG proves what arrived for the first database. Nobody is subscribed to the second one's channel yet.
    2. Were the second taken as proved, it would serve what another process changes until it expires.
    """
    backend = {"url": redis_server.url, "timeout": 2, "bound": 0.4}
    databases = [Database(url) for url in files]
    cache = configure(backend=backend, models=MODELS, telemetry=None, prefix="two", local=local)
    readers = [Reader(database, cache) for database in databases]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(cache.disconnect)
        for database in databases:
            stack.push_async_callback(database.dispose)
        await cache.bind(databases[0].engine)
        await settled(readers[0], *READS)
        await caught_up(readers[0])
        await cache.bind(databases[1].engine)
        for reader in readers:
            await settled(reader, *READS)
        await caught_up(readers[0])
        for number, url in enumerate(files):
            async with reading(url, backend, prefix="two", name="another-process") as elsewhere:
                await change(User, 1, name="new", plan="pro")(elsewhere.database)
            await caught_up(readers[0])
            await readers[1 - number].hit(user(1))
            for reader in readers:
                for read in READS:
                    await reader.current(read)
                await settled(reader, *READS)


async def test_a_lost_registry_is_told_to_the_pushed_tier(
    files: list[str], redis_server: RedisServer
) -> None:
    """
    1. A process serves a count without asking. The server makes room: the registry that knew the count's shape goes.
    2. Another process writes. Without a registry it touches keys and replaces the table's stamp; or a reader began a
       new registry before, and replaced the table's stamp then.
    3. The first process is told, though the announcement does not name the count's stamps.
    """
    backend = {"url": redis_server.url, "timeout": 2, "bound": 0.4}
    async with (
        reading(files[0], backend, prefix="p", name="one", local="pushed") as one,
        reading(files[0], backend, prefix="p", name="other", local=None) as other,
    ):
        layout = one.cache.bindings[0].store.layout
        for begun_anew in (False, True):
            for writer in (other, one):
                await settled(one, *READS)
                await caught_up(one)
                for read in READS:
                    assert (await one.hit(read)).hits[0].tier == "local"
                assert redis_server.command("DEL", layout.registry("users")) == 1
                if begun_anew:
                    await other.current(get(User, 3 if writer is one else 4))
                    assert redis_server.command("EXISTS", layout.registry("users")) == 1
                await change(User, 1, plan="pro" if writer is other else "free")(writer.database)
                await caught_up(one)
                for read in READS:
                    await one.current(read)


async def test_a_manager_may_be_bound_again_after_it_was_disconnected(
    files: list[str], redis_server: RedisServer
) -> None:
    backend = {"url": redis_server.url, "timeout": 2, "bound": 0.4}
    async with reading(files[0], backend, local="pushed") as reader:
        for _ in range(3):
            await settled(reader, user(1))
            await caught_up(reader)
            await reader.cache.disconnect()
            await eventually(lambda: not reader.cache.bindings, "nothing to be bound")
            await reader.cache.bind(reader.database.engine)
        await change(User, 1, name="new")(reader.database)
        await reader.current(user(1))
        await settled(reader, user(1))
