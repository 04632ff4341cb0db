"""Part ``latency``: PostgreSQL on this machine, and as if a network were in between; then Redis behind one, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import redis.asyncio
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from .contender import EVERYTHING, Contender
from .contenders import HIT, NO_CACHE, PUSHED, REDIS, VALIDATED
from .latency_proxy import Address, Proxy, Trips, compared, delayed_by, latency_proxy
from .measure import Samples, measure
from .parts import Chart, Goal, Part, Place
from .spread import Spread, milliseconds, ratios, spread, times
from .work import READS, WRITES, Work

NAME = "latency"
TITLE = "PostgreSQL with 0 and 1 ms of latency, one request at a time"
ROUNDS = 3
ADDED = 0.001
"""Seconds that a round trip takes longer."""

NEAR, FAR, BOTH = "0 ms", "1 ms", "both 1 ms"
"""Where the servers are: PostgreSQL and Redis here; PostgreSQL far; both far."""
CACHES: Mapping[str, Mapping[str, Any]] = {
    HIT: {"local": "default"},
    REDIS: {"redis": True, "local": None},
    VALIDATED: {"redis": True, "local": "validated"},
    PUSHED: {"redis": True, "local": "pushed"},
}
READ_NAMES = (
    *("get", "list of 10", "list of 100", "list of 1,000", "count", "exists"),
    *("joinedload, 100", "selectinload, 100 + 500"),
)
WRITE_NAMES = ("commit of 1 row", "commit of 1,000 rows")
QUICK, QUICK_CACHES = ("get",), (VALIDATED, PUSHED)


@dataclass
class Distant(Contender):
    """Somebody whose servers may be behind a proxy."""

    postgres: Proxy | None = None
    redis_proxy: Proxy | None = None

    def open(self, url: Any, redis_url: str) -> None:
        super().open(
            url if self.postgres is None else through(url, self.postgres),
            redis_url if self.redis_proxy is None else _through(redis_url, self.redis_proxy),
        )


class Links(NamedTuple):
    """What round trips take, before and after: to PostgreSQL and to Redis."""

    postgres: Trips
    redis: Trips


def run(place: Place, *, rounds: int | None, quick: bool, progress: Callable[[str], None]) -> Part:
    """Measure; see :class:`~benchmarks.parts.Module`."""
    rounds = 1 if quick else rounds or ROUNDS
    chosen = QUICK if quick else (*READ_NAMES, *WRITE_NAMES)
    by_name = {work.name: work for work in (*READS, *WRITES)}
    with ExitStack() as stack:
        postgres = stack.enter_context(latency_proxy(address_of(place.postgres)))
        beside = stack.enter_context(latency_proxy(redis_address_of(place.redis)))
        before, after, samples = asyncio.run(
            _run(place, postgres, beside, rounds, quick, progress, [by_name[name] for name in chosen])
        )
    return _part(samples, before, after, rounds)


async def _run(
    place: Place,
    postgres: Proxy,
    beside: Proxy,
    rounds: int,
    quick: bool,
    progress: Callable[[str], None],
    works: Sequence[Work],
) -> tuple[Links, Links, Samples]:
    progress("how far the servers are")
    before = await _links(place, postgres, beside, partial(delayed_by, ADDED, quick=quick))
    samples = await measure(
        place.postgres,
        rounds,
        quick=quick,
        progress=progress,
        redis_url=place.redis,
        works=works,
        among=_contenders(postgres, beside, QUICK_CACHES if quick else tuple(CACHES)),
    )
    if quick:
        return before, before, samples
    return before, await _links(place, postgres, beside, lambda _, *ask: compared(*ask)), samples


def _contenders(postgres: Proxy, beside: Proxy, caches: Sequence[str]) -> Sequence[Distant]:
    made = []
    for where in (NEAR, FAR, BOTH):
        far = None if where == NEAR else postgres
        if where != BOTH:
            made.append(Distant(_named(NO_CACHE, where), "", postgres=far))
        for name in caches:
            if where == BOTH and name == HIT:
                continue  # has nothing to do with Redis
            one = Distant(
                _named(name, where), "", models=EVERYTHING, expects="hit", postgres=far, **CACHES[name]
            )
            one.redis_proxy = beside if where == BOTH else None
            made.append(one)
    return made


def _named(name: str, where: str) -> str:
    return f"{name} at {where}"


def _measured(samples: Samples, where: str) -> Sequence[str]:
    """Return the names of those that were measured at a distance; the first is no cache, but where it is the same."""
    runs = next(iter(samples.values()))
    return [name for name in (NO_CACHE, *CACHES) if _named(name, where) in runs]


# -- how far the servers are -----------------------------------------------------------------------------------------


async def _links(
    place: Place, postgres: Proxy, beside: Proxy, look: Callable[..., Awaitable[Trips]]
) -> Links:
    async with sql(place.postgres) as near, sql(through(place.postgres, postgres)) as far:
        to_postgres = await look(postgres, near, far)
    async with _pings(place.redis) as near, _pings(_through(place.redis, beside)) as far:
        return Links(to_postgres, await look(beside, near, far))


def address_of(url: str | URL) -> Address:
    """Return where the server of a SQLAlchemy URL listens."""
    made = make_url(url)
    host = made.query.get("host", made.host) or "localhost"
    assert isinstance(host, str)  # several hosts make no sense to a benchmark
    port = made.port or 5432
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def through(url: str | URL, proxy: Proxy) -> URL:
    """Return a SQLAlchemy URL that leads to the same database through the proxy."""
    made = make_url(url).difference_update_query(["host", "port"])
    return made.set(host="127.0.0.1", port=proxy.port)


@asynccontextmanager
async def sql(url: Any) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Give what makes one round trip to a PostgreSQL."""
    engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        yield lambda: connection.exec_driver_sql("SELECT 1")
    await engine.dispose()


