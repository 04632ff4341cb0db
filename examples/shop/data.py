"""The shop's stock, customers and history: some thousand generated rows, the same on every run."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Table, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from .models import Base, Category, Customer, Order, OrderLine, Product, Review, Tag, product_tags

CATEGORIES = 20
PRODUCTS = 800
CUSTOMERS = 400
ORDERS = 1500
REVIEWS = 1600


def names(line: str) -> list[str]:
    return line.split()


LOOKS = names(
    "amber azure bold calm crisp dusty early faded gentle hollow ivory jolly lunar mellow noble pale"
)
MATERIALS = names("ash brass clay copper cotton flax glass iron linen marble oak paper silk steel stone wool")
THINGS = names("basket bench bowl box brush chair clock desk frame jar kettle lamp mirror rug shelf stool")
ROOMS = names(
    "attic balcony bath bed cellar den dining garden guest hall kitchen living office patio porch study"
)
TAGS = names(
    "new sale eco handmade limited gift classic outdoor compact heavy light refill spare set vintage"
)
CITIES = names("Aarhus Bergen Cork Delft Evora Fulda Ghent Izmir Kaunas Lille Malmo Nantes Porto Turku")
FIRST = names("Ada Bo Cem Dora Eva Finn Gina Hugo Ines Jan Kaya Lars Mina Noor Otto Pia")
LAST = names("Abel Berg Costa Dahl Evans Falk Gruber Haas Iqbal Jonas Klein Lund Moreau Novak Olsen Petit")
OPINIONS = (
    "as described",
    "would buy again",
    "smaller than it looks",
    "a gift, well received",
    "arrived late",
)

Rows = list[dict[str, Any]]


def generate(seed: int = 7) -> dict[Table, Rows]:
    """Return the rows of every table, in an order in which foreign keys are satisfied."""
    rng = random.Random(seed)
    categories: Rows = [
        {"id": n, "name": f"{ROOMS[(n - 1) % len(ROOMS)]} {'things' if n <= len(ROOMS) else 'specials'}"}
        for n in range(1, CATEGORIES + 1)
    ]
    tags: Rows = [{"id": n, "name": name} for n, name in enumerate(TAGS, start=1)]
    products: Rows = [
        {
            "id": n,
            "name": f"{rng.choice(LOOKS)} {rng.choice(MATERIALS)} {rng.choice(THINGS)} {n:03}",
            "category_id": rng.randint(1, CATEGORIES),
            "price_cents": rng.randrange(300, 30_000, 5),
            "stock": rng.randint(200, 900),
            "active": rng.random() < 0.9,
        }
        for n in range(1, PRODUCTS + 1)
    ]
    tagged: Rows = [
        {"product_id": product["id"], "tag_id": tag}
        for product in products
        for tag in sorted(rng.sample(range(1, len(TAGS) + 1), rng.randint(0, 4)))
    ]
    customers: Rows = []
    for n in range(1, CUSTOMERS + 1):
        first, last = rng.choice(FIRST), rng.choice(LAST)
        customers.append(
            {
                "id": n,
                "name": f"{first} {last}",
                "email": f"{first}.{last}.{n}@example.com".lower(),
                "city": rng.choice(CITIES),
                "joined_on": date(2021, 1, 1) + timedelta(days=rng.randint(0, 1200)),
            }
        )
    orders: Rows = []
    lines: Rows = []
    for n in range(1, ORDERS + 1):
        orders.append(
            {
                "id": n,
                "customer_id": rng.randint(1, CUSTOMERS),
                "status": rng.choice(("placed", "paid", "shipped", "delivered")),
                "placed_at": datetime(2024, 6, 1, 8) + timedelta(minutes=37 * n),
            }
        )
        for product in rng.sample(products, rng.randint(1, 4)):
            lines.append(
                {
                    "id": len(lines) + 1,
                    "order_id": n,
                    "product_id": product["id"],
                    "quantity": rng.randint(1, 3),
                    "unit_price_cents": product["price_cents"],
                }
            )
    reviews: Rows = [
        {
            "id": n,
            "product_id": rng.randint(1, PRODUCTS),
            "customer_id": rng.randint(1, CUSTOMERS),
            "rating": rng.randint(1, 5),
            "body": rng.choice(OPINIONS),
        }
        for n in range(1, REVIEWS + 1)
    ]
    return {
        Category.__table__: categories,
        Tag.__table__: tags,
        Product.__table__: products,
        product_tags: tagged,
        Customer.__table__: customers,
        Order.__table__: orders,
        OrderLine.__table__: lines,
        Review.__table__: reviews,
    }


async def fill(engine: AsyncEngine) -> None:
    """Create the tables and fill them, unless that was done before; of several workers, one does it."""
    on_postgresql = engine.dialect.name == "postgresql"
    async with engine.connect() as connection:
        if not on_postgresql:
            await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    async with engine.begin() as connection:
        if on_postgresql:
            await connection.execute(select(func.pg_advisory_xact_lock(1)))
        await connection.run_sync(Base.metadata.create_all)
        if await connection.scalar(select(func.count()).select_from(Product)):
            return
        for table, rows in generate().items():
            await connection.execute(table.insert(), rows)
            if on_postgresql and "id" in table.columns:  # the next row gets the next number
                last = func.setval(func.pg_get_serial_sequence(table.name, "id"), func.max(table.columns.id))
                await connection.execute(select(last))
