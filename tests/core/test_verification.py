"""Hits are compared with the database: in mode ``shadow`` all of them, with ``verify=`` some."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry
from sqlalchemy import event, select, update

from sqlacache import CacheError, ConfigError, configure
from sqlacache.testing import Recorder, record
from tests.support import writes
from tests.support.databases import Database
from tests.support.models import User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import entities, get, rows

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

USER = get(User, 1)
FREE = entities(lambda: select(User).where(User.plan == "free").order_by(User.id))
EMAILS = rows(lambda: select(User.id, User.email))


@pytest_asyncio.fixture
async def shadow(reader: Reader) -> Reader:
    """A reader in mode ``shadow``."""
    await reader.cache.set_mode("shadow")
    return reader


@pytest_asyncio.fixture
async def verifying(database: Database) -> AsyncIterator[Reader]:
    """A reader whose every hit is verified."""
    cache = configure(models={"*": {"timeout": 3600}}, telemetry=None, verify=1.0)
    await cache.bind(database.engine)
    yield Reader(database, cache)
    await cache.disconnect()


async def behind_its_back(database: Database, name: str) -> None:
    """Write as somebody does whom the cache does not know."""
    async with database.truth_engine.begin() as connection:
        await connection.execute(update(User).where(User.id == 1).values(name=name))


def outcomes(seen: Recorder) -> list[str]:
    return [one.outcome for one in seen.verifications]


async def test_in_shadow_mode_everything_is_read_from_the_database_and_compared(shadow: Reader) -> None:
    await shadow.miss(USER, {"absent"})
    with record(shadow.cache) as seen:
        answer = await shadow.current(USER)
        await shadow.current(USER)
    assert [(one.decision, one.reason) for one in seen.decisions] == [("bypass", "disabled")] * 2
    assert outcomes(seen) == ["match", "match"]
    assert len(answer.traffic.selects) == 1
    (verification, _) = seen.verifications
    assert (verification.tables, verification.tags) == (("users",), ("users:1",))
    assert (verification.cached_rows, verification.database_rows) == (1, 1)


async def test_a_commit_leaves_nothing_to_be_compared(shadow: Reader) -> None:
    await shadow.current(FREE)
    await writes.change(User, 1, plan="pro")(shadow.database)
    with record(shadow.cache) as seen:
        await shadow.miss(FREE, {"condition_invalidated"})
        await shadow.current(FREE)
    assert outcomes(seen) == ["match"]


@pytest.mark.parametrize("read", [USER, FREE], ids=["get", "list"])
async def test_a_stale_entry_is_a_mismatch_that_is_logged_and_mended(
    shadow: Reader, read: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await shadow.current(read)
    await behind_its_back(shadow.database, "planted")
    with record(shadow.cache) as seen, caplog.at_level(logging.ERROR, "sqlacache"):
        await shadow.current(read)
        await shadow.current(read)
    assert outcomes(seen) == ["mismatch", "match"]
    (logged,) = caplog.records
    key = seen.verifications[0].key
    assert logged.event == "sqlacache.verification.mismatch"  # type: ignore[attr-defined]
    assert key in logged.getMessage()
    assert "1 row(s) are only in the database, 1 only in the cache" in logged.getMessage()
    assert "planted" not in logged.getMessage()


async def test_verified_hits_stay_hits_and_answer_what_the_database_says(verifying: Reader) -> None:
    await verifying.miss(USER, {"absent"})
    with record(verifying.cache) as seen:
        await verifying.current(USER)
        await behind_its_back(verifying.database, "planted")
        answer = await verifying.current(USER)
    assert [one.decision for one in seen.decisions] == ["hit", "hit"]
    assert outcomes(seen) == ["match", "mismatch"]
    assert "planted" in str(answer.value)


async def test_without_being_asked_nothing_is_verified(reader: Reader) -> None:
    await reader.warm(USER)
    with record(reader.cache) as seen:
        await reader.hit(USER)
    assert seen.verifications == []


@contextmanager
def between(database: Database, write: Any) -> Any:
    """Carry out a write when the next SELECT is about to be sent: after its lookup."""
    pending = [write]

    def before(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if pending and statement.lstrip().upper().startswith("SELECT"):
            from sqlalchemy.util import await_only

            await_only(pending.pop()(database))

    event.listen(database.engine.sync_engine, "before_cursor_execute", before)
    yield
    event.remove(database.engine.sync_engine, "before_cursor_execute", before)


async def test_a_write_between_lookup_and_load_is_a_race_and_no_mismatch(
    shadow: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    """
    1. The lookup finds a current entry.
    2. A writer commits.
    3. The database answers with what was written. The stamps, looked at again, have moved.
    """
    await shadow.current(USER)
    with record(shadow.cache) as seen, between(shadow.database, writes.change(User, 1, name="zed")):
        await shadow.ask(USER)
    assert outcomes(seen) == ["match", "raced"]  # of the writer's own read, before it wrote
    assert caplog.records == []


async def test_a_write_of_another_row_in_between_does_not_excuse_a_stale_one(shadow: Reader) -> None:
    await shadow.current(USER)
    await behind_its_back(shadow.database, "planted")
    with record(shadow.cache) as seen, between(shadow.database, writes.change(User, 2, name="zed")):
        await shadow.ask(USER)
    assert outcomes(seen) == ["mismatch"]


async def test_rows_are_compared_in_any_order(shadow: Reader) -> None:
    await shadow.current(EMAILS)
    binding = shadow.cache.bindings[0]
    if not hasattr(binding.store, "_entries"):
        pytest.skip("the entry is on a server")
    (entry,) = binding.store._entries.values()
    object.__setattr__(entry, "rows", entry.rows[::-1])
    with record(shadow.cache) as seen:
        await shadow.ask(EMAILS)
    assert outcomes(seen) == ["match"]


async def test_readers_and_writers_at_once_never_differ_without_a_write_to_blame(shadow: Reader) -> None:
    database, counted = shadow.database, Counter[str]()

    async def write(number: int) -> None:
        for turn in range(15):
            await writes.change(User, number, name=f"{number}-{turn}")(database)

    async def read(what: Any) -> None:
        for _ in range(25):
            await shadow.ask(what)

    with record(shadow.cache) as seen:
        writers = (1,) if database.dialect == "sqlite" else (1, 2)  # one at a time
        await asyncio.gather(*map(write, writers), *map(read, (USER, FREE, EMAILS)))
    counted.update(outcomes(seen))
    assert counted["match"] > 0
    assert counted["mismatch"] == 0


async def test_what_was_verified_is_counted(database: Database) -> None:
    registry = CollectorRegistry()
    cache = configure(
        models={"*": {"timeout": 3600}},
        telemetry={"registry": registry, "trace": "off"},
        verify=1.0,
        name="counted",
    )
    await cache.bind(database.engine)

    def count(outcome: str) -> float | None:
        return registry.get_sample_value(
            "sqlacache_verifications_total", {"cache": "counted", "outcome": outcome}
        )

    assert [count(outcome) for outcome in ("match", "mismatch", "raced")] == [0, 0, 0]
    reader = Reader(database, cache)
    for _ in range(3):
        await reader.ask(USER)
    await behind_its_back(database, "planted")
    await reader.ask(USER)
    assert [count(outcome) for outcome in ("match", "mismatch", "raced")] == [2, 1, 0]
    await cache.disconnect()


@pytest.mark.parametrize("verify", [-0.1, 1.1, "often", None])
def test_verify_takes_a_fraction(verify: Any) -> None:
    with pytest.raises(ConfigError, match=r"verify: takes .* got"):
        configure(verify=verify, telemetry=None)


async def test_the_fleet_cannot_be_switched_to_shadow(reader: Reader) -> None:
    with pytest.raises(CacheError, match=r"mem://|takes one of on, write_only, off, got 'shadow'"):
        await reader.cache.set_mode("shadow", fleet=True)
