"""unbind() while an application goes on: nobody is served what was, and whoever stays bound stays served.

Two engines of one database are bound to one cache. The first is unbound, and what it had under way ends afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.orm import selectinload

from tests.support.databases import Database
from tests.support.gates import after_commit, after_select, before_commit, let_others_run
from tests.support.listeners import listeners_of_ours
from tests.support.models import Order, Tag, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import entities, get, rows
from tests.support.seed import DAY
from tests.support.writes import change

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

USER_1, USER_2 = get(User, 1), get(User, 2)
names = rows(lambda: select(User.id, User.name).order_by(User.id))
tags = rows(lambda: select(Tag.id).order_by(Tag.id))


@pytest_asyncio.fixture
async def second(database: Database, cache: Any) -> AsyncIterator[Reader]:
    """Reads through another engine of the same database, which stays bound."""
    other = Database(database.url)
    await cache.bind(other.engine)
    yield Reader(other, cache)
    await other.dispose()


def is_listened_to(database: Database) -> bool:
    """Whether anything of ours is on the engine, its pool or its dialect."""
    engine = database.engine.sync_engine
    of_engine = {id(engine), id(engine.pool), id(engine.dialect)}
    return "do_commit" in vars(engine.dialect) or any(key[0] in of_engine for key in listeners_of_ours())


async def set_name(session: Any) -> None:
    (await session.get(User, 1)).name = "new"
    await session.flush()


async def set_name_in_bulk(session: Any) -> None:
    await session.execute(update(User).where(User.id == 1).values(name="new"))


async def set_name_in_text(session: Any) -> None:
    await session.execute(text("UPDATE users SET name = 'new' WHERE id = 1"))


async def add_with_a_key_of_the_database(session: Any) -> None:
    session.add(User(name="new", email="new@example.com", active=True, plan="free", last_seen=DAY))
    await session.flush()


async def take_a_user_away(session: Any) -> None:
    user = await session.get(User, 5)
    await session.execute(delete(Order).where(Order.user_id == user.id))
    await session.execute(text("DELETE FROM user_tags WHERE user_id = 5"))
    await session.delete(user)
    await session.flush()


async def set_name_at_a_savepoint(session: Any) -> None:
    await session.execute(update(User).where(User.id == 2).values(plan="pro"))
    async with session.begin_nested():
        (await session.get(User, 1)).name = "new"


WRITES: dict[str, Callable[[Any], Awaitable[None]]] = {
    function.__name__: function
    for function in (
        set_name,
        set_name_in_bulk,
        set_name_in_text,
        add_with_a_key_of_the_database,
        take_a_user_away,
        set_name_at_a_savepoint,
    )
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_what_was_written_before_is_invalidated_as_it_is_committed_afterwards(
    write: Callable[[Any], Awaitable[None]], database: Database, cache: Any, second: Reader
) -> None:
    await second.warm(USER_1, names)
    async with database.sessions() as session:
        await write(session)
        await cache.unbind(database.engine)
        await second.hit(names)
        assert is_listened_to(database)
        await session.commit()
    assert not is_listened_to(database)
    after = await second.current(names)
    assert after.misses and not after.hits
    await second.current(USER_1)
    await second.hit(names)


async def test_what_is_written_afterwards_by_a_transaction_under_way_is_invalidated_too(
    database: Database, cache: Any, second: Reader
) -> None:
    await second.warm(USER_1, USER_2)
    async with database.sessions() as session:
        await session.execute(select(Tag), execution_options={"sqlacache_skip": True})  # takes a connection
        await cache.unbind(database.engine)
        await session.execute(update(User).where(User.id == 1).values(name="new"))
        await second.hit(USER_1)
        await session.commit()
    assert not is_listened_to(database)
    await second.miss(USER_1, {"row_invalidated"})
    await second.hit(USER_2)


async def test_what_is_rolled_back_afterwards_evicts_nothing(
    database: Database, cache: Any, second: Reader
) -> None:
    await second.warm(USER_1, names)
    async with database.sessions() as session:
        await set_name(session)
        await cache.unbind(database.engine)
        await session.rollback()
        assert not is_listened_to(database)
    await second.hit(USER_1)
    await second.hit(names)


async def test_a_connection_that_was_out_before_the_engine_was_bound_is_followed_until_it_is_back(
    database: Database, cache: Any, second: Reader
) -> None:
    await cache.unbind(database.engine)
    async with database.engine.connect() as connection:
        await connection.execute(select(User.id))
        await cache.bind(database.engine)
        await connection.commit()
        await connection.execute(update(User).where(User.id == 1).values(name="new"))
        await cache.unbind(database.engine)
        assert is_listened_to(database)
        await second.current(USER_1)
        await connection.commit()
        await second.current(USER_1)
    assert not is_listened_to(database)
    await second.current(USER_1)
    await second.hit(USER_1)


async def test_a_commit_under_way_is_carried_through(database: Database, cache: Any, second: Reader) -> None:
    for where in (before_commit, after_commit):
        await cache.bind(database.engine)
        name = where.__name__
        await second.current(USER_1)
        async with where(database) as gate:
            writer = await gate.reached_by(change(User, 1, name=name)(database))
            await cache.unbind(database.engine)
            await second.current(USER_1)
            gate.open()
            await writer
        after = await second.current(USER_1)
        assert repr(name) in repr(after.value)
        assert not is_listened_to(database)
        await second.hit(USER_1)


async def test_another_engine_of_the_database_goes_on_being_served(
    database: Database, cache: Any, second: Reader
) -> None:
    await second.warm(USER_1, names)
    await cache.unbind(database.engine)
    await second.hit(USER_1)
    await change(User, 1, name="new")(second.database)
    await second.miss(names, {"table_invalidated", "condition_invalidated", "row_invalidated"})
    await second.hit(names)


async def test_an_engine_that_is_unbound_is_neither_served_nor_stored_nor_heard_of(
    database: Database, cache: Any, second: Reader
) -> None:
    first = Reader(database, cache)
    await first.warm(USER_1)
    await cache.unbind(database.engine)
    for _ in range(2):
        answer = await first.current(USER_1)
        assert answer.decisions == [] and len(answer.traffic.selects) == 1
    await second.hit(USER_1)
    with second.watch() as seen:
        await change(User, 1, name="unseen")(database)
    assert seen.invalidations == [] and seen.decisions == []


async def test_the_last_engine_of_a_database_takes_along_what_was_stored(
    database: Database, cache: Any
) -> None:
    first = Reader(database, cache)
    await first.warm(USER_1)
    await cache.unbind(database.engine)
    await change(User, 1, name="unseen")(database)
    if cache.backend.transport is not None:  # on Redis, what others have stored is told of by hand
        other = Database(database.url)
        await cache.bind(other.engine)
        await cache.invalidate(User)
        await other.dispose()
    await cache.bind(database.engine)
    await first.current(USER_1)
    await first.hit(USER_1)


async def test_an_engine_that_is_bound_again_is_cached_again_and_only_once(
    database: Database, cache: Any, second: Reader
) -> None:
    first = Reader(database, cache)
    for _ in range(3):
        await cache.unbind(database.engine)
        await cache.bind(database.engine)
    await first.warm(USER_1)
    assert len((await first.hit(USER_1)).decisions) == 1
    with second.watch() as seen:
        await change(User, 1, name="new")(database)
    assert len(seen.invalidations) == 1
    await second.miss(USER_1, {"row_invalidated"})


@pytest.mark.parametrize("ends_as_bound", [True, False], ids=["bound", "unbound-again"])
async def test_a_transaction_that_saw_its_engine_unbound_and_bound_again_invalidates(
    ends_as_bound: bool, database: Database, cache: Any, second: Reader
) -> None:
    await second.warm(USER_1)
    async with database.sessions() as session:
        await set_name(session)
        await cache.unbind(database.engine)
        await cache.bind(database.engine)
        await second.current(USER_1)
        if not ends_as_bound:
            await cache.unbind(database.engine)
        await second.current(USER_1)
        await session.commit()
    after = await second.current(USER_1)
    assert "'new'" in repr(after.value)
    if ends_as_bound:
        await cache.unbind(database.engine)
    assert not is_listened_to(database)


async def test_a_read_under_way_is_answered_and_not_stored(
    database: Database, cache: Any, second: Reader
) -> None:
    """
    1. A reader's SELECT is under way, and another reader waits for what it loads.
    2. The engine is unbound.
    3. Somebody whom nobody hears writes what was read.
    """
    first = Reader(database, cache)
    with after_select(database) as gate:
        slow = await gate.reached_by(first.ask(USER_1))
        waiting = asyncio.create_task(first.ask(USER_1))
        await let_others_run()
        await cache.unbind(database.engine)
        gate.open()
        leads, follows = await slow, await waiting
    assert leads.value == follows.value and "ann" in repr(leads.value)
    await change(User, 1, name="unseen")(database)
    await second.miss(USER_1, {"absent"})


async def test_a_session_with_a_hit_goes_on_without_the_cache(
    database: Database, cache: Any, second: Reader
) -> None:
    orders = entities(lambda: select(User).options(selectinload(User.orders)).order_by(User.id))
    first = Reader(database, cache)
    await first.warm(USER_1, orders)
    async with database.sessions() as session:
        user = await session.get(User, 1)
        await cache.unbind(database.engine)
        assert [one.id for one in (await session.execute(select(Tag).order_by(Tag.id))).scalars()]
        assert await session.run_sync(lambda _: len(user.orders)) == 3
        user.name = "new"
        async with session.begin_nested():
            await session.flush()
        await session.rollback()
        await session.refresh(user)
        assert user.name == "ann"
    assert not is_listened_to(database)


async def test_writes_at_once_on_a_connection_without_a_transaction(
    database: Database, cache: Any, second: Reader
) -> None:
    await second.warm(tags)
    async with database.engine.connect() as connection:
        at_once = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await at_once.execute(insert(Tag).values(id=50, name="bound"))
        await second.current(tags)
        await cache.unbind(database.engine)
        await at_once.execute(insert(Tag).values(id=51, name="under way"))
        await second.current(tags)
    assert not is_listened_to(database)
    await second.hit(tags)


async def test_an_engine_is_unbound_and_disposed_of_while_its_sessions_are_open(
    database: Database, cache: Any, second: Reader
) -> None:
    """``finally: await cache.unbind(engine); await engine.dispose()``"""
    await second.warm(tags)
    async with database.engine.connect() as connection:
        await connection.execute(insert(Tag).values(id=50, name="new"))
        await cache.unbind(database.engine)
        await database.engine.dispose()
        await connection.commit()
        await connection.invalidate()  # its pool is gone, and would not close it
    await second.miss(tags, {"condition_invalidated", "table_invalidated"})
    assert not is_listened_to(database)


async def test_an_engine_that_is_bound_while_the_only_other_one_leaves_hears_of_its_writes(
    database: Database, cache: Any
) -> None:
    """
    1. A session writes. Its engine is unbound: no engine of the database is bound any more.
    2. Another engine of the database is bound, and what was is stored.
    3. The session commits.
    """
    late = Database(database.url)
    reader = Reader(late, cache)
    async with database.sessions() as session:
        await set_name(session)
        await cache.unbind(database.engine)
        await cache.bind(late.engine)
        await reader.warm(USER_1)
        await session.commit()
    await reader.miss(USER_1, {"row_invalidated"})
    await cache.unbind(late.engine)
    await late.dispose()
