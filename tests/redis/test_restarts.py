"""Redis killed and started again, empty, from an old RDB file or from an AOF: nothing stale, and hits come back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.support.databases import SQLiteDatabases
from tests.support.fleet import LOCAL, READS, Load, reading, settled, user
from tests.support.gates import after_commit, before_commit
from tests.support.models import User
from tests.support.reading import Reader
from tests.support.redis_server import RedisServer
from tests.support.writes import change

pytestmark = pytest.mark.integration

HOW = ["empty", "rdb", "aof"]


@pytest.fixture
def server(make_redis: Callable[..., RedisServer], how: str) -> RedisServer:
    return make_redis(appendonly="yes") if how == "aof" else make_redis()


@pytest_asyncio.fixture
async def readers(
    sqlite_databases: SQLiteDatabases, server: RedisServer, prefix: str
) -> AsyncIterator[list[Reader]]:
    """Readers of one database, one with each local tier."""
    backend = {"url": server.url, "timeout": 2, "bound": 0.4}
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(sqlite_databases.fresh())
        yield [
            await stack.enter_async_context(
                reading(url, backend, prefix=prefix, local=local, name=str(local))
            )
            for local in LOCAL
        ]


def heard(reader: Reader) -> None:
    """What the pushed tier may still serve within its bound is not what these tests are about."""
    pushed = reader.cache.bindings[0].store.pushed
    if pushed is not None:
        pushed.suspend()


async def all_current(readers: list[Reader], *reads: Any) -> None:
    for reader in readers:
        heard(reader)
        for read in reads or READS:
            await reader.current(read)


@pytest.mark.parametrize("how", HOW)
async def test_nothing_that_comes_back_with_a_server_is_served(
    readers: list[Reader], server: RedisServer, how: str
) -> None:
    """
    1. Entries and stamps are saved (RDB), or written down as they come (AOF).
    2. A commit replaces stamps; what it touched is filled anew.
    3. The server is killed and started again. With the RDB file, entries and stamps of step 1 come back together, and
       fit each other.
    """
    for reader in readers:
        await settled(reader, *READS)
    if how == "rdb":
        server.save()
    await change(User, 1, name="new", plan="pro")(readers[0].database)
    for reader in readers:
        await settled(reader, user(2))
    server.restart(empty=how == "empty")
    await all_current(readers)
    for reader in readers:
        await settled(reader, *READS)
    await change(User, 2, name="newer", plan="free")(readers[0].database)
    await all_current(readers)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("between", [before_commit, after_commit])
async def test_a_writer_whose_server_restarts_between_its_phases_leaves_nothing_stale(
    readers: list[Reader], server: RedisServer, how: str, between: Any
) -> None:
    """
    1. The writer has marked. The server is killed and started again, with the marks or without them.
    2. Readers fill what the database says before COMMIT, under the new generation; nobody knows of a writer.
    3. The database commits; the writer settles, and is unknown to the server: the table's stamp goes.
    """
    for reader in readers:
        await settled(reader, *READS)
    server.save()
    writer = readers[0].database
    async with between(writer) as gate:
        writing = await gate.reached_by(change(User, 1, name="new", plan="pro")(writer))
        server.restart(empty=how == "empty")
        if between is before_commit and how != "aof":  # the AOF brings the writer's marks back
            for reader in readers:
                await settled(reader, *READS)
        await all_current(readers)
        gate.open()
        await writing
    await all_current(readers)
    for reader in readers:
        await settled(reader, *READS)


@pytest.mark.parametrize("how", ["empty", "rdb"])
async def test_restarts_under_load_take_nobody_back_in_time(
    readers: list[Reader], server: RedisServer, how: str
) -> None:
    plain, validated, _ = readers
    async with Load(plain, plain, validated) as load:
        for _ in range(3):
            server.save()
            await load.goes_on()
            server.restart(empty=how == "empty")
            await load.goes_on()
    for reader in readers:
        heard(reader)
        await settled(reader, *READS)
