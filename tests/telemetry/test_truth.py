"""What Prometheus says of the shop is true: it equals what was counted where the cache has no say.

The shop runs as in production: several uvicorn workers, PostgreSQL, Redis, and one ``/metrics`` for all of them, which
a Prometheus scrapes. Next to it stand three that know nothing of the cache's own records:

- the client, which knows what reads each of its requests asks a session for, and which of them commit;
- PostgreSQL's statement log (``log_statement=all``);
- a proxy in front of Redis that sees every command.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import sqlalchemy
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_current_span
from prometheus_client import CollectorRegistry, start_http_server
from sqlalchemy.engine import URL, make_url

from examples.shop.models import Base
from sqlacache.observers import Observers
from sqlacache.store.scripts import FILL, MARK, SETTLE, Script
from sqlacache_telemetry import MetricsObserver, SpanObserver
from tests.examples.serving import PATIENCE, SYNC_DRIVER, answer, client, fresh_database, process, text_of
from tests.support.postgres import postgres_server
from tests.support.processes import free_port, until
from tests.support.programs import started
from tests.support.prometheus import PrometheusServer, prometheus_server
from tests.support.proxy import Proxy, Request
from tests.support.redis_server import redis_server
from tests.telemetry.records import load, miss

pytestmark = pytest.mark.integration

WORKERS = 2
TABLES = frozenset(Base.metadata.tables)

GET, REVIEWS = ("products", "get"), ("reviews", "fetch")
PAGE_TAGS = ("products" if sqlalchemy.__version__ < "2.1" else "product_tags", "fetch")
CUSTOMER_ORDERS, LINES = ("orders", "fetch"), ("order_lines", "fetch")


class Asked(NamedTuple):
    """What one request makes the shop read and write, as its source says."""

    method: str
    path: str
    reads: tuple[tuple[str, str], ...] = ()
    """Cached reads: the statement's first table, and the operation."""
    bypasses: tuple[tuple[str, str], ...] = ()
    """Reads that must not be cached: the statement's first table, and the reason why."""
    commits: int = 0
    body: Any = None


def product(number: int) -> Asked:
    return Asked("GET", f"/products/{number}", reads=(GET,))


def page(number: int) -> Asked:
    return Asked("GET", f"/products/{number}/page", reads=(GET, PAGE_TAGS, REVIEWS))


def priced(number: int, cents: int) -> Asked:
    return Asked("PATCH", f"/products/{number}", reads=(GET,), commits=1, body={"price_cents": cents})


def count(category: int) -> Asked:
    return Asked("GET", f"/categories/{category}/count", reads=(("products", "count"),))


def listing(category: int) -> Asked:
    return Asked("GET", f"/categories/{category}/products", reads=(("products", "fetch"),))


def orders(customer: int) -> Asked:
    return Asked("GET", f"/customers/{customer}/orders", reads=(CUSTOMER_ORDERS, LINES))


RATING = Asked("GET", "/products/3/rating", reads=(("reviews", "fetch"),))
LUCKY = Asked("GET", "/lucky", bypasses=(("products", "nondeterministic"),))
AUDIT = Asked("GET", "/audit", bypasses=(("audit_log", "opted_out"),))
REPRICE = Asked("POST", "/categories/2/reprice", commits=1, body={"add_cents": 1})
ORDER = Asked(
    "POST",
    "/orders",
    reads=(("customers", "get"), ("products", "fetch")),
    bypasses=(("order_lines", "dirty_transaction"),),
    commits=1,
    body={"customer_id": 1, "items": [{"product_id": 5, "quantity": 1}, {"product_id": 6, "quantity": 2}]},
)

