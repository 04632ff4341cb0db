"""``disconnect()`` and ``bind()`` while a transaction is open: the new binding knew nothing of it.

A writer at its COMMIT:

1. The writer marks its stamps in the store of the old binding and is at its COMMIT.
2. ``disconnect()``, ``bind()``: the new binding has a new store, in which nothing is in flight.
3. A reader reads the value before the write and stores it.
4. The COMMIT lands. The writer's second phase replaces stamps in the old store.
5. The next reader is served what the writer overwrote.

A session that wrote while nothing was bound:

1. ``disconnect()``. A session updates a row and flushes; nobody notes it.
2. ``bind()``. A read of that session may be answered from the cache, without its own write; or it loads, and stores
   rows that are not committed, for everybody.
3. Another reader stores the value before the write. The session commits; its ledger is empty: nothing is evicted.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from tests.machine.gates import answered
from tests.support.gates import after_commit, before_commit
from tests.support.models import User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import get, rows
from tests.support.writes import change

user_1 = get(User, 1)
names = rows(lambda: select(User.id, User.name).order_by(User.id))

pytestmark = pytest.mark.skipif(UNCACHED, reason="is about binding")


async def bind_again(reader: Reader) -> None:
    await reader.cache.disconnect()
    await reader.cache.bind(reader.database.engine)


@pytest.mark.parametrize("where", [before_commit, after_commit])
async def test_a_writer_at_its_commit_evicts_what_was_stored_under_the_new_binding(
    where: Any, reader: Reader
) -> None:
    async with where(reader.database) as gate:
        writer = await gate.reached_by(change(User, 1, name="zed")(reader.database))
        await bind_again(reader)
        for read in (user_1, names):
            await reader.ask(read)
        gate.open()
        await writer
    for read in (user_1, names):
        await reader.current(read)
        await reader.hit(read)


async def test_a_writer_that_flushed_before_and_commits_after_evicts(reader: Reader) -> None:
    async with reader.database.sessions() as session:
        (await session.get(User, 1)).name = "zed"
        await session.flush()
        await bind_again(reader)
        for read in (user_1, names):  # everything counts as being written until the writer is done
            await reader.ask(read)
        await session.commit()
    for read in (user_1, names):
        await reader.current(read)
        await reader.hit(read)


async def test_a_transaction_that_wrote_while_nothing_was_bound_sees_its_writes_and_nobody_else_does(
    reader: Reader,
) -> None:
    await reader.cache.disconnect()
    async with reader.database.sessions() as session:
        (await session.get(User, 1)).name = "zed"
        await session.flush()
        await reader.cache.bind(reader.database.engine)
        assert dict(await names(session))[1] == "zed"
        for read in (user_1, names):
            await reader.current(read)
            await reader.current(read)
        assert dict(await names(session))[1] == "zed"
        await session.commit()
    for read in (user_1, names):
        await reader.current(read)
        await reader.hit(read)


async def test_a_reader_under_way_stores_nothing_stale_under_the_new_binding(reader: Reader) -> None:
    with answered(reader.database.engine) as gate:
        slow = asyncio.create_task(reader.ask(names))
        assert await gate.arrival(slow)
        await reader.cache.disconnect()
        await change(User, 1, name="zed")(reader.database)
        await reader.cache.bind(reader.database.engine)
        gate.open()
        await slow
    await reader.current(names)
    await reader.hit(names)


@pytest.mark.parametrize("where", [before_commit, after_commit])
async def test_a_commit_sent_while_nothing_was_bound_leaves_nothing_stale_under_the_new_binding(
    where: Any, reader: Reader
) -> None:
    """The COMMIT was sent through calls that no binding had wrapped, and lands after ``bind()`` has returned."""
    await reader.cache.disconnect()
    async with where(reader.database) as gate:
        writer = await gate.reached_by(change(User, 1, name="zed")(reader.database))
        await reader.cache.bind(reader.database.engine)
        for read in (user_1, names):
            await reader.ask(read)
        gate.open()
        await writer
    for read in (user_1, names):
        await reader.current(read)
        await reader.hit(read)
