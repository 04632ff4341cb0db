"""What an upsert overwrites is read and locked beforehand; on PostgreSQL a row may be inserted in between.

1. Ours: upsert of the shelf's row ("west", 1). Before it runs, the row is looked for, to be locked: it is not there.
2. Theirs: it is inserted with another quantity, and committed. Somebody lists what has that quantity: cached.
3. Ours runs, meets their row, and overwrites it.
4. Of a row that was not found in 1 no old value is taken for known, not even that there was none: every list is
   evicted that the row may have been on. So is the one of 2.

A row that was found in 1 is locked until our COMMIT: nobody else can write it in between.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from tests.support.databases import Database
from tests.support.gates import after_select
from tests.support.models import Stock, Team
from tests.support.plain import plain
from tests.support.reading import UNCACHED, Read, Reader
from tests.support.reads import get, rows, scalar
from tests.support.situations import BY_KEY, BY_WRITE

POSTGRESQL_ONLY = pytest.mark.parametrize(
    "database", [pytest.param("postgresql", marks=pytest.mark.integration)], indirect=True
)
pytestmark = pytest.mark.skipif(UNCACHED, reason="nothing is read beforehand without a cache")


def with_quantity(quantity: int) -> Read:
    return rows(lambda: select(Stock.warehouse, Stock.sku).where(Stock.quantity == quantity))


count = scalar(lambda: select(func.count()).select_from(Stock))


async def upsert(database: Database, warehouse: str, sku: int, quantity: int) -> None:
    make: Any = postgresql.insert if database.dialect == "postgresql" else sqlite.insert
    statement = make(Stock.__table__).values(warehouse=warehouse, sku=sku, quantity=quantity)
    statement = statement.on_conflict_do_update(
        index_elements=["warehouse", "sku"], set_={"quantity": statement.excluded.quantity}
    )
    async with database.transaction() as session:
        await session.execute(statement)


@POSTGRESQL_ONLY
async def test_a_row_inserted_after_it_was_looked_for_is_evicted_from_the_lists_it_was_on(
    reader: Reader,
) -> None:
    database = reader.database
    await reader.warm(with_quantity(7), with_quantity(8), count, get(Team, 1))
    with after_select(database, "stock") as gate:
        ours = await gate.reached_by(upsert(database, "west", 1, 8))
        async with database.transaction() as theirs:
            await theirs.execute(insert(Stock.__table__).values(warehouse="west", sku=1, quantity=7))
        assert (await reader.current(with_quantity(7))).value == plain([("west", 1)])
        await reader.current(get(Stock, ("west", 1)))
        gate.open()
        await ours
    assert (await reader.miss(with_quantity(7), BY_WRITE)).value == plain([])
    await reader.miss(with_quantity(8), BY_WRITE)
    await reader.miss(get(Stock, ("west", 1)), BY_KEY)
    await reader.hit(get(Team, 1))


@POSTGRESQL_ONLY
async def test_a_row_that_was_found_cannot_move_before_it_is_overwritten(reader: Reader) -> None:
    database = reader.database
    lists = [with_quantity(quantity) for quantity in (10, 55, 66, 30)]
    await reader.warm(*lists, count)

    async def move() -> None:
        async with database.transaction() as theirs:
            await theirs.execute(
                update(Stock).where(Stock.warehouse == "north", Stock.sku == 1).values(quantity=66)
            )

    with after_select(database, "stock") as gate:
        ours = await gate.reached_by(upsert(database, "north", 1, 55))
        theirs = asyncio.create_task(move())
        await _someone_waits(reader)
        gate.open()
        await ours
        await theirs
    for moved in lists[:3]:
        await reader.current(moved)
    assert (await reader.hit(with_quantity(66))).value == plain([("north", 1)])
    await reader.hit(with_quantity(30))
    await reader.hit(count)


async def _someone_waits(reader: Reader) -> None:
    """Until the server says that a backend waits for a lock."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while True:
        async with reader.database.truth_engine.connect() as connection:
            if (await connection.exec_driver_sql(waits)).scalar():
                return


async def test_a_row_that_was_found_is_overwritten_and_no_more_evicted_than_that(reader: Reader) -> None:
    await reader.warm(
        with_quantity(10), with_quantity(55), with_quantity(30), count, get(Stock, ("north", 1))
    )
    await reader.warm(get(Stock, ("north", 2)))
    await upsert(reader.database, "north", 1, 55)
    await reader.miss(with_quantity(10), BY_WRITE)
    await reader.miss(with_quantity(55), BY_WRITE)
    await reader.miss(get(Stock, ("north", 1)), BY_KEY)
    await reader.hit(with_quantity(30))
    await reader.hit(count)
    await reader.hit(get(Stock, ("north", 2)))
