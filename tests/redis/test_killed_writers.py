"""A writer that is killed between any two steps of its commit leaves nobody with a stale read, before its lease ends
or after."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import pytest
import pytest_asyncio
from sqlalchemy import select

from tests.support.fleet import LOCAL, READS, caught_up, count, listed, reading, settled, user
from tests.support.models import User
from tests.support.reading import Reader
from tests.support.reads import scalar
from tests.support.workers import Worker, WorkerDied

pytestmark = pytest.mark.integration

Start = Callable[..., AbstractAsyncContextManager[list[Worker]]]
LEASE = 1.0
BOUND = 0.4


@pytest_asyncio.fixture
async def readers(file: str, redis_url: str, prefix: str) -> AsyncIterator[list[Reader]]:
    """Readers of this process, one with each local tier, on the same entries as the writer."""
    backend = {"url": redis_url, "bound": BOUND, "timeout": 2}
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                reading(file, backend, prefix=prefix, lease=LEASE, local=local, name=str(local))
            )
            for local in LOCAL
        ]


@pytest.fixture
def start_writer(
    file: str, redis_url: str, prefix: str, start_workers: Start
) -> Callable[[], AbstractAsyncContextManager[list[Worker]]]:
    backend = {"url": redis_url, "timeout": 2}
    return lambda: start_workers(1, file, backend=backend, lease=LEASE, prefix=prefix)


@pytest.mark.parametrize(
    ("step", "when", "committed"),
    [
        ("store.mark", "before", False),
        ("store.mark", "after", False),
        ("commit", "before", False),
        ("commit", "after", True),
        ("store.settle", "before", True),
        ("store.settle", "after", True),
    ],
)
async def test_nobody_reads_what_a_killed_writer_made_stale(
    readers: list[Reader],
    start_writer: Callable[[], AbstractAsyncContextManager[list[Worker]]],
    step: str,
    when: str,
    committed: bool,
) -> None:
    async with start_writer() as [writer]:
        for reader in readers:
            await settled(reader, *READS)
        await writer.arm(step, when)
        with pytest.raises(WorkerDied):
            await writer.call("update", model="User", key=1, values={"name": "new", "plan": "pro"})
        await writer.killed()
        for reader in readers:
            await caught_up(reader)
            for read in READS:
                await reader.current(read)
        for reader in readers:  # until the lease has ended, and after
            await settled(reader, *READS, patience=20 * LEASE)
        name = await readers[0].truth(scalar(lambda: select(User.name).where(User.id == 1)))
        assert name == ("new" if committed else "ann")


async def test_a_shape_that_is_new_while_a_writer_is_killed_is_cached_after_its_lease(
    readers: list[Reader], start_writer: Callable[[], AbstractAsyncContextManager[list[Worker]]]
) -> None:
    """
    1. The writer marks, and is killed after the database has committed: nobody settles.
    2. A shape that nobody had registered is read: its stamp may not be seeded while the writer counts as under way.
    3. The lease ends. The shape is registered, and filled with what was committed.
    """
    async with start_writer() as [writer]:
        await settled(readers[0], user(1))
        await writer.arm("commit", "after", action="hold")
        writing = writer.start("update", model="User", key=1, values={"plan": "pro"})
        await writer.reached("commit", "after")
        for reader in readers:
            answer = await reader.ask(count("free"))
            assert answer.bypasses[0].reason == "writer_under_way"
        await writer.kill()
        with pytest.raises(WorkerDied):
            await writing
        for reader in readers:
            await settled(reader, count("free"), listed("pro"), user(1), patience=20 * LEASE)


async def test_what_was_filled_after_a_lease_ended_goes_when_its_writer_settles_all_the_same(
    readers: list[Reader], start_writer: Callable[[], AbstractAsyncContextManager[list[Worker]]]
) -> None:
    """
    1. The writer marks, and its COMMIT takes longer than its lease (the promise's stated exception).
    2. The lease ends. Readers register and fill, also shapes that phase one did not know.
    3. The database commits. The writer settles: the server has forgotten it, so the table goes.
    """
    async with start_writer() as [writer]:
        await settled(readers[0], user(1))
        await writer.arm("commit", "before", action="hold")
        writing = writer.start("update", model="User", key=1, values={"plan": "pro"})
        await writer.reached("commit", "before")
        for reader in readers:
            await settled(reader, user(1), count("free"), count("pro"), patience=20 * LEASE)
        await writer.release("commit", "before")
        await writing
        for reader in readers:
            await caught_up(reader)
            for read in (user(1), count("free"), count("pro")):
                await reader.current(read)
            await settled(reader, user(1), count("free"), count("pro"))
