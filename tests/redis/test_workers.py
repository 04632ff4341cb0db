"""Worker processes do what the tests of several processes rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
import pytest_asyncio

from tests.support.databases import Database
from tests.support.models import User
from tests.support.workers import Worker, WorkerDied, WorkerFailed

Start = Callable[..., AbstractAsyncContextManager[list[Worker]]]


@pytest_asyncio.fixture
async def worker(file: str, start_workers: Start) -> AsyncIterator[Worker]:
    async with start_workers(1, file, backend="mem://") as [one]:
        yield one


async def name_of(database_url: str, key: int) -> str:
    """The name of a user as the database has it."""
    database = Database(database_url)
    async with database.truth_sessions() as session:
        name = (await session.get(User, key)).name
    await database.dispose()
    return str(name)


async def test_two_workers_on_one_database(database: Database, start_workers: Start) -> None:
    async with start_workers(2, database.url, backend="mem://") as [a, b]:
        assert await a.call("ping") == a.pid != b.pid
        await a.call(
            "update", model="User", key=1, values={"name": "new", "balance": "7.50", "role": "MEMBER"}
        )
        row = await b.call("get", model="User", key=1)
        assert (row["name"], row["balance"], row["role"]) == ("new", "7.50", "MEMBER")
        await b.exit()
        assert b.returncode == 0
        with pytest.raises(WorkerDied):
            await b.call("ping")


async def test_reads_say_what_was_decided(worker: Worker) -> None:
    row, decision = await worker.decided("get", model="User", key=1)
    assert row["name"] == "ann"
    assert (decision["decision"], decision["reason"]) == ("miss", "absent")
    assert (await worker.decided("get", model="User", key=1))[1]["decision"] == "hit"
    await worker.call("update", model="User", key=1, values={"plan": "pro"})
    row, decision = await worker.decided("get", model="User", key=1)
    assert (row["plan"], decision["reason"]) == ("pro", "row_invalidated")
    assert decision["cause"]["pid"] == worker.pid
    (invalidation,) = await worker.call("invalidations")
    assert invalidation["changes"][0]["tags"] == ["users:1"]
    assert [one["decision"] for one in await worker.call("decisions")][:2] == ["miss", "hit"]
    assert await worker.call("decisions") == []


async def test_every_kind_of_read_and_write(worker: Worker) -> None:
    where = {"plan": "pro"}
    assert await worker.call("count", model="User", where=where) == 2
    assert await worker.call("bulk_update", model="User", where={"id": [1, 3]}, values=where) == 2
    assert [row["id"] for row in await worker.call("list", model="User", where=where)] == [1, 2, 3, 4]
    assert await worker.call("insert", model="Tag", values={"id": 100, "name": "new"}) == [100]
    await worker.call("insert_many", model="Tag", rows=[{"id": n, "name": f"t{n}"} for n in (101, 102)])
    await worker.call("delete", model="Tag", key=100)
    assert await worker.call("bulk_delete", model="Tag", where={"name": "t101"}) == 1
    assert await worker.call("count", model="Tag") == 4
    assert (await worker.call("get", model="Stock", key=["north", 2]))["quantity"] == 20
    assert await worker.call("get", model="User", key=99) is None


async def test_named_sessions_stay_open(worker: Worker) -> None:
    await worker.call("begin", session="s")
    await worker.call("update", model="User", key=1, values={"name": "new"}, session="s")
    await worker.call("flush", session="s")
    assert (await worker.call("get", model="User", key=1))["name"] == "ann"
    assert (await worker.call("get", model="User", key=1, session="s"))["name"] == "new"
    await worker.call("commit", session="s")
    assert (await worker.call("get", model="User", key=1))["name"] == "new"
    await worker.call("begin", session="s")
    await worker.call("update", model="User", key=1, values={"name": "newer"}, session="s")
    await worker.call("rollback", session="s")
    assert (await worker.call("get", model="User", key=1))["name"] == "new"


async def test_calls_reach_the_cache(worker: Worker) -> None:
    await worker.call("get", model="User", key=1)
    assert await worker.call("invalidate", model="User", pks=[1]) == 1
    _, decision = await worker.decided("get", model="User", key=1)
    assert decision["reason"] == "manual_invalidated"
    await worker.call("set_mode", mode="write_only")
    assert await worker.call("manager", method="mode") == "write_only"
    assert (await worker.decided("get", model="User", key=1))[1]["reason"] == "disabled"
    await worker.call("manager", method="touched", args=["users"], kwargs={"columns": ["plan"]})
    await worker.call("manager", method="invalidate", args=[{"model": "User"}])


async def test_errors_are_the_callers_and_the_worker_goes_on(worker: Worker) -> None:
    with pytest.raises(WorkerFailed, match=r"(?s)LookupError: no step 'store.nap'.*Traceback") as failed:
        await worker.arm("store.nap")
    assert failed.value.error == "LookupError"
    assert await worker.call("ping") == worker.pid


@pytest.mark.parametrize(
    ("step", "when", "name"),
    [
        ("store.mark", "before", "ann"),
        ("store.mark", "after", "ann"),
        ("commit", "before", "ann"),
        ("commit", "after", "new"),
        ("store.settle", "before", "new"),
        ("store.settle", "after", "new"),
    ],
)
async def test_a_writer_kills_itself_at_a_step_of_its_commit(
    file: str, worker: Worker, step: str, when: str, name: str
) -> None:
    await worker.call("get", model="User", key=1)
    await worker.arm(step, when)
    with pytest.raises(WorkerDied):
        await worker.call("update", model="User", key=1, values={"name": "new"})
    await worker.killed()
    assert await name_of(file, 1) == name


async def test_a_reader_kills_itself_at_its_second_fill(worker: Worker) -> None:
    await worker.arm("store.fill", nth=2)
    await worker.call("get", model="User", key=1)
    with pytest.raises(WorkerDied):
        await worker.call("get", model="User", key=2)
    await worker.killed()


async def test_a_task_is_held_at_a_step_while_others_go_on(file: str, worker: Worker) -> None:
    await worker.call("get", model="User", key=1)
    await worker.arm("commit", "after", action="hold")
    writing = worker.start("update", model="User", key=1, values={"name": "new"})
    await worker.reached("commit", "after")
    assert await name_of(file, 1) == "new"
    _, decision = await worker.decided("get", model="User", key=1)
    assert decision["decision"] == "miss"  # its stamp was replaced, and is in flight
    assert not writing.done()
    await worker.release("commit", "after")
    await writing


async def test_a_paused_worker_answers_nothing_until_it_goes_on(worker: Worker) -> None:
    worker.pause()
    with pytest.raises(WorkerFailed, match="did not answer ping"):
        await worker.call("ping", timeout=0.2)
    worker.resume()
    assert await worker.call("ping") == worker.pid
    worker.pause()
    await worker.kill()
    assert worker.returncode == -9
