"""A writer is cancelled in each phase of its commit.

A store that answers over a network awaits in both phases. Here the store in memory is made to await, before or after it
has done its part, and the writer is cancelled there::

    1. phase one: the touched stamps are marked      cancelled: nothing is committed, and no mark stays
    2. the database commits                          cancelled: it may land later; in flight until the lease ends
    3. phase two: the stamps are replaced again      cancelled: phase two is carried out all the same
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.support.gates import let_others_run
from tests.support.models import User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import get, rows, scalar
from tests.support.writes import change

from .gates import Gate, at_commit

user_1, user_2 = get(User, 1), get(User, 2)
names = rows(lambda: select(User.id, User.name).order_by(User.id))
count = scalar(lambda: select(func.count()).select_from(User).where(User.plan == "free"))
READS = (user_1, names, count)

pytestmark = pytest.mark.skipif(UNCACHED, reason="is about the phases of the cache's commit")


async def cancel_at(gate: Gate, reader: Reader) -> None:
    """Cancel a writer of user 1 when it has come to the gate."""
    writer = asyncio.create_task(change(User, 1, name="zed", plan="pro")(reader.database))
    assert await gate.arrival(writer), "the writer never came to the gate"
    writer.cancel()
    await let_others_run()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await writer
    await let_others_run()


def end_leases(reader: Reader) -> None:
    """Let the time pass that a writer may take for its COMMIT."""
    reader.cache.bindings[0].store.end_leases()


def stop_in(reader: Reader, monkeypatch: pytest.MonkeyPatch, phase: str, *, before: bool) -> Gate:
    """Make the store await in one of its calls."""
    store = reader.cache.bindings[0].store
    original = getattr(store, phase)
    gate = Gate()

    def call(*args: Any, **kw: Any) -> Any:
        if before:
            gate.stop_here()
        result = original(*args, **kw)
        if not before:
            gate.stop_here()
        return result

    monkeypatch.setattr(store, phase, call)
    return gate


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_cancelled_while_marking_nothing_is_committed_and_no_mark_stays(
    before: bool, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reader.warm(*READS, user_2)
    was = await reader.truth(user_1)
    await cancel_at(stop_in(reader, monkeypatch, "mark", before=before), reader)
    assert await reader.truth(user_1) == was, "a cancelled phase one was followed by a COMMIT"
    for read in READS:
        await reader.current(read)
        await reader.hit(read)
    await reader.hit(user_2)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_cancelled_in_the_database_s_commit_it_counts_as_committed(
    before: bool, reader: Reader
) -> None:
    await reader.warm(*READS, user_2)
    with at_commit(reader.database.engine, before=before) as gate:
        await cancel_at(gate, reader)
    for read in READS:  # the COMMIT may still land: nothing is served or stored until the lease ends
        assert not (await reader.current(read)).hits
        assert not (await reader.current(read)).hits
    await reader.hit(user_2)
    end_leases(reader)
    for read in READS:
        await reader.current(read)
        await reader.hit(read)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_cancelled_while_settling_the_second_phase_is_carried_out(
    before: bool, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reader.warm(*READS, user_2)
    was = await reader.truth(user_1)
    await cancel_at(stop_in(reader, monkeypatch, "settle", before=before), reader)
    assert await reader.truth(user_1) != was
    for read in READS:
        await reader.current(read)
        await reader.hit(read)
    await reader.hit(user_2)


async def test_after_a_cancelled_commit_the_next_writer_and_its_readers_find_nothing_left_over(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reader.warm(*READS)
    with at_commit(reader.database.engine, before=True) as gate:
        await cancel_at(gate, reader)
    await change(User, 1, name="yan", plan="free")(reader.database)
    end_leases(reader)
    for read in READS:
        await reader.current(read)
        await reader.hit(read)
