"""A small schema, a database with it, and a watch on what statements announce and then do."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import sqlalchemy
from sqlalchemy import (
    Boolean,
    Column,
    Computed,
    Enum,
    ForeignKey,
    Integer,
    Numeric,
    String,
    Table,
    event,
    func,
)
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.orm import Session, declarative_base, relationship

from sqlacache.canonical import Canonical, NotCanonical
from sqlacache.write.dml import EVERYTHING, Change, analyse, is_ready

VERSION = tuple(int(part) for part in sqlalchemy.__version__.split(".")[:2])
since_20 = pytest.mark.skipif(VERSION < (2, 0), reason="new in SQLAlchemy 2.0")

update_from = pytest.mark.skipif(VERSION < (2, 0), reason="SQLAlchemy 1.4 does not compile this for SQLite")

Base = declarative_base()

user_tags = Table(
    "user_tags",
    Base.metadata,
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Status(enum.Enum):
    OPEN = 1
    PAID = 2


class User(Base):
    __tablename__ = "users"
    id = Column(Integer, primary_key=True)
    name = Column(String)
    email = Column(String, unique=True)
    active = Column(Boolean, default=True, nullable=False)
    score = Column(Numeric(10, 2))
    loud = Column(String, Computed("upper(name)"))
    revision = Column(Integer, default=lambda: 7, onupdate=lambda: 8)
    stamped = Column(Integer, server_default="1", onupdate=func.abs(-9))
    tags = relationship("Tag", secondary=user_tags)


class Tag(Base):
    __tablename__ = "tags"
    id = Column(Integer, primary_key=True)


class Order(Base):
    __tablename__ = "orders"
    number = Column("id", Integer, primary_key=True)
    user = Column("user_id", Integer, key="owner")
    status = Column(Enum(Status), default=Status.OPEN)
    version = Column(Integer, nullable=False)
    __mapper_args__: ClassVar[dict[str, Any]] = {"version_id_col": version}


class Person(Base):
    __tablename__ = "people"
    id = Column(Integer, primary_key=True)
    name = Column(String)
    kind = Column(String)
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": kind, "polymorphic_identity": "person"}


class Manager(Person):
    __tablename__ = "managers"
    id = Column(ForeignKey("people.id"), primary_key=True)
    budget = Column(Integer)
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "manager"}


class Node(Base):
    __tablename__ = "nodes"
    id = Column(Integer, primary_key=True)
    favourite_id = Column(ForeignKey("nodes.id"))
    favourite = relationship("Node", remote_side=[id], post_update=True)


class Seat(Base):
    __tablename__ = "seats"
    row = Column(Integer, primary_key=True, autoincrement=False)
    place = Column(Integer, primary_key=True, autoincrement=False)
    taken = Column(Boolean)


users, orders, seats = User.__table__, Order.__table__, Seat.__table__


class Watch:
    """Follows an engine: what was announced before each statement, and whether what happened was within it."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.canonical = Canonical(engine.dialect)
        self.seen: list[Change] = []
        self.contexts: list[Any] = []
        self.announced: list[Change] = []
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)

    def _before(
        self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        if context.compiled is None or not is_ready(context):
            return
        if not any(context is known for known in self.contexts):
            self.contexts.append(context)
            plan = analyse(context.compiled, self.canonical)
            self.announced = plan.changes(context.compiled_parameters) if plan is not None else []
            self.seen.extend(self.announced)
        self._was = self._contents(conn)

    def _after(
        self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        if not self.contexts or context is not self.contexts[-1] or context.isddl:
            return
        now = self._contents(conn)
        for name, was in self._was.items():
            for key in was.keys() | now[name].keys():
                old, new = was.get(key), now[name].get(key)
                assert old == new or any(self._covers(change, name, old, new) for change in self.announced), (
                    f"{statement} changed {name} {old} -> {new}, announced {self.announced}"
                )

    def _contents(self, conn: Any) -> dict[str, dict[Any, dict[str, Any]]]:
        """All rows of all tables by rowid, read past SQLAlchemy."""
        contents = {}
        cursor = conn.connection.cursor()
        for mapped in Base.metadata.sorted_tables:
            names = [one.name for one in mapped.c]
            cursor.execute(f"SELECT rowid, {', '.join(names)} FROM {mapped.name}")
            contents[mapped.name] = {row[0]: dict(zip(names, row[1:])) for row in cursor.fetchall()}
        cursor.close()
        return contents

    def _text(self, name: str, column_name: str, value: Any) -> str | None:
        one = Base.metadata.tables[name].c
        found = next(c for c in one if c.name == column_name)
        text = self.canonical.of(found)
        try:
            return None if text is None else text(value)
        except NotCanonical:
            return None

    def _agrees(self, name: str, known: Any, row: Any) -> bool:
        return row is not None and all(text == self._text(name, one, row[one]) for one, text in known.items())

    def _covers(self, change: Change, name: str, old: Any, new: Any) -> bool:
        if change.table == EVERYTHING:
            return True
        if change.table != name:
            return False
        if old is not None and new is not None and change.columns is not None:
            changed = {one for one in old if old[one] != new[one]}
            if not changed <= change.columns:
                return False
        if change.rows is None:
            if old is not None and change.where is not None and not self._agrees(name, change.where, old):
                return False
            return new is None or not change.after or self._agrees(name, change.after, new)
        return any(
            (old is None or (row.old is not None and self._agrees(name, row.old, old)))
            and (new is None or (row.new is not None and self._agrees(name, row.new, new)))
            for row in change.rows
        )

    def take(self) -> list[Change]:
        taken, self.seen = self.seen, []
        return taken

    def one(self) -> Change:
        (change,) = self.take()
        return change


def core(statement: Any, *parameters: Any) -> Callable[[Session], Any]:
    return lambda session: session.connection().execute(statement, *parameters)


def announced(statement: Any, dialect: Any, *parameters: Any, **options: Any) -> list[Change]:
    """The changes of a statement that is only compiled."""
    compiled = statement.compile(dialect=dialect, **options)
    plan = analyse(compiled)
    if plan is None:
        return []
    given = [compiled.construct_params(one) for one in parameters] or [compiled.construct_params()]
    return plan.changes(given)


POSTGRESQL = asyncpg.dialect()
