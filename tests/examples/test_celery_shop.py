"""Celery's forked workers write through sync sessions; a shop on FastAPI with async sessions serves what they wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.visitor.server import Shop
from tests.examples.serving import (
    PATIENCE,
    SYNC_DRIVER,
    Served,
    answer,
    client,
    fresh_database,
    process,
    text_of,
)
from tests.support.processes import until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_spec("celery") is None, reason="Celery is not installed"),
]

WORKERS = {
    "each child binds": "examples.celery_shop",
    "bound before the fork": "tests.examples.celery_bound_before",
}


@dataclass
class Both:
    """The shop, and the workers next to it."""

    web: httpx.Client
    worker: Served
    app: Any

    def task(self, name: str, *arguments: Any) -> Any:
        """Have a worker do something, and wait for its result."""
        return self.app.send_task(f"examples.celery_shop.{name}", arguments).get(timeout=PATIENCE)


@pytest.fixture(scope="module", params=list(WORKERS.values()), ids=list(WORKERS))
def both(
    request: pytest.FixtureRequest,
    postgres_url: str,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Both]:
    from celery import Celery

    folder: Path = tmp_path_factory.mktemp("celery")
    cache = f"{redis_url}?timeout=5"  # the machine may be slow
    broker = "redis+socket://" + redis_url.removeprefix("unix://")
    with (
        fresh_database(postgres_url) as database,
        Shop(text_of(database, "postgresql+asyncpg"), cache, 1) as shop,
    ):
        settings = {
            "SHOP_DATABASE_URL": text_of(database, SYNC_DRIVER),
            "SHOP_BROKER": f"{broker}?virtual_host=1",
            "SQLACACHE_BACKEND": cache,
        }
        arguments = ["--app", request.param, "worker", "--pool", "prefork", "--concurrency", "2"]
        arguments += ["--without-mingle", "--without-gossip", "--loglevel", "INFO"]
        app = Celery("test", broker=settings["SHOP_BROKER"], backend=settings["SHOP_BROKER"])
        with process(folder, "celery", arguments, settings) as worker, client(shop.workers[0].address) as web:
            yield Both(web, worker, app)
            assert "Traceback" not in worker.log()
        app.close()
        assert "not delivered" not in worker.log()


def test_what_a_child_commits_is_in_the_next_async_read_which_names_the_child(both: Both) -> None:
    for price in (4001, 4002, 4003):
        before = answer(both.web.get("/products/1"))
        assert both.web.get("/explain/products/1").text.startswith("HIT")
        child = both.task("change_price", 1, price)
        assert child != both.worker.pid
        told = both.web.get("/explain/products/1").text
        assert told.startswith("MISS (row_invalidated)"), told
        cause = rf"cause +row_update: UPDATE products of products:1 \(price_cents\) at .* by {child}@"
        assert re.search(cause, told), told
        assert answer(both.web.get("/products/1")) == {**before, "price_cents": price}


def test_a_bulk_update_of_a_child_evicts_lists_of_the_shop(both: Both) -> None:
    before = {
        each["id"]: each["price_cents"] for each in answer(both.web.get("/categories/3/products?limit=99"))
    }
    both.task("reprice", 3, 5)
    after = {
        each["id"]: each["price_cents"] for each in answer(both.web.get("/categories/3/products?limit=99"))
    }
    assert after == {product: price + 5 for product, price in before.items()}


def test_what_the_shop_commits_is_in_the_next_read_of_every_child(both: Both) -> None:
    def of_both_children() -> dict[int, dict[str, Any]] | None:
        results = [both.app.send_task("examples.celery_shop.price_of", (2,)) for _ in range(6)]
        found = {each["pid"]: each for each in (result.get(timeout=PATIENCE) for result in results)}
        return found if len(found) == 2 else None

    until(of_both_children, "a task in each of two children", PATIENCE)
    read = both.task("price_of", 2)
    assert read["why"].startswith("HIT"), read["why"]
    both.web.patch("/products/2", json={"price_cents": 777})
    assert both.task("price_of", 2)["price_cents"] == 777
    for child in until(of_both_children, "a task in each of two children", PATIENCE).values():
        assert child["price_cents"] == 777


def test_a_sum_that_children_read_follows_the_shop(both: Both) -> None:
    before = both.task("stock_value", 1)
    some = answer(both.web.get("/categories/1/products"))[0]
    both.web.patch(f"/products/{some['id']}", json={"price_cents": some["price_cents"] + 2})
    assert both.task("stock_value", 1) == before + 2 * some["stock"]


def test_children_and_shop_change_the_same_rows_in_turn_and_nobody_reads_an_old_one(both: Both) -> None:
    for price in range(100, 112):
        if price % 2:
            both.task("change_price", 5, price)
        else:
            both.web.patch("/products/5", json={"price_cents": price})
        assert answer(both.web.get("/products/5"))["price_cents"] == price
        assert both.task("price_of", 5)["price_cents"] == price
