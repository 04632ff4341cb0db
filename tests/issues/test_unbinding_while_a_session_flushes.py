"""A session that flushed for a read failed when the cache was unbound meanwhile.

1. A session with a new object executes a read. In ``do_orm_execute`` the cache flushes, as the query would: the INSERT
   is sent, and the session waits for the driver.
2. ``disconnect()`` of the last binding takes the cache's ``do_orm_execute`` listener away.
3. The session goes on; its read depends on what it wrote, so that the cache leaves it to SQLAlchemy, which takes the
   next of the listeners that it is iterating over: "deque mutated during iteration".
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from tests.machine.gates import answered
from tests.support.models import User
from tests.support.reading import UNCACHED, Reader
from tests.support.writes import new_user

pytestmark = pytest.mark.skipif(UNCACHED, reason="is about binding")


@pytest.mark.parametrize("again", [False, True], ids=["unbound", "bound again"])
async def test_a_read_that_flushes_is_answered_when_the_cache_is_unbound_meanwhile(
    again: bool, reader: Reader
) -> None:
    async def add_and_read() -> Any:
        async with reader.database.sessions() as session:
            session.add(new_user(100))
            found = (await session.execute(select(User.id).where(User.id == 100))).scalars().all()
            await session.rollback()
            return found

    with answered(reader.database.engine, "INSERT") as gate:
        reading = asyncio.create_task(add_and_read())
        assert await gate.arrival(reading)
        await reader.cache.disconnect()
        if again:
            await reader.cache.bind(reader.database.engine)
        gate.open()
        assert await reading == [100]
