"""invalidate(), invalidate_all() and touched(): what goes, what stays, and what a wrong call is told."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from sqlacache import CacheError, configure, testing
from tests.support.models import (
    AuditLog,
    CardPayment,
    Employee,
    Manager,
    Order,
    Payment,
    Stock,
    Tag,
    User,
    user_tags,
)
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import entities, follow, get, rows, scalar

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

GONE = {"manual_invalidated"}
plans = rows(lambda: select(User.id, User.plan).order_by(User.id))
seen_at = rows(lambda: select(User.id, User.last_seen).order_by(User.id))
listed = entities(lambda: select(User).order_by(User.id))
free = rows(lambda: select(User.id).where(User.plan == "free").order_by(User.id))
count = scalar(lambda: select(func.count()).select_from(User))


async def test_invalidate_by_keys_evicts_those_rows_and_the_lists_that_could_hold_them(
    reader: Reader,
) -> None:
    await reader.warm(get(User, 1), get(User, 2), get(User, 3), listed, get(Order, 1))
    assert await reader.cache.invalidate(User, pks=[1, 3]) > 0
    await reader.hit(get(User, 2))
    await reader.hit(get(Order, 1))
    for read in (get(User, 1), get(User, 3), listed):
        await reader.miss(read, GONE)


async def test_invalidate_a_model_evicts_all_that_reads_it(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(User, 2), listed, count, free, get(Order, 1), get(User, 100))
    assert await reader.cache.invalidate(User) > 0
    for read in (get(User, 1), get(User, 2), listed, count, free, get(User, 100)):
        await reader.miss(read, GONE)
    await reader.hit(get(Order, 1))


async def test_invalidate_takes_any_iterable_of_keys(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(User, 2))
    await reader.cache.invalidate(User, pks=(key for key in (1,)))
    await reader.miss(get(User, 1), GONE)
    await reader.hit(get(User, 2))


async def test_invalidate_a_key_that_is_not_there_evicts_what_was_cached_as_absent(reader: Reader) -> None:
    await reader.warm(get(User, 100), get(User, 101))
    await reader.cache.invalidate(User, pks=[100])
    await reader.miss(get(User, 100), GONE)
    await reader.hit(get(User, 101))


async def test_invalidate_takes_composite_keys_in_the_order_of_the_primary_key(reader: Reader) -> None:
    await reader.warm(get(Stock, ("north", 1)), get(Stock, ("north", 2)), get(Stock, ("south", 1)))
    await reader.cache.invalidate(Stock, pks=[("north", 1)])
    await reader.miss(get(Stock, ("north", 1)), GONE)
    await reader.hit(get(Stock, ("north", 2)))
    await reader.hit(get(Stock, ("south", 1)))


async def test_invalidate_reaches_both_tables_of_joined_inheritance(reader: Reader) -> None:
    salaries = rows(lambda: select(Manager.__table__.c.id, Manager.__table__.c.budget))
    await reader.warm(get(Manager, 1), get(Manager, 2), get(Employee, 3), salaries)
    await reader.cache.invalidate(Manager, pks=[1])
    await reader.miss(get(Manager, 1), GONE)
    await reader.hit(get(Manager, 2))
    await reader.hit(get(Employee, 3))
    await reader.cache.invalidate(Employee, pks=[2])
    await reader.miss(get(Manager, 2), GONE)
    await reader.cache.invalidate(Manager)
    await reader.miss(get(Manager, 1), GONE)


async def test_invalidate_of_single_table_inheritance_is_of_the_one_table(reader: Reader) -> None:
    await reader.warm(get(Payment, 2), get(Payment, 1))
    await reader.cache.invalidate(CardPayment, pks=[2])
    await reader.miss(get(Payment, 2), GONE)
    await reader.hit(get(Payment, 1))


async def test_an_invalidation_is_recorded_with_its_cause(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    with testing.record(reader.cache) as seen:
        count = await reader.cache.invalidate(User, pks=[1])
    (record,) = seen.invalidations
    (change,) = record.changes
    assert (change.table, change.cause, change.rows, change.evicted) == ("users", "explicit", 1, count)
    assert "users:1" in change.tags
    assert record.phase_one_seconds is None
    assert record.commit_seconds is None
    assert record.phase_two_seconds >= 0


async def test_invalidate_all_evicts_everything_of_its_own_cache_only(
    reader: Reader, other_database: Any
) -> None:
    other = configure(models={"*": {}}, telemetry=None, prefix="other")
    await other.bind(other_database.engine)
    others = Reader(other_database, other)
    try:
        for each in (reader, others):
            await each.warm(get(User, 1), listed, count, get(Stock, ("north", 1)))
        with testing.record(reader.cache) as seen, testing.record(other) as seen_by_other:
            await reader.cache.invalidate_all()
        assert [c.cause for record in seen.invalidations for c in record.changes] == ["flush"]
        assert seen_by_other.invalidations == []
        for read in (get(User, 1), listed, count, get(Stock, ("north", 1))):
            assert not (await reader.current(read)).hits
            await others.hit(read)
            await reader.hit(read)
    finally:
        await other.disconnect()


async def test_invalidate_all_reaches_every_database(reader: Reader, other_database: Any) -> None:
    await reader.cache.bind(other_database.engine, database="other")
    others = Reader(other_database, reader.cache)
    await reader.warm(get(User, 1))
    await others.warm(get(User, 1))
    await reader.cache.invalidate_all()
    assert not (await reader.current(get(User, 1))).hits
    assert not (await others.current(get(User, 1))).hits


async def test_invalidate_and_touched_reach_every_database(reader: Reader, other_database: Any) -> None:
    await reader.cache.bind(other_database.engine, database="other")
    others = Reader(other_database, reader.cache)
    for call in (
        lambda: reader.cache.invalidate(User, pks=[1]),
        lambda: reader.cache.touched("users", pks=[1]),
    ):
        for each in (reader, others):
            await each.ask(get(User, 1))
            await each.hit(get(User, 1))
        await call()
        for each in (reader, others):
            await each.miss(get(User, 1), GONE)


async def test_touched_columns_evict_what_uses_them(reader: Reader) -> None:
    await reader.warm(plans, free, seen_at, get(User, 1), count)
    await reader.cache.touched("users", columns={"plan"})
    await reader.hit(seen_at)
    await reader.hit(count)
    for read in (plans, free, get(User, 1)):
        answer = await reader.miss(read, GONE)
        assert answer.misses[0].cause.columns == ("plan",)
        assert answer.misses[0].cause.cause == "touched"


async def test_touched_columns_and_keys_together_evict_only_their_rows(reader: Reader) -> None:
    await reader.warm(plans, seen_at, get(User, 1), get(User, 2))
    await reader.cache.touched("users", columns=["plan"], pks=[1])
    await reader.hit(seen_at)
    await reader.hit(get(User, 2))
    await reader.miss(get(User, 1), GONE)
    await reader.miss(plans, GONE)


async def test_touched_without_columns_is_rows_that_came_or_went(reader: Reader) -> None:
    await reader.warm(plans, free, count, seen_at, get(User, 1), get(Order, 1))
    await reader.cache.touched("users")
    await reader.hit(get(Order, 1))
    for read in (plans, free, count, seen_at, get(User, 1)):
        await reader.miss(read, GONE)


async def test_touched_by_keys_evicts_counts_and_lists_too(reader: Reader) -> None:
    await reader.warm(count, listed, get(User, 1), get(User, 2))
    await reader.cache.touched("users", pks=[1])
    for read in (count, listed, get(User, 1)):
        await reader.miss(read, GONE)
    await reader.hit(get(User, 2))


async def test_touched_knows_tables_without_a_class(reader: Reader) -> None:
    await reader.warm(follow(User, 1, "tags"), get(Tag, 1))
    await reader.cache.touched(user_tags.fullname)
    await reader.miss(follow(User, 1, "tags"), GONE)
    await reader.hit(get(Tag, 1))


async def test_touched_knows_the_relations_that_depends_on_declares(reader: Reader) -> None:
    cache = configure(models={"*": {}}, telemetry=None, depends_on={"v_sales": ["orders"]})
    assert await cache.touched("v_sales") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("usrs",), "takes the name of a table of a mapped class, got 'usrs'"),
        (("User",), "takes the name of a table of a mapped class, got 'User'"),
        (("users", {"paln"}), "users has no column 'paln'"),
        (("users", "plan"), "columns takes a collection of names, got 'plan'"),
        (("stock", None, ["north"]), r"stock: a primary key has 2 value\(s\), got 1"),
        (("users", None, [(1, 2)]), r"users: a primary key has 1 value\(s\), got 2"),
    ],
    ids=["table", "class", "column", "text", "composite", "too_many"],
)
async def test_a_wrong_touched_is_an_error_and_evicts_nothing(
    arguments: Any, said: str, reader: Reader
) -> None:
    await reader.warm(get(User, 1))
    with pytest.raises(CacheError, match=said):
        await reader.cache.touched(*arguments)
    await reader.hit(get(User, 1))


@pytest.mark.parametrize(
    "wrong", ["User", int, User(), User.__table__, None], ids=lambda wrong: type(wrong).__name__
)
async def test_invalidate_takes_a_mapped_class(wrong: Any, reader: Reader) -> None:
    with pytest.raises(CacheError, match="invalidate: takes a mapped class, got"):
        await reader.cache.invalidate(wrong)


async def test_invalidate_of_a_model_that_is_never_cached_is_no_error(reader: Reader) -> None:
    assert await reader.cache.invalidate(AuditLog, pks=[1]) == 0


async def test_calls_before_bind_have_nothing_to_evict() -> None:
    cache = configure(models={"*": {}}, telemetry=None)
    assert await cache.invalidate(User) == 0
    assert await cache.touched("users") == 0
    await cache.invalidate_all()


async def test_the_manager_shows_itself(reader: Reader) -> None:
    assert repr(reader.cache).startswith(f"<CacheManager {reader.cache.name!r} mode=on bound to ")
