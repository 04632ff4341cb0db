"""Reads in one line. Statements are built anew for every read, as every request builds its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from .reading import Read


def get(entity: Any, key: Any, **options: Any) -> Read:
    """``session.get(entity, key)``."""

    async def read(session: AsyncSession) -> Any:
        return await session.get(entity, key, **options)

    return read


def rows(build: Callable[[], Any]) -> Read:
    """All rows of a statement, as tuples."""

    async def read(session: AsyncSession) -> Any:
        return [tuple(row) for row in (await session.execute(build())).all()]

    return read


def entities(build: Callable[[], Any]) -> Read:
    """The first element of each row, each entity once (as joined eager loading of collections asks for)."""

    async def read(session: AsyncSession) -> Any:
        return (await session.execute(build())).unique().scalars().all()

    return read


def scalar(build: Callable[[], Any]) -> Read:
    """The first column of the first row."""

    async def read(session: AsyncSession) -> Any:
        return (await session.execute(build())).scalar()

    return read


def follow(entity: Any, key: Any, relation: str) -> Read:
    """Get an entity, then lazily load what it refers to."""

    async def read(session: AsyncSession) -> Any:
        found = await session.get(entity, key)
        related = await session.run_sync(lambda _: getattr(found, relation))
        return list(related) if isinstance(related, list) else related

    return read
