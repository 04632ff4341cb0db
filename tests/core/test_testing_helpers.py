"""sqlacache.testing: what its assertions accept, and what they say when they fail."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, String, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import declarative_base, load_only
from sqlalchemy.pool import StaticPool

import sqlacache
from sqlacache import configure, testing
from tests.support import writes
from tests.support.databases import make_sessions
from tests.support.models import AuditLog, Manager, Order, Stock, User
from tests.support.reading import UNCACHED, Reader

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")


async def read(reader: Reader, model: Any, key: Any, times: int = 1) -> None:
    for _ in range(times):
        async with reader.database.sessions() as session:
            await session.get(model, key)


async def test_a_recorder_keeps_what_happens_inside_the_block_and_stays_usable_after_it(
    reader: Reader,
) -> None:
    await read(reader, User, 2)
    with sqlacache.testing.record(reader.cache) as seen:
        await read(reader, User, 1, 2)
        await writes.change(User, 1, name="x")(reader.database)
    await read(reader, User, 3)
    assert [decision.decision for decision in seen.decisions] == ["miss", "hit", "hit"]
    assert (len(seen.hits), len(seen.misses), len(seen.bypasses)) == (2, 1, 0)
    assert [record.tables for record in seen.invalidations] == [("users",)]
    assert seen.drops == []


async def test_recorders_nest_and_end_with_an_error_inside(reader: Reader) -> None:
    with suppress(LookupError), testing.record(reader.cache) as outer, testing.record(reader.cache) as inner:
        await read(reader, User, 1)
        raise LookupError
    await read(reader, User, 1)
    assert len(outer.decisions) == len(inner.decisions) == 1
    assert not reader.cache.observers


async def test_assert_hit_and_assert_miss_look_at_the_last_read_of_the_row(reader: Reader) -> None:
    with testing.record(reader.cache) as seen:
        await read(reader, User, 1)
        assert seen.assert_miss(User, 1, reason="absent").fill == "stored"
        await read(reader, User, 1)
        await read(reader, User, 2)
    assert seen.assert_hit(User, 1).tier == "local"
    assert seen.assert_miss(User, 2).table == "users"
    assert seen.assert_miss(User).tags == ("users:2",)
    with pytest.raises(
        AssertionError, match=r"the last of reads of User 1 was a hit, not a miss; seen: get users"
    ):
        seen.assert_miss(User, 1)
    with pytest.raises(AssertionError, match=r"the last of reads of User 2 was a miss \(absent\), not a hit"):
        seen.assert_hit(User, 2)
    with pytest.raises(AssertionError, match=r"was a miss \(absent\), not a miss \(expired\)"):
        seen.assert_miss(User, 2, reason="expired")
    with pytest.raises(AssertionError, match=r"no reads of User 3 seen .*seen: get users miss \(absent\)"):
        seen.assert_hit(User, 3)
    with pytest.raises(AssertionError, match="no reads of Order seen"):
        seen.assert_hit(Order)


async def test_without_any_read_the_message_says_so(reader: Reader) -> None:
    with testing.record(reader.cache) as seen:
        async with reader.database.sessions() as session:
            user = await session.get(User, 1)
            seen.decisions.clear()
            assert await session.get(User, 1) is user
    with pytest.raises(AssertionError, match=r"a session holds already is not read again.*nothing at all"):
        seen.assert_hit(User, 1)
    with pytest.raises(AssertionError, match="no reads seen"):
        seen.assert_bypass()


async def test_assert_bypass_names_the_reason(reader: Reader) -> None:
    with testing.record(reader.cache) as seen:
        async with reader.database.sessions() as session:
            await session.get(AuditLog, 1)
            await session.execute(select(User).with_for_update())
            await session.execute(text("SELECT 1"))
    assert seen.assert_bypass().reason == "raw_sql"
    assert seen.assert_bypass(AuditLog, reason="opted_out").tables == ("audit_log",)
    with pytest.raises(AssertionError, match=r"was a bypass \(raw_sql\), not a bypass \(streaming\)"):
        seen.assert_bypass(reason="streaming")
    with pytest.raises(AssertionError, match="not a hit"):
        seen.assert_hit(AuditLog)


async def test_assert_invalidated_finds_the_record_by_table_and_cause(reader: Reader) -> None:
    await read(reader, User, 1)
    with testing.record(reader.cache) as seen:
        await writes.change(User, 1, name="x")(reader.database)
        await reader.cache.invalidate(Order)
    assert seen.assert_invalidated(User).changes[0].cause == "row_update"
    assert seen.assert_invalidated(Order, cause="explicit").tables == ("orders",)
    with pytest.raises(AssertionError, match=r"nothing invalidated users \(explicit\); seen: \["):
        seen.assert_invalidated(User, cause="explicit")
    with pytest.raises(AssertionError, match=r"nothing invalidated stock \(any cause\)"):
        seen.assert_invalidated(Stock)


async def test_invalidate_all_counts_for_every_model(reader: Reader) -> None:
    with testing.record(reader.cache) as seen:
        await reader.cache.invalidate_all()
    assert seen.assert_invalidated(Stock, cause="flush")


async def test_rows_are_found_by_composite_keys_and_of_subclasses(reader: Reader) -> None:
    with testing.record(reader.cache) as seen:
        await read(reader, Stock, ("north", 1), 2)
        await read(reader, Manager, 1, 2)
    seen.assert_hit(Stock, ("north", 1))
    seen.assert_hit(Stock, ["north", 1])
    seen.assert_hit(Manager, 1)
    assert seen.of(Stock, ("south", 1)) == []
    with pytest.raises(ValueError, match=r"Stock: a primary key has 2 value\(s\), got 'north'"):
        seen.assert_hit(Stock, "north")


async def test_rows_are_found_when_only_some_columns_were_read(reader: Reader) -> None:
    async def some(session: Any) -> None:
        await session.get(User, 1, options=[load_only(User.name)])

    with testing.record(reader.cache) as seen:
        for _ in range(2):
            async with reader.database.sessions() as session:
                await some(session)
    assert seen.decisions[0].tags != ("users:1",)
    seen.assert_hit(User, 1)
    assert seen.of(User, 2) == []


class Keyed:
    """Rows whose keys are written otherwise in tags than ``str()`` writes them."""

    base: Any = declarative_base()

    class Flag(base):  # type: ignore[misc]  # a base made at run time
        __tablename__ = "flags"
        on = Column(Boolean, primary_key=True)
        name = Column(String(100), primary_key=True)

    class Long(base):  # type: ignore[misc]
        __tablename__ = "longs"
        id = Column(String(200), primary_key=True)


ODD = ["a,b", "a:b", "null", "", "key", "x" * 150, str(uuid.UUID(int=5)), "50%"]


async def test_rows_are_found_whatever_their_keys_look_like() -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    async with engine.begin() as connection:
        await connection.run_sync(Keyed.base.metadata.create_all)
    cache = configure(models={"*": {}}, telemetry=None)
    await cache.bind(engine)
    try:
        with testing.record(cache) as seen:
            for key in ODD:
                for _ in range(2):
                    async with make_sessions(engine)() as session:
                        await session.get(Keyed.Long, key)
                        await session.get(Keyed.Flag, (True, key))
        for key in ODD:
            assert len(seen.of(Keyed.Long, key)) == 2
            seen.assert_hit(Keyed.Long, key)
            seen.assert_hit(Keyed.Flag, (True, key))
            assert seen.of(Keyed.Flag, (False, key)) == []
    finally:
        await cache.disconnect()
        await engine.dispose()


async def test_a_summary_is_one_line(reader: Reader) -> None:
    with testing.record(reader.cache) as seen:
        await read(reader, User, 1, 2)
    assert seen.summary() == "get users miss (absent), get users hit"


def test_a_recorder_is_an_observer_for_users_who_pass_it_to_configure() -> None:
    recorder = testing.Recorder()
    cache = configure(telemetry=None, observers=[recorder])
    assert cache.observers
