"""The shop's pages, in plain SQLAlchemy: there is no cache in this file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy import exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from .models import AuditLog, Category, Customer, Order, OrderLine, Product, Review, Tag

router = APIRouter()


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(open_session)]


async def found(session: AsyncSession, model: Any, key: int, *options: Any) -> Any:
    row = await session.get(model, key, options=options)
    if row is None:
        raise HTTPException(404, f"no {model.__name__.lower()} {key}")
    return row


def audit(session: AsyncSession, what: str) -> None:
    session.add(AuditLog(at=datetime.now(timezone.utc).replace(tzinfo=None), what=what))


def card(product: Any) -> dict[str, Any]:
    return {
        "id": product.id,
        "name": product.name,
        "category_id": product.category_id,
        "price_cents": product.price_cents,
        "stock": product.stock,
        "active": product.active,
    }


# --- reads -----------------------------------------------------------------------------------------------------------


@router.get("/products/{product_id}")
async def product(product_id: int, session: Session) -> Any:
    return card(await found(session, Product, product_id))


@router.get("/products/{product_id}/page")
async def product_page(product_id: int, session: Session) -> Any:
    """The product with its category (in the same statement), its tags and its reviews (one statement each)."""
    row = await found(
        session,
        Product,
        product_id,
        joinedload(Product.category),
        selectinload(Product.tags),
        selectinload(Product.reviews),
    )
    return {
        **card(row),
        "category": row.category.name,
        "tags": [tag.name for tag in row.tags],
        "reviews": [{"id": r.id, "rating": r.rating, "body": r.body} for r in row.reviews],
    }


@router.get("/products/{product_id}/rating")
async def product_rating(product_id: int, session: Session) -> Any:
    query = select(func.count(Review.id), func.avg(Review.rating)).where(Review.product_id == product_id)
    number, average = (await session.execute(query)).one()
    return {"reviews": number, "average": None if average is None else float(average)}


@router.get("/categories")
async def categories(session: Session) -> Any:
    query = (
        select(Category.id, Category.name, func.count(Product.id))
        .outerjoin(Product, Product.category_id == Category.id)
        .group_by(Category.id, Category.name)
        .order_by(Category.id)
    )
    rows = await session.execute(query)
    return [{"id": key, "name": name, "products": number} for key, name, number in rows]


@router.get("/categories/{category_id}/products")
async def category_products(category_id: int, session: Session, limit: int = 20) -> Any:
    query = (
        select(Product)
        .where(Product.category_id == category_id, Product.active.is_(True))
        .order_by(Product.price_cents, Product.id)
        .limit(limit)
    )
    return [card(row) for row in await session.scalars(query)]


@router.get("/categories/{category_id}/count")
async def category_count(category_id: int, session: Session) -> Any:
    query = select(func.count()).select_from(Product).where(Product.category_id == category_id)
    return {"products": await session.scalar(query)}


@router.get("/tags/{name}/products")
async def tag_products(name: str, session: Session) -> Any:
    query = select(Product).join(Product.tags).where(Tag.name == name).order_by(Product.id).limit(20)
    return [card(row) for row in await session.scalars(query)]


@router.get("/search")
async def search(session: Session, q: Annotated[str, Query(min_length=2)]) -> Any:
    query = select(Product).where(Product.name.ilike(f"%{q}%")).order_by(Product.name).limit(20)
    return [card(row) for row in await session.scalars(query)]


@router.get("/customers/{customer_id}/orders")
async def customer_orders(customer_id: int, session: Session) -> Any:
    """Three levels: orders, their lines in a second statement, and the products joined to those lines."""
    query = (
        select(Order)
        .where(Order.customer_id == customer_id)
        .order_by(Order.id.desc())
        .options(selectinload(Order.lines).joinedload(OrderLine.product))
    )
    return [
        {
            "id": order.id,
            "status": order.status,
            "placed_at": order.placed_at.isoformat(),
            "lines": [
                {
                    "product": line.product.name,
                    "quantity": line.quantity,
                    "unit_price_cents": line.unit_price_cents,
                }
                for line in order.lines
            ],
        }
        for order in await session.scalars(query)
    ]


@router.get("/customers/{customer_id}/reviewed/{product_id}")
async def customer_reviewed(customer_id: int, product_id: int, session: Session) -> Any:
    query = select(exists().where(Review.customer_id == customer_id, Review.product_id == product_id))
    return {"reviewed": await session.scalar(query)}


@router.get("/lucky")
async def lucky(session: Session) -> Any:
    """Any product: ``random()`` must never be answered from a cache."""
    query = select(Product).where(Product.active.is_(True)).order_by(func.random()).limit(1)
    return card((await session.scalars(query)).one())


@router.get("/audit")
async def audit_log(session: Session, limit: int = 5) -> Any:
    """What was changed last: a model that is configured never to be cached."""
    query = select(AuditLog).order_by(AuditLog.id.desc()).limit(limit)
    return [{"id": row.id, "what": row.what} for row in await session.scalars(query)]


# --- writes ----------------------------------------------------------------------------------------------------------


class Price(BaseModel):
    price_cents: int = Field(gt=0)


class Reprice(BaseModel):
    add_cents: int


class Item(BaseModel):
    product_id: int
    quantity: int = Field(gt=0)


class NewOrder(BaseModel):
    customer_id: int
    items: list[Item] = Field(min_length=1)


@router.patch("/products/{product_id}")
async def change_price(product_id: int, price: Price, session: Session) -> Any:
    row = await found(session, Product, product_id)
    row.price_cents = price.price_cents
    audit(session, f"price of product {product_id}")
    await session.commit()
    return card(row)


@router.post("/categories/{category_id}/reprice")
async def reprice(category_id: int, change: Reprice, session: Session) -> Any:
    """A bulk update: the rows that it changes never pass through the session."""
    result = await session.execute(
        update(Product)
        .where(Product.category_id == category_id)
        .values(price_cents=Product.price_cents + change.add_cents)
        .execution_options(synchronize_session=False)
    )
    audit(session, f"prices in category {category_id}")
    await session.commit()
    return {"changed": result.rowcount}


@router.post("/orders", status_code=201)
async def place_order(wanted: NewOrder, session: Session) -> Any:
    customer = await found(session, Customer, wanted.customer_id)
    quantities = {item.product_id: item.quantity for item in wanted.items}
    query = select(Product).where(Product.id.in_(sorted(quantities)))
    products = {row.id: row for row in await session.scalars(query)}
    order = Order(customer_id=customer.id, placed_at=datetime.now(timezone.utc).replace(tzinfo=None))
    for product_id, quantity in quantities.items():
        if product_id not in products:
            raise HTTPException(404, f"no product {product_id}")
        taken = await session.execute(
            update(Product)
            .where(Product.id == product_id, Product.stock >= quantity)
            .values(stock=Product.stock - quantity)
            .execution_options(synchronize_session=False)
        )
        if taken.rowcount != 1:
            raise HTTPException(409, f"not enough of product {product_id}")
        price = products[product_id].price_cents
        order.lines.append(OrderLine(product_id=product_id, quantity=quantity, unit_price_cents=price))
    session.add(order)
    audit(session, f"order of customer {customer.id}")
    await session.flush()
    total = select(func.sum(OrderLine.quantity * OrderLine.unit_price_cents)).where(
        OrderLine.order_id == order.id
    )
    total_cents = await session.scalar(total)  # sees the lines that only this transaction knows
    await session.commit()
    return {"id": order.id, "total_cents": total_cents}


@router.post("/products/{product_id}/tags/{name}")
async def add_tag(product_id: int, name: str, session: Session) -> Any:
    row = await found(session, Product, product_id, selectinload(Product.tags))
    tag = (await session.scalars(select(Tag).where(Tag.name == name))).one_or_none()
    if tag is None:
        raise HTTPException(404, f"no tag {name}")
    if tag not in row.tags:
        row.tags.append(tag)
    await session.commit()
    return {"tags": sorted(tag.name for tag in row.tags)}


@router.delete("/products/{product_id}/tags/{name}")
async def remove_tag(product_id: int, name: str, session: Session) -> Any:
    row = await found(session, Product, product_id, selectinload(Product.tags))
    row.tags = [tag for tag in row.tags if tag.name != name]
    await session.commit()
    return {"tags": sorted(tag.name for tag in row.tags)}


@router.delete("/reviews/{review_id}")
async def delete_review(review_id: int, session: Session) -> Any:
    review = await found(session, Review, review_id)
    await session.delete(review)
    audit(session, f"review {review_id} removed")
    await session.commit()
    return {"deleted": review_id}
