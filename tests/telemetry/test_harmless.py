"""Observers that block, exporters that are down, scrapes that hang: queries do not notice.

What "not notice" means here: reads and commits end, with the database's answers, while the other is still stuck.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from sqlacache import ConfigError, InBackground, Observer
from sqlacache.observers import Observers
from sqlacache_telemetry import MetricsObserver, SpanObserver, names
from tests.support.databases import Database
from tests.support.fronts import configure
from tests.support.models import User
from tests.support.otlp import Receiver, otlp_receiver
from tests.support.processes import eventually, free_port, until
from tests.support.programs import missing
from tests.support.prometheus import Unavailable, prometheus_server
from tests.support.reading import Reader
from tests.support.reads import get
from tests.support.writes import change
from tests.telemetry.records import Scrape, hit, invalidation, miss
from tests.telemetry.records import change as change_of


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with otlp_receiver() as running:
        yield running


@pytest_asyncio.fixture
async def database(sqlite_databases: Any) -> AsyncIterator[Database]:
    async with sqlite_databases.fresh() as url:
        fresh = Database(url)
        yield fresh
        await fresh.dispose()


async def work(reader: Reader, name: str) -> None:
    """Miss, hit, commit, and miss again, each time as the database says."""
    await reader.current(get(User, 1))
    await reader.hit(get(User, 1))
    await change(User, 1, name=name)(reader.database)
    await reader.miss(get(User, 1), {"row_invalidated"})


async def bound(database: Database, **telemetry: Any) -> Reader:
    cache = configure(models={"*": {"timeout": 3600}}, telemetry=telemetry or None)
    await cache.bind(database.engine)
    return Reader(database, cache)


# -- exporters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["refuses", "hangs", "is gone"])
async def test_a_collector_in_trouble_holds_no_query_up(
    database: Database, receiver: Receiver, trouble: str
) -> None:
    if trouble == "refuses":
        receiver.refuse()
    elif trouble == "hangs":
        receiver.hang()
    address = f"http://127.0.0.1:{free_port()}" if trouble == "is gone" else receiver.url
    exporter = OTLPSpanExporter(f"{address}/v1/traces", timeout=1)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, schedule_delay_millis=1, max_queue_size=4, max_export_batch_size=2)
    )
    reader = await bound(database, tracer_provider=provider, registry=CollectorRegistry())
    try:
        for turn in range(5):
            await work(reader, f"name {turn}")
        if trouble != "is gone":
            await eventually(lambda: receiver.requests > 0, "an export to be tried")
            assert receiver.received == []
        await work(reader, "the last one")
        assert not reader.cache.observers.errors
    finally:
        await reader.cache.disconnect()
        receiver.refuse(400)
        receiver._open.set()
        provider.shutdown()


# -- scrapes -----------------------------------------------------------------------------------------------------------


class Stuck:
    """A collector of somebody else in the same registry, which hangs when it is asked."""

    def __init__(self) -> None:
        self.asked, self.open = threading.Event(), threading.Event()

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> list[Any]:
        self.asked.set()
        self.open.wait()
        return []


@pytest.mark.parametrize("first", [True, False], ids=["asked_first", "asked_last"])
async def test_a_scrape_that_hangs_holds_no_query_up(database: Database, first: bool) -> None:
    registry, stuck = CollectorRegistry(), Stuck()
    if first:
        registry.register(stuck)
    reader = await bound(database, registry=registry)
    if not first:
        registry.register(stuck)
    scraped: list[bytes] = []
    scraping = threading.Thread(target=lambda: scraped.append(generate_latest(registry)))
    scraping.start()
    try:
        until(stuck.asked.is_set, "the scrape to hang")
        for turn in range(3):
            await work(reader, f"name {turn}")
        assert scraped == []
    finally:
        stuck.open.set()
        scraping.join()
    await reader.cache.disconnect()
    assert Scrape(registry).total("sqlacache_hits_total") >= 3


# -- observers ---------------------------------------------------------------------------------------------------------


class Blocking(Observer):
    """Stays where it is until it is let go; the second decision makes it raise."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.seen: list[str] = []

    def decided(self, decision: Any, scope: Any) -> None:
        self.open.wait()
        self.seen.append(decision.decision)
        if len(self.seen) == 2:
            raise RuntimeError("enough")

    def invalidated(self, invalidation: Any, scope: Any) -> None:
        self.open.wait()
        self.seen.append("invalidated" if invalidation else "nothing")


