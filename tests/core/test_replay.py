"""Row replay on a real session: what a hit must not do, and the private surface that it stands on."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.engine import Engine
from sqlalchemy.engine import cursor as sa_cursor
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import MissingGreenlet, StatementError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, joinedload, selectinload
from sqlalchemy.pool import Pool

from sqlacache import configure, testing
from sqlacache.read.replay import Capture, Replay, ReplayCursor, _without_comments, is_replay, lend
from tests.support import writes
from tests.support.databases import Database, make_sessions
from tests.support.models import Order, Team, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import entities, follow, get

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

ENGINE_EVENTS = (
    "before_cursor_execute",
    "after_cursor_execute",
    "after_execute",
    "begin",
    "commit",
    "rollback",
    "savepoint",
    "set_connection_execution_options",
)
POOL_EVENTS = ("checkout", "checkin", "connect", "close", "invalidate")


def tell(calls: list[str], name: str) -> Any:
    return lambda *args, **kwargs: calls.append(name)


@contextmanager
def listening(target: Any, names: Any) -> Iterator[list[str]]:
    calls: list[str] = []
    listeners = {name: tell(calls, name) for name in names}
    for name, listener in listeners.items():
        event.listen(target, name, listener)
    try:
        yield calls
    finally:
        for name, listener in listeners.items():
            event.remove(target, name, listener)


async def one_hit(reader: Reader) -> None:
    async with reader.database.sessions() as session:
        with testing.record(reader.cache) as seen:
            assert (await session.get(User, 1)).name == "ann"
        seen.assert_hit(User, 1)


@pytest.mark.parametrize("where", ["class", "engine"])
async def test_listeners_on_engines_see_no_hit(where: str, reader: Reader) -> None:
    await reader.warm(get(User, 1))
    target = Engine if where == "class" else reader.database.engine.sync_engine
    with listening(target, ENGINE_EVENTS) as calls:
        await one_hit(reader)
        assert calls == []
        async with reader.database.sessions() as session:
            await session.get(User, 2)
        assert "before_cursor_execute" in calls


@pytest.mark.parametrize("where", ["class", "pool"])
async def test_listeners_on_pools_see_no_hit(where: str, reader: Reader) -> None:
    await reader.warm(get(User, 1))
    target = Pool if where == "class" else reader.database.engine.sync_engine.pool
    with listening(target, POOL_EVENTS) as calls:
        await one_hit(reader)
        assert calls == []
        async with reader.database.sessions() as session:
            await session.get(User, 2)
        assert "checkout" in calls


async def test_echo_logs_no_hit(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    engine = create_async_engine(database.url, echo=True)
    cache = configure(models={"*": {}}, telemetry=None)
    await cache.bind(engine)
    try:
        with caplog.at_level(logging.DEBUG, "sqlalchemy"):
            for expected in (True, False):
                caplog.clear()
                async with make_sessions(engine)() as session:
                    await session.get(User, 1)
                    logged = [r for r in caplog.records if "users" in r.getMessage()]
                    assert bool(logged) == expected
    finally:
        await cache.disconnect()
        await engine.dispose()


async def test_a_hit_begins_no_transaction_that_listeners_are_told_of_when_vary_says_what_they_do(
    database: Database,
) -> None:
    cache = configure(models={"*": {}}, telemetry=None, vary=lambda session: "tenant")
    await cache.bind(database.engine)
    try:
        async with database.sessions() as session:
            await session.get(User, 1)
        with listening(Session, ["after_begin"]) as calls:
            async with database.sessions() as session:
                await session.get(User, 1)
                assert calls == []
                assert session.in_transaction()
                await session.get(User, 2)
                assert calls == ["after_begin"]
                await session.commit()
    finally:
        await cache.disconnect()


async def test_without_vary_listeners_are_told_of_the_transaction_before_a_hit(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    with listening(Session, ["after_begin"]) as calls:
        async with reader.database.sessions() as session:
            await session.get(User, 1)
            assert calls == ["after_begin"]
            await session.commit()


async def test_a_hit_lies_in_a_transaction_as_a_query_would(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    with listening(Session, ["after_commit", "after_rollback", "after_transaction_end"]) as calls:
        async with reader.database.sessions() as session:
            await session.get(User, 1)
            await session.commit()
            assert calls == ["after_commit", "after_transaction_end"]
            assert not session.in_transaction()


@pytest.mark.parametrize("end", ["commit", "rollback", "close", "invalidate"])
async def test_every_end_of_a_transaction_works_after_a_hit(end: str, reader: Reader) -> None:
    await reader.warm(get(User, 1), get(Order, 1))
    with reader.database.probe() as traffic:
        session = reader.database.sessions()
        await session.get(User, 1)
        await getattr(session, end)()
        assert traffic.statements == []
        assert traffic.checkouts == 0
        if end in ("commit", "rollback"):
            await session.get(Order, 1)
        await session.close()
    await reader.hit(get(User, 1))


async def test_savepoints_over_hits(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(Order, 1), get(Team, 1))
    async with reader.database.sessions() as session:
        await session.get(User, 1)
        async with session.begin_nested():
            await session.get(Order, 1)
            (await session.get(User, 2)).name = "two"
        nested = await session.begin_nested()
        await session.get(Team, 1)
        (await session.get(User, 3)).name = "three"
        await nested.rollback()
        await session.commit()
    async with reader.database.truth_sessions() as session:
        assert (await session.get(User, 2)).name == "two"
        assert (await session.get(User, 3)).name == "cid"


async def test_a_hit_inside_a_savepoint_alone_sends_nothing(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    async with reader.database.sessions() as session:
        with testing.record(reader.cache) as seen:
            async with session.begin_nested():
                await session.get(User, 1)
        seen.assert_hit(User, 1)
        await session.commit()


async def test_a_two_phase_session_can_prepare_after_a_hit(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    sessions = make_sessions(reader.database.engine, twophase=True)
    async with sessions() as session:
        assert (await session.get(User, 1)).name == "ann"
        await session.run_sync(lambda sync: sync.prepare())
        await session.commit()


async def test_the_connection_after_a_hit_is_a_real_one(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    async with reader.database.sessions() as session:
        await session.get(User, 1)
        connection = await session.connection()
        assert not is_replay(connection.sync_connection.engine)
        assert (await connection.exec_driver_sql("SELECT name FROM users WHERE id = 1")).scalar() == "ann"
        await session.commit()


async def test_a_hit_then_a_write_in_one_transaction(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(User, 2))
    async with reader.database.sessions() as session:
        user = await session.get(User, 1)
        user.name = "new"
        await session.commit()
    await reader.miss(get(User, 1), {"row_invalidated"})
    await reader.hit(get(User, 2))


async def test_a_lazy_load_outside_a_greenlet_fails_warm_as_it_fails_cold(reader: Reader) -> None:
    async def load() -> None:
        async with reader.database.sessions() as session:
            user = await session.get(User, 1)
            try:
                _ = user.orders
            except (MissingGreenlet, StatementError) as error:
                found = str(error)
            else:
                found = "it was loaded"
            assert "greenlet_spawn has not been called" in found

    with warnings.catch_warnings():  # SQLAlchemy leaves a coroutine behind when it finds no greenlet
        warnings.simplefilter("ignore")
        await load()
        await reader.ask(follow(User, 1, "orders"))
        await reader.hit(follow(User, 1, "orders"))
        await load()
        gc.collect()


@pytest.mark.parametrize(
    "option",
    [selectinload(User.orders).selectinload(Order.lines), joinedload(User.orders)],
    ids=["select", "join"],
)
async def test_loads_under_a_hit_that_miss_go_to_the_real_database(option: Any, reader: Reader) -> None:
    read = entities(lambda: select(User).where(User.id == 1).options(option))
    await reader.ask(read)
    await reader.hit(read)
    await writes.change(Order, 1, status="gone")(reader.database)
    answer = await reader.current(read)
    assert answer.misses
    await reader.hit(read)


async def test_a_bind_given_by_the_caller_is_obeyed_and_cached(reader: Reader) -> None:
    """The session itself is bound to nothing: everything hangs on the ``bind`` of each execution."""
    engine = reader.database.engine.sync_engine
    statement = select(User).where(User.id == 1).options(joinedload(User.orders))

    async def read() -> list[str]:
        async with make_sessions(None)() as session:

            def run(sync: Session) -> list[str]:
                found = sync.execute(statement, bind_arguments={"bind": engine}).unique().scalar_one()
                return [order.status for order in found.orders]

            return await session.run_sync(run)

    with testing.record(reader.cache) as seen:
        assert await read() == ["new", "paid", "paid"]
        assert await read() == ["new", "paid", "paid"]
        await writes.change(Order, 1, status="gone")(reader.database)
        assert await read() == ["gone", "paid", "paid"]
    assert [d.decision for d in seen.decisions if "orders" in d.tables and "users" in d.tables] == [
        "miss",
        "hit",
        "miss",
    ]


async def test_a_listener_that_adds_criteria_after_ours_is_obeyed(reader: Reader) -> None:
    read = entities(lambda: select(User).order_by(User.id))
    await reader.warm(read)

    def only_the_first(state: Any) -> None:
        if state.is_select:
            state.statement = state.statement.where(User.id == 1)

    async with reader.database.sessions() as session:
        event.listen(session.sync_session, "do_orm_execute", only_the_first)
        with testing.record(reader.cache) as seen:
            found = (await session.execute(select(User).order_by(User.id))).scalars().all()
        assert [user.id for user in found] == [1]
        assert {decision.reason for decision in seen.decisions} <= {"rewritten"}
    await reader.hit(read)


async def test_a_session_whose_get_bind_takes_no_bind_is_bypassed_and_right(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    engine = reader.database.engine.sync_engine

    class Routed(Session):
        def get_bind(self, mapper: Any = None, clause: Any = None, **kw: Any) -> Any:
            return engine

    async with make_sessions(reader.database.engine, sync_session_class=Routed)() as session:
        with testing.record(reader.cache) as seen:
            assert (await session.get(User, 1)).name == "ann"
    assert [decision.reason for decision in seen.decisions] == ["rewritten"]


# -- the private surface that replay.py lists --------------------------------------------------------------------------


async def test_the_session_transaction_keeps_its_connections_by_bind(reader: Reader) -> None:
    async with reader.database.sessions() as session:
        sync: Any = session.sync_session
        assert sync._transaction is None
        await session.get(User, 1)
        transaction = sync._transaction
        engine = reader.database.engine.sync_engine
        connection, inner, should_commit, autoclose = transaction._connections[engine]
        assert connection.engine is engine
        assert transaction._parent is None
        assert inner.is_active
        assert (should_commit, autoclose) == (True, True)
        async with session.begin_nested():
            assert sync._transaction._parent is transaction


async def test_autobegin_is_what_a_query_would_do(reader: Reader) -> None:
    async with reader.database.sessions() as session:
        sync: Any = session.sync_session
        begin = getattr(sync, "_autobegin_t", None) or sync._autobegin
        begin()
        assert sync._transaction is not None
        assert sync._transaction._connections == {}


async def test_lending_ends_with_the_transaction(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    async with reader.database.sessions() as session:
        await session.get(User, 1)
        sync: Any = session.sync_session
        binds = list(sync._transaction._connections)
        assert [is_replay(bind) for bind in binds] == [True]
        held = sync._transaction._connections[binds[0]]
        lend(sync, binds[0], {"a": 1})
        assert sync._transaction._connections[binds[0]] is held
        assert held[0].get_execution_options() == {"a": 1}
        await session.commit()
        assert sync._transaction is None


async def test_both_engines_share_what_is_compiled_and_make_connections_of_one_class(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    engine: Any = reader.database.engine.sync_engine
    replay = reader.cache.bindings[0].reads._replay
    assert is_replay(replay)
    assert not is_replay(engine)
    assert replay._compiled_cache is engine._compiled_cache
    assert replay._connection_cls is engine._connection_cls
    assert replay.dialect == engine.dialect
    assert hash(replay.dialect) == hash(engine.dialect)
    assert not replay.dialect._has_events
    assert not replay._has_events
    with pytest.raises(RuntimeError, match="no database connection"):
        replay.connect()


async def test_a_cursor_result_takes_buffered_rows_back(reader: Reader) -> None:
    assert sa_cursor._DEFAULT_FETCH is not None
    captured: list[Any] = []

    def after(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        captured.append((context.cursor_fetch_strategy, context.compiled, context.compiled_parameters))
        rows = cursor.fetchall()
        context.cursor_fetch_strategy = sa_cursor.FullyBufferedCursorFetchStrategy(
            cursor, initial_buffer=rows
        )

    engine = reader.database.truth_engine.sync_engine
    event.listen(engine, "after_cursor_execute", after)
    async with reader.database.truth_sessions() as session:
        assert len((await session.execute(select(User))).scalars().all()) == 5
    ((strategy, compiled, parameters),) = captured
    assert strategy is sa_cursor._DEFAULT_FETCH
    assert compiled is not None
    assert parameters == [{}]


class Context:
    """The parts of an execution context that matching looks at."""

    def __init__(self, compiled: Any, parameters: Any, expanded: Any, dialect: Any) -> None:
        self.compiled = compiled
        self.compiled_parameters = [parameters]
        self._expanded_parameters = expanded or {}
        self.dialect = dialect


def test_rows_belong_to_one_statement_of_one_engine_with_one_set_of_parameters() -> None:
    dialect = DefaultDialect()

    def matches(compiled: Any, parameters: Any, expanded: Any, of: Any = dialect) -> bool:
        return capture.matches(Context(compiled, parameters, expanded, of))

    one, other = select(User.id).compile(dialect=dialect), select(User.name).compile(dialect=dialect)
    capture = Capture(one, {"a": 1, "b": [1, 2], "c": [(1, 2), (3, 4)]})
    expanded = {"b": ["b_1", "b_2"], "c": ["c_1", "c_2", "c_3", "c_4"]}
    given = {"a": 1, "b_1": 1, "b_2": 2, "c_1": 1, "c_2": 2, "c_3": 3, "c_4": 4}
    assert matches(one, given, expanded)
    assert matches(select(User.id).compile(dialect=dialect), given, expanded)
    assert not matches(other, given, expanded)
    assert not matches(None, given, expanded)
    assert not matches(one, given, expanded, DefaultDialect())
    for changed in ({"a": 2}, {"a": True}, {"a": 1.0}, {"b_2": 3}, {"c_4": 5}):
        assert not matches(one, {**given, **changed}, expanded)
    assert not matches(one, {"a": 1}, {})
    assert not matches(one, given, {**expanded, "b": ["b_1"]})


async def test_the_parameters_of_in_are_found_where_they_were_expanded(reader: Reader) -> None:
    read = entities(lambda: select(User).where(User.id.in_([1, 2])).order_by(User.id))
    other = entities(lambda: select(User).where(User.id.in_([1, 3])).order_by(User.id))
    await reader.warm(read, other)
    found: list[Any] = []

    def after(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        found.append(context._expanded_parameters)

    engine = reader.database.truth_engine.sync_engine
    event.listen(engine, "after_cursor_execute", after)
    await reader.truth(read)
    assert [len(names) for names in found[0].values()] == [2]


def test_a_replay_cursor_fetches_as_drivers_do() -> None:
    cursor = ReplayCursor()
    assert cursor.fetchall() == []
    cursor.answer(Replay(None, {}, (("id",),), [(n,) for n in range(5)], None))
    assert cursor.description == (("id",),)
    assert cursor.fetchone() == (0,)
    assert cursor.fetchmany(2) == [(1,), (2,)]
    assert cursor.fetchmany() == [(3,)]
    assert cursor.fetchall() == [(4,)]
    assert cursor.fetchall() == []
    assert cursor.fetchone() is None
    assert cursor.fetchmany(3) == []
    cursor.close()


def test_comments_of_instrumentation_are_not_part_of_a_statement() -> None:
    for sql in ("SELECT 1", "/*a*/ SELECT 1", "SELECT 1 /*traceparent='x'*/", "  /*x*/SELECT 1/*y*/ "):
        assert _without_comments(sql) == "SELECT 1"
