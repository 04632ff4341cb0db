"""What the scenes of :mod:`tests.telemetry.test_vocabulary` are played on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

from prometheus_client import CollectorRegistry
from sqlalchemy import Column, ForeignKey, Integer, select
from sqlalchemy.orm import declarative_base

from tests.support.databases import Database
from tests.support.fronts import configure
from tests.support.models import AuditLog, User
from tests.support.proxy import Proxy
from tests.support.reading import Answer, Read, Reader
from tests.support.reads import entities, get, rows
from tests.support.redis_server import RedisServer
from tests.support.writes import read_past_the_cache

USER = get(User, 1)
FREE = entities(lambda: select(User).where(User.plan == "free").order_by(User.id))
ROOM = 8_000
"""Bytes: for some users, not for five."""
ALL = rows(lambda: select(User.id, User.name).order_by(User.id))


Base: Any = declarative_base()


class Shelf(Base):
    __tablename__ = "shelves"

    id = Column(Integer, primary_key=True)


class Book(Base):
    __tablename__ = "books"

    id = Column(Integer, primary_key=True)
    shelf_id = Column(ForeignKey("shelves.id", ondelete="CASCADE"))


class Stage:
    """A database of the scene's own, caches with one registry, and a Redis where one is asked for."""

    def __init__(self, url: str, stack: AsyncExitStack, server: Callable[[], RedisServer]) -> None:
        self.database = Database(url)
        self.registry = CollectorRegistry()
        self._stack, self._server = stack, server
        stack.push_async_callback(self.database.dispose)

    async def bound(self, backend: Any = "mem://", engine: Any = None, **options: Any) -> Reader:
        """Bind a cache."""
        models = {"*": {"timeout": 3600, "ops": "all"}, AuditLog: None}
        given = {
            "models": models,
            "telemetry": {"registry": self.registry},
            "prefix": f"words-{uuid4().hex[:8]}",
        }
        cache = configure(**{"backend": backend, **given, **options})
        await cache.bind(engine or self.database.engine)
        self._stack.push_async_callback(cache.disconnect)
        return Reader(self.database, cache)

    async def on_redis(self, url: str | None = None, **options: Any) -> tuple[Reader, RedisServer]:
        server = self._server()
        backend = {"url": url or server.url, "timeout": 2}
        return await self.bound(backend, **{"local": None, **options}), server

    def proxy(self) -> Proxy:
        return self._stack.enter_context(Proxy(self._server().address))

    async def run(self, *statements: str) -> None:
        """Run SQL that the cache does not see."""
        async with self.database.truth_engine.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)

    async def write(self, **values: Any) -> None:
        """Change user 1, in a transaction that asks nothing of the cache."""
        async with self.database.transaction() as session:
            user = await read_past_the_cache(session, User, 1)
            for name, value in values.items():
                setattr(user, name, value)

    async def execute(self, statement: Any) -> None:
        async with self.database.transaction() as session:
            await session.execute(statement, execution_options={"synchronize_session": False})


Scene = Callable[[Stage], Awaitable[int]]


async def twice(reader: Reader, read: Read = USER) -> Answer:
    """Read what is not stored yet, and read it again as a hit."""
    await reader.ask(read)
    return await reader.hit(read)


def entry_of(reader: Reader, answer: Answer) -> str:
    """Return the name of an entry's key on Redis."""
    return str(reader.cache.bindings[0].store.layout.entry(answer.decisions[0].key, "*"))
