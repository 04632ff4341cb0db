"""``on_evict``: a function hears of every commit that touched a table, and cannot hurt it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from sqlalchemy import update

from sqlacache import CacheError, Eviction
from tests.support import writes
from tests.support.models import Order, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import get

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")


async def test_a_commit_is_told_by_table_with_the_write_that_did_it(reader: Reader) -> None:
    told: list[Eviction] = []
    reader.cache.on_evict(told.append)
    await writes.change(User, 1, plan="pro")(reader.database)
    (eviction,) = told
    assert (eviction.cache, eviction.table, eviction.scope) == (reader.cache.name, "users", "rows")
    assert (eviction.tags, eviction.elsewhere, eviction.lag) == (("users:1",), False, None)
    cause = eviction.cause
    assert (cause.cause, cause.table, cause.keys, cause.columns) == (
        "row_update",
        "users",
        ("users:1",),
        ("plan",),
    )
    assert (cause.statement, cause.pid) == ("UPDATE users", os.getpid())
    assert cause.at > 0


async def test_it_is_what_the_next_miss_names_as_its_cause(reader: Reader) -> None:
    told: list[Eviction] = []
    await reader.warm(get(User, 1))
    reader.cache.on_evict(told.append)
    await writes.change(User, 1, plan="pro")(reader.database)
    (missed,) = (await reader.miss(get(User, 1), {"row_invalidated"})).misses
    assert told[0].cause == missed.cause


async def test_a_write_of_several_tables_is_told_once_for_each(reader: Reader) -> None:
    told: list[Eviction] = []
    reader.cache.on_evict(told.append)
    async with reader.database.sessions() as session:
        (await session.get(User, 1)).name = "new"
        (await session.get(Order, 1)).total = 7
        await session.commit()
    assert sorted(eviction.table for eviction in told) == ["orders", "users"]


async def test_a_bulk_write_names_no_row(reader: Reader) -> None:
    told: list[Eviction] = []
    reader.cache.on_evict(told.append)
    everybody = update(User).where(User.name.like("%")).values(plan="x")
    await writes.execute(lambda _: everybody.execution_options(synchronize_session=False))(reader.database)
    (eviction,) = told
    assert (eviction.cause.cause, eviction.cause.keys, eviction.scope) == ("bulk_write", (), "conditions")


async def test_a_call_is_told_and_a_rollback_is_not(reader: Reader) -> None:
    told: list[Eviction] = []
    reader.cache.on_evict(told.append)
    async with reader.database.sessions() as session:
        (await session.get(User, 1)).name = "never"
        await session.flush()
        await session.rollback()
    assert told == []
    await reader.cache.invalidate(User, pks=[7])
    await reader.cache.invalidate_all()
    assert [(one.table, one.cause.cause, one.tags) for one in told] == [
        ("users", "explicit", ("users:7",)),
        ("*", "flush", ("*",)),
    ]


async def test_a_hook_that_was_removed_is_not_called(reader: Reader) -> None:
    told: list[Eviction] = []
    remove = reader.cache.on_evict(told.append)
    remove()
    remove()
    await writes.change(User, 1, plan="pro")(reader.database)
    assert told == []


async def test_a_hook_that_raises_is_counted_and_is_told_of_every_table(reader: Reader) -> None:
    tables: list[str] = []
    told: list[Eviction] = []

    def fail(eviction: Eviction) -> None:
        tables.append(eviction.table)
        raise LookupError(eviction.table)

    reader.cache.on_evict(fail)
    reader.cache.on_evict(told.append)
    async with reader.database.sessions() as session:
        (await session.get(User, 1)).name = "new"
        (await session.get(Order, 1)).total = 7
        await session.commit()
    assert sorted(tables) == sorted(one.table for one in told) == ["orders", "users"]
    assert reader.cache.observers.errors == {"EvictionHook": 1}


async def _coroutine(eviction: Eviction) -> None: ...


@pytest.mark.parametrize("hook", [None, "print", _coroutine])
async def test_what_cannot_be_called_at_once_is_refused(hook: Any, reader: Reader) -> None:
    with pytest.raises(CacheError, match="on_evict: takes a function that is not async"):
        reader.cache.on_evict(hook)
