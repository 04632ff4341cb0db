"""Two processes that read and write see each other's commits at once, whatever their local tier."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import pytest_asyncio
import redis

from tests.support.databases import PostgresDatabases
from tests.support.fleet import LOCAL
from tests.support.fronts import Front
from tests.support.processes import eventually
from tests.support.workers import Worker, workers

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

BOUND = 0.4


class Pair(NamedTuple):
    """Two workers on one PostgreSQL database and one Redis."""

    a: Worker
    b: Worker
    local: str | None
    server: redis.Redis
    prefix: str

    def both_ways(self) -> tuple[tuple[Worker, Worker], tuple[Worker, Worker]]:
        return (self.a, self.b), (self.b, self.a)

    async def sees(self, worker: Worker, read: str, expected: Any, **arguments: Any) -> None:
        """The worker reads what is expected: at once, or within the bound of the pushed tier."""
        if self.local != "pushed":
            assert await worker.call(read, **arguments) == expected
            return

        async def seen() -> bool:
            return bool(await worker.call(read, **arguments) == expected)

        await eventually(seen, f"{worker!r} to read {expected!r}")

    def stamps(self) -> dict[str, int]:
        """The version of each stamp on the server."""
        found = {}
        for key in self.server.scan_iter(f"{self.prefix}:*:s:*"):
            value = self.server.get(key)
            assert isinstance(value, bytes)
            found[key.decode().partition(":s:")[2]] = int(value.split(b"|")[1])
        return found

    def calls(self) -> int:
        """How many scripts the server has run."""
        stats: Any = self.server.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


MIXED: tuple[Front, Front] = ("sync", "async")
SIDES = [pytest.param((local, ()), id=str(local)) for local in LOCAL]
SIDES += [pytest.param((local, MIXED), id=f"{local}-sync-and-async") for local in LOCAL]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SIDES)
async def pair(
    request: pytest.FixtureRequest, postgresql_databases: PostgresDatabases, redis_url: str
) -> AsyncIterator[Pair]:
    prefix = f"pair-{uuid4().hex[:8]}"
    backend = {"url": redis_url, "bound": BOUND, "timeout": 2}
    local, fronts = request.param
    async with postgresql_databases.fresh() as url:
        async with workers(2, url, fronts=fronts, backend=backend, local=local, prefix=prefix) as [a, b]:
            with redis.Redis.from_url(redis_url) as server:
                yield Pair(a, b, local, server, prefix)


async def _drain(*several: Worker) -> None:
    for worker in several:
        await worker.call("decisions")
        await worker.call("invalidations")


async def _warm(worker: Worker, read: str, **arguments: Any) -> None:
    async def hit() -> bool:
        return bool((await worker.decided(read, **arguments))[1]["decision"] == "hit")

    await eventually(hit, f"{worker!r} to answer {read} {arguments} from the cache")


async def test_each_sees_what_the_other_committed(pair: Pair) -> None:
    for turn in range(3):
        for writer, reader in pair.both_ways():
            for worker in (writer, reader):
                await _warm(worker, "get", model="User", key=1)
                await _warm(worker, "list", model="User", where={"plan": "pro"})
                await _warm(worker, "count", model="User", where={"active": True})
            pros = await reader.call("list", model="User", where={"plan": "pro"})
            joins = 1 not in [row["id"] for row in pros]
            values = {"name": f"{turn}-{writer.pid}", "plan": "pro" if joins else "free", "active": not joins}
            await writer.call("update", model="User", key=1, values=values)
            # The writer itself reads its commit at once, also from the pushed tier.
            row = await writer.call("get", model="User", key=1)
            assert row["name"] == values["name"]
            pros = await writer.call("list", model="User", where={"plan": "pro"})
            assert (1 in [one["id"] for one in pros]) is joins
            assert await writer.call("count", model="User", where={"active": True}) == (3 if joins else 4)
            await pair.sees(reader, "get", row, model="User", key=1)
            await pair.sees(reader, "list", pros, model="User", where={"plan": "pro"})
            await pair.sees(reader, "count", 3 if joins else 4, model="User", where={"active": True})


async def test_a_miss_names_the_process_and_the_write_that_caused_it(pair: Pair) -> None:
    for writer, reader in pair.both_ways():
        await _warm(reader, "get", model="User", key=2)
        await writer.call(
            "update", model="User", key=2, values={"name": f"by {writer.pid}", "balance": writer.pid}
        )
        decision: dict[str, Any] = {}

        async def missed(reader: Worker = reader, decision: dict[str, Any] = decision) -> bool:
            decision.update((await reader.decided("get", model="User", key=2))[1])
            return bool(decision["decision"] == "miss")

        await (eventually(missed, "the miss") if pair.local == "pushed" else missed())
        assert decision["decision"] == "miss"
        cause = decision["cause"]
        assert decision["reason"] == "row_invalidated"
        assert (cause["pid"], cause["host"], cause["table"]) == (writer.pid, socket.gethostname(), "users")
        assert cause["cause"] == "row_update"
        assert cause["keys"] == ["users:2"]
        assert cause["columns"] == ["balance", "name"]


async def test_a_bulk_update_replaces_each_stamp_once_however_many_workers_run(pair: Pair) -> None:
    for worker in (pair.a, pair.b):
        for key in (1, 2, 3):
            await _warm(worker, "get", model="User", key=key)
        for plan in ("free", "pro"):
            await _warm(worker, "count", model="User", where={"plan": plan})
    await pair.a.call("bulk_update", model="User", values={"balance": 1}, where={"id": [1, 2, 3]})
    await _drain(pair.a, pair.b)
    before, calls = pair.stamps(), pair.calls()
    await pair.a.call("bulk_update", model="User", values={"balance": 2}, where={"id": [1, 2, 3]})
    after = pair.stamps()
    assert pair.calls() == calls + 2, "one script for each phase, and none of the other worker"
    replaced = {name: after[name] - version for name, version in before.items() if after[name] != version}
    assert replaced
    assert set(replaced.values()) == {2}, "each phase replaces once"
    (invalidation,) = await pair.a.call("invalidations")
    assert [change["evicted"] for change in invalidation["changes"]] == [len(replaced)]
    assert await pair.b.call("invalidations") == []
    for worker in (pair.a, pair.b):
        row = await pair.a.call("get", model="User", key=1)
        assert row["balance"] == "2.00"
        await pair.sees(worker, "get", row, model="User", key=1)


async def test_a_shape_that_is_new_while_a_writer_commits_elsewhere_is_never_filled_with_the_old(
    pair: Pair,
) -> None:
    """
    1. The writer looks at the registry of shapes and, before it marks or before it commits, stops.
    2. The reader reads with a shape that nobody had registered: what it gets is right, as nothing is committed yet.
    3. The writer goes on and commits.
    4. The reader reads again: what it may have filled in step 2 is gone.
    """
    # A new combination of columns is a new shape.
    shapes = [["quantity"], ["quantity", "sku"], ["quantity", "warehouse"], ["quantity", "sku", "warehouse"]]
    steps = [("store.mark", "before"), ("store.mark", "after"), ("commit", "before"), ("commit", "after")]
    for quantity, (writer, reader) in zip((1000, 2000), pair.both_ways()):
        for number, ((step, when), columns) in enumerate(zip(steps, shapes)):
            row = {"warehouse": "north", "sku": 1, "quantity": quantity + number}
            asked = {column: row[column] for column in columns}
            await writer.arm(step, when, action="hold")
            values = {"quantity": row["quantity"]}
            writing = writer.start("update", model="Stock", key=["north", 1], values=values)
            await writer.reached(step, when)
            is_committed = (step, when) == ("commit", "after")
            for _ in range(2):
                assert await reader.call("count", model="Stock", where=asked) == int(is_committed)
            await writer.release(step, when)
            await writing
            await pair.sees(reader, "count", 1, model="Stock", where=asked)
            await pair.sees(writer, "count", 1, model="Stock", where=asked)


async def test_a_reader_that_loaded_before_a_commit_elsewhere_cannot_fill_after_it(pair: Pair) -> None:
    """
    1. The reader samples a new shape's stamps and loads; it stops before it fills.
    2. The writer commits.
    3. The reader fills what is old by now. Nobody ever hits on it.
    """
    for turn, (writer, reader) in enumerate(pair.both_ways()):
        email = f"new{turn}@example.com"
        await reader.arm("store.fill", action="hold")
        reading = reader.start("count", model="User", where={"email": email})
        await reader.reached("store.fill")
        await writer.call("update", model="User", key=3, values={"email": email})
        await reader.release("store.fill")
        assert await reading == 0
        await pair.sees(reader, "count", 1, model="User", where={"email": email})
        await pair.sees(writer, "count", 1, model="User", where={"email": email})


async def test_what_one_inserts_and_deletes_the_other_finds_and_misses(pair: Pair) -> None:
    for turn, (writer, reader) in enumerate(pair.both_ways()):
        key = 200 + turn
        assert await reader.call("get", model="Tag", key=key) is None
        total = await reader.call("count", model="Tag")
        await writer.call("insert", model="Tag", values={"id": key, "name": f"t{key}"})
        await pair.sees(reader, "get", {"id": key, "name": f"t{key}"}, model="Tag", key=key)
        await pair.sees(reader, "count", total + 1, model="Tag")
        await writer.call("delete", model="Tag", key=key)
        await pair.sees(reader, "get", None, model="Tag", key=key)
        await pair.sees(reader, "count", total, model="Tag")


async def test_both_write_and_read_at_the_same_time_and_nobody_goes_back_in_time(pair: Pair) -> None:
    """Whoever starts to read after a commit has returned reads that commit, or a later one."""
    committed = 0
    done = asyncio.Event()

    async def write() -> None:
        nonlocal committed
        for number in range(1, 31):
            writer = (pair.a, pair.b)[number % 2]
            await writer.call("update", model="Team", key=1, values={"name": f"{number:04d}"})
            committed = number
        done.set()

    async def read(worker: Worker) -> None:
        while not done.is_set():
            since = committed
            row = await worker.call("get", model="Team", key=1)
            if since and pair.local != "pushed":
                assert int(row["name"]) >= since, f"{worker!r} read {row} after {since} was committed"

    await asyncio.gather(write(), *(read(worker) for worker in (pair.a, pair.b, pair.a, pair.b)))
    for worker in (pair.a, pair.b):
        await pair.sees(worker, "get", {"id": 1, "name": "0030"}, model="Team", key=1)
