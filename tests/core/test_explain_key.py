"""An entry is explained by its key alone, as somebody has it who comes from a trace or a log."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import func, select

from sqlacache import CacheError, ConfigError, configure
from tests.support import writes
from tests.support.databases import Database
from tests.support.gates import before_commit
from tests.support.models import Order, Team, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import entities, get, scalar

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

FREE = entities(lambda: select(User).where(User.plan == "free"))
JOINED = entities(lambda: select(Order).join(User, Order.user_id == User.id).where(User.id == 1))
COUNT = scalar(lambda: select(func.count()).select_from(User).where(User.plan == "free"))


@pytest_asyncio.fixture
async def remembering(database: Database) -> AsyncIterator[Reader]:
    """A reader whose cache remembers its last five decisions."""
    cache = configure(models={"*": {"timeout": 3600}}, telemetry=None, history=5)
    await cache.bind(database.engine)
    yield Reader(database, cache)
    await cache.disconnect()


async def key_of(reader: Reader, read: Any) -> str:
    key: str | None = (await reader.hit(read)).decisions[0].key
    assert key is not None
    return key


@pytest.mark.parametrize("read", [get(User, 1), FREE, JOINED, COUNT], ids=["get", "list", "join", "count"])
async def test_what_is_stored_is_told_by_its_key(reader: Reader, read: Any) -> None:
    await reader.warm(read)
    key = await key_of(reader, read)
    answer = await reader.cache.explain_key(key)
    assert (answer.decision, answer.reason, answer.key) == ("hit", None, key)
    assert answer.op == key.split(":")[-2]
    assert set(answer.dependencies) >= set((await reader.hit(read)).decisions[0].tags)
    assert answer.size > 0
    assert re.search(r"stored +\d+ row\(s\) in \d+ bytes \d+\.\d s ago, expires in 3600 s", str(answer))
    assert answer.past == "this process keeps no history"


@pytest.mark.parametrize(
    ("read", "reason", "stamp"),
    [
        (get(User, 1), "row_invalidated", "users:1"),
        (FREE, "condition_invalidated", "users?plan={free}"),
    ],
    ids=["get", "list"],
)
async def test_the_write_that_voided_it_is_named(reader: Reader, read: Any, reason: str, stamp: str) -> None:
    await reader.warm(read)
    key = await key_of(reader, read)
    stamp = stamp.format(free=reader.cache.settings.digests.conceal("users", "plan", "free"))
    await writes.change(User, 1, name="zed")(reader.database)
    answer = await reader.cache.explain_key(key)
    assert (answer.decision, answer.reason) == ("miss", reason)
    assert [change.stamp for change in answer.changed] == [stamp]
    assert (answer.cause.cause, answer.cause.columns, answer.cause.keys) == (
        "row_update",
        ("name",),
        ("users:1",),
    )
    assert f"changed     {stamp}: v" in str(answer)
    assert f"hit if      nobody had written {stamp} since it was stored" in str(answer)
    # The real read agrees.
    await reader.miss(read, {reason})


async def test_a_writer_between_its_phases_is_what_it_waits_for(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    key = await key_of(reader, get(User, 1))
    async with before_commit(reader.database) as gate:
        writing = await gate.reached_by(writes.change(User, 1, name="zed")(reader.database))
        answer = await reader.cache.explain_key(key)
        gate.open()
        await writing
    assert answer.decision == "miss"
    assert "two phases" in answer.advice or "users:1" in answer.advice


async def test_asking_is_no_use_of_the_entry_and_no_decision(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    key = await key_of(reader, get(User, 1))
    with reader.watch() as seen, reader.database.probe() as traffic:
        await reader.cache.explain_key(key)
    assert (seen.decisions, traffic.statements) == ([], [])


async def test_what_this_process_remembers_of_it_is_counted_and_said_to_be_complete(
    remembering: Reader,
) -> None:
    await remembering.warm(get(User, 1))
    key = await key_of(remembering, get(User, 1))
    said = (await remembering.cache.explain_key(key)).past
    assert re.fullmatch(
        r"1 miss \(absent\), 2 hit by this process since \d{4}-.* UTC; the last \d+\.\d s ago \(complete\)",
        said,
    )


async def test_a_memory_that_is_full_says_that_it_forgot(remembering: Reader) -> None:
    await remembering.warm(get(User, 1))
    key = await key_of(remembering, get(User, 1))
    for number in (1, 2, 3):
        await remembering.current(get(Team, number))
    answer = await remembering.cache.explain_key(key)
    assert answer.past.startswith("2 hit by this process since ")
    assert answer.past.endswith("(older decisions are forgotten)")


async def test_an_entry_that_is_gone_is_told_of_from_memory(remembering: Reader) -> None:
    await remembering.warm(get(User, 1))
    key = await key_of(remembering, get(User, 1))
    await remembering.cache.purge(User)
    answer = await remembering.cache.explain_key(key)
    assert (answer.decision, answer.dependencies) == ("miss", ("users:1",))
    assert "2 hit" in answer.past
    assert "the next read stores it" in answer.advice


UNKNOWN = "users:get:" + "0" * 32


async def test_a_key_that_nobody_knows_is_an_error_that_says_so(reader: Reader) -> None:
    with pytest.raises(
        CacheError, match=f"nothing is stored as '{UNKNOWN}', and this process .* nothing of what"
    ):
        await reader.cache.explain_key(UNKNOWN)


async def test_a_key_that_is_not_remembered_either_is_an_error_that_says_so(remembering: Reader) -> None:
    with pytest.raises(CacheError, match="remembers nothing of it"):
        await remembering.cache.explain_key(UNKNOWN)


@pytest.mark.parametrize("key", ["", "users", "users:get", "users:steal:00", ":get:00", "users:1"])
async def test_what_is_no_key_is_an_error_that_says_what_it_takes(reader: Reader, key: str) -> None:
    with pytest.raises(CacheError, match=r"takes an entry's key such as .* got"):
        await reader.cache.explain_key(key)


async def test_a_database_that_is_not_bound_is_an_error_that_names_those_that_are(reader: Reader) -> None:
    with pytest.raises(CacheError, match=r"takes a database that is bound \(.+\), got 'elsewhere'"):
        await reader.cache.explain_key("users:get:00", database="elsewhere")


async def test_it_is_plain_data_for_machines(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    answer = await reader.cache.explain_key(await key_of(reader, get(User, 1)))
    assert answer.to_dict()["size"] == answer.size
    assert replace(answer).to_dict() == answer.to_dict()


async def test_decisions_are_recorded_inside_a_block(reader: Reader) -> None:
    with reader.cache.record() as decisions:
        await reader.warm(get(User, 1))
    await reader.hit(get(User, 1))
    assert [one.decision for one in decisions] == ["miss", "hit"]
    assert len(decisions) == 2


@pytest.mark.parametrize("history", [-1, "many", 2.5, True])
def test_a_history_takes_a_number_of_decisions(history: Any) -> None:
    with pytest.raises(ConfigError, match=r"history: takes a number of decisions above 0, got"):
        configure(history=history, telemetry=None)


def test_a_history_is_kept_where_somebody_is_told_of_decisions_anyway() -> None:
    assert configure(telemetry=None).history is None
    assert configure(telemetry={"metrics": False}).history is not None
    assert configure(telemetry={"metrics": False}, history=0).history is None
