"""The schema of the machine: small tables with small domains, so that generated reads and writes meet often.

Users have orders (the database sets their user to NULL when it goes), tags through ``mx_user_tags`` (removed by the
database), and vehicles, of which trucks have a row in a second table. A trigger on vehicles keeps ``mx_changes`` up
to date, which nothing else writes.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Column, ForeignKey, Integer, String, Table, insert, text
from sqlalchemy.engine import Connection
from sqlalchemy.orm import declarative_base, relationship

Base = declarative_base()

PLANS = ("a", "b", "c")
STATUSES = ("new", "paid", "sent")
NUMBERS = (0, 1, 2)
KEYS = tuple(range(1, 9))
"""Keys that reads and writes name; the database makes others from 50 on (PostgreSQL) or after the highest (SQLite)."""

user_tags = Table(
    "mx_user_tags",
    Base.metadata,
    Column("user_id", ForeignKey("mx_users.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("mx_tags.id", ondelete="CASCADE"), primary_key=True),
)


class User(Base):
    __tablename__ = "mx_users"

    id = Column(Integer, primary_key=True)
    name = Column(String(20), nullable=False)
    plan = Column(String(5), nullable=False, default="a")
    active = Column(Boolean, nullable=False, default=True)
    score = Column(Integer)
    seen = Column(Integer, nullable=False, default=0, onupdate=1)

    orders = relationship("Order", back_populates="user", order_by="Order.id", passive_deletes=True)
    tags = relationship(
        "Tag", secondary=user_tags, back_populates="users", order_by="Tag.id", passive_deletes=True
    )
    vehicles = relationship("Vehicle", back_populates="owner", order_by="Vehicle.id")


class Order(Base):
    __tablename__ = "mx_orders"

    id = Column(Integer, primary_key=True)
    user_id = Column(ForeignKey("mx_users.id", ondelete="SET NULL"))
    status = Column(String(5), nullable=False, default="new")
    total = Column(Integer, nullable=False, default=0)

    user = relationship("User", back_populates="orders")


class Tag(Base):
    __tablename__ = "mx_tags"

    id = Column(Integer, primary_key=True)
    name = Column(String(20), nullable=False)

    users = relationship(
        "User", secondary=user_tags, back_populates="tags", order_by="User.id", passive_deletes=True
    )


class Vehicle(Base):
    __tablename__ = "mx_vehicles"

    id = Column(Integer, primary_key=True)
    kind = Column(String(10), nullable=False)
    name = Column(String(20), nullable=False)
    owner_id = Column(ForeignKey("mx_users.id"))
    gears = Column(Integer)

    owner = relationship("User", back_populates="vehicles")

    __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "vehicle"}  # noqa: RUF012


class Truck(Vehicle):
    """Joined inheritance: a truck has a row in two tables."""

    __tablename__ = "mx_trucks"

    id = Column(ForeignKey("mx_vehicles.id"), primary_key=True)
    load = Column(Integer, nullable=False, default=0)

    __mapper_args__ = {"polymorphic_identity": "truck"}  # noqa: RUF012


class Bike(Vehicle):
    """Single-table inheritance."""

    __mapper_args__ = {"polymorphic_identity": "bike"}  # noqa: RUF012


class Changes(Base):
    """How often vehicles of each kind were written: kept by a trigger."""

    __tablename__ = "mx_changes"

    kind = Column(String(10), primary_key=True)
    times = Column(Integer, nullable=False)


KINDS_OF_VEHICLE = ("vehicle", "truck", "bike")
WRITES_ALSO = {"mx_vehicles": ("mx_changes",)}
TABLES = tuple(Base.metadata.sorted_tables)

_SQLITE_TRIGGERS = tuple(
    f"CREATE TRIGGER mx_count_{event.lower()} AFTER {event} ON mx_vehicles BEGIN"
    f" UPDATE mx_changes SET times = times + 1 WHERE kind = {row}.kind; END"
    for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD"))
)
_POSTGRESQL_TRIGGERS = (
    "CREATE FUNCTION mx_count() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " UPDATE mx_changes SET times = times + 1 WHERE kind = COALESCE(NEW.kind, OLD.kind);"
    " RETURN NULL; END $$",
    "CREATE TRIGGER mx_count AFTER INSERT OR UPDATE OR DELETE ON mx_vehicles"
    " FOR EACH ROW EXECUTE FUNCTION mx_count()",
)
_MARIADB_TRIGGERS = tuple(
    f"CREATE TRIGGER mx_count_{event.lower()} AFTER {event} ON mx_vehicles FOR EACH ROW"
    f" UPDATE mx_changes SET times = times + 1 WHERE kind = {row}.kind"
    for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD"))
)
_TRIGGERS = {"sqlite": _SQLITE_TRIGGERS, "postgresql": _POSTGRESQL_TRIGGERS, "mariadb": _MARIADB_TRIGGERS}

ROWS: dict[Any, list[dict[str, Any]]] = {
    User.__table__: [
        {"id": 1, "name": "u1", "plan": "a", "active": True, "score": 1, "seen": 0},
        {"id": 2, "name": "u2", "plan": "b", "active": True, "score": None, "seen": 0},
        {"id": 3, "name": "u3", "plan": "a", "active": False, "score": 0, "seen": 1},
        {"id": 4, "name": "u4", "plan": "c", "active": True, "score": 2, "seen": 2},
    ],
    Tag.__table__: [{"id": 1, "name": "t1"}, {"id": 2, "name": "t2"}, {"id": 3, "name": "t3"}],
    user_tags: [{"user_id": 1, "tag_id": 1}, {"user_id": 1, "tag_id": 2}, {"user_id": 2, "tag_id": 1}],
    Order.__table__: [
        {"id": 1, "user_id": 1, "status": "new", "total": 1},
        {"id": 2, "user_id": 1, "status": "paid", "total": 2},
        {"id": 3, "user_id": 2, "status": "new", "total": 0},
        {"id": 4, "user_id": 3, "status": "sent", "total": 1},
        {"id": 5, "user_id": None, "status": "new", "total": 2},
    ],
    Vehicle.__table__: [
        {"id": 1, "kind": "truck", "name": "v1", "owner_id": 1, "gears": 6},
        {"id": 2, "kind": "truck", "name": "v2", "owner_id": None, "gears": 5},
        {"id": 3, "kind": "bike", "name": "v3", "owner_id": 2, "gears": None},
        {"id": 4, "kind": "vehicle", "name": "v4", "owner_id": 1, "gears": None},
    ],
    Truck.__table__: [{"id": 1, "load": 1}, {"id": 2, "load": 2}],
    Changes.__table__: [{"kind": kind, "times": 0} for kind in KINDS_OF_VEHICLE],
}


def create(connection: Connection) -> None:
    """Create the tables and the trigger."""
    Base.metadata.create_all(connection)
    for statement in _TRIGGERS[connection.dialect.name]:
        connection.exec_driver_sql(statement)


def reset(connection: Connection) -> None:
    """Put back the rows that every program starts with, once the database has ended what the last one left."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL lock_timeout = '20s'")
    elif connection.dialect.name == "mariadb":
        connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 20")
    for table in reversed(TABLES):
        connection.execute(table.delete())
    for table, rows in ROWS.items():
        connection.execute(insert(table), rows)
    connection.execute(Changes.__table__.update().values(times=0))
    if connection.dialect.name == "postgresql":
        for table in (User.__table__, Order.__table__, Tag.__table__, Vehicle.__table__):
            connection.execute(
                text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), 50, false)")
            )
