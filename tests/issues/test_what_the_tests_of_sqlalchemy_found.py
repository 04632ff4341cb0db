"""What SQLAlchemy's own tests found when they were run with the cache bound (``make transparency``).

* A SELECT with ``populate_existing`` and an ``immediateload``: SQLAlchemy overwrites what the session has of the entity
  that is selected, not what it has of those that are loaded with it. Invoked anew by the cache, the inner SELECT took
  over the options of the outer one, and a change that was not flushed yet was lost.
* ``execution_options(compiled_cache=None)`` keeps a statement out of the engine's cache of compiled statements. The
  cache compiled it into that all the same.
* Whoever looked up which tables are mapped, a COMMIT too, had all mappers configured for it, and raised what was wrong
  with a mapper that had nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import (
    Session,
    declarative_base,
    immediateload,
    joinedload,
    relationship,
    selectinload,
    subqueryload,
)

import sqlacache
from tests.support.models import Base, Tag, User


@pytest.fixture
def unbound(tmp_path: Path) -> Iterator[Engine]:
    """A database with a user and a tag of theirs, on an engine that no cache knows."""
    engine = create_engine(f"sqlite:///{tmp_path / 'one.db'}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(User(id=1, name="Ada", email="ada@example.org", tags=[Tag(id=1, name="first")]))
        session.commit()
    yield engine
    engine.dispose()


@pytest.fixture
def bound(unbound: Engine) -> Iterator[Engine]:
    """Another engine on the same database, bound."""
    engine = create_engine(unbound.url)
    cache = sqlacache.configure_sync("mem://", {"*": {}}, telemetry=None)
    cache.bind(engine)
    yield engine
    cache.disconnect()
    engine.dispose()


def _name_after_loading(engine: Engine, load: Any) -> str:
    """Change a tag, load its user and it with options for the user only, and return what the tag is called then."""
    with Session(engine, autoflush=False) as session:
        tag: Any = session.get(Tag, 1)
        tag.name = "changed"
        statement = select(User).options(load(User.tags)).execution_options(populate_existing=True)
        assert session.scalars(statement).unique().one().tags == [tag]
        return str(tag.name)


@pytest.mark.parametrize("load", [immediateload, joinedload, selectinload, subqueryload])
def test_an_unflushed_change_is_overwritten_only_where_it_is_without_the_cache(
    unbound: Engine, bound: Engine, load: Any
) -> None:
    expected = _name_after_loading(unbound, load)
    assert (expected == "changed") == (load is immediateload)
    assert [_name_after_loading(bound, load) for _ in range(3)] == [expected] * 3


@pytest.mark.parametrize("of", ["the execution", "the engine"])
def test_a_statement_that_is_not_to_be_kept_compiled_is_not(bound: Engine, of: str) -> None:
    without: dict[str, Any] = {"compiled_cache": None}
    statement = select(User).where(User.name == "Ada")
    engine: Any = bound.execution_options(**without) if of == "the engine" else bound
    before = len(engine._compiled_cache)
    for _ in range(2):
        with Session(engine) as session:
            options = without if of == "the execution" else {}
            assert session.scalars(statement, execution_options=options).one().id == 1
    assert len(engine._compiled_cache) == before


def test_a_mapper_that_cannot_be_configured_breaks_nobody_elses_read_or_commit(bound: Engine) -> None:
    base = declarative_base()

    class Broken(base):  # type: ignore[misc, valid-type]  # a base made at run time
        __tablename__ = "broken"
        id = Column(Integer, primary_key=True)
        nobody = relationship("ThereIsNoSuchClass")

    unmapped = Table("unmapped", MetaData(), Column("id", Integer, primary_key=True))
    try:
        with bound.begin() as connection:
            unmapped.create(connection)
            connection.execute(unmapped.insert().values(id=1))
        with Session(bound) as session:
            assert session.scalars(select(unmapped.c.id)).all() == [1]
    finally:
        base.registry.dispose()