ONE_BY_ONE = (
    *(product(number) for number in (1, 2, 3, 1, 2, 3)),
    *(page(3), page(3), RATING, RATING, count(1), count(1), listing(2), listing(2), orders(1), orders(1)),
    *(LUCKY, AUDIT, LUCKY),
    *(priced(1, 990), product(1), product(2), page(3), product(1)),
    *(REPRICE, listing(2), listing(2), product(22), product(22)),
    *(ORDER, orders(1), orders(1), product(5), product(5), product(6), product(1)),
    *(AUDIT, count(1), RATING),
)
AT_ONCE = tuple(
    tuple(
        step
        for turn in range(6)
        for step in (priced(n, 100 + turn), product(n), listing(1), product(50), page(n))
    )
    for n in (11, 31, 51)
)
"""Three clients, each with products of its own to change, all in category 1 or not."""


class Statements:
    """PostgreSQL's statement log, from a moment on; it is written before a statement is answered."""

    ENTRY = re.compile(r"^\S+ \S+ \S+ \[\d+\] LOG:  (?:execute [^:]*|statement): ", re.MULTILINE)

    def __init__(self, log: Path) -> None:
        self._log = log
        self._from = log.stat().st_size

    def all(self) -> list[str]:
        with self._log.open("rb") as file:
            file.seek(self._from)
            return self.ENTRY.split(file.read().decode(errors="replace"))[1:]

    def selects(self) -> Counter[str]:
        """SELECTs by the first table in them, without those by which the cache reads old rows back: these lock."""
        found: Counter[str] = Counter()
        for statement in self.all():
            first = re.search(r"\bFROM (\w+)", statement)
            if statement.startswith("SELECT") and "KEY UPDATE" not in statement and first:
                found.update({first[1]} & TABLES)
        return found

    def commits(self) -> int:
        return sum(statement.startswith("COMMIT") for statement in self.all())


class Commands:
    """What Redis was asked, as its socket saw it, from a moment on."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._from = len(proxy.requests)

    def all(self) -> list[Request]:
        return self._proxy.requests[self._from :]

    def lookups(self) -> int:
        """Lookups: an MGET, and one more where what the process held was found to be old."""
        found = 0
        last: dict[int, tuple[bytes, ...]] = {}
        for one in self.all():
            if one.name == "MGET" and any(b":s:" in key for key in one.command):
                stamps = tuple(key for key in one.command if b":s:" in key)
                with_entry = any(b":e:" in key for key in one.command)
                if not (with_entry and last.pop(one.connection, None) == stamps):
                    found += 1
                if not with_entry:
                    last[one.connection] = stamps
        return found

    def calls(self, script: Script) -> int:
        return sum(one.name == "EVALSHA" and one.command[1] == script.digest for one in self.all())

    def connections(self) -> int:
        """How many connections lookups came by: each worker has one for them."""
        return len({one.connection for one in self.all() if one.name == "MGET"})


class Client:
    """Asks the shop, and counts what it asked for."""

    def __init__(self, http: httpx.Client) -> None:
        self.lookups: Counter[tuple[str, str]] = Counter()
        self.bypasses: Counter[str] = Counter()
        self.bypassed_selects: Counter[str] = Counter()
        self.commits = 0
        self._http = http

    def ask(self, step: Asked) -> None:
        answer(self._http.request(step.method, step.path, json=step.body))
        self.lookups.update(step.reads)
        self.bypasses.update(reason for _, reason in step.bypasses)
        self.bypassed_selects.update(table for table, _ in step.bypasses)
        self.commits += step.commits


class Figures:
    """What Prometheus says was counted since a moment."""

    def __init__(self, prometheus: PrometheusServer) -> None:
        self._prometheus = prometheus
        self._before: dict[str, dict[tuple[str, ...], float]] = {}
        self._before = {name: self.by(name) for name in LABELS}

    def by(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the increase of a metric by the labels that matter here, without those that did not increase."""
        before = self._before.get(name, {})
        now = self._prometheus.by(name, *LABELS[name])
        return {
            labels: value - before.get(labels, 0)
            for labels, value in now.items()
            if value - before.get(labels, 0)
        }

    def total(self, name: str) -> float:
        return sum(self.by(name).values())


