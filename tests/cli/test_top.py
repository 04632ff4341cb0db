"""``top`` adds up what processes count for themselves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from sqlacache_telemetry.scraped import Totals, totals
from tests.support.models import Order, User
from tests.support.redis_server import RedisServer

from .conftest import Command, Shop

pytestmark = pytest.mark.integration


class Pages:
    """A page for each name, made when it is asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.made: dict[str, Callable[[], bytes]] = {}

    def add(self, name: str, make: Callable[[], bytes]) -> str:
        self.made[f"/{name}"] = make
        return f"{self.url}/{name}"


@pytest.fixture
def pages() -> Iterator[Pages]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            make = found.made.get(self.path)
            self.send_response(200 if make else 404)
            self.end_headers()
            self.wfile.write(make() if make else b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    found = Pages(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def process(
    open_shop: Callable[..., Shop], server: RedisServer, pages: Pages
) -> Callable[[str], tuple[Shop, str]]:
    """Start what stands for a process, which shows its metrics on a page of its own."""

    def start(name: str) -> tuple[Shop, str]:
        registry = CollectorRegistry()
        backend = {"url": server.url, "timeout": 5.0}
        shop = open_shop(backend, name, name="shop", telemetry={"registry": registry})
        return shop, pages.add(name, lambda: generate_latest(registry))

    return start


def test_processes_are_added_up(cli: Command, process: Callable[[str], tuple[Shop, str]]) -> None:
    (one, first), (two, second) = process("one"), process("two")
    for shop in (one, two):
        shop.get(User, 1)
        shop.get(User, 1)
        shop.get(Order, 1)
    one.rename(1, "Ada")
    one.get(User, 1)
    users, orders = json.loads(cli("top", "--metrics", first, "--metrics", second, "--json").well)
    assert (users["table"], users["hits"], users["misses"]) == ("users", 3, 3)
    assert users["evictions"] == 1 and users["churn"] == pytest.approx(1 / 3)
    assert (orders["table"], orders["hits"], orders["misses"], orders["churn"]) == ("orders", 0, 2, 0)


SCRAPE = """
sqlacache_hits_total{cache="c",table="read",op="get",tier="local"} 6.0
sqlacache_hits_total{cache="c",table="read",op="count",tier="remote"} 2.0
sqlacache_misses_total{cache="c",table="read",op="get",reason="absent"} 2.0
sqlacache_saved_seconds_total{cache="c",table="read"} 0.5
sqlacache_misses_total{cache="c",table="written",op="get",reason="row_invalidated"} 3.0
sqlacache_hits_total{cache="c",table="written",op="get",tier="local"} 1.0
sqlacache_evictions_total{cache="c",table="written",cause="row_update"} 4.0
sqlacache_saved_seconds_total{cache="c",table="written"} 0.25
sqlacache_evictions_total{cache="c",table="never read",cause="row_update"} 1.0
sqlacache_hits_total{cache="c",table="unused",op="get",tier="local"} 0.0
"""


def test_it_is_ranked_as_asked(cli: Command, pages: Pages) -> None:
    url = pages.add("ranked", SCRAPE.encode)

    def ranked(by: str, *arguments: str) -> list[str]:
        out = cli("top", "--metrics", url, "--by", by, "--json", *arguments).well
        return [one["table"] for one in json.loads(out)]

    assert ranked("misses") == ["written", "read", "never read"]
    assert ranked("churn") == ["never read", "written", "read"]
    assert ranked("saved") == ["read", "written", "never read"]
    assert ranked("misses", "--limit", "1") == ["written"]


def test_people_get_a_table(cli: Command, pages: Pages) -> None:
    text = cli("top", "--metrics", pages.add("ranked", SCRAPE.encode)).well
    assert text.startswith("3 of 4 tables by misses, since the processes began\n")
    rows = [line.split() for line in text.splitlines()[-3:]]
    assert rows[0] == ["c", "written", "1", "3", "25.0%", "4", "4.00", "0.25", "s"]
    assert rows[1] == ["c", "read", "8", "2", "80.0%", "0", "0.00", "0.50", "s"]
    assert rows[2] == ["c", "never", "read", "0", "0", "-", "1", "inf", "0.00", "s"]


def test_while_it_watches_it_shows_what_was_counted_since(
    cli: Command, process: Callable[[str], tuple[Shop, str]], pages: Pages
) -> None:
    shop, url = process("one")
    shop.get(User, 1)
    page = pages.made["/one"]

    def read_before_each() -> bytes:
        shop.get(User, 1)
        return page()

    pages.made["/one"] = read_before_each
    out = cli("top", "--metrics", url, "--watch", "1ms", "--count", "3", "--json").well
    frames = [json.loads(line)[0] for line in out.splitlines()]
    assert [(one["hits"], one["misses"]) for one in frames] == [(1, 1), (1, 0), (1, 0)]


def test_a_process_that_began_anew_counts_from_nothing() -> None:
    assert Totals(hits=3, misses=9).since(Totals(hits=5, misses=2)) == Totals(hits=3, misses=7)


@pytest.mark.parametrize("text", ["", "up 1\n", "<html>\n", "sqlacache_hits_total{ 1\n", "\0"])
def test_a_page_that_is_no_scrape_of_ours_is_told(cli: Command, pages: Pages, text: str) -> None:
    with pytest.raises(ValueError):
        totals(text)
    url = pages.add("other", text.encode)
    assert f"what '{url}' answers is not what is meant" in cli("top", "--metrics", url).problem


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="no url"),
        pytest.param(("--metrics", "file:///etc/hosts"), id="a file"),
        pytest.param(("--metrics", "http://"), id="no host"),
        pytest.param(("--metrics", "http://[::1"), id="half an address"),
        pytest.param(("--metrics", "http://127.0.0.1:1/metrics"), id="nobody there"),
        pytest.param(("--metrics", "http://127.0.0.1:1/metrics", "--by", "luck"), id="no such order"),
        pytest.param(("--metrics", "http://127.0.0.1:1/\n"), id="a line break"),
    ],
)
def test_what_cannot_be_read_is_told(cli: Command, arguments: tuple[str, ...]) -> None:
    assert cli("top", *arguments, url=None).problem


def test_a_password_is_not_told(cli: Command, pages: Pages) -> None:
    assert "hunter2" not in cli("top", "--metrics", "http://me:hunter2@127.0.0.1:1/metrics", url=None).problem
    assert "404" in cli("top", "--metrics", f"{pages.url}/nothing", url=None).problem
