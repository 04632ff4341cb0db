"""A small cached database, and the pages asked for as a browser would, without a server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Column, Integer, String, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, declarative_base

from sqlacache import configure, configure_sync

Base: Any = declarative_base()
HOSTILE = "<script>alert('table')</script>"
HOSTILE_TEXT = "<img src=x onerror=alert(1)>\"'"


class Book(Base):
    __tablename__ = "books"

    id = Column(Integer, primary_key=True)
    title = Column(String(60), nullable=False)


class Hostile(Base):
    """A class whose table, column and keys try to be HTML."""

    __tablename__ = HOSTILE

    id = Column(String(60), primary_key=True)
    value = Column("<b>value</b>", String(60))


class Shelf:
    """A cache, and sessions that go through it."""

    def __init__(self, cache: Any, engine: Any) -> None:
        self.cache, self.engine = cache, engine

    def session(self) -> AsyncSession:
        return AsyncSession(self.engine, expire_on_commit=False)

    async def read(self, key: int = 1) -> str:
        async with self.session() as session:
            book = await session.get(Book, key)
            assert book is not None
            return str(book.title)

    async def write(self, title: str, key: int = 1) -> None:
        async with self.session() as session:
            book = await session.get(Book, key)
            assert book is not None
            book.title = title
            await session.commit()


def stock() -> list[Any]:
    return [Book(id=n, title=f"book {n}") for n in range(1, 101)] + [
        Hostile(id=HOSTILE_TEXT, value=HOSTILE_TEXT)
    ]


@asynccontextmanager
async def shelf(folder: Path, **options: Any) -> AsyncIterator[Shelf]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/shelf.sqlite")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        session.add_all(stock())
        await session.commit()
    options.setdefault("backend", "mem://")
    cache = configure(models={"*": {"ops": "all"}}, prefix="shelf", telemetry=None, **options)
    await cache.bind(engine, database="shelf")
    try:
        yield Shelf(cache, engine)
    finally:
        await cache.disconnect()
        await engine.dispose()


@contextmanager
def sync_shelf(folder: Path, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A cache and an engine of ordinary sessions."""
    engine = create_engine(f"sqlite:///{folder}/shelf.sqlite")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(stock())
        session.commit()
    cache = configure_sync(
        backend="mem://", models={"*": {"ops": "all"}}, prefix="shelf", telemetry=None, **options
    )
    cache.bind(engine, database="shelf")
    try:
        yield cache, engine
    finally:
        cache.disconnect()
        engine.dispose()


@asynccontextmanager
async def asking(app: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an ASGI application, under the name ``localhost``."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", **options) as client:
        yield client


def in_json(response: httpx.Response) -> Any:
    assert response.headers["content-type"] == "application/json"
    return json.loads(response.text)
