"""The shop's pages, in plain Flask-SQLAlchemy: there is no cache in this file."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request

from .models import Category, Product, db

pages = Blueprint("pages", __name__)


def card(product: Any) -> dict[str, Any]:
    return {"id": product.id, "name": product.name, "price_cents": product.price_cents}


@pages.get("/products/<int:product_id>")
def product(product_id: int) -> Any:
    return card(db.get_or_404(Product, product_id))


@pages.get("/categories/<int:category_id>")
def category(category_id: int) -> Any:
    """The category, and in a second statement its products: a lazy load, which is cached like any other read."""
    row = db.get_or_404(Category, category_id)
    return {"name": row.name, "products": [card(each) for each in row.products]}


@pages.get("/categories/<int:category_id>/count")
def category_count(category_id: int) -> Any:
    wanted = db.select(db.func.count()).select_from(Product).where(Product.category_id == category_id)
    return {"products": db.session.scalar(wanted)}


@pages.patch("/products/<int:product_id>")
def change_price(product_id: int) -> Any:
    row = db.get_or_404(Product, product_id)
    row.price_cents = request.get_json()["price_cents"]
    db.session.commit()
    return card(row)


@pages.post("/categories/<int:category_id>/products")
def add_product(category_id: int) -> Any:
    wanted = request.get_json()
    row = Product(category_id=category_id, name=wanted["name"], price_cents=wanted["price_cents"])
    db.session.add(row)
    db.session.commit()
    return card(row), 201


@pages.post("/categories/<int:category_id>/reprice")
def reprice(category_id: int) -> Any:
    """A bulk update: the rows that it changes never pass through the session."""
    add = request.get_json()["add_cents"]
    wanted = db.update(Product).where(Product.category_id == category_id)
    done = db.session.execute(wanted.values(price_cents=Product.price_cents + add))
    db.session.commit()
    return {"changed": done.rowcount}
