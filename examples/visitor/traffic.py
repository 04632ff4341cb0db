"""Who asks for what: reads that favour a few popular products, and writes with the pages that each of them changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from examples.shop.data import CATEGORIES, CUSTOMERS, PRODUCTS, REVIEWS, TAGS, THINGS

from . import truth
from .truth import Page, Truth

T = TypeVar("T")


@dataclass(frozen=True)
class Change:
    """A write of the shop, what its answer must be, and the pages that say something else afterwards."""

    method: str
    path: str
    body: Any
    expected: Callable[[Truth, Any], Any]
    """What the answer must be, from the database as it is after the write (and the answer, for new keys)."""
    statements: int
    """SELECTs that a session needs for it."""
    pages: tuple[Page, ...]
    bypassed: int = 0
    """How many of those SELECTs come after the transaction's first write."""


class Traffic:
    """An endless, seeded source of pages to read and changes to make."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._reviews = list(range(1, REVIEWS + 1))
        self._rng.shuffle(self._reviews)

    def _popular(self, number: int) -> int:
        return 1 + int(number * self._rng.random() ** 7)

    def _choose(self, *weighted: tuple[int, Callable[[], T]]) -> T:
        weights = [weight for weight, _ in weighted]
        ((_, make),) = self._rng.choices(weighted, weights)
        return make()

    def page(self) -> Page:
        rng = self._rng
        key = self._popular(PRODUCTS)
        return self._choose(
            (30, lambda: truth.product(key)),
            (14, lambda: truth.product_page(key)),
            (6, lambda: truth.rating(key)),
            (5, lambda: truth.categories()),
            (12, lambda: truth.category_products(self._popular(CATEGORIES))),
            (6, lambda: truth.category_count(self._popular(CATEGORIES))),
            (6, lambda: truth.tag_products(rng.choice(TAGS))),
            (6, lambda: truth.search(rng.choice(THINGS))),
            (9, lambda: truth.customer_orders(self._popular(CUSTOMERS))),
            (3, lambda: truth.reviewed(self._popular(CUSTOMERS), key)),
            (2, lambda: truth.lucky()),
            (1, lambda: truth.audit()),
        )

    def pages(self, number: int) -> list[Page]:
        return [self.page() for _ in range(number)]

    def change(self, database: Truth) -> Change:
        """A write; the database is asked only which rows it will concern."""
        key, rng = self._popular(PRODUCTS), self._rng
        return self._choose(
            (40, lambda: change_price(database, key, rng.randrange(300, 30_000, 5))),
            (25, lambda: self._order(database)),
            (12, lambda: change_tag(key, rng.choice(TAGS), "POST")),
            (12, lambda: change_tag(key, rng.choice(TAGS), "DELETE")),
            (11, lambda: delete_review(database, self._reviews.pop())),
        )

    def _order(self, database: Truth) -> Change:
        customer = self._popular(CUSTOMERS)
        products = {self._popular(PRODUCTS): self._rng.randint(1, 3) for _ in range(self._rng.randint(1, 3))}
        return place_order(customer, products)


def change_price(database: Truth, key: int, price_cents: int) -> Change:
    category = database.value("SELECT category_id FROM products WHERE id = ?", key)
    return Change(
        "PATCH",
        f"/products/{key}",
        {"price_cents": price_cents},
        lambda after, answer: truth.product(key).expected(after, answer),
        1,
        (truth.product(key), truth.product_page(key), truth.category_products(category), truth.audit()),
    )


def reprice(category: int, add_cents: int) -> Change:
    sql = "SELECT count(*) FROM products WHERE category_id = ?"
    return Change(
        "POST",
        f"/categories/{category}/reprice",
        {"add_cents": add_cents},
        lambda after, answer: {"changed": after.value(sql, category)},
        0,
        (truth.category_products(category),),
    )


def place_order(customer: int, products: dict[int, int]) -> Change:
    items = [{"product_id": key, "quantity": quantity} for key, quantity in products.items()]
    newest = "SELECT max(id) FROM orders WHERE customer_id = ?"
    total = "SELECT sum(quantity * unit_price_cents) FROM order_lines WHERE order_id = ?"

    def expected(after: Truth, answer: Any) -> Any:
        order = after.value(newest, customer)
        return {"id": order, "total_cents": after.value(total, order)}

    pages = (truth.customer_orders(customer), *(truth.product(key) for key in products))
    return Change(
        "POST", "/orders", {"customer_id": customer, "items": items}, expected, 3, pages, bypassed=1
    )


def change_tag(key: int, name: str, method: str) -> Change:
    return Change(
        method,
        f"/products/{key}/tags/{name}",
        None,
        lambda after, answer: {"tags": truth.tags_of(after, key)},
        3 if method == "POST" else 2,
        (truth.product_page(key), truth.tag_products(name)),
    )


def delete_review(database: Truth, review: int) -> Change:
    sql = "SELECT product_id, customer_id FROM reviews WHERE id = ?"
    ((key, customer),) = database.rows(sql, review)
    return Change(
        "DELETE",
        f"/reviews/{review}",
        None,
        lambda after, answer: {
            "deleted": review,
            **({} if not after.rows(sql, review) else {"still": "there"}),
        },
        1,
        (truth.product_page(key), truth.rating(key), truth.reviewed(customer, key)),
    )