LABELS = {
    "sqlacache_hits_total": ("table", "op"),
    "sqlacache_misses_total": ("table", "op"),
    "sqlacache_bypasses_total": ("reason",),
    "sqlacache_fills_total": ("outcome",),
    "sqlacache_lookup_duration_seconds_count": ("decision",),
    "sqlacache_load_duration_seconds_count": ("table",),
    'sqlacache_invalidation_duration_seconds_count{phase="commit"}': (),
    "sqlacache_backend_errors_total": ("error",),
    "sqlacache_observer_errors_total": ("observer",),
    "shop_database_selects_total": (),
}


class Shop(NamedTuple):
    address: str
    traced: int
    """A port at which Prometheus looks for another program, with figures of one process."""
    database: URL
    log: Path
    proxy: Proxy
    prometheus: PrometheusServer


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    counts = folder / "counts"
    counts.mkdir()
    port, traced = free_port(), free_port()
    jobs = {"shop": [f"127.0.0.1:{port}"], "traced": [f"127.0.0.1:{traced}"]}
    with ExitStack() as stack:
        prometheus = started(stack, prometheus_server(jobs))
        redis = started(stack, redis_server())
        proxy = stack.enter_context(Proxy(redis.address))
        log = Path(str(make_url(postgres_url).query.get("host", ""))) / "log"
        server = postgres_url
        if not log.is_file():  # a server that was given, and logs we do not know where
            server = started(stack, postgres_server())
            log = Path(str(make_url(server).query["host"])) / "log"
        database = stack.enter_context(fresh_database(server))
        run_sql(database, f"ALTER DATABASE {database.database} SET log_statement = 'all'")
        settings = {
            "SHOP_DATABASE_URL": text_of(database, "postgresql+asyncpg"),
            "SQLACACHE_BACKEND": f"{proxy.url}?timeout=10",  # the machine may be slow
            "PROMETHEUS_MULTIPROC_DIR": str(counts),
        }
        arguments = [
            "--factory",
            "examples.shop.app:create_app",
            "--port",
            str(port),
            "--workers",
            str(WORKERS),
        ]
        served = stack.enter_context(process(folder, "uvicorn", arguments, settings))
        until(lambda: served.log().count("startup complete") == WORKERS, "all workers to be up", PATIENCE)
        prometheus.await_scrape(job="shop")
        yield Shop(f"http://127.0.0.1:{port}", traced, database, log, proxy, prometheus)


