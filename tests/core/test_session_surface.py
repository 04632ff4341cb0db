"""The private surface of sessions that read/session.py lists, on every SQLAlchemy version."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from sqlacache.read.session import (
    bind_options,
    driver_connection,
    driver_in_transaction,
    flush_as_a_query_would,
    held_connection,
    in_greenlet,
    isolation_level,
    refreshes,
)
from tests.support.databases import Database, make_sessions
from tests.support.models import User

users = select(User).order_by(User.id)


def dialect_of(database: Database) -> Any:
    return database.engine.sync_engine.dialect


async def test_the_connection_held_is_found_without_checking_one_out(database: Database) -> None:
    async with database.sessions() as session:
        sync = session.sync_session
        with database.probe() as traffic:
            assert held_connection(sync, dialect_of(database)) is None
            await session.begin()
            assert held_connection(sync, dialect_of(database)) is None
        assert traffic.checkouts == 0
        await session.execute(users)
        held = held_connection(sync, dialect_of(database))
        assert held is (await session.connection()).sync_connection
        async with session.begin_nested():
            assert held_connection(sync, dialect_of(database)) is held
        assert held_connection(sync, dialect_of(Database(database.url))) is None
        await session.commit()
        assert held_connection(sync, dialect_of(database)) is None


async def test_a_connection_that_the_session_is_bound_to_is_held_once_used(database: Database) -> None:
    async with database.engine.connect() as connection:
        async with make_sessions(connection)() as session:
            await session.execute(users)
            assert held_connection(session.sync_session, dialect_of(database)) is connection.sync_connection


async def test_pending_changes_are_flushed_exactly_when_a_query_would(database: Database) -> None:
    async with database.sessions() as session:
        sync: Any = session.sync_session
        user = await session.get(User, 1)
        flushed: list[str] = []
        event.listen(sync, "before_flush", lambda *args: flushed.append("flush"))

        def ask(options: Any = None) -> Any:
            return session.run_sync(lambda s: flush_as_a_query_would(s, options))

        assert sync._is_clean()
        await ask()
        assert flushed == []
        user.name = "new"
        assert not sync._is_clean()

        class NoAutoflush:
            _autoflush = False

        await ask(NoAutoflush)
        with sync.no_autoflush:
            await ask()
        assert flushed == []
        await ask()
        assert flushed == ["flush"]
        await session.rollback()


async def load_options(session: Any, work: Any) -> list[Any]:
    """The load options with which ``work`` comes to a listener."""
    found: list[Any] = []

    def listener(state: Any) -> None:
        found.append(state.execution_options.get("_sa_orm_load_options"))

    event.listen(session.sync_session, "do_orm_execute", listener)
    try:
        await work()
    finally:
        event.remove(session.sync_session, "do_orm_execute", listener)
    return found


async def test_refreshes_are_told_from_other_loads_by_their_options(database: Database) -> None:
    assert not refreshes(None)
    async with database.sessions() as session:
        user = await session.get(User, 1)
        cases = [
            (lambda: session.execute(users), False),
            (lambda: session.get(User, 2), False),
            (lambda: session.execute(users.execution_options(populate_existing=True)), True),
            (lambda: session.get(User, 1, populate_existing=True), True),
            (lambda: session.refresh(user), True),
            (lambda: session.refresh(user, ["name"]), True),
            (lambda: session.run_sync(lambda _: user.orders), False),
        ]
        for work, expected in cases:
            (options, *_) = await load_options(session, work)
            assert refreshes(options) is expected


async def test_loading_an_expired_attribute_is_no_refresh_by_the_user(database: Database) -> None:
    async with database.sessions() as session:
        user = await session.get(User, 1)
        session.expire(user)
        (options,) = await load_options(session, lambda: session.run_sync(lambda _: user.name))
        assert refreshes(options) is False or getattr(options, "_is_user_refresh", None) is None


async def test_options_of_a_bind_are_those_a_query_would_start_from(database: Database) -> None:
    engine = database.engine.sync_engine.execution_options(a=1)
    assert bind_options(engine, None)["a"] == 1
    async with database.engine.connect() as connection:
        connection = await connection.execution_options(b=2)
        held = connection.sync_connection
        assert bind_options(engine, held)["b"] == 2
        assert "a" not in bind_options(engine, held)


async def test_isolation_levels_are_read_from_options_the_engine_and_the_dialect(database: Database) -> None:
    dialect = dialect_of(database)
    async with database.engine.connect():
        pass
    assert isolation_level(dialect, {}) == "SERIALIZABLE"
    assert isolation_level(dialect, {"isolation_level": "read_committed"}) == "READ COMMITTED"
    engine = create_async_engine(database.url, isolation_level="READ UNCOMMITTED")
    async with engine.connect():
        pass
    assert isolation_level(engine.sync_engine.dialect, {}) == "READ UNCOMMITTED"
    await engine.dispose()


async def test_a_greenlet_is_told_from_plain_code() -> None:
    assert not in_greenlet()
    async with make_sessions(None)() as session:
        assert await session.run_sync(lambda sync: in_greenlet())


async def test_the_driver_says_whether_a_transaction_is_open(database: Database) -> None:
    async with database.engine.connect() as connection:
        sync = connection.sync_connection
        assert type(driver_connection(sync)).__module__.startswith("aiosqlite")
        assert not driver_in_transaction(sync)
        await connection.exec_driver_sql("UPDATE users SET plan = 'x'")
        assert driver_in_transaction(sync)
        await connection.rollback()
        assert not driver_in_transaction(sync)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.integration
async def test_postgresql_has_its_own_default_level_and_driver(database: Database) -> None:
    async with database.engine.connect() as connection:
        assert isolation_level(dialect_of(database), {}) == "READ COMMITTED"
        assert type(driver_connection(connection.sync_connection)).__module__.startswith("asyncpg")
        assert not driver_in_transaction(connection.sync_connection)


async def test_a_session_without_a_transaction_holds_nothing() -> None:
    assert held_connection(Session(), None) is None  # type: ignore[arg-type]  # no dialect is looked at
