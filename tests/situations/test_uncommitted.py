"""A transaction sees its own writes; nobody else does before they are committed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import delete, exists, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from tests.support.models import Order, Tag, Team, User
from tests.support.reading import UNCACHED, Read, Reader
from tests.support.reads import entities, follow, get, rows, scalar
from tests.support.situations import BY_WRITE, understands_raw_sql
from tests.support.writes import add, change, new_user, read_past_the_cache

USER_1, USER_2 = get(User, 1), get(User, 2)
names = rows(lambda: select(User.id, User.name).order_by(User.id))
count_users = scalar(lambda: select(func.count()).select_from(User))
zed_exists = scalar(lambda: select(exists().where(User.name == "zed")))
teams = entities(lambda: select(Team).order_by(Team.id))


async def by_flush(session: AsyncSession) -> None:
    user = await read_past_the_cache(session, User, 1)
    user.name = "zed"
    session.add(new_user(100))
    await session.flush()
    session.expire_all()


async def by_statements(session: AsyncSession) -> None:
    await session.execute(update(User).where(User.id == 1).values(name="zed"))
    await session.execute(
        User.__table__.insert().values(
            id=100, name="n", email="n", active=True, plan="x", balance=0, role="MEMBER"
        )
    )
    session.expire_all()


async def by_raw_sql(session: AsyncSession) -> None:
    await session.execute(text("UPDATE users SET name = 'zed' WHERE id = 1"))
    await session.execute(text("DELETE FROM users WHERE id = 5"))


READS = {
    "get": USER_1,
    "list": names,
    "count": count_users,
    "exists": zed_exists,
    "column": scalar(lambda: select(User.name).where(User.id == 1)),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("write", [by_flush, by_statements, by_raw_sql], ids=lambda write: write.__name__)
async def test_own_writes_are_seen_and_those_of_others_are_not(
    read: Read, write: Any, reader: Reader
) -> None:
    await reader.warm(read, teams)
    before = await reader.hit(read)
    async with reader.database.sessions() as session:
        await write(session)
        own = await reader.bypass(read, "dirty_transaction", session)
        assert own.value != before.value, "the session does not see what it wrote"
        others = await reader.hit(read)
        assert others.value == before.value
        await session.commit()
    after = await reader.miss(read, BY_WRITE)
    assert after.value == own.value
    if write is not by_raw_sql or understands_raw_sql():
        await reader.hit(teams)


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_what_is_read_in_a_transaction_that_is_rolled_back_is_not_kept(
    read: Read, reader: Reader
) -> None:
    async with reader.database.sessions() as session:
        await by_flush(session)
        await reader.bypass(read, "dirty_transaction", session)
        await session.rollback()
    await reader.miss(read, {"absent"})
    await reader.hit(read)


async def test_a_pending_object_is_flushed_for_a_read_that_depends_on_it(reader: Reader) -> None:
    await reader.warm(count_users, names)
    async with reader.database.sessions() as session:
        session.add(new_user(100))
        assert await count_users(session) == 6
        (await session.get(User, 1)).name = "zed"
        assert (1, "zed") in await names(session)
        await session.execute(delete(User).where(User.id == 5))
        assert await count_users(session) == 5
    await reader.hit(count_users)
    await reader.hit(names)


async def test_a_changed_attribute_is_flushed_for_a_count_that_depends_on_it(reader: Reader) -> None:
    count_free = scalar(lambda: select(func.count()).select_from(User).where(User.plan == "free"))
    await reader.warm(count_free)
    async with reader.database.sessions() as session:
        (await session.get(User, 1)).plan = "pro"
        assert await count_free(session) == 2
    await reader.hit(count_free)


async def test_a_pending_object_is_not_flushed_where_autoflush_is_off(reader: Reader) -> None:
    await reader.warm(count_users)
    async with reader.database.sessions(autoflush=False) as session:
        session.add(new_user(100))
        assert await count_users(session) == 5
        with session.no_autoflush:
            assert await count_users(session) == 5
    await reader.hit(count_users)


async def test_a_transaction_that_wrote_stores_nothing_even_of_other_tables(reader: Reader) -> None:
    async with reader.database.sessions() as session:
        await by_flush(session)
        assert len(await teams(session)) == 3
        await session.rollback()
    await reader.miss(teams, {"absent"})


async def test_lazy_loads_of_a_transaction_that_wrote_see_its_writes(reader: Reader) -> None:
    orders = follow(User, 1, "orders")
    await reader.warm(orders)
    async with reader.database.sessions() as session:
        (await session.get(Order, 4)).user_id = 1
        await session.flush()
        assert [order.id for order in await orders(session)] == [1, 2, 3, 4]
        await session.rollback()
    await reader.hit(orders)


async def test_a_read_cached_while_a_writer_is_uncommitted_is_loaded_anew_after_its_commit(
    reader: Reader,
) -> None:
    await reader.warm(teams)
    for read in (USER_1, names, count_users):
        async with reader.database.sessions() as writer:
            await by_flush(writer)
            during = await reader.current(read)
            await reader.current(read)
            await writer.commit()
        after = await reader.current(read)
        assert after.value != during.value
        assert not after.hits
        async with reader.database.transaction() as session:
            await session.execute(delete(User).where(User.id == 100))
            (await session.get(User, 1)).name = "ann"
    await reader.hit(teams)


async def test_two_writers_at_once_evict_each_its_own_row(reader: Reader) -> None:
    await reader.warm(USER_1, get(Tag, 1), USER_2)
    if reader.database.dialect == "sqlite":  # one writer at a time: the second waits for the first
        await asyncio.gather(
            change(User, 1, name="zed")(reader.database), change(Tag, 1, name="x")(reader.database)
        )
    else:
        async with reader.database.sessions() as one, reader.database.sessions() as other:
            (await one.get(User, 1)).name = "zed"
            (await other.get(Tag, 1)).name = "x"
            await one.flush()
            await other.flush()
            await other.commit()
            await reader.miss(get(Tag, 1), BY_WRITE)
            await reader.hit(USER_1)
            await one.commit()
    await reader.miss(USER_1, BY_WRITE)
    await reader.current(get(Tag, 1))
    await reader.hit(USER_2)


async def test_an_entity_in_the_session_is_returned_as_it_is_without_a_decision(reader: Reader) -> None:
    await reader.warm(USER_1)
    async with reader.database.sessions() as session:
        first = await session.get(User, 1)
        with reader.watch() as seen, reader.database.probe() as traffic:
            assert await session.get(User, 1) is first
        assert seen.decisions == []
        assert traffic.statements == []
        assert (await session.execute(select(User).where(User.id == 1))).scalar_one() is first


async def test_a_hit_does_not_overwrite_unflushed_changes_of_the_session(reader: Reader) -> None:
    users = entities(lambda: select(User).order_by(User.id))
    await reader.warm(users)
    async with reader.database.sessions(autoflush=False) as session:
        user = await session.get(User, 1)
        user.name = "mine"
        assert (await users(session))[0] is user
        assert user.name == "mine"
    await reader.hit(users)


async def test_rows_added_by_another_process_of_work_are_seen_after_a_commit_between_reads(
    reader: Reader,
) -> None:
    async with reader.database.sessions() as session:
        assert len(await names(session)) == 5
        await session.commit()
        await add(lambda: new_user(100))(reader.database)
        assert len(await names(session)) == 6
    if not UNCACHED:
        await reader.hit(names)
