"""bind() and disconnect(): which engines are cached, in which combinations, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.pool import Pool, StaticPool
from starlette.applications import Starlette
from starlette.responses import JSONResponse

from sqlacache import ConfigError, configure, testing
from tests.support import writes
from tests.support.databases import Database, make_sessions
from tests.support.listeners import listeners_of_ours
from tests.support.models import Tag, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import entities, get
from tests.support.seed import create_and_seed

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")


def new_cache(**options: Any) -> Any:
    return configure(**{"models": {"*": {}}, "telemetry": None, **options})


@contextlib.asynccontextmanager
async def bound(*engines: Any, **options: Any) -> AsyncIterator[Any]:
    cache = new_cache(**options)
    for engine in engines:
        await cache.bind(engine)
    try:
        yield cache
    finally:
        await cache.disconnect()


async def decided(cache: Any, sessions: Any, read: Any = None) -> list[str]:
    """What was decided about reading user 1, twice."""
    with testing.record(cache) as seen:
        for _ in range(2):
            async with sessions() as session:
                await (read or get(User, 1))(session)
    return [decision.reason or decision.decision for decision in seen.decisions]


CACHED = ["absent", "hit"]


def listeners(engine: Any) -> Any:
    """How many listeners there are on everything that the library could listen to, and the dialect's own attributes."""
    targets = [Session, Engine, Pool, Mapper, engine, engine.pool, engine.dialect]
    counts = {}
    for target in targets:
        dispatch = getattr(target, "dispatch", None)
        for name in getattr(dispatch, "_event_names", ()):
            found = getattr(dispatch, name)
            try:
                counts[repr(target), name] = len(found)
            except TypeError:  # of classes: kept per class
                counts[repr(target), name] = sum(len(list(x)) for x in found._clslevel.values())
    return counts, dict(engine.dialect.__dict__)


async def test_after_disconnect_nothing_of_ours_is_left_on_anything(database: Database) -> None:
    engine = database.engine.sync_engine
    async with database.sessions() as session:  # SQLAlchemy's own first-connect work is done
        await session.get(User, 1)
    before, dialect = listeners(engine)
    async with bound(database.engine) as cache:
        assert await decided(cache, database.sessions) == CACHED
        await writes.change(User, 1, name="x")(database)
        assert listeners_of_ours()
        assert listeners(engine)[0] != before
    after, dialect_after = listeners(engine)
    assert after == before
    assert dialect_after == dialect
    assert not listeners_of_ours()


async def test_binding_twice_changes_nothing(database: Database) -> None:
    async with bound(database.engine) as cache:
        once = listeners_of_ours(), listeners(database.engine.sync_engine)
        await cache.bind(database.engine)
        await cache.bind(database.engine, database=None)
        assert (listeners_of_ours(), listeners(database.engine.sync_engine)) == once
        assert await decided(cache, database.sessions) == CACHED


async def test_binding_twice_at_the_same_time_binds_once(database: Database) -> None:
    cache = new_cache()
    await asyncio.gather(*(cache.bind(database.engine) for _ in range(5)))
    assert len(cache.bindings) == 1
    await cache.disconnect()
    assert not listeners_of_ours()


async def test_disconnecting_twice_or_unbound_is_no_error(database: Database) -> None:
    cache = new_cache()
    await cache.disconnect()
    await cache.bind(database.engine)
    await cache.disconnect()
    await cache.disconnect()


async def test_two_databases_are_cached_apart(database: Database, other_database: Database) -> None:
    cache = new_cache()
    await cache.bind(database.engine, database="main")
    await cache.bind(other_database.engine, database="archive")
    try:
        assert await decided(cache, database.sessions) == CACHED
        assert await decided(cache, other_database.sessions) == CACHED
        with testing.record(cache) as seen:
            await writes.change(User, 1, name="only in main")(database)
            async with other_database.sessions() as session:
                assert (await session.get(User, 1)).name == "ann"
            async with database.sessions() as session:
                assert (await session.get(User, 1)).name == "only in main"
        assert [invalidation.database for invalidation in seen.invalidations] == ["main"]
        assert [(d.database, d.decision) for d in seen.decisions[-2:]] == [
            ("archive", "hit"),
            ("main", "miss"),
        ]
    finally:
        await cache.disconnect()
    assert not listeners_of_ours()


async def test_two_databases_of_one_name_are_refused_and_the_first_stays_bound() -> None:
    first = create_async_engine("postgresql+asyncpg://ann:hunter2@one/shop")
    cache = new_cache()
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    another = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    await cache.bind(engine, database="shop")
    with pytest.raises(ConfigError) as caught:
        await cache.bind(another, database="shop")
    assert "'shop'" in str(caught.value)
    assert "database=" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        await cache.bind(first)
    assert "hunter2" not in str(caught.value)
    assert "ann:***@one/shop" in str(caught.value)
    assert [binding.database for binding in cache.bindings] == ["shop"]
    await cache.bind(another, database="other")
    await cache.disconnect()
    await engine.dispose()
    await another.dispose()


