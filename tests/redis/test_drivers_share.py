"""Processes with ordinary and with asynchronous engines on one Redis: they evict each other's entries, and where both
have the same driver underneath, they serve them, too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
import sqlalchemy
from sqlalchemy import func, select

from tests.support.databases import Database, with_driver
from tests.support.fronts import configure
from tests.support.models import User
from tests.support.reading import Reader
from tests.support.reads import entities, get, scalar
from tests.support.situations import BY_WRITE
from tests.support.writes import add, change, new_user

pytestmark = pytest.mark.integration

on_psycopg = pytest.mark.skipif(
    sqlalchemy.__version__ < "2", reason="SQLAlchemy 1.4 has no dialect for psycopg 3"
)

SHARING = [
    pytest.param(("sqlite+aiosqlite", "sqlite+pysqlite"), id="aiosqlite and sqlite3"),
    pytest.param(("postgresql+psycopg", "postgresql+psycopg"), id="psycopg, both fronts", marks=on_psycopg),
]
APART = [
    pytest.param(("postgresql+asyncpg", "postgresql+psycopg2"), id="asyncpg and psycopg2"),
    pytest.param(("mariadb+asyncmy", "mariadb+pymysql"), id="asyncmy and pymysql"),
]

users = entities(lambda: select(User).order_by(User.id))
count = scalar(lambda: select(func.count()).select_from(User).where(User.plan == "free"))
USER_1, USER_2 = get(User, 1), get(User, 2)


@asynccontextmanager
async def process(url: str, front: Any, redis_url: str, prefix: str) -> AsyncIterator[Reader]:
    database = Database(url, front)
    cache = configure(
        front=front,
        backend=f"{redis_url}?timeout=5",
        models={"*": {"timeout": 3600}},
        prefix=prefix,
        telemetry=None,
        local=None,
        name=f"test-{uuid4().hex[:8]}",
    )
    await cache.bind(database.engine, database="main")
    try:
        yield Reader(database, cache)
    finally:
        await cache.disconnect()
        await database.dispose()


@pytest_asyncio.fixture
async def pair(
    request: pytest.FixtureRequest, drivers: tuple[str, str], redis_url: str, prefix: str
) -> AsyncIterator[tuple[Reader, Reader]]:
    """An asynchronous process and an ordinary one, on one database and one Redis."""
    source = request.getfixturevalue(f"{drivers[0].partition('+')[0]}_databases")
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(source.fresh())
        made = []
        for driver, front in zip(drivers, ("async", "sync")):
            at = with_driver(url, driver.partition("+")[2])
            made.append(await stack.enter_async_context(process(at, front, redis_url, prefix)))
        yield made[0], made[1]


@pytest.mark.parametrize("drivers", SHARING)
@pytest.mark.parametrize("turned", [False, True], ids=["async first", "sync first"])
async def test_what_one_front_filled_the_other_is_served(pair: tuple[Reader, Reader], turned: bool) -> None:
    first, second = pair[::-1] if turned else pair
    for read in (USER_1, users, count):
        await first.miss(read, {"absent"})
        await second.hit(read)


@pytest.mark.parametrize("drivers", [*SHARING, *APART])
@pytest.mark.parametrize("turned", [False, True], ids=["async first", "sync first"])
async def test_what_one_front_commits_the_other_reads_anew(pair: tuple[Reader, Reader], turned: bool) -> None:
    first, second = pair[::-1] if turned else pair
    for reader in (first, second):
        for read in (USER_1, USER_2, users, count):
            await reader.current(read)
            await reader.hit(read)
    await change(User, 1, name="zed")(first.database)
    await second.miss(USER_1, BY_WRITE)
    await second.miss(users, BY_WRITE)
    await second.hit(USER_2)
    await second.hit(count)
    await add(new_user)(second.database)
    await first.miss(count, BY_WRITE)
    await first.hit(USER_2)


@pytest.mark.parametrize("drivers", APART)
async def test_drivers_that_return_other_values_have_entries_of_their_own(
    pair: tuple[Reader, Reader],
) -> None:
    first, second = pair
    await first.miss(USER_1, {"absent"})
    await second.miss(USER_1, {"absent"})
    await first.hit(USER_1)
    await second.hit(USER_1)
