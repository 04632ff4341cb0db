"""What the cache saves sync sessions, against no cache and against the usual recipe: ``python -m benchmarks.sync``.

One run, one report, made as :mod:`benchmarks` says: every contender of :mod:`benchmarks.sync_contenders` reads the same
in the same process, in turn, on PostgreSQL (psycopg) and on SQLite, and ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

from sqlalchemy import create_engine
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import NullPool

from tests.support.redis_server import redis_server

from .contenders import Unfair
from .figures import Spread, ratio, seconds
from .measure import CUSTOMERS, Samples
from .models import create_and_fill
from .program import about, add_common, progress, server
from .sync_contenders import COUNTERPARTS, NO_CACHE, Contender, contenders
from .sync_work import READS, Work

DATABASES = ("PostgreSQL", "SQLite")
ROUNDS = 20
PACKAGES = ("sqlalchemy", "psycopg", "redis", "dogpile.cache", "prometheus-client")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sync", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help="rounds (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="do everything once, to see that it works")
    add_common(parser, url="SQLAlchemy URL")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error("--rounds takes a number above 0")
    with ExitStack() as stack:
        url = stack.enter_context(server(options.postgres))
        redis = stack.enter_context(redis_server())
        before = os.getloadavg()[0]
        samples = measure(url, redis.url, 1 if options.quick else options.rounds, quick=options.quick)
    told = {
        **about(PACKAGES),
        "rounds": 1 if options.quick else options.rounds,
        "load average before": round(before, 2),
    }
    progress("")
    print("\n".join(lines(samples, told)))
    if options.json is not None:
        options.json.write_text(json.dumps(report(samples, told), indent=1) + "\n")
    if options.quick:
        print("\nA quick run shows that the benchmark works; its figures mean nothing.")
    return 0


# -- measuring -------------------------------------------------------------------------------------------------


def measure(server_url: str, redis_url: str, rounds: int, *, quick: bool) -> Samples:
    """Run the benchmark in databases of its own; ``quick`` does each work once."""
    samples: Samples = {}
    with ExitStack() as stack:
        runners: dict[str, Sequence[Contender]] = {}
        for database, (url, engine) in zip(DATABASES, _databases(stack, server_url)):
            runners[database] = contenders()
            for runner in runners[database]:
                runner.open(url, redis_url, **engine)
                stack.callback(runner.close)
        answers: dict[tuple[str, str], Any] = {}
        for number in range(rounds if quick else rounds + 1):
            for database in DATABASES:
                for work in READS:
                    figures = samples.setdefault(f"{work.name}, {database}", {})
                    for runner in _in_turn(runners[database], number):
                        with runner.turn():
                            answer = work.plain(runner.warm(work))
                            if answers.setdefault((database, work.name), answer) != answer:
                                raise Unfair(f"{runner.name}, {work.name}: not the answer of the others")
                            del answer
                            taken = _sample(runner, work, 1 if quick else work.times)
                        if number or quick:  # the first round warms everything up
                            figures.setdefault(runner.name, []).append(taken)
            progress(f"round {number + 1}")
    return samples


def _in_turn(runners: Sequence[Contender], number: int) -> Sequence[Contender]:
    first = number % len(runners)
    return (*runners[first:], *runners[:first])


def _sample(runner: Contender, work: Work, times: int) -> float:
    """Return the mean of some executions, in seconds."""
    run, sessions, options = work.run, runner.sessions, runner.options
    gc.collect()  # what others left behind is not this one's; its own garbage is, so collection stays on
    began = time.perf_counter()
    for number in range(times):
        run(sessions, options, number)
    return (time.perf_counter() - began) / times


def _databases(stack: ExitStack, server_url: str) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Give each filled database's URL, and what its engines take."""
    url = stack.enter_context(_on_server(server_url))
    _fill(url)
    yield url, {"pool_size": 2, "max_overflow": 0}
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sqlacache-benchmark-"))
    url = make_url(f"sqlite:///{folder}/benchmark.sqlite")
    # The benchmark's amounts survive SQLite's floating point.
    warnings.filterwarnings("ignore", "Dialect sqlite.* does \\*not\\* support Decimal", SAWarning)
    _fill(url)
    yield url, {}


@compiles(UUID, "sqlite")
def _uuid(type_: Any, compiler: Any, **options: Any) -> str:
    """SQLite would take digits in a column of type ``UUID`` for a number."""
    return "CHAR(32)"


def _fill(url: Any) -> None:
    administrator = create_engine(url, poolclass=NullPool)
    with administrator.begin() as connection:
        create_and_fill(connection, CUSTOMERS)
    administrator.dispose()


@contextmanager
def _on_server(server_url: str) -> Iterator[Any]:
    """Give the URL of a new database, which is dropped afterwards."""
    name = f"sqlacache_benchmark_{uuid4().hex[:8]}"
    base = make_url(server_url).set(drivername="postgresql+psycopg")
    server = create_engine(base, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield base.set(database=name)
    finally:
        with server.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


# -- telling ---------------------------------------------------------------------------------------------------


def lines(samples: Samples, told: Mapping[str, Any]) -> Iterator[str]:
    """Give the report line by line."""
    yield "About"
    for name, value in told.items():
        yield f"  {name}: {value}"
    yield from ("", "Contenders")
    for contender in contenders():
        yield f"  {contender.name:<19} {contender.title}"
    names = [contender.name for contender in contenders()]
    yield from ("", "Milliseconds per operation: median of the rounds (quartiles)")
    yield from _table(samples, names, lambda work, name: _milliseconds(seconds(samples, work, name)))
    yield from ("", "Times as fast as no cache: median of the ratios within a round (quartiles)")
    yield from _table(samples, names[1:], lambda work, name: _ratio(ratio(samples, work, NO_CACHE, name)))
    yield from ("", "Times as fast as the recipe on dogpile.cache that keeps it in the same place")
    yield from _table(
        samples, list(COUNTERPARTS), lambda work, name: _ratio(ratio(samples, work, COUNTERPARTS[name], name))
    )


def _table(samples: Samples, names: Sequence[str], cell: Callable[[str, str], str]) -> Iterator[str]:
    yield f"  {'':<26}" + "".join(f"{name:>20}" for name in names)
    for work in samples:
        yield f"  {work:<26}" + "".join(f"{cell(work, name):>20}" for name in names)


def _milliseconds(found: Spread) -> str:
    return f"{found.median * 1000:.2f} ({found.low * 1000:.2f}-{found.high * 1000:.2f})"


def _ratio(found: Spread) -> str:
    return f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})"


def report(samples: Samples, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything, for ``--json``. Times are seconds."""
    works = {
        work: {
            name: {
                "seconds": seconds(samples, work, name).as_dict(),
                "no_cache_over_this": ratio(samples, work, NO_CACHE, name).as_dict(),
                "samples": found,
            }
            for name, found in runs.items()
        }
        for work, runs in samples.items()
    }
    return {"about": dict(told), "works": works}


if __name__ == "__main__":
    sys.exit(main())
