"""Modes at run time, bypassed(), and the execution options of one read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import bindparam, select
from sqlalchemy.orm import selectinload

from sqlacache import CacheError, configure, testing
from tests.support import writes
from tests.support.gates import after_select
from tests.support.models import Order, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import entities, get, rows

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

names = rows(lambda: select(User.id, User.name).order_by(User.id))


@pytest.mark.parametrize("mode", ["write_only", "off"])
async def test_a_mode_other_than_on_neither_serves_nor_stores(mode: Any, reader: Reader) -> None:
    await reader.warm(get(User, 1))
    await reader.cache.set_mode(mode)
    assert reader.cache.mode == mode
    for read in (get(User, 1), get(User, 2)):
        await reader.bypass(read, "disabled")
        await reader.bypass(read, "disabled")
    await reader.cache.set_mode("on")
    await reader.miss(get(User, 2), {"absent"})


async def test_write_only_invalidates_and_goes_on_with_what_is_still_valid(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(User, 2))
    await reader.cache.set_mode("write_only")
    await writes.change(User, 1, name="new")(reader.database)
    await reader.cache.set_mode("on")
    await reader.miss(get(User, 1), {"row_invalidated"})
    await reader.hit(get(User, 2))


async def test_what_was_cached_before_off_is_not_served_after_it(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(User, 2), names)
    await reader.cache.set_mode("off")
    with reader.watch() as seen:
        await writes.change(User, 1, name="new")(reader.database)
    assert seen.invalidations == []
    await reader.cache.set_mode("on")
    for read in (get(User, 1), get(User, 2), names):
        answer = await reader.current(read)
        assert not answer.hits
        await reader.hit(read)


async def test_what_was_cached_before_off_is_not_served_after_write_only_and_on(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    await reader.cache.set_mode("off")
    await writes.change(User, 1, name="new")(reader.database)
    await reader.cache.set_mode("write_only")
    await reader.cache.set_mode("on")
    assert not (await reader.current(get(User, 1))).hits


async def test_a_read_that_began_before_off_stores_nothing(reader: Reader) -> None:
    with after_select(reader.database) as gate:
        reading = await gate.reached_by(reader.ask(get(User, 1)))
        await reader.cache.set_mode("off")
        await writes.change(User, 1, name="new")(reader.database)
        await reader.cache.set_mode("on")
        gate.open()
        await reading
    assert not (await reader.current(get(User, 1))).hits


async def test_a_cache_that_starts_off_can_be_switched_on(reader: Reader) -> None:
    await reader.cache.disconnect()
    cache = configure(models={"*": {}}, mode="off", telemetry=None)
    await cache.bind(reader.database.engine)
    reader.cache = cache
    try:
        await reader.bypass(get(User, 1), "disabled")
        await cache.set_mode("on")
        await reader.warm(get(User, 1))
    finally:
        await cache.disconnect()


async def test_an_unknown_mode_is_an_error_and_changes_nothing(reader: Reader) -> None:
    with pytest.raises(CacheError, match=r"set_mode: takes one of on, shadow, write_only, off, got 'half'"):
        await reader.cache.set_mode("half")
    assert reader.cache.mode == "on"


async def test_bypassed_concerns_this_task_only(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    inside, outside = asyncio.Event(), asyncio.Event()

    async def bypassing() -> list[Any]:
        with reader.cache.bypassed():
            inside.set()
            await outside.wait()
            async with reader.database.sessions() as session:
                await session.get(User, 1)
        return []

    with testing.record(reader.cache) as seen:
        task = asyncio.create_task(bypassing())
        await inside.wait()
        async with reader.database.sessions() as session:
            await session.get(User, 1)
        outside.set()
        await task
    assert [decision.reason or decision.decision for decision in seen.decisions] == ["hit", "disabled"]


async def test_bypassed_reaches_the_tasks_started_inside_and_ends_with_the_block(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    with reader.cache.bypassed():
        with reader.cache.bypassed():
            await asyncio.create_task(reader.bypass(get(User, 1), "disabled"))
        await reader.bypass(get(User, 1), "disabled")
    await reader.hit(get(User, 1))
    with pytest.raises(LookupError), reader.cache.bypassed():
        raise LookupError
    await reader.hit(get(User, 1))


async def test_bypassed_of_one_cache_is_not_that_of_another(reader: Reader) -> None:
    other = configure(models={"*": {}}, telemetry=None, name=reader.cache.name)
    await reader.warm(get(User, 1))
    with other.bypassed():
        await reader.hit(get(User, 1))


async def test_writes_inside_bypassed_invalidate(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(User, 2))
    with reader.cache.bypassed():
        await writes.change(User, 1, name="new")(reader.database)
    await reader.miss(get(User, 1), {"row_invalidated"})
    await reader.hit(get(User, 2))


async def test_skip_neither_looks_up_nor_stores(reader: Reader) -> None:
    skipping = entities(lambda: select(User).order_by(User.id).execution_options(sqlacache_skip=True))
    await reader.bypass(skipping, "opted_out")
    await reader.warm(entities(lambda: select(User).order_by(User.id)))
    await reader.bypass(skipping, "opted_out")


async def test_an_option_that_is_false_changes_nothing(reader: Reader) -> None:
    options = {"sqlacache_skip": False, "sqlacache_refresh": False, "sqlacache_timeout": None}

    async def read(session: Any) -> Any:
        return (await session.execute(select(User.id), execution_options=options)).all()

    await reader.warm(read)


@pytest.mark.skipif(
    sqlalchemy.__version__.startswith("1."), reason="1.4 hands no execution options on to eager loads"
)
async def test_skip_reaches_the_loads_that_a_statement_brings_along(reader: Reader) -> None:
    async def read(session: Any) -> Any:
        statement = select(User).options(selectinload(User.orders)).order_by(User.id)
        return (await session.execute(statement, execution_options={"sqlacache_skip": True})).scalars().all()

    answer = await reader.bypass(read, "opted_out")
    assert {decision.reason for decision in answer.decisions} == {"opted_out"}


async def test_refresh_replaces_what_is_stored_for_everybody(reader: Reader) -> None:
    await reader.warm(names)
    refreshing = rows(
        lambda: select(User.id, User.name).order_by(User.id).execution_options(sqlacache_refresh=True)
    )
    first = await reader.miss(refreshing, {"manual_invalidated"})
    assert first.misses[0].fill == "stored"
    await reader.hit(names)


async def test_execute_passes_parameters_and_keeps_the_result_of_a_query(reader: Reader) -> None:
    statement = select(User).where(User.id == bindparam("key"))

    async def read(session: Any) -> Any:
        return (await reader.cache.execute(session, statement, {"key": 2}, timeout=5)).scalar_one()

    with testing.record(reader.cache) as seen:
        for _ in range(2):
            async with reader.database.sessions() as session:
                assert (await read(session)).name == "bob"
    seen.assert_hit(User, 2)


async def test_execute_shares_entries_with_plain_reads(reader: Reader) -> None:
    await reader.warm(entities(lambda: select(Order).order_by(Order.id)))

    async def read(session: Any) -> Any:
        return (await reader.cache.execute(session, select(Order).order_by(Order.id))).scalars().all()

    await reader.hit(read)


async def test_cashews_own_switch_disables_reads_and_enables_them_again(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    reader.cache.cashews.disable()
    await reader.bypass(get(User, 1), "disabled")
    await writes.change(User, 1, name="new")(reader.database)
    reader.cache.cashews.enable()
    await reader.miss(get(User, 1), {"row_invalidated"})
