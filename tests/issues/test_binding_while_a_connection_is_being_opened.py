"""A connection that was being opened when the engine was bound kept everything in flight until the lease ended.

1. A session asks for a connection. The pool counts it as checked out and begins to open it.
2. ``bind()`` sees a connection that is out, so that everything counts as being written until it is back.
3. The connection is open, and leaves the pool before the eyes of the new binding. So when it comes back, it is none of
   those that were out before, and nobody counted down: nothing was stored or served for 30 seconds.

Another that really was out before, with a write that nobody has seen, still has to be waited for.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from tests.support.databases import Database
from tests.support.gates import Gate
from tests.support.models import User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import get

user_1 = get(User, 1)

pytestmark = pytest.mark.skipif(UNCACHED, reason="is about binding")


@pytest.fixture
async def unbound(reader: Reader) -> Reader:
    """A reader whose pool is empty, and whose engine is not bound."""
    await reader.cache.disconnect()
    await reader.database.engine.dispose()
    return reader


async def _bind_while_one_is_opened(reader: Reader) -> None:
    gate = Gate()

    def opening(*args: Any) -> None:
        gate.stop_here()

    async def use_a_connection(database: Database) -> None:
        async with database.engine.connect():
            pass

    engine = reader.database.engine.sync_engine
    event.listen(engine, "do_connect", opening)
    try:
        user = await gate.reached_by(use_a_connection(reader.database))
        await reader.cache.bind(reader.database.engine)
        gate.open()
        await user
    finally:
        gate.open()
        event.remove(engine, "do_connect", opening)


async def test_a_connection_opened_while_the_engine_is_bound_does_not_stand_in_the_way(
    unbound: Reader,
) -> None:
    await _bind_while_one_is_opened(unbound)
    await unbound.current(user_1)
    await unbound.hit(user_1)


async def test_it_is_not_taken_for_one_that_was_out_before(unbound: Reader) -> None:
    async with unbound.database.sessions() as session:
        (await session.get(User, 1)).name = "zed"
        await session.flush()
        await _bind_while_one_is_opened(unbound)
        for _ in range(2):
            await unbound.bypass(user_1, "writer_under_way")
        await session.commit()
    await unbound.current(user_1)
    await unbound.hit(user_1)


async def test_one_that_is_detached_or_closed_for_good_is_not_waited_for(unbound: Reader) -> None:
    async with unbound.database.engine.connect() as one, unbound.database.engine.connect() as other:
        await unbound.cache.bind(unbound.database.engine)
        await one.run_sync(lambda connection: connection.detach())
        await unbound.bypass(user_1, "writer_under_way")
        await other.invalidate()
    await unbound.current(user_1)
    await unbound.hit(user_1)
