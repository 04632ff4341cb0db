"""DDL in a transaction that was rolled back evicted nothing on SQLite, where it had been carried out all the same.

1. A list is cached.
2. A connection drops all tables, makes them anew and is closed without ``commit()``: SQLAlchemy rolls back.
3. Python's ``sqlite3`` begins a transaction only before INSERT, UPDATE, DELETE and REPLACE. The tables were dropped in
   2, at once, and nothing brought them back; but the ledger of the connection was emptied with the rollback, so that
   rows which were gone were served until they expired.

``WITH ... INSERT`` is another such statement. Now such a statement has both phases around it, and SQLite's driver is
asked whether a transaction is open after it.
"""

from __future__ import annotations

import pytest
from sqlalchemy import insert, literal, select

from tests.support.models import Base, Tag, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import get, rows

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
names = rows(lambda: select(User.name).order_by(User.id))
tags = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))


@pytest.mark.parametrize("ending", ["committed", "rolled back"])
async def test_what_was_read_before_all_tables_were_made_anew_is_not_served(
    reader: Reader, ending: str
) -> None:
    await reader.warm(names, get(User, 1))
    async with reader.database.engine.connect() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
        if ending == "committed":
            await connection.commit()
    async with reader.database.sessions() as session:
        assert (await session.scalars(select(User.name))).all() == []
        assert await session.get(User, 1) is None


async def test_a_row_that_with_insert_wrote_at_once_is_seen_after_the_rollback(reader: Reader) -> None:
    await reader.warm(tags)
    new = select(literal(9000).label("id"), literal("at once").label("name")).cte("new")
    async with reader.database.engine.connect() as connection:
        await connection.execute(insert(Tag).from_select(["id", "name"], select(new)))
    async with reader.database.sessions() as session:
        assert (9000, "at once") in await tags(session)


@pytest.mark.skipif(UNCACHED, reason="it is about what is cached")
async def test_a_transaction_that_has_begun_keeps_its_ddl_to_itself(reader: Reader) -> None:
    await reader.warm(names)
    async with reader.database.engine.connect() as connection:
        await connection.execute(insert(Tag).values(name="begins a transaction"))
        await connection.exec_driver_sql("CREATE TABLE of_no_interest (id INTEGER)")
        await connection.rollback()
    await reader.hit(names)
