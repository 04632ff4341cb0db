"""Flask with sync sessions: threads of one process in memory, and forked workers of gunicorn on one Redis."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

pytest.importorskip(
    "flask_sqlalchemy", reason="Flask-SQLAlchemy, which takes SQLAlchemy 2.0 and newer, is not here"
)

from tests.examples.serving import (
    PATIENCE,
    SYNC_DRIVER,
    answer,
    client,
    figure,
    fresh_database,
    process,
    text_of,
)
from tests.support.processes import until

PRODUCTS = range(1, 5)
"""Each is changed by a writer of its own; all of them are in category 1."""
TIMES = 12


def test_threads_of_one_process_share_a_cache_in_memory(tmp_path: Path) -> None:
    settings = {
        "FLASK_SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path / 'shop.sqlite'}",
        "FLASK_EXPLAIN": "true",
    }
    arguments = ["--app", "examples.flask_shop.app", "run", "--port", "0"]
    with process(tmp_path, "flask", arguments, settings, r"Running on (http://\S+)") as shop:
        figures = visit(shop.address)
        assert figure(figures, "sqlacache_hits_total", tier="remote") == 0
        assert_quiet(shop.log())


@pytest.mark.integration
def test_workers_forked_from_a_process_that_is_bound_share_redis(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    counts = tmp_path / "counts"
    counts.mkdir()
    with fresh_database(postgres_url) as database:
        settings = {
            "FLASK_SQLALCHEMY_DATABASE_URI": text_of(database, SYNC_DRIVER),
            "FLASK_EXPLAIN": "true",
            "SQLACACHE_BACKEND": f"{redis_url}?timeout=5",  # the machine may be slow
            "PROMETHEUS_MULTIPROC_DIR": str(counts),
        }
        arguments = ["--config", "python:examples.flask_shop.gunicorn_conf", "--bind", "127.0.0.1:0"]
        with process(tmp_path, "gunicorn", arguments, settings, r"Listening at: (http://\S+)") as shop:
            with client(shop.address) as http:
                workers = until(lambda: both(http), "an answer of each worker", PATIENCE)
            assert shop.pid not in workers
            figures = visit(shop.address)
            assert figure(figures, "sqlacache_hits_total") > 0
            with client(shop.address) as http:
                explained_across(http, workers)
            assert_quiet(shop.log())


def visit(address: str) -> str:
    """Read and write as customers do, one after the other and all at once; return the figures that this made."""
    with client(address) as http:
        before = answer(http.get("/categories/1"))
        assert len(before["products"]) == 20
        assert answer(http.get("/categories/1")) == before
        one = answer(http.get("/products/1"))
        assert one in before["products"]

        assert answer(http.get("/categories/2/count")) == {"products": 20}
        added = answer(http.post("/categories/2/products", json={"name": "new", "price_cents": 7}))
        assert answer(http.get("/categories/2/count")) == {"products": 21}
        assert added in answer(http.get("/categories/2"))["products"]
        assert answer(http.post("/categories/2/reprice", json={"add_cents": 3})) == {"changed": 21}
        assert answer(http.get(f"/products/{added['id']}"))["price_cents"] == 10

        done = Event()
        newest = dict.fromkeys(PRODUCTS, 0)
        with ThreadPoolExecutor(len(PRODUCTS) + 2) as pool:
            readers = [pool.submit(read_until, done, address, newest) for _ in range(2)]
            writers = [pool.submit(write, address, product, newest) for product in PRODUCTS]
            try:
                for each in writers:
                    each.result()
            finally:
                done.set()
            for each in readers:
                assert each.result() > 0

        figures = http.get("/metrics").text
        assert answer(http.get("/healthz")) == {"status": "ok", "reasons": [], "ready": True}
        assert http.get("/products/9999").status_code == 404
    reads = figure(figures, "sqlacache_hits_total") + figure(figures, "sqlacache_misses_total")
    assert figure(figures, "sqlacache_hits_total", op="fetch", table="product") > 0
    assert figure(figures, "sqlacache_evictions_total", cause="row_update", table="product") >= len(PRODUCTS)
    assert figure(figures, "sqlacache_evictions_total", cause="bulk_write", table="product") > 0
    assert figure(figures, "sqlacache_bypasses_total") < reads / 4
    assert figure(figures, "sqlacache_bypasses_total", reason="backend_unavailable") == 0
    return figures


def write(address: str, product: int, newest: dict[int, int]) -> None:
    """Change a product's price again and again; whoever answers next, in whichever process, knows the new one."""
    with client(address) as http:
        for price in range(1000, 1000 + TIMES):
            changed = http.patch(f"/products/{product}", json={"price_cents": price})
            assert answer(changed)["price_cents"] == price
            newest[product] = price
            assert answer(http.get(f"/products/{product}"))["price_cents"] == price
            assert price_in(http, product) == price


def read_until(done: Event, address: str, newest: dict[int, int]) -> int:
    """Read the list that all of them are on, over and over; no price may be older than before the question."""
    reads = 0
    with client(address) as http:
        while not done.is_set():
            known = dict(newest)
            found = {
                each["id"]: each["price_cents"] for each in answer(http.get("/categories/1"))["products"]
            }
            reads += 1
            assert all(found[product] >= price for product, price in known.items())
    return reads


def price_in(http: httpx.Client, product: int) -> int:
    listed: Any = answer(http.get("/categories/1"))["products"]
    return int(next(each["price_cents"] for each in listed if each["id"] == product))


def both(http: httpx.Client) -> set[int] | None:
    """Ask until each of two workers has answered a few times."""
    found = {int(http.get("/products/5").headers["X-Worker"]) for _ in range(8)}
    return found if len(found) == 2 else None


def explained_across(http: httpx.Client, workers: set[int]) -> None:
    """What one worker changed is explained by the other one, with the process that wrote."""
    http.get("/products/6")
    changed = http.post("/categories/1/reprice", json={"add_cents": 1})
    writer = int(changed.headers["X-Worker"])

    def of_the_other() -> str | None:
        told = http.get("/explain/products/6")
        is_other = int(told.headers["X-Worker"]) in workers - {writer}
        return told.text if is_other else None

    told = until(of_the_other, "an explanation of the other worker", PATIENCE)
    cause = rf"cause +bulk_write: UPDATE product .*\(price_cents\) at .* by {writer}@"
    assert told.startswith("MISS") and re.search(cause, told), told


def assert_quiet(log: str) -> None:
    assert "Traceback" not in log and "WARNING: sqlacache" not in log, log