async def test_an_observer_in_the_background_may_block_for_ever(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    blocking = Blocking()
    background = InBackground(blocking)
    reader = await bound(database)
    reader.cache.add_observer(background)
    await reader.current(get(User, 1))
    await reader.hit(get(User, 1))
    async with database.sessions() as session:
        (await session.get(User, 2)).name = "new"
        await session.commit()
    await reader.cache.disconnect()
    assert blocking.seen == [] and not background.flush(timeout=0)
    blocking.open.set()
    assert background.flush()
    assert blocking.seen == ["miss", "hit", "miss", "invalidated"]
    assert (background.errors, background.lost) == (1, 0)
    assert "enough" in caplog.text


def test_what_finds_no_room_in_the_background_is_dropped_and_counted() -> None:
    blocking = Blocking()
    background = InBackground(blocking, size=3)
    told = Observers([background])
    for _ in range(20):
        told.decided(hit())
    assert 16 <= background.lost <= 17  # one of them may have been taken out of the queue
    blocking.open.set()
    assert background.flush()
    assert len(blocking.seen) == 20 - background.lost


def test_what_the_other_does_not_want_to_hear_is_not_put_into_the_background() -> None:
    told = Observers([InBackground(Blocking())])
    assert not told.listen and not told.weigh
    telling = Observers([InBackground(MetricsObserver(CollectorRegistry()))])
    assert telling.listen and telling.weigh
    for size in (0, -1, True, "many"):
        with pytest.raises(ConfigError, match="size: takes a number above 0"):
            InBackground(Blocking(), size=size)  # type: ignore[arg-type]  # the wrong value is the point


# -- cardinality -------------------------------------------------------------------------------------------------------

HOSTILE = (
    *(
        "new\nline",
        'quo"te',
        "back\\slash",
        "{brace}",
        "tab\t",
        "nul\0",
        "\ud800surrogate",
        "é" * 300,
        "x" * 5000,
    ),
    *("# HELP fake", "a=b,c", "\u2028", "\x7f", " ", "", "DROP TABLE users;--"),
)


@pytest.mark.integration
def test_a_prometheus_scrapes_a_thousand_tables_with_hostile_names_and_their_number_is_bounded() -> None:
    tables = (*HOSTILE, *(f"table {number}" for number in range(1000 - len(HOSTILE))))
    registry = CollectorRegistry()
    metrics = MetricsObserver(registry)
    told = Observers([metrics, SpanObserver(TracerProvider(shutdown_on_exit=False))])
    told.bound("shop", tables)
    for table in tables:
        told.decided(hit(tables=(table,)))
        told.decided(miss(tables=(table,)))
        told.invalidated(invalidation(change_of(table=table)), told.invalidation_started("shop", (table,))[0])
        told.backend_failed("shop", table, type(f"Error{table[:20]!r}".replace("\0", ""), (Exception,), {})())
        metrics.observer_failed(table)
    assert not told.errors
    server, _ = start_http_server(0, "127.0.0.1", registry=registry)
    try:
        with prometheus_server({"shop": [f"127.0.0.1:{server.server_port}"]}, interval="1s") as prometheus:
            prometheus.await_scrape()
            for metric in ("sqlacache_hits_total", "sqlacache_misses_total", "sqlacache_evictions_total"):
                found = prometheus.by(metric, "table")
                assert sum(found.values()) >= len(tables)
                assert len(found) == names.MAX_TABLES + 1
            assert (
                prometheus.by("sqlacache_hits_total", "table")[names.OTHER,] == len(tables) - names.MAX_TABLES
            )
            assert len(prometheus.by("sqlacache_backend_errors_total", "operation")) <= names.MAX_WORDS + 1
            assert len(prometheus.by("sqlacache_backend_errors_total", "error")) <= names.MAX_WORDS + 1
            assert prometheus.value('sqlacache_label_overflow_total{label="table"}') > 0
            assert prometheus.value("scrape_samples_scraped") < 20_000
    except Unavailable as why:
        missing(why)
    finally:
        server.shutdown()
        server.server_close()
