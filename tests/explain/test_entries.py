"""What is told of an entry: when it was stored and by which trace, its hits, what it costs and what it saved."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from sqlalchemy import func, select

from sqlacache.decisions import MISS_REASONS
from sqlacache.reasons import BYPASSES, MISSES
from tests.support import writes
from tests.support.databases import Database
from tests.support.fronts import asynchronous, configure
from tests.support.models import Team, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import entities, get
from tests.telemetry.traced import Traced

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

FREE = entities(lambda: select(User).where(User.plan == "free"))

Make = Callable[..., Any]


@pytest_asyncio.fixture
async def make(database: Database) -> AsyncIterator[Make]:
    """Bind a cache with further options to ``database``, and return its reader."""
    made: list[Any] = []

    async def reader(**options: Any) -> Reader:
        cache = configure(**{"models": {"*": {"timeout": 3600}}, "telemetry": None, **options})
        made.append(cache)
        await cache.bind(database.engine)
        return Reader(database, cache)

    yield reader
    for cache in made:
        await cache.disconnect()


async def got(reader: Reader, key: int = 1, **options: Any) -> Any:
    async with reader.database.sessions() as session:
        return await reader.cache.explain_get(session, User, key)


def line(told: Any, label: str) -> str:
    """The line of an explanation's text that begins with ``label``."""
    (found,) = [one for one in str(told).splitlines() if one.startswith(f"  {label:<12}")]
    return found[14:]


def spans(traced: Traced) -> dict[str, Any]:
    return {f"{span.name} {(span.attributes or {}).get('sqlacache.decision')}": span for span in traced.spans}


async def test_the_trace_that_stored_it_is_that_of_the_miss(make: Make) -> None:
    traced = Traced()
    reader = await make(telemetry={"tracer_provider": traced.provider, "metrics": False})
    with traced.tracer.start_as_current_span("a request"):
        await reader.warm(get(User, 1))
    miss = spans(traced)["sqlacache.lookup SELECT users miss"].context
    told = await got(reader)
    assert told.decision == "hit"
    assert told.stored_by == f"00-{miss.trace_id:032x}-{miss.span_id:016x}-{miss.trace_flags:02x}"
    assert line(told, "stored by") == f"trace {miss.trace_id:032x}"
    # It is told of one that no longer holds as well, and names the writer's trace beside it.
    with traced.tracer.start_as_current_span("another request") as writer:
        await writes.change(User, 1, plan="pro")(reader.database)
    stale = await got(reader)
    assert (stale.decision, stale.stored_by) == ("miss", told.stored_by)
    assert line(stale, "cause").endswith(f", trace {writer.get_span_context().trace_id:032x}")


@pytest.mark.parametrize("how", ["no telemetry", "not sampled", "no spans"])
async def test_an_entry_of_a_read_that_was_not_traced_says_so(make: Make, how: str) -> None:
    traced = Traced(ALWAYS_OFF if how == "not sampled" else None)
    options = {"tracer_provider": traced.provider, "metrics": False}
    reader = await make(
        telemetry=None if how == "no telemetry" else options | ({"trace": "off"} if how == "no spans" else {})
    )
    with traced.tracer.start_as_current_span("a request"):
        await reader.warm(get(User, 1))
    told = await got(reader)
    assert told.stored_by is None
    assert line(told, "stored by") == "a read that was not traced"


async def test_hits_are_those_of_this_entry_and_what_they_saved_is_told(make: Make) -> None:
    reader = await make(history=100)
    await reader.warm(get(User, 1))
    for _ in range(2):
        await reader.hit(get(User, 1))
    told = await got(reader)
    hits = [one for one in reader.cache.history.decisions if one.decision == "hit"]
    assert (told.hits, len(hits), told.complete) == (3, 3, True)
    assert told.hit_seconds == pytest.approx(sum(one.lookup_seconds for one in hits) / 3)
    assert told.saved_seconds == pytest.approx(3 * told.load_seconds - 3 * told.hit_seconds)
    assert line(told, "hits") == "3 by this process since it was stored; other processes count their own"
    assert re.fullmatch(
        r"the database took \d+\.\d ms, a hit \d+\.\d ms; \d+\.\d ms (saved|lost) by these hits",
        line(told, "costs"),
    )
    # Stored anew, it begins again.
    await writes.change(User, 1, plan="pro")(reader.database)
    await reader.miss(get(User, 1), {"row_invalidated"})
    anew = await got(reader)
    assert (anew.hits, anew.hit_seconds, anew.saved_seconds) == (0, None, None)
    assert line(anew, "costs").endswith("what a hit takes is not known here")
    assert anew.stored_at > told.stored_at


async def test_without_a_history_nothing_is_made_up(make: Make) -> None:
    reader = await make()
    await reader.warm(get(User, 1))
    told = await got(reader)
    assert (told.hits, told.hit_seconds, told.saved_seconds, told.complete) == (None, None, None, None)
    assert line(told, "hits") == "not counted: this process keeps no history"
    assert line(told, "before") == "this process keeps no history"


async def test_a_history_that_forgot_says_so_of_the_hits_too(make: Make) -> None:
    reader = await make(history=3)
    await reader.warm(get(User, 1))
    for _ in range(3):
        await reader.hit(get(User, 1))
    await reader.current(get(Team, 1))
    told = await got(reader)
    assert (told.hits, told.complete) == (2, False)
    assert line(told, "hits") == "2 by this process that it remembers; other processes count their own"
    assert line(told, "before").endswith("(older decisions are forgotten)")