@asynccontextmanager
async def _pings(url: str) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    client = redis.asyncio.Redis.from_url(url)
    try:
        yield client.ping
    finally:
        await client.aclose()


def redis_address_of(redis_url: str) -> Address:
    """Return where a Redis listens."""
    made = make_url(redis_url)
    return (made.host or "localhost", made.port or 6379)


def _through(redis_url: str, proxy: Proxy) -> str:
    return make_url(redis_url).set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)


# -- telling ---------------------------------------------------------------------------------------------------------


def _against(samples: Samples, work: str, name: str, where: str) -> Spread:
    """Return how many times as fast as no cache, whose PostgreSQL is as far away."""
    slow = _named(NO_CACHE, FAR if where == BOTH else where)
    return ratios(samples[work][slow], samples[work][_named(name, where)])


def _goals(samples: Samples) -> Sequence[Goal]:
    reads = [work for work in samples if work in READ_NAMES]
    found = []
    for where in (FAR, BOTH):
        for name in _measured(samples, where):
            if name == NO_CACHE:
                continue
            ratio = {work: _against(samples, work, name, where) for work in reads}
            worst = min(ratio, key=lambda work: ratio[work].median)
            text = f"A hit ({name}) against no cache, every read; {_EXPLAINED[where]}. Worst: {worst}."
            found.append(Goal(f"{where}, {name}", text, ratio[worst], 1.0, True, tuple(reads)))
    return found


_EXPLAINED = {
    NEAR: "both servers on this machine",
    FAR: "PostgreSQL 1 ms away, Redis on this machine",
    BOTH: "PostgreSQL and Redis 1 ms away",
}


def _part(samples: Samples, before: Links, after: Links, rounds: int) -> Part:
    data = {
        "rounds": rounds,
        "round trips": {
            when: {to: trips._asdict() for to, trips in links._asdict().items()}
            for when, links in (("before", before), ("after", after))
        },
        "samples": samples,
    }
    return Part(NAME, TITLE, [*_lines(samples, before, after)], data, _goals(samples), [*_charts(samples)])


def _lines(samples: Samples, before: Links, after: Links) -> Iterator[str]:
    yield "All of the latency is added to answers, once per round trip. A round trip takes, as measured (medians):"
    for name, early, late in zip(("PostgreSQL", "Redis"), before, after):
        yield f"  {name}: {early} (when all was done: {late})"
    for where in (NEAR, FAR, BOTH):
        yield ""
        yield f"Milliseconds per operation, {_EXPLAINED[where]}: median of the rounds (quartiles)"
        names = _measured(samples, where)
        yield f"  {'':<26}" + "".join(f"{name:>24}" for name in names)
        for work, runs in samples.items():
            cells = (milliseconds(spread(runs[_named(name, where)])) for name in names)
            yield f"  {work:<26}" + "".join(f"{cell:>24}" for cell in cells)
    yield ""
    yield "Times as fast as no cache with PostgreSQL as far away: median of the ratios within a round (quartiles)"
    for where in (NEAR, FAR, BOTH):
        names = [name for name in _measured(samples, where) if name != NO_CACHE]
        yield f"  {where:<26}" + "".join(f"{name:>24}" for name in names)
        for work in samples:
            cells = (times(_against(samples, work, name, where)) for name in names)
            yield f"    {work:<24}" + "".join(f"{cell:>24}" for cell in cells)
    yield ""
    yield "Round trips to PostgreSQL, by what 1 ms made longer (BEGIN, statements, ROLLBACK or COMMIT)"
    for work, runs in samples.items():
        told = []
        for name in _measured(samples, FAR):
            near, far = (spread(runs[_named(name, where)]).median for where in (NEAR, FAR))
            told.append(f"{name} {(far - near) / before.postgres.added:.1f}")
        yield f"  {work:<26}" + ", ".join(told)


def _charts(samples: Samples) -> Iterator[Chart]:
    for where in (NEAR, FAR, BOTH):
        names = [name for name in _measured(samples, where) if name != NO_CACHE]
        yield Chart(
            f"latency_{where.replace(' ', '_')}",
            f"Times as fast as no cache, {_EXPLAINED[where]}",
            "bars",
            "",
            "times as fast",
            {name: [(work, _against(samples, work, name, where)) for work in samples] for name in names},
            log_y=True,
            base=1.0,
        )
