"""What a reader had under way when the engine was unbound could be stored, and was served after binding again.

1. A reader misses and samples the stamps; the database answers its SELECT.
2. ``disconnect()``: every entry is forgotten, and from now on nobody hears of writes. The store and its stamps stay.
3. The reader goes on, with the old binding still around its statement. Its rows must not be stored:
4. a writer commits, unseen;
5. ``bind()`` finds the store of before, and nothing would have replaced the stamps: the next reader would be served
   what the writer overwrote.

The unbinding may come before the cursor's rows are taken, or between that and the fill.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from tests.machine.gates import answered
from tests.support.gates import after_select
from tests.support.models import User
from tests.support.reading import UNCACHED, Read, Reader
from tests.support.reads import get, rows
from tests.support.writes import change

names = rows(lambda: select(User.id, User.name).order_by(User.id))

pytestmark = pytest.mark.skipif(UNCACHED, reason="is about binding")


async def _changed_unseen_and_bound_again(reader: Reader, read: Read) -> None:
    await change(User, 1, name="zed")(reader.database)
    await reader.cache.bind(reader.database.engine)
    assert (await reader.current(read)).hits == []
    await reader.hit(read)


@pytest.mark.parametrize("read", [get(User, 1), names], ids=["get", "list"])
async def test_rows_that_arrive_after_the_engine_was_unbound_are_not_stored(
    read: Any, reader: Reader
) -> None:
    with answered(reader.database.engine) as gate:
        slow = asyncio.create_task(reader.ask(read))
        assert await gate.arrival(slow)
        await reader.cache.disconnect()
        gate.open()
        answer = await slow
    assert [decision.reason for decision in answer.bypasses] == ["disabled"]
    await _changed_unseen_and_bound_again(reader, read)


@pytest.mark.parametrize("read", [get(User, 1), names], ids=["get", "list"])
async def test_rows_taken_before_the_engine_was_unbound_are_not_stored_afterwards(
    read: Any, reader: Reader
) -> None:
    with after_select(reader.database) as gate:
        slow = await gate.reached_by(reader.ask(read))
        await reader.cache.disconnect()
        gate.open()
        await slow
    await _changed_unseen_and_bound_again(reader, read)
