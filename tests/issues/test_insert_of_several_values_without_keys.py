"""A key that the database made was taken for known, and known to be NULL.

1. ``session.get(User, 50)`` finds nothing, and that is cached.
2. ``insert(users).values([{...}])`` (several rows in one VALUES; here one) leaves the key to the database.
3. SQLAlchemy's ``inserted_primary_key_rows`` has ``(None,)`` for such a statement. It was noted as a row that became
   known, with the key NULL, so the row whose key was not known was dropped from what the commit touches.
4. The database made the key 50; the next ``get`` was still answered with nothing.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, insert, select

from tests.support.models import Tag
from tests.support.reading import Read, Reader
from tests.support.reads import get, rows, scalar

ABSENT = 4, 50
"""The key that each database makes next: SQLite's follows the highest, PostgreSQL's sequence was set."""
all_tags = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))
tag_1 = get(Tag, 1)


def _named(key: int) -> Read:
    return scalar(lambda: select(func.count()).select_from(Tag).where(Tag.id == key))


@pytest.mark.parametrize(
    "values", [[{"name": "one"}], [{"name": "one"}, {"name": "two"}], {"name": "one"}], ids=str
)
async def test_rows_inserted_with_keys_of_the_database_are_found(values: Any, reader: Reader) -> None:
    reads = [*(get(Tag, key) for key in ABSENT), *(_named(key) for key in ABSENT), all_tags]
    await reader.warm(*reads, tag_1)
    async with reader.database.transaction() as session:
        await session.execute(insert(Tag.__table__).values(values))
    for read in reads:
        await reader.current(read)
    await reader.current(tag_1)


async def test_many_rows_inserted_at_once_with_keys_of_the_database_are_found(reader: Reader) -> None:
    reads = [*(get(Tag, key) for key in ABSENT), all_tags]
    await reader.warm(*reads)
    async with reader.database.transaction() as session:
        await session.execute(insert(Tag.__table__), [{"name": "one"}, {"name": "two"}])
    for read in reads:
        await reader.current(read)
