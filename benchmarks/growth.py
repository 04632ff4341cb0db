"""How cost grows: with entries in the cache, configured tables, ways in which a table is read, and rows per commit.

Every size has a process of its own (:mod:`benchmarks.grown`), on Redis a database of its own, and they take turns; what
is compared belongs to one round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import redis
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.support.proxy import Proxy

from .grown import KEYS, Grown, Process, grown_models, processes, working
from .measure import fresh_database
from .models import create_and_fill
from .parts import Chart, Goal, Part, Place
from .spread import Spread, microseconds, ratios, spread, times
from .text import table

NAME = "growth"
TITLE = "how cost grows"
ROUNDS = 15
ENTRIES = (100, 1_000, 10_000, 100_000)
TABLES = (1, 10, 100)
SHAPES = (1, 8, 64, 200)
"""More than 64 are not kept apart: a read that comes later depends on more than it would have to."""
ROWS = (1, 10, 100, 1_000, 5_000)
CACHED = ("mem://", "redis", "redis, validated")
COMMITTING = ("no cache", "mem://", "redis, validated")

Samples = dict[str, dict[int, list[float]]]
"""Seconds per operation: by what keeps the cache, by size, one figure per round."""
Progress = Callable[[str], None]


def run(place: Place, *, rounds: int | None, quick: bool, progress: Progress) -> Part:
    """Measure in a database of its own, and in the numbered databases of the Redis."""
    return asyncio.run(_run(place, rounds or (1 if quick else ROUNDS), quick, progress))


async def _run(place: Place, rounds: int, quick: bool, progress: Progress) -> Part:
    prefix = f"benchmark-growth-{uuid4().hex[:8]}"
    async with fresh_database(place.postgres) as url:
        administrator = create_async_engine(url, poolclass=NullPool)
        async with administrator.begin() as connection:
            await connection.run_sync(create_and_fill, 100)
            models = grown_models(TABLES[1] if quick else TABLES[-1])
            await connection.run_sync(models[0].metadata.create_all)
            for model in models:
                await connection.execute(model.__table__.insert(), [{"c1": key} for key in range(KEYS)])
        await administrator.dispose()
        growth = Growth(
            url.render_as_string(hide_password=False), place.redis, prefix, rounds, quick, progress
        )
        try:
            return await growth.measured()
        finally:
            growth.clean()


class Growth:
    """One run of the part."""

    def __init__(
        self, postgres: str, redis_url: str, prefix: str, rounds: int, quick: bool, progress: Progress
    ) -> None:
        self.postgres, self.redis, self.prefix = postgres, redis_url, prefix
        self.rounds, self.quick, self.progress = rounds, quick, progress

    async def measured(self) -> Part:
        """Measure everything."""
        entries = self._grown(
            "entries", CACHED, self._few(ENTRIES), lambda size: {"entries": size}, {"hits": 100}
        )
        tables = self._grown(
            "tables",
            CACHED[::2],
            self._few(TABLES),
            lambda size: {"tables": size},
            {"hits": 60, "commits": 20},
        )
        shapes = self._grown(
            "shapes", CACHED[::2], self._few(SHAPES), lambda size: {"shapes": size}, {"commits": 10}
        )
        rows = self._rows(self._few(ROWS))
        trips = {size: await self._trips(size) for size in self._few(ROWS)}
        return _part(
            self.rounds,
            {"entries": entries, "tables": tables, "shapes": shapes, "rows": {"rows": rows}},
            trips,
        )

    def _few(self, sizes: Sequence[int]) -> Sequence[int]:
        return sizes[:2] if self.quick else sizes

    def _database(self, number: int) -> str:
        """Return the URL of a database of the server: so many entries are in one, and so many in another."""
        return make_url(self.redis).set(database=str(number + 1)).render_as_string(hide_password=False)

    def _grown(
        self,
        what: str,
        stores: Sequence[str],
        sizes: Sequence[int],
        grown: Callable[[int], Mapping[str, int]],
        operations: Mapping[str, int],
    ) -> dict[str, Samples]:
        """Return samples by operation, of processes for each store and size."""
        if self.quick:
            stores = stores[-2:] if what == "entries" else stores[-1:]
        wanted = {}
        for store in stores:
            for number, size in enumerate(sizes):
                prefix = f"{self.prefix}-{what}-{stores.index(store)}-{size}"
                wanted[store, size] = Grown(
                    store, prefix, self.postgres, self._database(number), **grown(size)
                )
        found: dict[str, Samples] = {
            operation: {store: {size: [] for size in sizes} for store in stores} for operation in operations
        }
        self.progress(f"{what}: growing")
        with processes(wanted) as started:
            for number in self._numbers():
                for operation, often in operations.items():
                    for (store, size), process in _in_turn(started, number):
                        taken = process.ask(operation, 2 if self.quick else often)
                        if number or self.quick:
                            found[operation][store][size].append(taken)
                self.progress(f"{what}: round {number + 1}")
        return found

    def _rows(self, sizes: Sequence[int]) -> Samples:
        wanted = {
            store: Grown(store, f"{self.prefix}-rows", self.postgres, self._database(0), shapes=8)
            for store in COMMITTING
        }
        found: Samples = {store: {size: [] for size in sizes} for store in COMMITTING}
        with processes(wanted) as started:
            for number in self._numbers():
                for size in sizes:
                    often = 1 if self.quick else max(1, min(10, 200 // size))
                    for store, process in _in_turn(started, number):
                        taken = sum(process.ask("rows", size) for _ in range(often)) / often
                        if number or self.quick:
                            found[store][size].append(taken / size)
                self.progress(f"rows: round {number + 1}")
        return found

    def _numbers(self) -> range:
        """Numbers of rounds; the first warms everything up."""
        return range(self.rounds if self.quick else self.rounds + 1)

    async def _trips(self, rows: int) -> dict[str, Any]:
        """Return the round trips and commands of a commit, counted at the socket."""
        there = make_url(self._database(0))
        with Proxy((there.host or "localhost", there.port or 6379)) as proxy:
            url = there.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
            what = Grown("redis, validated", f"{self.prefix}-trips", self.postgres, url, shapes=8)
            async with working(what) as worker:
                await worker.rows(1)  # learns the ways in which the table is read
                with proxy.counting() as sent:
                    await worker.rows(rows)
        return {"trips": sent.trips, "commands": dict(sent)}

    def clean(self) -> None:
        """Remove what was put on the Redis."""
        for number in range(len(ENTRIES)):
            client = redis.Redis.from_url(self._database(number))
            keys = list(client.scan_iter(f"{self.prefix}*", 10_000))
            for first in range(0, len(keys), 5000):
                client.unlink(*keys[first : first + 5000])
            client.close()


def _in_turn(items: Mapping[Any, Process], number: int) -> Sequence[tuple[Any, Process]]:
    """Let another one begin in each round."""
    listed = list(items.items())
    first = number % len(listed)
    return (*listed[first:], *listed[:first])


# -- telling ---------------------------------------------------------------------------------------------------

ABOUT = {
    "entries": "A session.get() that hits, by entries in the cache (of 14 columns each)",
    "tables": "Configured tables",
    "shapes": "Ways in which the table is read (by other columns, of other columns); every insert touches all",
    "rows": "A commit of so many inserted rows, per row; the table is read in 8 ways besides by key",
}
OPERATIONS = {"hits": "a hit", "commits": "a commit of one row", "rows": "per row"}


def _part(
    rounds: int, found: Mapping[str, Mapping[str, Samples]], trips: Mapping[int, Mapping[str, Any]]
) -> Part:
    shown = [
        f"  {rounds} rounds; microseconds (quartiles), and as a part of the smallest size in the same round"
    ]
    charts, goals = [], []
    for what, operations in found.items():
        shown += ["", f"  {ABOUT[what]}"]
        for operation, samples in operations.items():
            shown += _table(OPERATIONS[operation], samples)
            charts.append(_chart(what, operation, samples))
    shown += ["", "  Redis (validated), a commit: round trips, and commands, counted at the socket"]
    shown += [
        f"    {rows:>9,} rows  {told['trips']} round trips: {told['commands']}"
        for rows, told in trips.items()
    ]
    goals += list(_flat(found["entries"]["hits"]))
    most = float(max(told["trips"] for told in trips.values()))
    text = "Round trips to Redis of a commit, however many rows."
    goals.append(Goal("round trips of a commit", text, Spread(most, most, most), 2, False, _over(trips)))
    data = {"rounds": rounds, **{what: _told(operations) for what, operations in found.items()}}
    return Part(NAME, TITLE, shown, {**data, "trips": trips}, goals, charts)


def _over(sizes: Mapping[int, Any]) -> tuple[str, ...]:
    return tuple(f"{size:,}" for size in sizes)


def _flat(samples: Samples) -> Iterator[Goal]:
    for store, sizes in samples.items():
        smallest, largest = min(sizes), max(sizes)
        text = f"A hit ({store}) with {largest:,} entries in the cache against one with {smallest:,}."
        found = ratios(sizes[largest], sizes[smallest])
        yield Goal(f"flat in entries, {store}", text, found, 1.25, False, (f"{smallest:,}", f"{largest:,}"))


def _table(operation: str, samples: Samples) -> Iterator[str]:
    sizes = list(next(iter(samples.values())))
    columns = [f"{size:,}" for size in sizes]

    def cell(row: str, column: str) -> str:
        return microseconds(spread(samples[row][sizes[columns.index(column)]]))

    def part(row: str, column: str) -> str:
        there = samples[row]
        return times(ratios(there[sizes[columns.index(column)]], there[sizes[0]]))

    yield f"  {operation}"
    yield from table(list(samples), columns, cell)
    yield from list(table(list(samples), columns, part))[1:]


def _chart(what: str, operation: str, samples: Samples) -> Chart:
    series = {
        store: [(size, _micro(spread(found))) for size, found in sizes.items()]
        for store, sizes in samples.items()
    }
    title = f"{ABOUT[what].partition('(')[0].strip()}: {OPERATIONS[operation]}"
    return Chart(f"growth-{what}-{operation}", title, "lines", what, "microseconds", series, log_x=True)


def _micro(found: Spread) -> Spread:
    return Spread(found.median * 1e6, found.low * 1e6, found.high * 1e6)


def _told(operations: Mapping[str, Samples]) -> dict[str, Any]:
    return {
        operation: {
            store: {
                str(size): {"seconds": spread(found).as_dict(), "samples": found}
                for size, found in sizes.items()
            }
            for store, sizes in samples.items()
        }
        for operation, samples in operations.items()
    }
