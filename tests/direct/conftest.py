"""Two databases that begin with the same rows: one behind a cache in memory, one that no cache knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

from sqlacache import DirectSession, SyncCacheManager, configure_sync
from sqlacache.direct import ways

from .models import Base, fill


@dataclass(eq=False)
class World:
    """A row of everything, twice."""

    engine: Any
    plain_engine: Any
    cache: SyncCacheManager

    def session(self, **options: Any) -> Any:
        """A session whose gets may take the short way."""
        return sessionmaker(**{"bind": self.engine, "class_": DirectSession, "future": True, **options})()

    def plain(self, **options: Any) -> Any:
        """A session on the database that no cache knows."""
        return sessionmaker(**{"bind": self.plain_engine, "class_": Session, "future": True, **options})()

    def warm(self, entity: Any, ident: Any) -> None:
        """Make the next get of a row one that may take the short way: after a miss and a hit."""
        for _ in range(2):
            with self.session() as session:
                session.get(entity, ident)

    def write(self, entity: Any, ident: Any, **values: Any) -> None:
        """Commit a change, which the cache hears of."""
        with self.session() as session:
            found = session.get(entity, ident)
            for name, value in values.items():
                setattr(found, name, value)
            session.commit()


@pytest.fixture
def world(tmp_path: Path, seeded: Path) -> Iterator[World]:
    """Fresh databases."""
    engines = []
    for name in ("cached", "plain"):
        path = tmp_path / f"{name}.db"
        path.write_bytes(seeded.read_bytes())
        engines.append(create_engine(f"sqlite:///{path}", future=True))
    cache = configure_sync(models={"*": {"timeout": 3600}}, telemetry=None, name="direct")
    ways.clear()
    with cache.bound(engines[0]):
        yield World(engines[0], engines[1], cache)
    for engine in engines:
        engine.dispose()


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a database to copy."""
    path: Path = tmp_path_factory.mktemp("direct") / "seeded.db"
    engine = create_engine(f"sqlite:///{path}", future=True)
    Base.metadata.create_all(engine)
    with Session(engine, future=True) as session:
        fill(session)
    engine.dispose()
    return path
