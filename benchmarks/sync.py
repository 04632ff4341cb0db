"""What the cache saves ordinary sessions, against no cache and against the usual recipe, on PostgreSQL and on SQLite.

Every contender of :mod:`.sync_contenders` does the same in the same process, in turn, as in the part ``one``.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.metadata import version
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import NullPool

from .contender import Unfair
from .figures import ratio, told
from .goals import Demand
from .heap import own_garbage
from .measure import CUSTOMERS, Samples, fresh_database, in_turn
from .models import create_and_fill
from .parts import Chart, Part, Place
from .spread import times
from .sync_contenders import COUNTERPARTS, HITS, NO_CACHE, Contender, contenders
from .sync_work import READS, WRITES, fresh_events
from .text import detail, overview, table
from .work import Work, fingerprint

NAME = "sync"
TITLE = "ordinary sessions, psycopg and SQLite"
ROUNDS = 12
PACKAGES = ("psycopg", "dogpile.cache")
POSTGRESQL, SQLITE = "PostgreSQL", "SQLite"
WORKS: Mapping[str, Sequence[Work]] = {POSTGRESQL: (*READS, *WRITES), SQLITE: READS[:4]}
"""What is measured on each database."""


def run(place: Place, *, rounds: int | None, quick: bool, progress: Callable[[str], None]) -> Part:
    """Measure."""
    number = rounds or (1 if quick else ROUNDS)
    samples = measure(place.postgres, place.redis, number, quick=quick, progress=progress)
    data = {
        "rounds": number,
        "works": told(samples, NO_CACHE),
        "left_out": {one.name: dict(one.unable) for one in contenders() if one.unable},
    }
    return Part(NAME, TITLE, list(lines(samples)), data, list(goals(samples)), list(charts(samples)))


def named(work: Work, database: str) -> str:
    """Return what a work is called in the figures."""
    return f"{work.name}, {database}"


def on(samples: Samples, database: str) -> Samples:
    """Return the figures of one database, by the work's own name."""
    return {work.name: samples[named(work, database)] for work in WORKS[database]}


# -- measuring -------------------------------------------------------------------------------------------------


def measure(
    server_url: str, redis_url: str, rounds: int, *, quick: bool, progress: Callable[[str], None]
) -> Samples:
    """Run the benchmark in databases of its own; ``quick`` does each work once."""
    samples: Samples = {}
    answers: dict[str, str] = {}
    with ExitStack() as stack:
        places: list[tuple[str, Engine, Sequence[Contender]]] = []
        for database, url, pool in _databases(stack, server_url):
            administrator = create_engine(url, poolclass=NullPool)
            with administrator.begin() as connection:
                create_and_fill(connection, CUSTOMERS)
            places.append((database, administrator, contenders()))
            for runner in places[-1][2]:
                runner.open(url, redis_url, **pool)
                stack.callback(runner.close)
        for number in range(rounds if quick else rounds + 1):
            for database, administrator, runners in places:
                for work in WORKS[database]:
                    name = named(work, database)
                    figures = samples.setdefault(name, {})
                    for runner in in_turn(runners, number):
                        if not runner.takes_part(work):
                            continue
                        if work in WRITES:
                            with administrator.begin() as connection:
                                fresh_events(connection)
                        with runner.turn():
                            answer = fingerprint(work.plain(runner.warm(work)))
                            if answers.setdefault(name, answer) != answer:
                                raise Unfair(f"{runner.name}, {name}: not the answer of the others")
                            taken = _seconds(runner, work, 1 if quick else work.times)
                        if number or quick:  # the first round warms everything up
                            figures.setdefault(runner.name, []).append(taken)
            progress(f"round {number + 1}")
    return samples


def _seconds(runner: Contender, work: Work, count: int) -> float:
    """Return the mean of some executions."""
    run, sessions, options = work.run, runner.sessions, runner.options
    with own_garbage() if count > 1 else nullcontext():
        began = time.perf_counter()
        for number in range(count):
            run(sessions, options, number)
        return (time.perf_counter() - began) / count


