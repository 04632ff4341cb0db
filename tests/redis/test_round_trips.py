"""What goes over the wire to Redis, by name at the socket, on both fronts: one that grows a trip fails here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio
from sqlalchemy import func, insert, select, update

from tests.support.databases import Database, SQLiteDatabases
from tests.support.fronts import Front, configure
from tests.support.models import Order, User
from tests.support.processes import eventually
from tests.support.proxy import Proxy

pytestmark = pytest.mark.integration

LOCAL = [None, "validated", "pushed"]
FRONTS: tuple[Front, ...] = ("async", "sync")


class Shop:
    """A cache on Redis behind a proxy, and sessions on a database."""

    def __init__(self, database: Database, proxy: Proxy) -> None:
        self.database = database
        self.proxy = proxy

    async def get(self, key: int = 1) -> Any:
        """Get a user in a fresh session."""
        async with self.database.sessions() as session:
            return await session.get(User, key)

    async def sends_nothing(self) -> bool:
        """Tell whether a read of a list is answered without asking anybody."""
        with self.proxy.counting() as sent:
            await self.ask(select(Order.id))
        return not sent

    async def ask(self, statement: Any) -> Any:
        """Execute a statement in a fresh session."""
        async with self.database.sessions() as session:
            return (await session.execute(statement)).all()

    async def write(self, statement: Any) -> None:
        """Execute a statement in a transaction of its own."""
        async with self.database.transaction() as session:
            await session.execute(statement)


@pytest.fixture(params=LOCAL, ids=str)
def local(request: pytest.FixtureRequest) -> Any:
    """The local tier of this test."""
    return request.param


@pytest_asyncio.fixture(params=FRONTS)
async def shop(
    request: pytest.FixtureRequest, sqlite_databases: SQLiteDatabases, proxy: Proxy, prefix: str, local: Any
) -> AsyncIterator[Shop]:
    async with sqlite_databases.fresh() as url:
        database = Database(url, request.param)
        cache = configure(
            front=request.param,
            backend={"url": proxy.url, "bound": 5.0, "timeout": 5.0},
            models={"*": {"timeout": 3600}},
            prefix=prefix,
            local=local,
            telemetry=None,
        )
        await cache.bind(database.engine)
        shop = Shop(database, proxy)
        if local == "pushed":
            # The first sample under a prefix makes its generation, which is announced, and empties the tier.
            await eventually(shop.sends_nothing, "a hit that asks nobody", 10)
        yield shop
        await cache.disconnect()
        await database.dispose()


async def test_a_first_miss_asks_seeds_and_fills(shop: Shop) -> None:
    with shop.proxy.counting() as sent:
        await shop.get()
    assert scripts(sent) == {"MGET": 1, "EVALSHA": 2}, "a lookup, a seed and a fill"


async def test_a_hit_is_one_lookup_and_none_while_commits_are_pushed(shop: Shop, local: Any) -> None:
    await shop.get()
    with shop.proxy.counting() as sent:
        for _ in range(3):
            assert (await shop.get()).name == "ann"
    assert sent == ({} if local == "pushed" else {"MGET": 3})


async def test_a_lookup_asks_for_the_entry_only_if_it_is_not_here(shop: Shop, local: Any) -> None:
    await shop.get()
    with shop.proxy.counting() as sent:
        await shop.get()
    for request in sent.requests:
        asked_for_entry = any(b":e:" in argument for argument in request.command)
        assert asked_for_entry == (local is None)


async def test_a_later_miss_asks_and_fills(shop: Shop) -> None:
    await shop.get()
    await shop.write(update(User).where(User.id == 1).values(name="new"))
    with shop.proxy.counting() as sent:
        assert (await shop.get()).name == "new"
    assert scripts(sent)["EVALSHA"] == 1, "a fill, and no seed"
    assert scripts(sent)["MGET"] <= 2, "what is here no longer holds: is there a newer one?"


async def test_a_commit_is_one_call_per_phase_however_many_rows(shop: Shop) -> None:
    await shop.get()
    await shop.ask(select(func.count()).select_from(User))
    await shop.write(update(User).where(User.id == 1).values(name="first"))  # learns the shapes
    for rows in (1, 1000):
        values = [{"name": f"n{n}", "email": f"{rows}-{n}@x"} for n in range(rows)]
        with shop.proxy.counting() as sent:
            async with shop.database.transaction() as session:
                await session.execute(insert(User), values)
        assert sent == {"EVALSHA": 2}, f"{rows} row(s)"


async def test_a_commit_of_several_tables_is_one_call_per_phase(shop: Shop) -> None:
    await shop.get()
    await shop.ask(select(Order.id))
    for number in range(2):
        with shop.proxy.counting() as sent:
            async with shop.database.transaction() as session:
                await session.execute(update(User).where(User.id == 1).values(name=f"n{number}"))
                await session.execute(update(Order).where(Order.id == 1).values(status=f"s{number}"))
    assert sent == {"EVALSHA": 2}


async def test_a_bulk_update_is_one_call_per_phase(shop: Shop) -> None:
    await shop.get()
    await shop.write(update(User).values(plan=func.upper(User.plan)))
    with shop.proxy.counting() as sent:
        await shop.write(update(User).values(plan=func.lower(User.plan)))
    assert sent == {"EVALSHA": 2}


async def test_a_transaction_that_wrote_nothing_sends_nothing(shop: Shop) -> None:
    await shop.get()
    await shop.write(update(User).where(User.id == 1).values(name="first"))
    with shop.proxy.counting() as sent:
        async with shop.database.transaction():
            pass
        async with shop.database.sessions() as session:
            await session.execute(update(User).where(User.id == 1).values(name="never"))
            await session.rollback()
    assert sent == {}


async def test_a_script_that_the_server_lost_is_sent_again(shop: Shop) -> None:
    await shop.get()
    await shop.write(update(User).where(User.id == 1).values(name="first"))
    async with shop.database.transaction() as session:
        await session.execute(update(User).where(User.id == 1).values(name="second"))
        await flush_scripts(shop.proxy)
        with shop.proxy.counting() as sent:
            await session.commit()
    assert sent == {"EVALSHA": 2, "EVAL": 2}
    assert (await shop.get()).name == "second"


async def flush_scripts(proxy: Proxy) -> None:
    """Make the server forget every script."""
    client = redis.asyncio.Redis.from_url(proxy.url)
    await client.script_flush()
    await client.aclose()


def scripts(sent: Any) -> dict[str, int]:
    """Count a script that the server did not know yet once."""
    counts = dict(sent)
    counts["EVALSHA"] = counts.get("EVALSHA", 0)
    counts.pop("EVAL", None)
    return counts