def run_sql(database: URL, statement: str) -> None:
    engine = sqlalchemy.create_engine(database.set(drivername=SYNC_DRIVER), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


class Witnesses:
    """All of them, from the same moment on."""

    def __init__(self, shop: Shop, http: httpx.Client) -> None:
        shop.prometheus.await_scrape(job="shop")
        self.shop = shop
        self.client = Client(http)
        self.statements = Statements(shop.log)
        self.commands = Commands(shop.proxy)
        self.figures = Figures(shop.prometheus)

    def agree_on_totals(self) -> None:
        """Compare what holds whatever happened at the same time."""
        self.shop.prometheus.await_scrape(job="shop")
        client, figures = self.client, self.figures
        hits, misses, bypasses, loads, sent = (
            figures.total(name)
            for name in (
                "sqlacache_hits_total",
                "sqlacache_misses_total",
                "sqlacache_bypasses_total",
                "sqlacache_load_duration_seconds_count",
                "shop_database_selects_total",
            )
        )
        selects = self.statements.selects().total()
        assert hits + misses + bypasses == client.lookups.total() + client.bypasses.total()
        assert misses + bypasses == selects
        assert sent == selects
        assert loads == misses == figures.total("sqlacache_fills_total")
        assert figures.by("sqlacache_lookup_duration_seconds_count") == {
            (kind,): number
            for kind, number in (("hit", hits), ("miss", misses), ("bypass", bypasses))
            if number
        }
        commits = 'sqlacache_invalidation_duration_seconds_count{phase="commit"}'
        assert figures.total(commits) == self.statements.commits() == client.commits
        assert figures.by("sqlacache_backend_errors_total") == {}
        assert figures.by("sqlacache_observer_errors_total") == {}

    def agree(self) -> None:
        """Compare everything, after requests that came one by one."""
        self.agree_on_totals()
        client, figures, commands = self.client, self.figures, self.commands
        hits, misses = figures.by("sqlacache_hits_total"), figures.by("sqlacache_misses_total")
        assert Counter(hits) + Counter(misses) == client.lookups
        assert figures.by("sqlacache_bypasses_total") == {(why,): n for why, n in client.bypasses.items()}
        missed: Counter[str] = Counter()
        for (table, _), number in misses.items():
            missed[table] += int(number)
        assert missed + client.bypassed_selects == self.statements.selects()
        assert commands.lookups() == sum(hits.values()) + sum(misses.values())
        assert {("stored",): commands.calls(FILL)} == figures.by("sqlacache_fills_total")
        assert commands.calls(MARK) == commands.calls(SETTLE) == client.commits


def test_prometheus_says_of_the_shop_what_its_clients_its_database_and_its_redis_saw(shop: Shop) -> None:
    with client(shop.address) as http:
        begun = Witnesses(shop, http)

        def read_by_all() -> bool:
            begun.client.ask(product(700))
            return begun.commands.connections() == WORKERS

        until(read_by_all, "each worker to answer", PATIENCE)
        begun.agree()

        seen = Witnesses(shop, http)
        for step in ONE_BY_ONE:
            seen.client.ask(step)
        seen.agree()
        assert seen.figures.total("sqlacache_hits_total") > seen.figures.total("sqlacache_misses_total") > 5

        # And if it were not so, it would be seen: by each of them alone.
        seen.client.lookups[GET] += 1
        with pytest.raises(AssertionError):
            seen.agree()
        seen.client.lookups[GET] -= 1
        seen.agree()
        lookup = next(one for one in seen.commands.all() if one.name == "MGET")._replace(connection=0)
        shop.proxy.requests.append(lookup)
        with pytest.raises(AssertionError):
            seen.agree()
        shop.proxy.requests.remove(lookup)
        seen.agree()
        run_sql(shop.database, "SELECT name FROM products WHERE id = 1")
        with pytest.raises(AssertionError):
            seen.agree()


def test_the_totals_are_true_when_clients_read_and_write_at_once(shop: Shop) -> None:
    with client(shop.address) as http:
        seen = Witnesses(shop, http)

    def visit(steps: Sequence[Asked]) -> Client:
        with client(shop.address) as http:
            visitor = Client(http)
            for step in steps:
                visitor.ask(step)
            return visitor

    with ThreadPoolExecutor(len(AT_ONCE)) as pool:
        for visitor in pool.map(visit, AT_ONCE):
            seen.client.lookups += visitor.lookups
            seen.client.commits += visitor.commits
    seen.agree_on_totals()
    assert seen.commands.lookups() >= seen.figures.total("sqlacache_hits_total") / 2


def test_prometheus_gets_the_trace_of_a_miss_with_its_figures(shop: Shop) -> None:
    """With one process: several, which count together, drop exemplars."""
    registry, provider = CollectorRegistry(), TracerProvider(shutdown_on_exit=False)
    told = Observers([SpanObserver(provider), MetricsObserver(registry)])
    scopes = told.load_started(load())
    trace_id = f"{get_current_span().get_span_context().trace_id:032x}"
    told.load_finished(scopes, None)
    told.decided(miss(), scopes)
    server, _ = start_http_server(shop.traced, "127.0.0.1", registry=registry)
    try:
        shop.prometheus.await_scrape(job="traced")
        for metric in ("sqlacache_misses_total", "sqlacache_load_duration_seconds_bucket"):
            (series,) = shop.prometheus.exemplars(f'{metric}{{job="traced"}}')
            assert series["exemplars"][0]["labels"]["trace_id"] == trace_id
    finally:
        server.shutdown()
        server.server_close()