async def test_two_engines_of_one_database_share_what_is_cached(database: Database) -> None:
    second = Database(database.url)
    async with bound(database.engine, second.engine) as cache:
        assert await decided(cache, database.sessions) == CACHED
        assert await decided(cache, second.sessions) == ["hit", "hit"]
        await writes.change(User, 1, name="by the second")(second)
        async with database.sessions() as session:
            assert (await session.get(User, 1)).name == "by the second"
    await second.dispose()
    assert not listeners_of_ours()


async def test_an_engine_of_another_cache_is_refused(database: Database) -> None:
    async with bound(database.engine, name="first"):
        other = new_cache(name="second")
        with pytest.raises(ConfigError, match="bound to the cache 'first' already; unbind it there first"):
            await other.bind(database.engine)
    await other.bind(database.engine)
    assert await decided(other, database.sessions) == CACHED
    await other.disconnect()


async def test_another_name_for_an_engine_that_is_bound_is_refused(database: Database) -> None:
    cache = new_cache()
    await cache.bind(database.engine, database="main")
    with pytest.raises(ConfigError, match="bound as database='main' already, got 'other'"):
        await cache.bind(database.engine, database="other")
    await cache.bind(database.engine, database="main")
    await cache.disconnect()


@pytest.mark.parametrize("given", ["sqlite+aiosqlite://", None, "sync", "sessions"])
async def test_what_is_no_async_engine_is_refused_by_name(given: Any, database: Database) -> None:
    wrong: Any = {"sync": database.engine.sync_engine, "sessions": database.sessions}.get(given, given)
    with pytest.raises(ConfigError, match=f"bind: takes an AsyncEngine, got {type(wrong).__name__}"):
        await new_cache().bind(wrong)


async def test_engines_made_by_execution_options_are_bound_with_theirs(database: Database) -> None:
    derived = database.engine.execution_options(logging_token="x")
    for given, used in ((database.engine, derived), (derived, database.engine)):
        async with bound(given) as cache:
            await cache.bind(used)
            assert len(cache.bindings) == 1
            assert await decided(cache, make_sessions(used)) == CACHED
            async with make_sessions(derived)() as session, session.begin():
                (await session.get(User, 1)).name = "by the derived"
            async with make_sessions(database.engine)() as session:
                assert (await session.get(User, 1)).name == "by the derived"
            async with make_sessions(database.engine)() as session, session.begin():
                (await session.get(User, 1)).name = "ann"
        assert not listeners_of_ours()


async def test_a_session_bound_to_a_connection_is_cached_and_watched(database: Database) -> None:
    async with bound(database.engine) as cache:
        async with database.engine.connect() as connection:
            sessions = make_sessions(connection)
            with testing.record(cache) as seen, database.probe() as traffic:
                for _ in range(2):
                    async with sessions() as session:
                        assert (await session.get(User, 1)).name == "ann"
            assert seen.decisions[0].decision == "miss"
            assert len(traffic.selects) <= 2
            async with sessions() as session:
                (await session.get(User, 1)).name = "new"
                await session.commit()
            if connection.in_transaction():
                await connection.commit()
        async with database.sessions() as session:
            assert (await session.get(User, 1)).name == "new"


async def test_a_session_in_the_transaction_of_its_connection_rolls_back_with_it(database: Database) -> None:
    """The recipe of test suites: join a session into an external transaction."""
    async with bound(database.engine) as cache:
        assert await decided(cache, database.sessions) == CACHED
        async with database.engine.connect() as connection:
            outer = await connection.begin()
            async with AsyncSession(bind=connection, expire_on_commit=False) as session:
                (await session.get(User, 1)).name = "never"
                await session.flush()
                assert (await session.execute(select(User.name).where(User.id == 1))).scalar() == "never"
            await outer.rollback()
        assert await decided(cache, database.sessions) == ["hit", "hit"]
        async with database.sessions() as session:
            assert (await session.get(User, 1)).name == "ann"


async def test_disconnect_then_bind_again_starts_empty_and_works(database: Database) -> None:
    cache = new_cache()
    for _ in range(3):
        await cache.bind(database.engine)
        assert await decided(cache, database.sessions) == CACHED
        await cache.disconnect()
        await writes.change(User, 1, name="while unbound")(database)
        with testing.record(cache) as seen:
            async with database.sessions() as session:
                assert (await session.get(User, 1)).name == "while unbound"
        assert seen.decisions == []
        await writes.change(User, 1, name="ann")(database)


