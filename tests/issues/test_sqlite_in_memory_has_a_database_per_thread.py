"""``create_engine("sqlite://")`` has a connection, and so a database, for each thread; they shared one cache.

1. Two threads made a table each, with a row of their own. 2. One read, which was cached. 3. The other was served that.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import SingletonThreadPool

from sqlacache import configure_sync
from sqlacache.testing import Recorder
from tests.support.models import Base, Tag


def test_each_thread_is_served_what_is_its_own() -> None:
    anybody = {"check_same_thread": False}  # may close them at the end
    engine = create_engine("sqlite://", poolclass=SingletonThreadPool, connect_args=anybody)
    cache = configure_sync(models={"*": {}}, telemetry=None)
    seen = Recorder(cache)
    cache.add_observer(seen)

    def fill(name: str) -> None:
        with engine.begin() as connection:
            Base.metadata.create_all(connection)
            connection.execute(Tag.__table__.insert().values(id=1, name=name))

    def read() -> Any:
        with Session(engine) as session:
            return session.execute(select(Tag.name).where(Tag.id == 1)).scalar()

    with cache.bound(engine), ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        for thread, name in ((one, "a"), (other, "b")):
            thread.submit(fill, name).result()
        for thread, name in ((one, "a"), (other, "b")) * 2:
            assert thread.submit(read).result() == name
        assert [decision.decision for decision in seen.decisions[-2:]] == ["hit", "hit"]
    engine.dispose()
