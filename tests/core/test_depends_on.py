"""``depends_on=`` of configure(): views, declared once (read by sqlacache/read/identify.py and statement.py)."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, column, select, table
from sqlalchemy.orm import registry

from sqlacache import ConfigError, configure
from tests.support import writes
from tests.support.models import Order, User
from tests.support.reading import Reader
from tests.support.reads import get, rows

VIEW = "CREATE VIEW v_sales AS SELECT user_id AS id, count(*) AS sales FROM orders GROUP BY user_id"


@pytest.mark.parametrize("kind", ["mapped", "table", "clause"])
async def test_a_view_is_cached_and_evicted_by_the_tables_it_reads(kind: str, reader: Reader) -> None:
    async with reader.database.connection() as connection:
        await connection.exec_driver_sql(VIEW)
    await reader.cache.disconnect()
    mapping = registry()
    source: Any = table("v_sales", column("id"), column("sales"))
    if kind != "clause":
        source = Table(
            "v_sales", MetaData(), Column("id", Integer, primary_key=True), Column("sales", Integer)
        )
    if kind == "mapped":
        mapping.map_imperatively(type("Sales", (), {}), source)
    reader.cache = configure(models={"*": {}}, telemetry=None, depends_on={"v_sales": ["orders"]})
    await reader.cache.bind(reader.database.engine)
    try:
        read = rows(lambda: select(source.c.id, source.c.sales).order_by(source.c.id))
        await reader.warm(read, get(User, 1))
        await writes.delete(Order, 6)(reader.database)
        await reader.miss(read, {"condition_invalidated", "table_invalidated"})
        await reader.hit(read)
        await reader.cache.touched("v_sales")
        await reader.miss(read, {"manual_invalidated"})
        await reader.hit(get(User, 1))
    finally:
        await reader.cache.disconnect()
        mapping.dispose()


async def test_a_name_in_place_of_several_is_an_error(reader: Reader) -> None:
    statement = select(User).execution_options(sqlacache_depends_on="users")
    async with reader.database.sessions() as session:
        with pytest.raises(
            ConfigError, match="sqlacache_depends_on: takes a collection of names, got 'users'"
        ):
            await session.execute(statement)