async def test_what_was_cached_before_disconnect_is_not_served_after_binding_again(
    database: Database,
) -> None:
    cache = new_cache()
    await cache.bind(database.engine)
    assert await decided(cache, database.sessions) == CACHED
    await cache.disconnect()
    await writes.change(User, 1, name="unseen")(database)
    await cache.bind(database.engine)
    async with database.sessions() as session:
        assert (await session.get(User, 1)).name == "unseen"
    await cache.disconnect()


async def test_listeners_that_others_put_on_while_bound_stay(database: Database) -> None:
    calls: list[str] = []

    def theirs(connection: Any) -> None:
        calls.append("commit")

    async with bound(database.engine):
        event.listen(database.engine.sync_engine, "commit", theirs)
        await writes.change(User, 1, name="x")(database)
    await writes.change(User, 1, name="y")(database)
    event.remove(database.engine.sync_engine, "commit", theirs)
    assert calls == ["commit", "commit"]


async def test_a_call_that_others_wrapped_around_ours_still_works_after_disconnect(
    database: Database,
) -> None:
    cache = new_cache()
    await cache.bind(database.engine)
    dialect: Any = database.engine.sync_engine.dialect
    ours = dialect.do_commit
    calls: list[str] = []

    def theirs(connection: Any) -> None:
        calls.append("commit")
        ours(connection)

    dialect.do_commit = theirs
    await cache.disconnect()
    await writes.change(User, 1, name="x")(database)
    assert calls == ["commit"]
    async with database.truth_sessions() as session:
        assert (await session.get(User, 1)).name == "x"
    del dialect.do_commit


async def test_an_engine_that_cannot_connect_leaves_nothing_bound() -> None:
    engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    cache = new_cache()
    before = dict(engine.sync_engine.dialect.__dict__).keys()
    with pytest.raises(OSError):
        await cache.bind(engine)
    assert not listeners_of_ours()
    assert "do_commit" not in engine.sync_engine.dialect.__dict__
    assert before <= engine.sync_engine.dialect.__dict__.keys()
    assert "bound to nothing" in repr(cache)


async def test_a_database_of_one_connection_in_memory_can_be_bound() -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    async with engine.begin() as connection:
        await connection.run_sync(create_and_seed)
    sessions = make_sessions(engine)
    async with bound(engine) as cache:
        assert await decided(cache, sessions) == CACHED
        async with sessions() as session, session.begin():
            (await session.get(User, 1)).name = "new"
        async with sessions() as session:
            assert (await session.get(User, 1)).name == "new"
    await engine.dispose()


async def test_a_session_with_several_binds_uses_the_cache_of_each(
    database: Database, other_database: Database
) -> None:
    cache = new_cache()
    await cache.bind(database.engine, database="main")
    sessions = make_sessions(database.engine, binds={Tag: other_database.engine})
    try:
        assert await decided(cache, sessions) == CACHED
        assert await decided(cache, sessions, get(Tag, 1)) == []
    finally:
        await cache.disconnect()


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
async def test_a_lifespan_binds_at_start_and_lets_go_at_the_end(framework: Any, database: Database) -> None:
    cache = new_cache()
    app = framework(lifespan=cache.lifespan(database.engine))

    async def user(request: Any) -> Any:
        async with database.sessions() as session:
            return JSONResponse((await session.get(User, 1)).name)

    app.add_route("/user", user)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            with testing.record(cache) as seen:
                assert (await client.get("/user")).json() == "ann"
                assert (await client.get("/user")).json() == "ann"
        assert [decision.decision for decision in seen.decisions] == ["miss", "hit"]
        assert listeners_of_ours()
    assert not listeners_of_ours()


async def test_a_lifespan_names_the_database_and_lets_go_when_the_application_fails(
    database: Database,
) -> None:
    cache = new_cache()
    lifespan = cache.lifespan(database.engine, database="main")
    with contextlib.suppress(RuntimeError):
        async with lifespan(FastAPI()):
            assert [binding.database for binding in cache.bindings] == ["main"]
            raise RuntimeError("the application")
    assert not listeners_of_ours()


async def test_sessions_of_engines_that_are_not_bound_pass_by(reader: Reader) -> None:
    with testing.record(reader.cache) as seen:
        async with reader.database.truth_sessions() as session:
            await session.get(User, 1)
            await session.execute(update(User).values(plan="x"))
            await session.rollback()
    assert (seen.decisions, seen.invalidations) == ([], [])


async def test_every_entry_is_forgotten_at_disconnect(database: Database) -> None:
    cache = new_cache()
    await cache.bind(database.engine)
    assert await decided(cache, database.sessions, entities(lambda: select(User))) == CACHED
    store = cache.bindings[0].store
    assert len(store) == 1
    await cache.disconnect()
    assert len(store) == 0
    await cache.bind(database.engine)
    assert len(cache.bindings[0].store) == 0
    await cache.disconnect()
