"""What teams write today: functions that read and return plain data, each with a decorator of cashews 7.

A hit needs no session and no entity: nothing is built but the key. In memory it hands out the very objects that were
stored. What it does for its user differs, too: what it returns belongs to no session, and nothing is forgotten when
something is committed, unless the application deletes the right keys by hand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from cashews import Cache
from sqlalchemy import event, exists, func, select
from sqlalchemy.orm import joinedload, selectinload

from .contender import Contender, Unfair
from .models import Customer, Document, Order
from .work import KEYS, READS, Work, fingerprint

DECORATOR = "decorator, memory"
DECORATOR_REDIS = "decorator, redis"

TTL = "1h"

Function = Callable[[int], Awaitable[Any]]
"""Takes a number that differs with every call; returns plain data."""


def _columns(found: Any) -> dict[str, Any]:
    return {column.key: getattr(found, column.key) for column in found.__table__.columns}


def functions(cache: Cache, sessions: Any, prefix: str) -> Mapping[str, Function]:
    """Return what an application would have for each work, by the work's name."""

    @cache(ttl=TTL, key=prefix + ":customer:{id}")
    async def customer(id: int) -> Any:
        async with sessions() as session:
            return _columns(await session.get(Customer, id))

    @cache(ttl=TTL, key=prefix + ":customers:first:{rows}")
    async def customers(rows: int) -> Any:
        async with sessions() as session:
            found = await session.scalars(select(Customer).where(Customer.id <= rows).order_by(Customer.id))
            return [_columns(each) for each in found]

    @cache(ttl=TTL, key=prefix + ":orders:first:{rows}")
    async def orders(rows: int) -> Any:
        async with sessions() as session:
            found = await session.scalars(select(Order).where(Order.id <= rows).order_by(Order.id))
            return [_columns(each) for each in found]

    @cache(ttl=TTL, key=prefix + ":documents:first:{rows}")
    async def documents(rows: int) -> Any:
        async with sessions() as session:
            found = await session.scalars(select(Document).where(Document.id <= rows).order_by(Document.id))
            return [_columns(each) for each in found]

    @cache(ttl=TTL, key=prefix + ":contacts:{rows}")
    async def contacts(rows: int) -> Any:
        wanted = (
            Customer.id,
            Customer.name,
            Customer.email,
            Customer.active,
            Customer.balance,
            Customer.joined,
        )
        async with sessions() as session:
            found = await session.execute(select(*wanted).where(Customer.id <= rows).order_by(Customer.id))
            return [tuple(row) for row in found]

    @cache(ttl=TTL, key=prefix + ":customers:count:{plan}")
    async def count(plan: str) -> Any:
        async with sessions() as session:
            return await session.scalar(
                select(func.count()).select_from(Customer).where(Customer.plan == plan)
            )

    @cache(ttl=TTL, key=prefix + ":customers:exists:{email}")
    async def known(email: str) -> Any:
        async with sessions() as session:
            return await session.scalar(select(exists().where(Customer.email == email)))

    @cache(ttl=TTL, key=prefix + ":orders:of:{customers}")
    async def orders_of(customers: int) -> Any:
        wanted = (Order.id, Order.status, Order.total, Customer.id, Customer.name)
        joined: Any = select(*wanted).join(Customer, Order.customer_id == Customer.id)
        async with sessions() as session:
            found = await session.execute(joined.where(Customer.id <= customers).order_by(Order.id))
            return [tuple(row) for row in found]

    @cache(ttl=TTL, key=prefix + ":customers:with-region:{rows}")
    async def with_region(rows: int) -> Any:
        first = select(Customer).where(Customer.id <= rows).order_by(Customer.id)
        async with sessions() as session:
            found = await session.scalars(first.options(joinedload(Customer.region)))
            return [{**_columns(each), "region": _columns(each.region)} for each in found]

    @cache(ttl=TTL, key=prefix + ":customers:with-orders:{rows}")
    async def with_orders(rows: int) -> Any:
        first = select(Customer).where(Customer.id <= rows).order_by(Customer.id)
        async with sessions() as session:
            found = await session.scalars(first.options(selectinload(Customer.orders)))
            return [{**_columns(each), "orders": list(map(_columns, each.orders))} for each in found]

    return {
        "get": lambda number: customer(number % KEYS + 1),
        "list of 10": lambda number: customers(10),
        "list of 100": lambda number: customers(100),
        "list of 1,000": lambda number: customers(1000),
        "list of 1,000, narrow": lambda number: orders(1000),
        "list of 1,000 with JSON": lambda number: documents(1000),
        "columns of 1,000": lambda number: contacts(1000),
        "count": lambda number: count("pro"),
        "exists": lambda number: known("customer.77@example.com"),
        "join, 100": lambda number: orders_of(20),
        "joinedload, 100": lambda number: with_region(100),
        "selectinload, 100 + 500": lambda number: with_orders(100),
    }


@dataclass
class Decorated(Contender):
    """Calls the functions instead of using sessions."""

    functions: Mapping[str, Function] = field(init=False, repr=False)
    _decorator: Cache = field(init=False, repr=False)
    _redis_url: str = field(init=False, repr=False)
    _sent: int = field(init=False, default=0, repr=False)

    def open(self, url: Any, redis_url: str) -> None:
        super().open(url, redis_url)
        event.listen(self.engine.sync_engine, "before_cursor_execute", self._statement)
        self._redis_url = redis_url
        self._decorator = Cache()
        self.functions = functions(self._decorator, self.sessions, f"decorator-{uuid4().hex[:8]}")

    def _statement(self, *_: Any) -> None:
        self._sent += 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Set the cache up for the block: in memory, it has a task that looks for expired keys all the time."""
        self._decorator.setup(self._redis_url if self.redis else "mem://")
        try:
            yield
        finally:
            await self._decorator.close()

    async def ready(self, work: Work) -> str:
        return fingerprint(await self.warm(work))

    async def warm(self, work: Work) -> Any:
        """Call until nothing is loaded any more; return the last answer, which is plain already."""
        function = self.functions[work.name]
        for number in range(work.keys + 1):
            await function(number)
        before = self._sent
        answer = await function(0)
        if self._sent > before:
            raise Unfair(f"{self.name}, {work.name}: asked the database")
        return answer

    async def again(self, work: Work) -> str:
        return fingerprint(await self.functions[work.name](0))

    async def seconds(self, work: Work, times: int) -> float:
        function = self.functions[work.name]
        await asyncio.sleep(0)
        before = self._sent
        began = time.perf_counter()
        for number in range(times):
            await function(number)
        taken = (time.perf_counter() - began) / times
        if self._sent > before:
            raise Unfair(f"{self.name}, {work.name}: asked the database")
        return taken


def decorated() -> Sequence[Decorated]:
    """Make them."""
    reads = tuple(work.name for work in READS)
    return (
        Decorated(
            DECORATOR,
            "functions with a decorator of cashews, which return plain data; in memory: the same objects every time",
            only=reads,
        ),
        Decorated(DECORATOR_REDIS, "the same on Redis, pickled", only=reads, redis=True),
    )
