"""asyncpg has types of its own for some values, which are immutable, too."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, DateTime, Integer, Numeric, String, inspect
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import declarative_base, sessionmaker

from sqlacache import AsyncDirectSession, configure
from sqlacache.direct import ways
from tests.support.databases import PostgresDatabases

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

Base: Any = declarative_base()


class Parcel(Base):
    __tablename__ = "parcels"
    id = Column(UUID(as_uuid=True), primary_key=True)
    other = Column(UUID(as_uuid=True))
    number = Column(Integer)
    label = Column(String)
    sent = Column(Boolean)
    weight = Column(Numeric(10, 2))
    at = Column(DateTime(timezone=True))


async def test_a_row_with_each_immutable_type_of_asyncpg_is_made_directly_and_the_same(
    postgres_url: str,
) -> None:
    databases = PostgresDatabases(postgres_url)
    key = uuid.uuid4()
    async with databases.empty() as url:
        engine, plain = create_async_engine(url), create_async_engine(url)
        async with plain.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            values = {
                "id": key,
                "other": uuid.uuid4(),
                "number": 7,
                "label": "x",
                "sent": True,
                "weight": decimal.Decimal("1.50"),
                "at": datetime.datetime.now(datetime.timezone.utc),
            }
            await connection.execute(Parcel.__table__.insert().values(**values))
        cache = configure(models={"*": {"timeout": 3600}}, telemetry=None, name="direct-asyncpg")
        await cache.bind(engine)
        sessions: Any = sessionmaker(bind=engine, class_=AsyncDirectSession)
        ways.clear()
        try:
            for _ in range(3):
                async with sessions() as session:
                    found = await session.get(Parcel, key)
                    identity = inspect(found).identity
                    seen = {name: value for name, value in vars(found).items() if name[0] != "_"}
            async with AsyncSession(plain) as session:
                expected = await session.get(Parcel, key)
                wanted_identity = inspect(expected).identity
                wanted = {name: value for name, value in vars(expected).items() if name[0] != "_"}
        finally:
            await cache.disconnect()
            await engine.dispose()
            await plain.dispose()
    assert identity == wanted_identity
    assert list(map(type, identity)) == list(map(type, wanted_identity))
    assert seen == wanted and set(seen) == set(values)
    assert {name: type(value) for name, value in seen.items()} == {
        name: type(value) for name, value in wanted.items()
    }
    assert ways["direct"] == 1, ways
