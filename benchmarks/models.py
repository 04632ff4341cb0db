"""The mapped classes and rows of the benchmark: what a small web application would have."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    Numeric,
    String,
    Text,
    insert,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection
from sqlalchemy.orm import declarative_base, relationship

Base: Any = declarative_base()

REGIONS = 20
ORDERS_PER_CUSTOMER = 5
BEGAN = datetime(2024, 1, 1, 8, 30)


class Region(Base):
    __tablename__ = "regions"

    id = Column(Integer, primary_key=True)
    name = Column(String(40), nullable=False)


class Customer(Base):
    """What is read most: fourteen columns, as a table of customers has."""

    __tablename__ = "customers"

    id = Column(Integer, primary_key=True)
    public_id = Column(postgresql.UUID(as_uuid=True), nullable=False)
    region_id = Column(Integer, ForeignKey("regions.id"), nullable=False)
    name = Column(String(40), nullable=False)
    email = Column(String(80), nullable=False)
    phone = Column(String(30))
    active = Column(Boolean, nullable=False)
    plan = Column(String(10), nullable=False)
    balance = Column(Numeric(10, 2), nullable=False)
    credit_limit = Column(Numeric(10, 2))
    notes = Column(Text)
    joined = Column(DateTime(timezone=True), nullable=False)
    updated = Column(DateTime(timezone=True), nullable=False)
    last_seen = Column(DateTime(timezone=True))

    region = relationship("Region")
    orders = relationship("Order", order_by="Order.id")


class Order(Base):
    """A narrow table: five columns."""

    __tablename__ = "orders"

    id = Column(Integer, primary_key=True)
    customer_id = Column(Integer, ForeignKey("customers.id"), nullable=False, index=True)
    status = Column(String(10), nullable=False)
    total = Column(Numeric(10, 2), nullable=False)
    placed = Column(DateTime, nullable=False)


class Document(Base):
    """What is read with mutable values: two hits must not share them."""

    __tablename__ = "documents"

    id = Column(Integer, primary_key=True)
    title = Column(String(40), nullable=False)
    body = Column(JSON, nullable=False)


class Event(Base):
    """What is written: emptied before each measurement of a write."""

    __tablename__ = "events"

    id = Column(Integer, primary_key=True)
    customer_id = Column(Integer, nullable=False)
    kind = Column(String(10), nullable=False)
    note = Column(String(80))
    amount = Column(Numeric(10, 2), nullable=False)
    at = Column(DateTime, nullable=False)


class Setting(Base):
    """The only class that the cache of the contender ``unconfigured`` knows; never read here."""

    __tablename__ = "settings"

    id = Column(Integer, primary_key=True)
    value = Column(String(40))


def create_and_fill(connection: Connection, customers: int) -> None:
    """Create the tables and put the rows in that are read."""
    Base.metadata.create_all(connection)
    rows: dict[Any, list[dict[str, Any]]] = {
        Region: [{"id": number, "name": f"region {number}"} for number in range(1, REGIONS + 1)],
        Customer: [_customer(number) for number in range(1, customers + 1)],
        Order: [_order(number, customers) for number in range(1, customers * ORDERS_PER_CUSTOMER + 1)],
        Document: [_document(number) for number in range(1, customers + 1)],
    }
    for model, values in rows.items():
        connection.execute(insert(model.__table__), values)
    connection.execute(text("ANALYZE"))


def _customer(number: int) -> dict[str, Any]:
    joined = BEGAN.replace(tzinfo=timezone.utc) + timedelta(minutes=17 * number)
    return {
        "id": number,
        "public_id": UUID(int=number * 7919),
        "region_id": number % REGIONS + 1,
        "name": f"customer {number}",
        "email": f"customer.{number}@example.com",
        "phone": f"+1 555 {number:07}" if number % 4 else None,
        "active": number % 3 != 0,
        "plan": ("free", "pro", "team")[number % 3],
        "balance": Decimal(number) / 4,
        "credit_limit": Decimal(number * 3) if number % 2 else None,
        "notes": "prefers a call before delivery" if number % 5 == 0 else None,
        "joined": joined,
        "updated": joined + timedelta(days=number % 200, minutes=7),
        "last_seen": joined + timedelta(days=200) if number % 3 else None,
    }


def _order(number: int, customers: int) -> dict[str, Any]:
    return {
        "id": number,
        "customer_id": number % customers + 1,
        "status": ("new", "paid", "sent")[number % 3],
        "total": Decimal(number) / 8,
        "placed": BEGAN + timedelta(minutes=3 * number),
    }


def _document(number: int) -> dict[str, Any]:
    body = {
        "language": "en",
        "newsletter": number % 2 == 0,
        "visits": number,
        "tags": ["new", f"tag {number}"],
    }
    return {"id": number, "title": f"document {number}", "body": body}


def new_event(number: int) -> dict[str, Any]:
    """Values of one row to be written."""
    return {
        "customer_id": number % 1000 + 1,
        "kind": ("login", "visit", "buy")[number % 3],
        "note": f"event {number}",
        "amount": Decimal(number) / 4,
        "at": BEGAN + timedelta(seconds=number),
    }
