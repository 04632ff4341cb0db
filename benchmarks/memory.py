"""What an entry weighs: in this process, beside what ``max_bytes`` counts, and on Redis.

Each figure of a process is of one of its own, which reads so many different things through sessions, as an application
does, and holds nothing but what the cache holds: the growth of the memory that Python has handed out (``tracemalloc``)
and, in another process, that of what the system has given it (resident set). On Redis, the server tells.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean
from typing import Any
from uuid import uuid4

import redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from sqlacache import Observer

from .grown import CONTEXT, Grown
from .measure import fresh_database
from .models import Customer, create_and_fill
from .parts import Chart, Goal, Part, Place
from .spread import Spread, spread
from .text import table

NAME = "memory"
TITLE = "what an entry weighs"
WHAT: Mapping[str, tuple[int, int]] = {
    "get": (1, 2_000),
    "list of 10": (10, 500),
    "list of 100": (100, 150),
    "list of 1,000": (1_000, 30),
}
"""Rows of an entry, and how many entries are made."""
CUSTOMERS = 2_200
ASKED = 200
"""Keys whose size the server is asked for."""
IN_PROCESS = ("mem://", "redis, validated")
LEAST, MOST = 0.8, 1.2
"""Of what an entry takes, that it is to be counted as."""
PAGE = resource.getpagesize()


@dataclass(frozen=True)
class Task:
    """What one process does."""

    grown: Grown
    rows: int
    entries: int
    traced: bool = False


class Weighed(Observer):
    """Hears what the cache says that it holds."""

    entries = size = 0

    def capacity(self, cache: str, entries: int, size: int) -> None:
        self.entries, self.size = entries, size


# -- in a process of its own -----------------------------------------------------------------------------------


def _statement(rows: int, number: int) -> Any:
    return select(Customer).where(Customer.id > number, Customer.id <= number + rows).order_by(Customer.id)


async def _read(session: AsyncSession, rows: int, number: int) -> None:
    if rows == 1:
        await session.get(Customer, number + 1)
    else:
        await session.execute(_statement(rows, number))


async def _weigh(task: Task) -> dict[str, float]:
    weighed = Weighed()
    engine = create_async_engine(task.grown.postgres, pool_size=1, max_overflow=0)
    sessions: Any = sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)  # type: ignore[call-overload]  # typed for sync engines only
    cache = task.grown.cache({Customer: {"timeout": 3600}}, observers=[weighed], history=0)
    await cache.bind(engine)

    async def read(first: int, entries: int) -> None:
        for number in range(first, first + entries):
            async with sessions() as session:
                await _read(session, task.rows, number)

    warm = max(20, task.entries // 20)
    for _ in range(2):  # a miss and a hit: what is made once, such as plans, is made
        await read(0, warm)
    gc.collect()
    before, counted = _memory(task), weighed.size
    await read(warm, task.entries)
    await read(warm, task.entries)  # hits, which may decode and keep
    gc.collect()
    held = (_memory(task) - before) / task.entries
    counted_each = (weighed.size - counted) / task.entries
    await cache.disconnect()
    await engine.dispose()
    return {"held": held, "counted": counted_each}


def _memory(task: Task) -> int:
    if task.traced:
        return tracemalloc.get_traced_memory()[0]
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def _main(connection: Connection, task: Task) -> None:
    logging.getLogger("sqlacache").setLevel(logging.ERROR)  # that mem:// is not shared by processes is meant
    if task.traced:
        tracemalloc.start()
    connection.send(asyncio.run(_weigh(task)))


def _in_process(task: Task) -> dict[str, float]:
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_main, args=(theirs, task), daemon=True)
    process.start()
    theirs.close()
    try:
        found: dict[str, float] = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{task} ended with status {process.exitcode}") from None
    finally:
        ours.close()
        process.join(30)
    return found


# -- in the program --------------------------------------------------------------------------------------------


def run(place: Place, *, rounds: int | None, quick: bool, progress: Callable[[str], None]) -> Part:
    """Weigh; ``rounds`` changes nothing, since nothing is timed."""
    return asyncio.run(_run(place, quick, progress))


async def _run(place: Place, quick: bool, progress: Callable[[str], None]) -> Part:
    found: dict[str, dict[str, dict[str, float]]] = {store: {} for store in STORES}
    prefix = f"b{uuid4().hex[:8]}"  # short, as applications have it: it is part of every key
    client = redis.Redis.from_url(place.redis)
    async with fresh_database(place.postgres) as url:
        administrator = create_async_engine(url, poolclass=NullPool)
        async with administrator.begin() as connection:
            await connection.run_sync(create_and_fill, 200 if quick else CUSTOMERS)
        await administrator.dispose()
        postgres = url.render_as_string(hide_password=False)
        try:
            for what, (rows, entries) in WHAT.items():
                if quick and rows > 10:
                    continue
                for store, weigh in STORES.items():
                    progress(f"{what}, {store}")
                    grown = Grown(store, f"{prefix}-{len(store)}-{rows}", postgres, place.redis)
                    found[store][what] = weigh(client, Task(grown, rows, 20 if quick else entries))
        finally:
            _clean(client, prefix)
            client.close()
    return Part(
        NAME, TITLE, list(_lines(found)), {"bytes_per_entry": found}, _goals(found), charts=[_chart(found)]
    )


def _here(client: Any, task: Task) -> dict[str, float]:
    """Return the bytes per entry in a process, by what tells them."""
    traced = _in_process(replace(task, traced=True))
    again = replace(task, grown=replace(task.grown, prefix=f"{task.grown.prefix}-again"))
    resident = {"resident": _in_process(again)["held"]}
    counted, held = traced["counted"], traced["held"]
    return {"counted": counted, "allocated": held, "counted per allocated": counted / held, **resident}


def _there(client: Any, task: Task) -> dict[str, float]:
    """Return the bytes per entry on the server."""
    before = client.info("memory")["used_memory"]
    _in_process(task)
    grew = client.info("memory")["used_memory"] - before
    names: dict[bytes, list[bytes]] = {b"e": [], b"s": []}
    for key in client.scan_iter(f"{task.grown.prefix}:*", 10_000):
        kind = key.split(b":")[3:4]
        if kind and kind[0] in names:
            names[kind[0]].append(key)
    entries, stamps = names[b"e"], names[b"s"]
    return {
        "value": mean(client.strlen(key) for key in entries[:ASKED]),
        "entry": mean(client.memory_usage(key, samples=0) for key in entries[:ASKED]),
        "stamp": mean(client.memory_usage(key, samples=0) for key in stamps[:ASKED]),
        "stamps per entry": len(stamps) / len(entries),
        "used_memory": grew / len(entries),
    }


STORES: Mapping[str, Callable[[Any, Task], dict[str, float]]] = {
    "mem://": _here,
    "redis, validated": _here,
    "redis": _there,
}


def _clean(client: Any, prefix: str) -> None:
    keys = list(client.scan_iter(f"{prefix}*", 10_000))
    for first in range(0, len(keys), 5000):
        client.unlink(*keys[first : first + 5000])


# -- telling ---------------------------------------------------------------------------------------------------


def _lines(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    yield "  Bytes per entry in a process: counted by max_bytes, allocated by Python, the first by the second, resident"
    columns = ["counted", "allocated", "counted per allocated", "resident"]
    for store in IN_PROCESS:
        yield f"  {store}"
        yield from table(list(found[store]), columns, _cell(found[store]), 22)
    yield from (
        "",
        "  Bytes on Redis: the entry's value, MEMORY USAGE of entry and stamp, growth of used_memory per entry",
    )
    columns = ["value", "entry", "stamp", "stamps per entry", "used_memory"]
    yield from table(list(found["redis"]), columns, _cell(found["redis"]), 18)


def _cell(works: Mapping[str, Mapping[str, float]]) -> Callable[[str, str], str]:
    return lambda what, column: (
        f"{works[what][column]:,.2f}" if "per" in column else f"{works[what][column]:,.0f}"
    )


def _goals(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Goal]:
    ratios = {
        f"{what}, {store}": told["counted per allocated"]
        for store in IN_PROCESS
        for what, told in found[store].items()
    }
    over = tuple(ratios)
    least, most = min(ratios, key=lambda one: ratios[one]), max(ratios, key=lambda one: ratios[one])
    text = "What max_bytes counts of an entry against what Python has allocated."
    return [
        Goal("counted, least", f"{text} Worst: {least}.", spread([ratios[least]]), LEAST, True, over),
        Goal("counted, most", f"{text} Worst: {most}.", spread([ratios[most]]), MOST, False, over),
    ]


def _chart(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Chart:
    shown = {
        "mem://": ("counted", "allocated"),
        "redis, validated": ("allocated",),
        "redis": ("used_memory",),
    }
    series = {
        f"{store}, {figure}": [
            (what, Spread(told[figure], told[figure], told[figure])) for what, told in found[store].items()
        ]
        for store, figures in shown.items()
        for figure in figures
    }
    return Chart("memory", "What an entry weighs", "bars", "", "bytes", series, log_y=True, base=1.0)