async def test_the_parts_of_the_key_are_told_without_a_value(make: Make) -> None:
    reader = await make(vary=lambda session: "tenant")
    told = await got(reader, 12345)
    table, op, digest = told.key.split(":")
    parts = told.parts
    assert (parts.table, parts.op, parts.digest, parts.varies) == (table, op, digest, True)
    assert parts.database == reader.cache.bindings[0].database
    assert parts.dialect.startswith(reader.database.engine.dialect.name)
    assert "FROM users" in parts.sql and "12345" not in parts.sql
    assert len(parts.values) == 1
    said = line(told, "key")
    assert said.startswith(f"get of users in {parts.database} (")
    assert said.endswith(
        f"its digest is of the SQL and the values of {parts.values[0]}, and what vary= returns"
    )
    assert line(told, "SQL").startswith("SELECT users.id")
    of_key = reader.cache.explain_key
    await reader.current(get(User, 12345))
    assert line(await of_key(told.key), "key").endswith("the statement and its values cannot be read back")


async def test_every_stamp_is_told_as_it_was_and_is(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    holds = await got(reader)
    assert {one.stamp for one in holds.stamps} == {"*", "users#table", "users:#key", "users:1"}
    assert all(one.was == one.now and not one.in_flight for one in holds.stamps)
    await writes.change(User, 1, plan="pro")(reader.database)
    (changed,) = [one for one in (await got(reader)).stamps if one.was != one.now]
    assert (changed.stamp, changed.was, changed.now) == ("users:1", 1, 3)


async def test_what_is_not_stored_tells_of_no_entry(reader: Reader) -> None:
    told = await got(reader)
    assert (told.reason, told.stored_at, told.size, told.hits) == ("absent", None, None, None)
    assert "stored" not in str(told).replace("nothing is stored", "").replace("next read stores", "")
    assert any("writer_under_way" in one for one in told.unknown), "what the first real read may find"


async def test_an_entry_under_other_stamps_is_a_miss_of_which_nobody_knows_why(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    store, key = reader.cache.bindings[0].store, (await got(reader)).key
    if store.keeps_bytes:
        pytest.skip("reaches into the store in memory")
    store._entries[key] = replace(store._entries[key], stamps=store._entries[key].stamps[:-1])
    told = await got(reader)
    assert (told.decision, told.reason) == ("miss", "unknown")
    assert str(told).startswith("MISS (unknown): why is not known: the entry was stored under other stamps")
    await reader.miss(get(User, 1), {"unknown"})


async def test_a_read_that_asks_for_a_refresh_is_a_miss_by_its_own_wish(reader: Reader) -> None:
    await reader.warm(FREE)
    statement = select(User).where(User.plan == "free")
    async with reader.database.sessions() as session:
        told = await reader.cache.explain(session, statement.execution_options(sqlacache_refresh=True))
        held = await reader.cache.explain(session, statement)
    assert (told.decision, told.reason, held.decision) == ("miss", "manual_invalidated", "hit")
    assert "sqlacache_refresh" in told.advice


async def test_a_hit_needs_no_advice_and_everything_else_has_it(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    told = await got(reader)
    assert told.advice == "" and "hit if" not in str(told)
    async with reader.database.sessions() as session:
        for statement in (select(User.id, func.random()), select(User).with_for_update(), select(Team)):
            asked = await reader.cache.explain(session, statement)
            words = {**MISSES, **BYPASSES}[asked.reason]
            assert (asked.advice, line(asked, "hit if")) == (words.hit_if, words.hit_if)


@asynchronous("in the tests, ordinary sessions live in threads, whose stack has no caller")
async def test_machines_get_everything_that_people_do(make: Make) -> None:
    reader = await make(history=10, debug=True)
    await reader.warm(get(User, 1))
    await writes.change(User, 1, plan="pro")(reader.database)
    told = json.loads(json.dumps((await got(reader)).to_dict()))
    assert told["reason"] in MISS_REASONS
    assert told["parts"]["table"] == "users"
    assert told["stamps"][0].keys() == {"stamp", "was", "now", "in_flight"}
    assert told["cause"]["site"]["file"].endswith("databases.py")
    assert told["cause"]["parameters"]
    assert told["site"]["line"] > 0
    assert told["parameters"]


async def test_in_shadow_mode_a_hit_is_not_said_to_be_served(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    await reader.cache.set_mode("shadow")
    told = await got(reader)
    assert (told.decision, told.reason) == ("bypass", "disabled")
    assert "would have been a hit" in str(told) and told.stored_at is not None
    assert (await got(reader, 2)).decision == "miss"
    await reader.bypass(get(User, 1), "disabled")


async def test_a_bypass_tells_what_is_remembered_of_the_read(make: Make) -> None:
    reader = await make(history=10)
    await reader.warm(get(User, 1))
    async with reader.database.sessions() as session:
        (await session.get(User, 2)).plan = "x"
        told = await reader.cache.explain_get(session, User, 1)
    assert (told.reason, told.complete) == ("dirty_transaction", True)
    assert line(told, "before").startswith("1 miss (absent), 1 hit by this process since ")
