"""What a bulk UPDATE writes is read and locked beforehand; on PostgreSQL another row may begin to match in between.

1. Ours: ``UPDATE orders SET total = 7 WHERE status = 'sent'``. Before it runs, the orders that are sent are read and
   locked.
2. Theirs: order 2 is sent, and that is committed. Somebody reads it, and that is cached.
3. Ours runs. At READ COMMITTED it finds order 2, too, which nobody locked for it, and writes it.
4. It says that it wrote one row more than were locked. So the rows locked are no proof, and the wider eviction is
   chosen: what was cached of order 2 goes.

Without the row count, order 2 would have been served with its old total from then on.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import DBAPIError

from tests.support.databases import Database
from tests.support.gates import after_select
from tests.support.models import Order, User
from tests.support.reading import UNCACHED, Read, Reader
from tests.support.reads import get, rows
from tests.support.seed import DAY
from tests.support.situations import BY_WRITE
from tests.support.writes import change

POSTGRESQL_ONLY = pytest.mark.parametrize(
    "database", [pytest.param("postgresql", marks=pytest.mark.integration)], indirect=True
)
SQLITE_ONLY = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
pytestmark = pytest.mark.skipif(UNCACHED, reason="nothing is read beforehand without a cache")

to_7 = update(Order).where(Order.status == "sent").values(total=7)
drop_sent = delete(Order).where(Order.status == "sent")


def totals_of(user_id: int) -> Read:
    return rows(lambda: select(Order.id, Order.total).where(Order.user_id == user_id).order_by(Order.id))


async def bulk(database: Database, statement: Any) -> None:
    async with database.transaction() as session:
        await session.execute(statement, execution_options={"synchronize_session": False})


async def begins_to_match(database: Database) -> None:
    await change(Order, 2, status="sent", user_id=2)(database)


async def is_inserted(database: Database) -> None:
    values = {"id": 100, "user_id": 2, "status": "sent", "total": 1, "created": DAY}
    async with database.transaction() as session:
        await session.execute(insert(Order.__table__).values(values))


@POSTGRESQL_ONLY
@pytest.mark.parametrize(
    ("statement", "meanwhile", "key"),
    [(to_7, begins_to_match, 2), (to_7, is_inserted, 100), (drop_sent, is_inserted, 100)],
    ids=["update", "update_of_a_new_row", "delete_of_a_new_row"],
)
async def test_a_row_that_was_not_locked_is_evicted_when_it_is_written(
    statement: Any, meanwhile: Any, key: int, reader: Reader
) -> None:
    database = reader.database
    await reader.warm(totals_of(1), totals_of(2), get(User, 1))
    with after_select(database, "orders") as gate:
        ours = await gate.reached_by(bulk(database, statement))
        await meanwhile(database)
        await reader.current(get(Order, key))
        await reader.current(totals_of(2))
        gate.open()
        await ours
    await reader.miss(get(Order, key), BY_WRITE)
    await reader.miss(totals_of(2), BY_WRITE)
    await reader.current(totals_of(1))
    await reader.hit(get(User, 1))


@POSTGRESQL_ONLY
async def test_a_row_that_ceased_to_match_before_it_was_locked_stays(reader: Reader) -> None:
    """The other way round: order 5 is no longer sent when the rows are locked, and is not written."""
    await reader.warm(get(Order, 5), get(Order, 6))
    async with reader.database.transaction() as ours:
        await ours.execute(select(User.id).where(User.id == 1))
        await change(Order, 5, status="paid")(reader.database)
        await reader.current(get(Order, 5))
        await ours.execute(to_7, execution_options={"synchronize_session": False})
    await reader.hit(get(Order, 5))
    await reader.miss(get(Order, 6), BY_WRITE)


@SQLITE_ONLY
async def test_on_sqlite_nobody_else_writes_in_between(reader: Reader) -> None:
    database = reader.database
    await reader.warm(get(Order, 6), get(Order, 1))
    with after_select(database, "orders") as gate:
        ours = await gate.reached_by(bulk(database, to_7))
        async with database.truth_engine.connect() as theirs:
            await theirs.exec_driver_sql("PRAGMA busy_timeout = 0")
            with pytest.raises(DBAPIError, match="locked"):
                await theirs.execute(update(Order).where(Order.id == 1).values(status="sent"))
        gate.open()
        await ours
    await reader.miss(get(Order, 6), BY_WRITE)
    await reader.hit(get(Order, 1))
