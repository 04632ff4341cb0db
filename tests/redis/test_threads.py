"""One cache under a thread pool of sessions, on Redis with every local tier; both fronts on one Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sqlacache import configure_sync
from tests.support.databases import Database
from tests.support.fleet import LOCAL, MODELS, READS, count, listed, reading, settled, user
from tests.support.models import User
from tests.support.reading import Reader
from tests.support.storm import Counting, Storm
from tests.support.threads import in_thread
from tests.support.writes import change

pytestmark = pytest.mark.integration


@pytest.mark.timeout(240)
@pytest.mark.parametrize("local", LOCAL, ids=str)
async def test_nobody_goes_back_in_time(file: str, redis_url: str, prefix: str, local: Any) -> None:
    database, counting = Database(file, "sync"), Counting()
    engine = database.engine.sync_engine
    cache = configure_sync(
        backend={"url": redis_url, "timeout": 5.0, "bound": 5.0},
        models=MODELS,
        prefix=prefix,
        local=local,
        telemetry=None,
        observers=[counting],
    )

    def blow() -> None:
        with cache.bound(engine, database="main"):
            storm = Storm(engine, cache, commits=10)
            storm.blow()
            assert storm.reads > 20
            assert counting.decisions["hit"] > 0
            assert not cache.observers.errors
            (binding,) = cache.bindings
            assert not binding.owed.tables
            assert not binding.dirty
            assert not binding.reads._flights._approaching

    await in_thread(blow)
    await database.dispose()


@asynccontextmanager
async def _both(file: str, redis_url: str, prefix: str, local: Any) -> AsyncIterator[tuple[Reader, Reader]]:
    backend = {"url": redis_url, "timeout": 5.0, "bound": 0.3}
    options = {"prefix": prefix, "local": local}
    async with reading(file, backend, front="sync", name="sync", **options) as ordinary:
        async with reading(file, backend, front="async", name="async", **options) as asynchronous:
            yield ordinary, asynchronous


@pytest.mark.parametrize("local", LOCAL, ids=str)
async def test_either_front_serves_what_the_other_stored(
    file: str, redis_url: str, prefix: str, local: Any
) -> None:
    async with _both(file, redis_url, prefix, local) as (ordinary, asynchronous):
        for one, other, keys in ((ordinary, asynchronous, (1, 2)), (asynchronous, ordinary, (3, 4))):
            for key in keys:
                await one.miss(user(key), {"absent"})
                answer = await other.hit(user(key))
                assert {decision.tier for decision in answer.hits} == {"remote"}


@pytest.mark.parametrize("local", LOCAL, ids=str)
async def test_either_front_evicts_what_the_other_holds(
    file: str, redis_url: str, prefix: str, local: Any
) -> None:
    async with _both(file, redis_url, prefix, local) as (ordinary, asynchronous):
        for number, (one, other) in enumerate(((ordinary, asynchronous), (asynchronous, ordinary))):
            for reader in (one, other):
                await settled(reader, *READS)
            await change(User, 1, name=f"zed{number}", plan=("pro", "free")[number])(one.database)
            for read in (user(1), count("free"), listed("free")):
                if local == "pushed":
                    await _follows(other, read)
                else:
                    answer = await other.current(read)
                    assert not answer.hits or answer.hits[0].tier != "local"
                await one.current(read)


async def _follows(reader: Reader, read: Any) -> None:
    """Wait until a reader with the pushed tier has heard of a commit elsewhere."""
    from tests.support.processes import eventually

    async def current() -> bool:
        return bool((await reader.ask(read)).value == await reader.truth(read))

    await eventually(current, "the announcement to arrive")
