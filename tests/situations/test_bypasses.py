"""Reads that the cache has no part in: they ask the database, store nothing, and leave what is cached as it is.

A write that the cache is not told of, through an engine that is not bound, makes the difference visible: what is cached
stays as it was, what is read past the cache is new.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.support.models import Order, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import entities, follow, get, rows, scalar

names = rows(lambda: select(User.id, User.name).order_by(User.id))


def users() -> Any:
    return select(User).order_by(User.id)


def cached_users() -> Any:
    return entities(users)


async def locking_select(session: AsyncSession) -> list[User]:
    return (await session.execute(users().with_for_update())).scalars().all()


async def locking_get(session: AsyncSession) -> list[User]:
    return [await session.get(User, 1, with_for_update=True)]


async def locking_select_skipping_locked(session: AsyncSession) -> list[User]:
    return (await session.execute(users().with_for_update(skip_locked=True))).scalars().all()


async def populate_existing(session: AsyncSession) -> list[User]:
    return (await session.execute(users().execution_options(populate_existing=True))).scalars().all()


async def populate_existing_get(session: AsyncSession) -> list[User]:
    return [await session.get(User, 1, populate_existing=True)]


async def refreshed(session: AsyncSession) -> list[User]:
    found = (await session.execute(users(), execution_options={"sqlacache_skip": True})).scalars().all()
    await session.refresh(found[0])
    return found


async def streamed(session: AsyncSession) -> list[User]:
    return [user async for user in (await session.stream(users())).scalars()]


async def streamed_scalars(session: AsyncSession) -> list[User]:
    return [user async for user in await session.stream_scalars(users())]


async def streamed_in_parts(session: AsyncSession) -> list[User]:
    result = await session.stream(users().execution_options(yield_per=2))
    return [user async for part in result.scalars().partitions() for user in part]


async def read_in_parts(session: AsyncSession) -> list[User]:
    statement = users().execution_options(yield_per=2)
    return await session.run_sync(lambda sync_session: sync_session.execute(statement).scalars().all())


async def skipped(session: AsyncSession) -> list[User]:
    return (await session.execute(users(), execution_options={"sqlacache_skip": True})).scalars().all()


PAST_THE_CACHE: list[tuple[Callable[[AsyncSession], Awaitable[list[User]]], str]] = [
    (locking_select, "locking_read"),
    (locking_get, "locking_read"),
    (locking_select_skipping_locked, "locking_read"),
    (populate_existing, "refresh"),
    (populate_existing_get, "refresh"),
    (refreshed, "refresh"),
    (streamed, "streaming"),
    (streamed_scalars, "streaming"),
    (streamed_in_parts, "streaming"),
    (read_in_parts, "streaming"),
    (skipped, "opted_out"),
]


async def rename_unseen(reader: Reader, name: str = "unseen") -> None:
    """Change user 1 through an engine that the cache is not bound to."""
    async with reader.database.truth_engine.begin() as connection:
        await connection.execute(User.__table__.update().where(User.__table__.c.id == 1).values(name=name))


@pytest.mark.parametrize(
    ("read", "reason"), PAST_THE_CACHE, ids=[read.__name__ for read, _ in PAST_THE_CACHE]
)
async def test_a_read_past_the_cache(read: Any, reason: str, reader: Reader) -> None:
    await reader.warm(cached_users())
    before = await reader.ask(cached_users())
    await rename_unseen(reader)

    fresh = await reader.ask(read)
    assert fresh.value[1][1]["name"] == "unseen"
    if UNCACHED:
        return
    assert reason in {decision.reason for decision in fresh.bypasses}, str(fresh)
    assert not fresh.hits
    assert not fresh.misses
    cached = await reader.ask(cached_users())
    assert cached.hits == cached.decisions
    assert cached.value == before.value


@pytest.mark.parametrize(
    ("read", "reason"), PAST_THE_CACHE, ids=[read.__name__ for read, _ in PAST_THE_CACHE]
)
async def test_nothing_is_stored_by_a_read_past_the_cache(read: Any, reason: str, reader: Reader) -> None:
    await reader.bypass(read, reason)
    await reader.warm(cached_users(), get(User, 1))


@pytest.mark.parametrize(
    "database", [pytest.param("postgresql", marks=pytest.mark.integration)], indirect=True
)
async def test_locking_reads_really_lock(reader: Reader) -> None:
    await reader.warm(cached_users())
    async with reader.database.transaction() as session:
        await session.get(User, 1, with_for_update=True)
        async with reader.database.truth_sessions() as other:
            query = select(User.id).order_by(User.id).with_for_update(skip_locked=True)
            assert (await other.execute(query)).scalars().all() == [2, 3, 4, 5]


async def test_refresh_overwrites_what_a_hit_loaded(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    async with reader.database.sessions() as session:
        user = await session.get(User, 1)
        await rename_unseen(reader)
        await session.refresh(user)
        assert user.name == "unseen"


async def test_refresh_of_one_attribute_overwrites_it(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    async with reader.database.sessions() as session:
        user = await session.get(User, 1)
        await rename_unseen(reader)
        await session.refresh(user, ["name"])
        assert user.name == "unseen"


async def test_a_stream_can_be_left_before_its_end(reader: Reader) -> None:
    await reader.warm(cached_users())
    async with reader.database.sessions() as session:
        async for user in await session.stream_scalars(users()):
            assert user.id == 1
            break
        assert len((await session.execute(users())).scalars().all()) == 5


async def test_text_read_through_a_session_is_not_cached_and_right(reader: Reader) -> None:
    await reader.bypass(rows(lambda: text("SELECT id, name FROM users ORDER BY id")), "raw_sql")
    await reader.bypass(
        entities(lambda: select(User).from_statement(text("SELECT * FROM users ORDER BY id"))), "raw_sql"
    )


async def test_a_read_that_asks_for_a_refresh_loads_and_stores_anew(reader: Reader) -> None:
    if UNCACHED:
        pytest.skip("needs the cache")
    await reader.warm(cached_users())
    await rename_unseen(reader)
    refreshing = entities(lambda: users().execution_options(sqlacache_refresh=True))
    assert (await reader.ask(refreshing)).value[1][1]["name"] == "unseen"
    after = await reader.hit(cached_users())
    assert after.value[1][1]["name"] == "unseen"


async def test_reads_of_a_task_that_bypasses_ask_the_database(reader: Reader) -> None:
    if UNCACHED:
        pytest.skip("needs the cache")
    await reader.warm(
        cached_users(), follow(User, 1, "orders"), scalar(lambda: select(Order.id).where(Order.id == 1))
    )
    await rename_unseen(reader)
    with reader.cache.bypassed():
        fresh = await reader.ask(cached_users())
        assert fresh.value[1][1]["name"] == "unseen"
        assert not fresh.hits
        await reader.bypass(follow(User, 1, "orders"), "disabled")
    stale = await reader.ask(cached_users())
    assert stale.hits == stale.decisions
