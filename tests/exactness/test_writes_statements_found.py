"""What was found wrong with writes statements, each with its cause."""

from __future__ import annotations

from sqlalchemy import func, select

from tests.support.databases import Database
from tests.support.models import User
from tests.support.reads import get
from tests.support.situations import BY_WRITE

from .setups import ON_POSTGRESQL, Bind, prepare
from .test_writes_statements import _BUMP, names


@ON_POSTGRESQL
async def test_a_writing_function_made_after_bind(database: Database, bind: Bind) -> None:
    reader = await bind()
    await prepare(database, _BUMP)
    await reader.warm(get(User, 1), names)
    async with database.transaction() as session:
        await session.execute(select(func.rename_user(1)))
    for read in (get(User, 1), names):
        await reader.miss(read, BY_WRITE)
        await reader.hit(read)
