"""A COMMIT that SQLite refused was taken for carried out, and what the transaction wrote was forgotten.

1. Somebody reads inside a transaction, and so keeps others from committing.
2. Ours: an order's status is set. COMMIT: "database is locked". The transaction stays open, as SQLite has it, and
   SQLAlchemy puts the connection back into the pool as it is, without a rollback.
3. The ledger was emptied in 2. So the next on this connection were served, and filled, as if nothing were uncommitted;
   and when they committed, the order's status was committed with it, and nothing evicted for it.

Now the ledger is kept as long as the driver says that the transaction is open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
from sqlalchemy import select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tests.support.models import Order, Tag, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import get, rows
from tests.support.situations import BY_WRITE

pytestmark = [
    pytest.mark.parametrize("database", ["sqlite"], indirect=True),
    pytest.mark.skipif(UNCACHED, reason="SQLAlchemy by itself shows the uncommitted row"),
]
lost = rows(lambda: select(Order.id).where(Order.status == "lost"))


@asynccontextmanager
async def refused(reader: Reader) -> AsyncIterator[AsyncConnection]:
    """A connection whose transaction has written and was refused its COMMIT; SQLAlchemy takes it for ended."""
    await reader.database.dispose()
    with closing(sqlite3.connect(make_url(reader.database.url).database)) as alone:
        assert alone.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    await reader.warm(get(Order, 1), get(Order, 2), lost, get(User, 1))
    async with reader.database.engine.connect() as ours:
        await ours.exec_driver_sql("PRAGMA busy_timeout = 0")
        await ours.rollback()
        async with reader.database.truth_engine.connect() as theirs:
            await theirs.exec_driver_sql("BEGIN")
            await theirs.execute(select(Tag.id))
            await ours.execute(update(Order).where(Order.id == 1).values(status="lost"))
            with pytest.raises(DBAPIError, match="locked"):
                await ours.commit()
            await theirs.exec_driver_sql("ROLLBACK")
        await ours.rollback()  # nothing is sent
        yield ours


async def test_what_a_refused_commit_wrote_is_not_shown_to_others(reader: Reader) -> None:
    async with refused(reader) as ours:
        async with AsyncSession(ours) as session:
            assert await lost(session) == [(1,)]  # as without the cache: the row is there, uncommitted
        await ours.rollback()
    await reader.current(lost)
    await reader.hit(get(Order, 2))
    await reader.hit(get(User, 1))


async def test_what_a_refused_commit_wrote_is_evicted_when_it_is_committed_after_all(reader: Reader) -> None:
    async with refused(reader) as ours:
        await ours.execute(select(Tag.id))
        await ours.commit()
    await reader.miss(get(Order, 1), BY_WRITE)
    await reader.miss(lost, BY_WRITE)
    await reader.hit(get(Order, 2))
    await reader.hit(get(User, 1))
