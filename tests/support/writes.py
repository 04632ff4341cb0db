"""Writes in one line, each in its own transaction, as another request would make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from .databases import Database
from .models import User
from .seed import DAY
from .situations import Write


def new_user(id: int = 100, **values: Any) -> User:
    """A user that nothing in the seeded rows refers to."""
    defaults: dict[str, Any] = {
        "name": f"new{id}",
        "email": f"new{id}@example.com",
        "active": True,
        "plan": "free",
    }
    return User(id=id, last_seen=DAY, **{**defaults, **values})


async def read_past_the_cache(session: AsyncSession, entity: Any, key: int) -> Any:
    """Load one entity from the database, for writers that must neither wait for another's load nor fill the cache."""
    statement = select(entity).where(entity.id == key)
    return (await session.execute(statement, execution_options={"sqlacache_skip": True})).scalar_one()


def add(make: Callable[[], Any]) -> Write:
    """Add one new object, or several."""

    async def write(database: Database) -> None:
        made = make()
        async with database.transaction() as session:
            session.add_all(made if isinstance(made, (list, tuple)) else [made])

    return write


def change(entity: Any, key: Any, **values: Any) -> Write:
    """Get an entity and set attributes."""

    async def write(database: Database) -> None:
        async with database.transaction() as session:
            found = await session.get(entity, key)
            for name, value in values.items():
                setattr(found, name, value)

    return write


def delete(entity: Any, key: Any) -> Write:
    """Get an entity and delete it."""

    async def write(database: Database) -> None:
        async with database.transaction() as session:
            await session.delete(await session.get(entity, key))

    return write


def in_session(work: Callable[[Session], Any]) -> Write:
    """Run a function of the synchronous session, in which lazy loading works."""

    async def write(database: Database) -> None:
        async with database.transaction() as session:
            await session.run_sync(work)

    return write


def execute(build: Callable[[Database], Any], parameters: Any = None) -> Write:
    """Execute a statement in a session."""

    async def write(database: Database) -> None:
        async with database.transaction() as session:
            result = await session.execute(build(database), *([] if parameters is None else [parameters]))
            result.close()  # rows that nobody takes keep SQLite from committing

    return write


def execute_on_connection(build: Callable[[Database], Any], parameters: Any = None) -> Write:
    """Execute a statement on a connection of the engine, without a session."""

    async def write(database: Database) -> None:
        async with database.connection() as connection:
            result = await connection.execute(build(database), *([] if parameters is None else [parameters]))
            result.close()  # as above

    return write


def raw_in_session(sql: str, **parameters: Any) -> Write:
    """Execute ``text()`` in a session."""
    return execute(lambda _: text(sql), parameters)


def raw_on_driver(sql: str, mariadb: str = "") -> Write:
    """Hand SQL to the driver as it is, on a connection of the engine; ``mariadb`` is what MariaDB takes instead."""

    async def write(database: Database) -> None:
        async with database.connection() as connection:
            await connection.exec_driver_sql(mariadb if mariadb and database.dialect == "mariadb" else sql)

    return write


def one_after_another(writes: Iterable[Write]) -> Write:
    """Several transactions, one after another."""

    async def write(database: Database) -> None:
        for each in writes:
            await each(database)

    return write
