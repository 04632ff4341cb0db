"""The rows that every test finds: small, fixed, and with a reason for each.

Users 1 and 2 are what tests change and what they leave alone; user 5 has nothing that refers to it, so that it can be
deleted; no row has the key 100 or above, so that tests can insert there.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import insert, text
from sqlalchemy.engine import Connection

from .models import (
    Article,
    AuditLog,
    Base,
    Employee,
    Gallery,
    Manager,
    Order,
    OrderLine,
    Payment,
    Picture,
    Role,
    Stock,
    Tag,
    Team,
    User,
    user_tags,
)

DAY = datetime(2024, 5, 1, 12, 30)


def _user(id: int, name: str, *, active: bool, plan: str, team_id: int | None, **more: Any) -> dict[str, Any]:
    row = {
        "id": id,
        "name": name,
        "email": f"{name}@example.com",
        "active": active,
        "plan": plan,
        "team_id": team_id,
        "last_seen": DAY.replace(day=id),
        "balance": Decimal(id) * Decimal("10.25"),
        "profile": {"langs": ["en", name], "depth": {"n": id}},
        "role": Role.MEMBER,
        "avatar": bytes([0, 255, id]),
    }
    return {**row, **more}


def _order(id: int, user_id: int, status: str, total: str) -> dict[str, Any]:
    return {
        "id": id,
        "user_id": user_id,
        "status": status,
        "total": Decimal(total),
        "created": DAY.replace(hour=id),
    }


ROWS: dict[Any, list[dict[str, Any]]] = {
    Team.__table__: [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}, {"id": 3, "name": "empty"}],
    User.__table__: [
        _user(1, "ann", active=True, plan="free", team_id=1, role=Role.ADMIN),
        _user(2, "bob", active=True, plan="pro", team_id=1),
        _user(3, "cid", active=False, plan="free", team_id=2),
        _user(4, "dee", active=True, plan="pro", team_id=None, profile=None, last_seen=None),
        _user(5, "eve", active=True, plan="free", team_id=2, avatar=None),
    ],
    Tag.__table__: [{"id": 1, "name": "vip"}, {"id": 2, "name": "beta"}, {"id": 3, "name": "unused"}],
    user_tags: [{"user_id": 1, "tag_id": 1}, {"user_id": 1, "tag_id": 2}, {"user_id": 2, "tag_id": 1}],
    Order.__table__: [
        _order(1, 1, "new", "10.00"),
        _order(2, 1, "paid", "20.50"),
        _order(3, 1, "paid", "5.25"),
        _order(4, 2, "new", "99.99"),
        _order(5, 2, "sent", "1.00"),
        _order(6, 3, "sent", "42.00"),
    ],
    OrderLine.__table__: [
        {"id": 1, "order_id": 1, "product": "pen", "quantity": 2},
        {"id": 2, "order_id": 1, "product": "ink", "quantity": 1},
        {"id": 3, "order_id": 4, "product": "desk", "quantity": 1},
    ],
    Stock.__table__: [
        {"warehouse": "north", "sku": 1, "quantity": 10},
        {"warehouse": "north", "sku": 2, "quantity": 20},
        {"warehouse": "south", "sku": 1, "quantity": 30},
    ],
    Article.__table__: [
        {"id": 1, "title": "first", "author_id": 1},
        {"id": 2, "title": "second", "author_id": 2},
    ],
    Gallery.__table__: [{"id": 1, "title": "spring"}, {"id": 2, "title": "autumn"}],
    Picture.__table__: [
        {"id": 1, "gallery_id": 1, "caption": "tulip"},
        {"id": 2, "gallery_id": 1, "caption": "crocus"},
        {"id": 3, "gallery_id": 2, "caption": "leaf"},
    ],
    Employee.__table__: [
        {"id": 1, "name": "mia", "kind": "manager"},
        {"id": 2, "name": "max", "kind": "manager"},
        {"id": 3, "name": "eli", "kind": "employee"},
    ],
    Manager.__table__: [{"id": 1, "budget": 100}, {"id": 2, "budget": 200}],
    Payment.__table__: [
        {"id": 1, "method": "cash", "amount": 5, "card": None},
        {"id": 2, "method": "card", "amount": 7, "card": "4242"},
        {"id": 3, "method": "card", "amount": 9, "card": "1111"},
    ],
    AuditLog.__table__: [{"id": 1, "message": "started"}],
}


def create_and_seed(connection: Connection) -> None:
    """Create the tables and put the rows in; keys that the database makes afterwards start at 50."""
    Base.metadata.create_all(connection)
    for table, rows in ROWS.items():
        connection.execute(insert(table), rows)
    if connection.dialect.name == "postgresql":
        for table in ROWS:
            if "id" in table.c and table is not Manager.__table__:
                connection.execute(
                    text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), 50, false)")
                )
