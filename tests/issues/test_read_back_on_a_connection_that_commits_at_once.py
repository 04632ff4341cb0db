"""Old values were read back on connections where every statement takes effect at once, and the lock was gone again.

1. Ours, on an AUTOCOMMIT connection: the status of order 1 is set. Its user is read beforehand with FOR NO KEY UPDATE,
   which on such a connection is a transaction of its own: the lock is released before the UPDATE is sent.
2. Theirs: order 1 goes to user 2, and is committed. Somebody lists the orders of user 2, and that is cached.
3. Ours: the UPDATE runs. Only user 1's list was taken for touched; user 2's had the old status from then on.

On SQLite it was worse: the BEGIN IMMEDIATE that was sent for it began a transaction on a connection that was meant to
have none, and nobody ended it.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from tests.support.databases import Database
from tests.support.gates import after_select
from tests.support.models import Order, User
from tests.support.reading import UNCACHED, Read, Reader
from tests.support.reads import get, rows
from tests.support.situations import BY_WRITE

to_lost = update(Order.__table__).where(Order.__table__.c.id == 1).values(status="lost")
pytestmark = pytest.mark.skipif(UNCACHED, reason="nothing is read beforehand without a cache")


def statuses_of(user_id: int) -> Read:
    return rows(lambda: select(Order.id, Order.status).where(Order.user_id == user_id).order_by(Order.id))


async def at_once(database: Database, statement: Any) -> None:
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(statement)


async def test_a_statement_that_takes_effect_at_once_evicts_wherever_the_row_may_be(reader: Reader) -> None:
    await reader.warm(statuses_of(1), statuses_of(2), get(User, 1))
    with after_select(reader.database, "orders") as gate:
        gate.open()  # nothing should come to it
        await at_once(reader.database, to_lost)
    await reader.miss(statuses_of(1), BY_WRITE)
    await reader.miss(statuses_of(2), BY_WRITE)
    await reader.hit(get(User, 1))


async def test_nothing_is_read_and_no_transaction_begun_for_it(reader: Reader) -> None:
    await reader.warm(statuses_of(1))
    with reader.database.probe() as traffic:
        await at_once(reader.database, to_lost)
    assert [statement.split()[0] for statement in traffic.statements] == ["UPDATE"]
    async with reader.database.truth_sessions() as session:
        assert (await session.execute(select(Order.status).where(Order.id == 1))).scalar() == "lost"
