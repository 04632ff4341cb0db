"""Engines on which nothing waits, and the sessions that stay open over many steps of a program."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from sqlacache.read.session import driver_in_transaction, held_connection
from tests.support.databases import isolation
from tests.support.fronts import SESSION, open_engine, url_for

from .schema import create

LOCK_WAIT_MS = 20
_NOBODY_WAITS: dict[str, dict[str, Any]] = {
    "aiosqlite": {"timeout": 0},
    "pysqlite": {"timeout": 0},
    "asyncpg": {"server_settings": {"lock_timeout": str(LOCK_WAIT_MS)}},
    "psycopg": {"options": f"-c lock_timeout={LOCK_WAIT_MS}"},
    "psycopg2": {"options": f"-c lock_timeout={LOCK_WAIT_MS}"},
    "pymysql": {"init_command": "SET SESSION innodb_lock_wait_timeout = 0"},
    "asyncmy": {"init_command": "SET SESSION innodb_lock_wait_timeout = 0"},
}


def make_engine(url: str, size: int) -> AsyncEngine:
    sqlite = url.startswith("sqlite")
    # A statement that would wait for another session of the same program would wait for ever: it fails instead.
    arguments = _NOBODY_WAITS[url_for(url).get_driver_name()]
    engine = open_engine(
        url,
        poolclass=AsyncAdaptedQueuePool, pool_size=size, max_overflow=0, pool_timeout=20, connect_args=arguments,
        **isolation(url),
    )  # fmt: skip
    if sqlite:
        event.listen(engine.sync_engine, "connect", _enforce_foreign_keys)
    return engine


def _enforce_foreign_keys(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


async def prepare(url: str) -> None:
    """Create the tables in an empty database."""
    engine = open_engine(url, poolclass=NullPool)
    if url.startswith("sqlite"):
        async with engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    async with engine.begin() as connection:
        await connection.run_sync(create)
    await engine.dispose()


class Slot:
    """A session that stays open over many steps, and its savepoints."""

    def __init__(self, engine: AsyncEngine, *, expire: bool) -> None:
        self.session = SESSION(engine, expire_on_commit=expire)
        self.nested: list[Any] = []

    def holds_lock(self) -> bool:
        held = held_connection(self.session.sync_session, self.session.bind.dialect)
        return held is not None and driver_in_transaction(held)

    async def commit(self) -> None:
        while self.nested:
            await self.nested.pop().commit()
        await self.session.commit()

    async def rollback(self) -> None:
        self.nested.clear()
        await self.session.rollback()

    async def recover(self) -> None:
        await self.rollback()
        await self.session.close()

    async def close(self) -> None:
        self.nested.clear()
        await self.session.close()
