"""Tables for rows and statements that ordinary schemas do not have, and databases seeded with them.

Beside the tables of ``tests.support.models``: keys named unlike their columns, composite keys of text, columns that the
database or SQLAlchemy writes by itself, versions, a tree, a view.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    Column,
    Computed,
    FetchedValue,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import column_property, declarative_base, relationship
from sqlalchemy.pool import NullPool

from tests.support.databases import PostgresDatabases, SQLiteDatabases
from tests.support.seed import create_and_seed

Base = declarative_base()


class Account(Base):
    """Neither its attributes nor the keys of its columns are named as the columns are."""

    __table__ = Table(
        "odd_accounts",
        Base.metadata,
        Column("account_no", Integer, key="no", primary_key=True, autoincrement=False),
        Column("holder_name", String(40), key="holder", nullable=False),
        Column("branch_code", String(20), key="branch", nullable=False),
    )
    number = __table__.c.no
    owner = __table__.c.holder
    office = __table__.c.branch


class Seat(Base):
    """A composite key of free text: whatever separates the parts of a tag may stand in one of them."""

    __tablename__ = "odd_seats"

    hall = Column(String(20), primary_key=True)
    place = Column(String(20), primary_key=True)
    guest = Column(String(20))


class Item(Base):
    """Columns that are written without being asked for."""

    __tablename__ = "odd_items"

    id = Column(Integer, primary_key=True)
    name = Column(String(20), nullable=False)
    quantity = Column(Integer, nullable=False, default=1)
    status = Column(String(10), nullable=False, server_default="new")
    doubled = Column(Integer, Computed("quantity * 2", persisted=True))
    changed_by = Column(String(20), default="insert", onupdate=lambda: "python")
    changed_in = Column(String(20), onupdate=func.lower("DATABASE"))


class Sensor(Base):
    """The database writes ``noted`` whenever it is told a reading."""

    __tablename__ = "odd_sensors"

    id = Column(Integer, primary_key=True)
    reading = Column(Integer, nullable=False)
    noted = Column(Integer, server_default="0", server_onupdate=FetchedValue())


class Document(Base):
    """Versioned: an UPDATE of a version that is not the last one writes nothing."""

    __tablename__ = "odd_documents"

    id = Column(Integer, primary_key=True)
    folder = Column(Integer, nullable=False)
    title = Column(String(20), nullable=False)
    version = Column(Integer, nullable=False)

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


class Shelf(Base):
    """Refers to one of its books, which refer to it: written by an UPDATE after both are there."""

    __tablename__ = "odd_shelves"

    id = Column(Integer, primary_key=True)
    label = Column(String(20), nullable=False)
    favourite_id = Column(ForeignKey("odd_books.id", name="shelf_favourite"))

    books = relationship("Book", foreign_keys="Book.shelf_id", back_populates="shelf", order_by="Book.id")
    favourite = relationship("Book", foreign_keys=favourite_id, post_update=True)


class Book(Base):
    __tablename__ = "odd_books"

    id = Column(Integer, primary_key=True)
    shelf_id = Column(ForeignKey("odd_shelves.id"))
    title = Column(String(20), nullable=False)
    year = Column(Integer, nullable=False)
    pages = Column(Integer, nullable=False)

    shelf = relationship("Shelf", foreign_keys=shelf_id, back_populates="books")
    loud_title = column_property(func.upper(title))


Shelf.book_count = column_property(
    select(func.count(Book.id)).where(Book.shelf_id == Shelf.id).correlate_except(Book).scalar_subquery()
)


class Node(Base):
    """A tree."""

    __tablename__ = "odd_nodes"

    id = Column(Integer, primary_key=True)
    parent_id = Column(ForeignKey("odd_nodes.id"))
    name = Column(String(20), nullable=False)

    children = relationship("Node", order_by="Node.id")


old_books = Table(
    "odd_old_books",
    MetaData(),  # apart, so that it is not created as a table
    Column("id", Integer, primary_key=True),
    Column("title", String(20)),
)
"""A view of the books from before 1950."""

SEATS = [
    ("a", "b,c"),
    ("a,b", "c"),
    ("a:b", "c"),
    ("a", "b:c"),
    ("a=b&c", "d"),
    ("a?b", "*"),
    ("*", "a?b"),
    ("", "null"),
    ("null", ""),
    ("#", "%2C"),
    (",", "%"),
    ("é", "e\u0301"),
    ("e\u0301", "é"),
    ("A", "b,c"),
    ("a ", "b,c"),
]

ROWS: dict[Any, list[dict[str, Any]]] = {
    Account.__table__: [
        {"no": 1, "holder": "ann", "branch": "north"},
        {"no": 2, "holder": "bob", "branch": "north"},
        {"no": 3, "holder": "cid", "branch": "south"},
    ],
    Seat.__table__: [{"hall": hall, "place": place, "guest": "nobody"} for hall, place in SEATS],
    Item.__table__: [
        {"id": 1, "name": "pen", "quantity": 1, "status": "new"},
        {"id": 2, "name": "ink", "quantity": 2, "status": "old"},
        {"id": 3, "name": "pad", "quantity": 3, "status": "old"},
    ],
    Sensor.__table__: [{"id": 1, "reading": 10, "noted": 0}, {"id": 2, "reading": 20, "noted": 0}],
    Document.__table__: [
        {"id": 1, "folder": 1, "title": "one", "version": 1},
        {"id": 2, "folder": 1, "title": "two", "version": 1},
        {"id": 3, "folder": 2, "title": "three", "version": 1},
    ],
    Shelf.__table__: [{"id": 1, "label": "high"}, {"id": 2, "label": "low"}, {"id": 3, "label": "bare"}],
    Book.__table__: [
        {"id": 1, "shelf_id": 1, "title": "emma", "year": 1815, "pages": 400},
        {"id": 2, "shelf_id": 1, "title": "ulysses", "year": 1922, "pages": 700},
        {"id": 3, "shelf_id": 2, "title": "dune", "year": 1965, "pages": 600},
        {"id": 4, "shelf_id": None, "title": "it", "year": 1986, "pages": 1100},
    ],
    Node.__table__: [
        {"id": 1, "parent_id": None, "name": "root"},
        {"id": 2, "parent_id": 1, "name": "left"},
        {"id": 3, "parent_id": 1, "name": "right"},
        {"id": 4, "parent_id": 2, "name": "leaf"},
        {"id": 5, "parent_id": None, "name": "other"},
    ],
}

_TRIGGERS = {
    "sqlite": [
        "CREATE TRIGGER note_reading AFTER UPDATE OF reading ON odd_sensors BEGIN "
        "UPDATE odd_sensors SET noted = noted + 1 WHERE id = NEW.id; END"
    ],
    "postgresql": [
        "CREATE FUNCTION note_reading() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.noted := OLD.noted + 1; RETURN NEW; END $$",
        "CREATE TRIGGER note_reading BEFORE UPDATE ON odd_sensors FOR EACH ROW EXECUTE FUNCTION note_reading()",
    ],
}


def fill(connection: Connection, metadata: MetaData, rows: dict[Any, list[dict[str, Any]]]) -> None:
    """Create the tables and put the rows in; keys that the database makes afterwards start at 50."""
    metadata.create_all(connection)
    for table, values in rows.items():
        connection.execute(insert(table), values)
        if connection.dialect.name == "postgresql" and "id" in table.c:
            connection.execute(
                text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), 50, false)")
            )


def furnish(connection: Connection) -> None:
    """Everything of this module."""
    fill(connection, Base.metadata, ROWS)
    connection.exec_driver_sql(
        "CREATE VIEW odd_old_books AS SELECT id, title FROM odd_books WHERE year < 1950"
    )
    for statement in _TRIGGERS[connection.dialect.name]:
        connection.exec_driver_sql(statement)


Furnish = Callable[[Connection], None]


class FurnishedSQLite(SQLiteDatabases):
    """Databases with the tables of ``tests.support`` and what ``furnish`` adds."""

    def __init__(self, folder: Path, furnish: Furnish) -> None:
        super().__init__(folder)
        self._furnish = furnish

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[str]:
        """Give the URL of a database that nobody else uses."""
        if self._seeded is None:
            path = self._folder / f"furnished_{uuid4().hex}.db"
            await _prepare(f"sqlite+aiosqlite:///{path}", self._furnish, "PRAGMA journal_mode=WAL")
            self._seeded = path
        async with super().fresh() as url:
            yield url


class FurnishedPostgres(PostgresDatabases):
    """The same on PostgreSQL."""

    def __init__(self, server_url: str, furnish: Furnish) -> None:
        super().__init__(server_url)
        self._furnish = furnish

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[str]:
        """Give the URL of a database that nobody else uses."""
        if self._template is None:
            template = await self._create()
            await _prepare(self._named(template), self._furnish)
            self._template = template
        async with super().fresh() as url:
            yield url


async def _prepare(url: str, furnish: Furnish, *first: str) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        for statement in first:
            await connection.exec_driver_sql(statement)
    async with engine.begin() as connection:
        await connection.run_sync(create_and_seed)
        await connection.run_sync(furnish)
    await engine.dispose()
