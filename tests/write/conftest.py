"""Fixtures of the tests of what writes announce."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from tests.write.announced import Base, Manager, Node, Order, Seat, Tag, User, Watch


@pytest.fixture
def engine() -> Iterator[Any]:
    engine = create_engine("sqlite://", future=True, poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine, future=True) as session:
        session.add_all([User(id=n, name=f"n{n}", email=f"{n}@x", active=n != 3) for n in (1, 2, 3, 4)])
        session.add_all([Order(number=n, user=1 + n % 2) for n in (1, 2, 3, 4)])
        session.add_all([Tag(id=1), Tag(id=2), Manager(id=1, name="boss", budget=5), Node(id=1), Node(id=2)])
        session.add_all([Seat(row=1, place=n, taken=False) for n in (1, 2, 3)])
        session.commit()
    yield engine
    engine.dispose()


@pytest.fixture
def watch(engine: Any) -> Watch:
    return Watch(engine)


@pytest.fixture
def session(engine: Any, watch: Watch) -> Iterator[Session]:
    with Session(engine, future=True) as session:
        yield session
