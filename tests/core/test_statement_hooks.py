"""Where statements are met: what other listeners do to them changes nothing, and engines get no listener for them."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import event, insert, select, update
from sqlalchemy.exc import IntegrityError

from sqlacache import configure, testing
from tests.support.databases import Database
from tests.support.models import Tag, User
from tests.support.reading import UNCACHED

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

OLD_SQLALCHEMY = sqlalchemy.__version__.startswith("1.")


@pytest.fixture
def cache() -> Any:
    return configure(models={"*": {}}, telemetry=None)


def runs_updates_itself(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    if not statement.startswith("UPDATE"):
        return False
    cursor.execute(statement, parameters)
    return True


async def name_of(database: Database) -> str:
    async with database.sessions() as session:
        return str((await session.get(User, 1)).name)


@pytest.mark.parametrize("first", ["listener", "cache"])
async def test_a_statement_that_a_listener_runs_itself_still_evicts(
    database: Database, cache: Any, first: str
) -> None:
    engine = database.engine.sync_engine
    if first == "listener":
        event.listen(engine, "do_execute", runs_updates_itself)
    await cache.bind(database.engine)
    if first == "cache":
        event.listen(engine, "do_execute", runs_updates_itself)
    try:
        await name_of(database)
        async with database.sessions() as session:
            await session.execute(update(User).where(User.id == 1).values(name="by the listener"))
            await session.commit()
        with testing.record(cache) as seen:
            assert await name_of(database) == "by the listener"
        assert [decision.reason for decision in seen.decisions] == ["row_invalidated"]
    finally:
        await cache.disconnect()
        event.remove(engine, "do_execute", runs_updates_itself)


async def test_a_listener_that_outlives_the_binding_is_still_asked(database: Database, cache: Any) -> None:
    engine = database.engine.sync_engine
    asked = []
    await cache.bind(database.engine)
    event.listen(engine, "do_execute", lambda *arguments: asked.append(1))
    await cache.disconnect()
    await name_of(database)
    assert asked


async def test_a_bound_engine_has_no_listener_on_its_statements(database: Database, cache: Any) -> None:
    engine = database.engine.sync_engine
    await cache.bind(database.engine)
    try:
        dispatch = engine.dispatch
        for name in ("before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute"):
            assert not getattr(dispatch, name)
    finally:
        await cache.disconnect()


@pytest.mark.parametrize("end", ["commit", "savepoint", "another statement"])
async def test_a_key_that_the_database_made_is_known_when_the_insert_commits(
    database: Database, cache: Any, end: str
) -> None:
    await cache.bind(database.engine)
    try:
        with testing.record(cache) as seen:
            async with database.engine.connect() as connection:
                result = await connection.execute(insert(Tag.__table__).values(name="new one"))
                key = result.inserted_primary_key[0]
                if end == "savepoint":
                    async with connection.begin_nested():
                        pass
                elif end == "another statement":
                    await connection.execute(select(Tag.__table__.c.id))
                await (
                    connection.commit()
                ) if not OLD_SQLALCHEMY else await connection.get_transaction().commit()
        (change,) = [change for one in seen.invalidations for change in one.changes]
        assert change.tags == (f"tags:{key}",)
        assert change.scope == "rows"
    finally:
        await cache.disconnect()


async def test_an_insert_that_failed_tells_no_key(database: Database, cache: Any) -> None:
    await cache.bind(database.engine)
    try:
        with testing.record(cache) as seen:
            async with database.sessions() as session:
                with pytest.raises(IntegrityError):
                    async with session.begin_nested():
                        await session.execute(insert(User.__table__).values(id=1, name="taken"))
                await session.commit()
        assert [change for one in seen.invalidations for change in one.changes] == []
    finally:
        await cache.disconnect()
