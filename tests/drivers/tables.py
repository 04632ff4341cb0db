"""Tables that the database writes by itself: a cascade, a trigger, a generated column, keys that it makes, a view."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Computed, ForeignKey, Integer, String, insert
from sqlalchemy.engine import Connection
from sqlalchemy.orm import declarative_base

Base = declarative_base()


class Shelf(Base):
    __tablename__ = "dr_shelves"

    id = Column(Integer, primary_key=True)
    label = Column(String(20), nullable=False)
    width = Column(Integer, nullable=False, default=1)
    area = Column(Integer, Computed("width * 2", persisted=True))


class Book(Base):
    """Goes with its shelf; each change of one is counted by a trigger."""

    __tablename__ = "dr_books"

    id = Column(Integer, primary_key=True)
    shelf_id = Column(ForeignKey("dr_shelves.id", ondelete="CASCADE"), nullable=False)
    title = Column(String(20), nullable=False)


class Counted(Base):
    __tablename__ = "dr_counted"

    id = Column(Integer, primary_key=True)
    times = Column(Integer, nullable=False, default=0)


ROWS: dict[Any, list[dict[str, Any]]] = {
    Shelf: [{"id": 1, "label": "red", "width": 1}, {"id": 2, "label": "blue", "width": 2}],
    Book: [
        {"id": 1, "shelf_id": 1, "title": "one"},
        {"id": 2, "shelf_id": 1, "title": "two"},
        {"id": 3, "shelf_id": 2, "title": "three"},
    ],
    Counted: [{"id": 1, "times": 0}],
}

_COUNT = "UPDATE dr_counted SET times = times + 1 WHERE id = 1"
STATEMENTS = {
    "sqlite": [f"CREATE TRIGGER dr_count AFTER UPDATE ON dr_books BEGIN {_COUNT}; END"],
    "mariadb": [
        f"CREATE TRIGGER dr_count AFTER UPDATE ON dr_books FOR EACH ROW {_COUNT}",
        "CREATE FUNCTION dr_relabel(a INT) RETURNS INT MODIFIES SQL DATA BEGIN "
        "UPDATE dr_shelves SET label = 'called' WHERE id = a; RETURN a; END",
        "CREATE FUNCTION dr_doubled(a INT) RETURNS INT DETERMINISTIC RETURN a * 2",
    ],
    "postgresql": [
        f"CREATE FUNCTION dr_count() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {_COUNT}; RETURN NULL; END'",
        "CREATE TRIGGER dr_count AFTER UPDATE ON dr_books FOR EACH ROW EXECUTE FUNCTION dr_count()",
        "CREATE FUNCTION dr_relabel(a INT) RETURNS INT LANGUAGE sql AS "
        "$$ UPDATE dr_shelves SET label = 'called' WHERE id = a RETURNING id $$",
        "CREATE FUNCTION dr_doubled(a INT) RETURNS INT LANGUAGE sql IMMUTABLE AS 'SELECT a * 2'",
    ],
}


def create_and_fill(connection: Connection) -> None:
    """Create the tables, fill them, and create what the database does by itself; keys that it makes start at 50."""
    Base.metadata.create_all(connection)
    for model, rows in ROWS.items():
        connection.execute(insert(model.__table__), rows)
    for statement in STATEMENTS[connection.dialect.name]:
        connection.exec_driver_sql(statement)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ALTER SEQUENCE dr_books_id_seq RESTART WITH 50")
