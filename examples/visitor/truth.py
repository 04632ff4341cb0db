"""What each page must say, read from the database with plain SQL: SQLAlchemy and the cache have no part in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .database import connect

CARD = "p.id, p.name, p.category_id, p.price_cents, p.stock, p.active"


@dataclass(frozen=True)
class Page:
    """A GET of the shop, what the database says it must answer, and how many SELECTs a session needs for that."""

    path: str
    expected: Callable[[Truth, Any], Any]
    """What the answer must be, given the answer (which matters only where several are right)."""
    statements: Callable[[Any], int] = lambda answer: 1
    bypass: str = ""
    """Why the cache must not answer, if it must not."""


class Truth:
    """The database, looked at directly."""

    def __init__(self, url: str) -> None:
        self._database = connect(url)

    def close(self) -> None:
        self._database.close()

    def rows(self, sql: str, *values: Any) -> list[Any]:
        return self._database.rows(sql, values)

    def value(self, sql: str, *values: Any) -> Any:
        return self.rows(sql, *values)[0][0]

    def cards(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        names = ("id", "name", "category_id", "price_cents", "stock", "active")
        cards = [dict(zip(names, row, strict=True)) for row in self.rows(sql, *values)]
        return [{**card, "active": bool(card["active"])} for card in cards]

    def write(self, sql: str, *values: Any) -> None:
        """Change the database without the shop's knowledge."""
        self._database.rows(sql, values)


def product(key: int) -> Page:
    return Page(
        f"/products/{key}",
        lambda truth, answer: truth.cards(f"SELECT {CARD} FROM products p WHERE id = ?", key)[0],
    )


def product_page(key: int) -> Page:
    def expected(truth: Truth, answer: Any) -> Any:
        card = product(key).expected(truth, answer)
        category = truth.value("SELECT name FROM categories WHERE id = ?", card["category_id"])
        reviews = truth.rows("SELECT id, rating, body FROM reviews WHERE product_id = ? ORDER BY id", key)
        return {
            **card,
            "category": category,
            "tags": tags_of(truth, key),
            "reviews": [dict(zip(("id", "rating", "body"), row, strict=True)) for row in reviews],
        }

    return Page(f"/products/{key}/page", expected, lambda answer: 3)


def tags_of(truth: Truth, key: int) -> list[str]:
    sql = "SELECT t.name FROM tags t JOIN product_tags l ON l.tag_id = t.id WHERE l.product_id = ? ORDER BY 1"
    return [name for (name,) in truth.rows(sql, key)]


def rating(key: int) -> Page:
    def expected(truth: Truth, answer: Any) -> Any:
        ((number, average),) = truth.rows(
            "SELECT count(*), avg(rating) FROM reviews WHERE product_id = ?", key
        )
        return {"reviews": number, "average": average}

    return Page(f"/products/{key}/rating", expected)


def categories() -> Page:
    def expected(truth: Truth, answer: Any) -> Any:
        rows = truth.rows(
            "SELECT id, name, (SELECT count(*) FROM products WHERE category_id = c.id) FROM categories c ORDER BY id"
        )
        return [dict(zip(("id", "name", "products"), row, strict=True)) for row in rows]

    return Page("/categories", expected)


def category_products(key: int) -> Page:
    sql = f"SELECT {CARD} FROM products p WHERE category_id = ? AND active ORDER BY price_cents, id LIMIT 20"
    return Page(f"/categories/{key}/products", lambda truth, answer: truth.cards(sql, key))


def category_count(key: int) -> Page:
    sql = "SELECT count(*) FROM products WHERE category_id = ?"
    return Page(f"/categories/{key}/count", lambda truth, answer: {"products": truth.value(sql, key)})


def tag_products(name: str) -> Page:
    sql = f"""SELECT {CARD} FROM products p WHERE p.id IN (
        SELECT product_id FROM product_tags l, tags t WHERE t.id = l.tag_id AND t.name = ?) ORDER BY id LIMIT 20"""
    return Page(f"/tags/{name}/products", lambda truth, answer: truth.cards(sql, name))


def search(word: str) -> Page:
    sql = (
        f"SELECT {CARD} FROM products p WHERE lower(name) LIKE '%' || lower(?) || '%' ORDER BY name LIMIT 20"
    )
    return Page(f"/search?q={quote(word)}", lambda truth, answer: truth.cards(sql, word))


def customer_orders(key: int) -> Page:
    def expected(truth: Truth, answer: Any) -> Any:
        lines = """SELECT p.name, l.quantity, l.unit_price_cents FROM order_lines l, products p
            WHERE l.product_id = p.id AND l.order_id = ? ORDER BY l.id"""
        return [
            {
                "id": order,
                "status": status,
                "placed_at": placed_at.replace(" ", "T").removesuffix(".000000"),
                "lines": [
                    dict(zip(("product", "quantity", "unit_price_cents"), line, strict=True))
                    for line in truth.rows(lines, order)
                ],
            }
            for order, status, placed_at in truth.rows(
                "SELECT id, status, placed_at FROM orders WHERE customer_id = ? ORDER BY id DESC", key
            )
        ]

    return Page(f"/customers/{key}/orders", expected, lambda answer: 2 if answer else 1)


def reviewed(customer: int, key: int) -> Page:
    sql = "SELECT count(*) > 0 FROM reviews WHERE customer_id = ? AND product_id = ?"
    return Page(
        f"/customers/{customer}/reviewed/{key}",
        lambda truth, answer: {"reviewed": bool(truth.value(sql, customer, key))},
    )


def audit() -> Page:
    def expected(truth: Truth, answer: Any) -> Any:
        rows = truth.rows("SELECT id, what FROM audit_log ORDER BY id DESC LIMIT 5")
        return [{"id": key, "what": what} for key, what in rows]

    return Page("/audit", expected, bypass="opted_out")


def lucky() -> Page:
    sql = f"SELECT {CARD} FROM products p WHERE id = ? AND active"
    return Page("/lucky", lambda truth, answer: truth.cards(sql, answer["id"])[0], bypass="nondeterministic")