def _databases(stack: ExitStack, server_url: str) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Give each database's name and URL, and what its engines take."""
    yield POSTGRESQL, stack.enter_context(_on_server(server_url)), {"pool_size": 2, "max_overflow": 0}
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sqlacache-benchmark-"))
    # The benchmark's amounts survive SQLite's floating point.
    stack.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", "Dialect sqlite.* does \\*not\\* support Decimal", SAWarning)
    yield SQLITE, make_url(f"sqlite:///{folder}/benchmark.sqlite"), {}


@contextmanager
def _on_server(server_url: str) -> Iterator[Any]:
    """Give the URL of a new database for psycopg, which is dropped afterwards."""
    loop = asyncio.new_event_loop()
    database = fresh_database(server_url)
    try:
        url = loop.run_until_complete(database.__aenter__())
        try:
            yield url.set(drivername="postgresql+psycopg")
        finally:
            loop.run_until_complete(database.__aexit__(None, None, None))
    finally:
        loop.close()


@compiles(UUID, "sqlite")
def _uuid(type_: Any, compiler: Any, **options: Any) -> str:
    """SQLite would take digits in a column of type ``UUID`` for a number."""
    return "CHAR(32)"


# -- telling ---------------------------------------------------------------------------------------------------


def lines(samples: Samples) -> Iterator[str]:
    """Give the report line by line."""
    there = contenders()
    names = [one.name for one in there]
    yield "  " + ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    for one in there:
        yield f"  {one.name:<20} {one.title}"
    for database in WORKS:
        runs = on(samples, database)
        yield from ("", f"  Times as fast as no cache, {database}: median of the ratios within a round")
        yield from overview(runs, list(runs), names, NO_CACHE)
    yield from (
        "",
        "  Times as fast as the recipe on dogpile.cache that keeps it in the same place (quartiles)",
    )
    reads = [name for name, runs in samples.items() if {*COUNTERPARTS, *COUNTERPARTS.values()} <= set(runs)]
    yield from table(reads, list(COUNTERPARTS), lambda work, name: times(_to_recipe(samples, work, name)))
    yield from ("", "  Without figures")
    for one in there:
        for work, why in one.unable.items():
            yield f"    {one.name}, {work}: {why}"
    yield from (
        "",
        "  Milliseconds per operation, and times as fast as no cache: medians of the rounds (quartiles)",
    )
    for work in samples:
        yield from detail(samples, work, names, NO_CACHE, "", ())


def _to_recipe(samples: Samples, work: str, name: str) -> Any:
    return ratio(samples, work, COUNTERPARTS[name], name)


def goals(samples: Samples) -> Iterator[Any]:
    """Give what is demanded: every hit faster than PostgreSQL."""
    reads = [named(work, POSTGRESQL) for work in READS]
    for hit in HITS:
        text = f"Ordinary sessions: a hit ({hit}) against no cache, every read."
        goal = Demand(f"every read faster, {hit}", text, reads, NO_CACHE, hit, 1.0).goal(samples)
        if goal is not None:
            yield goal


def charts(samples: Samples) -> Iterator[Chart]:
    """Give a chart of the reads on each database."""
    reads = {work.name for work in READS}
    for database in WORKS:
        runs = {work: found for work, found in on(samples, database).items() if work in reads}
        series = {
            one.name: [
                (work, ratio(runs, work, NO_CACHE, one.name)) for work in runs if one.name in runs[work]
            ]
            for one in contenders()
            if one.name != NO_CACHE
        }
        title = f"Ordinary sessions on {database}: how many times as fast as with no cache"
        label = "times as fast (higher is better)"
        yield Chart(f"sync-{database.lower()}", title, "bars", "", label, series, log_y=True, base=1.0)
