"""What a session may be served: by the state of its connection, its tenant, its snapshot, its routing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, sessionmaker, with_loader_criteria
from sqlalchemy.pool import StaticPool

from tests.support.databases import Database, make_sessions
from tests.support.models import Order, Tag, Team, User
from tests.support.reading import Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import BY_WRITE
from tests.support.writes import add, change, new_user, read_past_the_cache

from .setups import ON_POSTGRESQL, ON_SQLITE, Bind, prepare, with_engine

USER_1 = get(User, 1)
names = rows(lambda: select(User.id, User.name).order_by(User.id))
count_users = scalar(lambda: select(func.count()).select_from(User))
teams = entities(lambda: select(Team).order_by(Team.id))
users = User.__table__
RENAME = users.update().where(users.c.id == 1).values(name="zed")


def table(answer: Any) -> list[tuple[Any, ...]]:
    """The rows of an answer, without the types that comparing it with the database needs."""
    return [
        tuple(cell[1] if isinstance(cell, tuple) else cell for cell in row[1:]) for row in answer.value[1:]
    ]


async def ask(reader: Reader, sessions: Any, read: Any) -> Any:
    async with sessions() as session:
        return await reader.ask(read, session)


# -- one connection for all --------------------------------------------------------------------------------------------


@ON_SQLITE
@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_sessions_that_share_a_connection_see_its_uncommitted_rows_and_keep_none(
    end: str, database: Database, bind: Bind
) -> None:
    async with with_engine(database, poolclass=StaticPool) as other:
        reader = await bind(other)
        await reader.warm(names, USER_1, teams)
        # Sessions that stay open: giving the one connection back to the pool rolls it back for all.
        async with other.sessions() as writer, other.sessions() as looking:
            await writer.execute(RENAME)
            for read in (names, scalar(lambda: select(User.name).where(User.id == 1))):
                during = await reader.ask(read, looking)
                assert "zed" in str(during.value)
                assert [d.reason for d in during.decisions] == ["dirty_transaction"]
            await getattr(writer, end)()
        for read in (names, USER_1):
            await reader.current(read)
            await reader.hit(read)
        await reader.hit(teams)


@ON_SQLITE
async def test_an_in_memory_database(database: Database, bind: Bind) -> None:
    from tests.support.seed import create_and_seed

    async with with_engine(database, "sqlite+aiosqlite://", poolclass=StaticPool) as memory:
        async with memory.engine.begin() as connection:
            await connection.run_sync(create_and_seed)
        reader = await bind(memory)
        assert (await reader.ask(names)).misses
        assert (await reader.ask(names)).hits
        async with memory.sessions() as one, memory.sessions() as other:
            await one.execute(RENAME)
            during = await reader.ask(names, other)
            assert (1, "zed") in table(during)
            assert during.bypasses
            await one.rollback()
        after = await reader.ask(names)
        assert (1, "ann") in table(after)


# -- isolation ---------------------------------------------------------------------------------------------------------

LEVELS = ["REPEATABLE READ", "SERIALIZABLE"]


@ON_POSTGRESQL
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("how", ["engine", "options", "connection", "text"])
async def test_a_snapshot_is_neither_served_nor_stored(
    level: str, how: str, database: Database, bind: Bind
) -> None:
    options = {"isolation_level": level} if how == "engine" else {}
    async with with_engine(database, **options) as other:
        reader = await bind(other)
        engine = other.engine.execution_options(isolation_level=level) if how == "options" else other.engine
        async with make_sessions(engine)() as session:
            if how == "connection":
                await session.connection(execution_options={"isolation_level": level})
            elif how == "text":
                await session.execute(text(f"SET TRANSACTION ISOLATION LEVEL {level}"))
            first = await reader.ask(names, session)
            await database_change(database)
            assert (await reader.ask(names, session)).value == first.value
            assert {d.decision for d in first.decisions} == {"bypass"}
        if how != "engine":
            answer = await reader.current(names)
            assert [d.reason for d in answer.misses] == ["absent"]


async def database_change(database: Database, name: str = "zed") -> None:
    await change(User, 1, name=name)(database)


@ON_SQLITE
@pytest.mark.parametrize("journal", ["wal"])
async def test_an_old_snapshot_inside_sqlites_begin_does_not_fill(
    journal: str, database: Database, bind: Bind
) -> None:
    async with with_engine(database) as other:
        _emit_begin(other)
        reader = await bind(other)
        async with other.sessions() as session:
            await reader.ask(teams, session)
            await reader.ask(count_users, session)
            async with other.sessions() as writer:
                (await read_past_the_cache(writer, User, 1)).name = "zed"
                await writer.commit()
            old = await reader.ask(names, session)
            assert (1, "ann") in table(old)
            assert not old.hits
        await reader.current(names)
        await reader.hit(names)


@ON_SQLITE
async def test_a_hit_inside_sqlites_begin_until_the_transaction_has_touched_the_database(
    database: Database, bind: Bind
) -> None:
    async with with_engine(database) as other:
        _emit_begin(other)
        reader = await bind(other)
        await reader.warm(names, teams)
        async with other.sessions() as session:
            assert (await reader.ask(names, session)).hits
            await session.execute(text("SELECT 1 FROM users"))
            assert [d.reason for d in (await reader.ask(names, session)).decisions] == ["isolation"]
        async with other.sessions() as session:
            (await read_past_the_cache(session, User, 1)).name = "zed"
            await session.commit()
        await reader.miss(names, BY_WRITE)
        await reader.hit(names)
        await reader.hit(teams)


def _emit_begin(database: Database) -> None:
    """SQLAlchemy's recipe for transactions that pysqlite does not begin by itself."""

    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    def begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    event.listen(database.engine.sync_engine, "connect", connected)
    event.listen(database.engine.sync_engine, "begin", begun)


@ON_SQLITE
async def test_read_uncommitted_is_not_cached(database: Database, bind: Bind) -> None:
    async with with_engine(database, isolation_level="READ UNCOMMITTED") as other:
        reader = await bind(other)
        await reader.bypass(names, "isolation")


# -- the state of a connection -----------------------------------------------------------------------------------------

TENANTS = [
    "CREATE ROLE {role} NOLOGIN",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE orders FORCE ROW LEVEL SECURITY",
    "CREATE POLICY own ON orders USING (user_id = nullif(current_setting('app.tenant', true), '')::int)",
]
orders = rows(lambda: select(Order.id, Order.user_id).order_by(Order.id))
STATE: dict[str, list[Any]] = {
    "set_local": [text("SET LOCAL app.tenant = '{tenant}'")],
    "set": [text("SET app.tenant = '{tenant}'")],
    "set_config_in_text": [text("SELECT set_config('app.tenant', '{tenant}', true)")],
    "set_config": ["construct"],
}


async def become(session: Any, role: str, tenant: int, how: str) -> None:
    await session.execute(text(f"SET LOCAL ROLE {role}"))
    for statement in STATE[how]:
        if statement == "construct":
            await session.execute(select(func.set_config("app.tenant", str(tenant), True)))
        else:
            await session.execute(text(str(statement).replace("{tenant}", str(tenant))))


@pytest.fixture
def role(database: Database) -> str:
    return "tenant_" + (database.engine.url.database or "")[-8:]


async def secure(database: Database, role: str) -> None:
    await prepare(database, *(statement.format(role=role) for statement in TENANTS))


@ON_POSTGRESQL
@pytest.mark.parametrize("how", STATE)
@pytest.mark.parametrize("vary", [False, True], ids=["without_vary", "with_vary"])
async def test_row_security_shows_each_tenant_its_own(
    how: str, vary: bool, role: str, database: Database, bind: Bind
) -> None:
    await secure(database, role)
    reader = await bind(**({"vary": lambda session: session.info.get("tenant")} if vary else {}))
    try:
        for _ in range(2):
            for tenant in (1, 2, 1):
                async with database.sessions(info={"tenant": tenant}) as session:
                    await become(session, role, tenant, how)
                    answer = await reader.ask(orders, session)
                    assert {user for _, user in table(answer)} == {tenant}
                    await session.rollback()
    finally:
        await database.engine.dispose()
        await prepare(database, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


SETTINGS = {
    "role": ("SET ROLE pg_monitor", "RESET ROLE"),
    "search_path": ("SET search_path TO other, public", "RESET search_path"),
    "set_config": ("SELECT set_config('search_path', 'other, public', false)", "RESET ALL"),
    "timezone": ("SET TIME ZONE 'Asia/Tokyo'", "RESET TIME ZONE"),
}
OTHER_SCHEMA = [
    "CREATE SCHEMA other",
    "CREATE TABLE other.tags (id integer PRIMARY KEY, name varchar(20))",
    "INSERT INTO other.tags VALUES (1, 'other')",
]
tag_names = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))


@ON_POSTGRESQL
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
async def test_a_session_whose_connection_has_state_is_not_served(
    setting: tuple[str, str], database: Database, bind: Bind
) -> None:
    reader = await bind()
    await reader.warm(teams)
    async with database.sessions() as session:
        await session.execute(text(setting[0]))
        answer = (
            await reader.ask(entities(lambda: select(Team.id)), session) if "ROLE" not in setting[0] else None
        )
        assert answer is None or [d.reason for d in answer.decisions] == ["connection_state"]
    await reader.current(teams)


@ON_POSTGRESQL
async def test_state_left_on_a_pooled_connection_fills_nothing_for_others(
    database: Database, bind: Bind
) -> None:
    """
    1. A session sets search_path, commits and gives its connection back to the pool.
    2. Another session reads. It holds no connection when it asks the cache, and gets that one to load.
    3. What it read there may not be stored for sessions on other connections.
    """
    await prepare(database, *OTHER_SCHEMA)
    async with with_engine(database, pool_size=1) as other:
        reader = await bind(other)
        async with other.sessions() as session:
            await session.execute(text("SET search_path TO other, public"))
            await session.commit()
        assert table(await reader.ask(tag_names)) == [(1, "other")]
        await other.engine.dispose()  # a new connection, without the state
        await reader.current(tag_names)


# -- listeners of others -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before_bind", "after_bind"])
async def test_criteria_that_a_listener_adds(when: str, database: Database, bind: Bind) -> None:
    class Filtered(Session):
        pass

    def add_criteria(state: Any) -> None:
        if state.is_select:
            state.statement = state.statement.options(with_loader_criteria(User, User.plan == "pro"))

    if when == "before_bind":
        event.listen(Filtered, "do_orm_execute", add_criteria)
    reader = await bind()
    if when == "after_bind":
        event.listen(Filtered, "do_orm_execute", add_criteria)
    filtered = sessionmaker(
        bind=database.engine, class_=AsyncSession, sync_session_class=Filtered, expire_on_commit=False
    )
    for _ in range(3):
        assert [key for key, _ in table(await ask(reader, filtered, names))] == [2, 4]
        assert len(table(await reader.current(names))) == 5
    await database_change(database)
    await reader.current(names)
    await change(User, 2, name="bo")(database)
    assert (2, "bo") in table(await ask(reader, filtered, names))


@pytest.mark.parametrize("when", ["before_bind", "after_bind"])
async def test_a_listener_that_executes_the_statement_itself(
    when: str, database: Database, bind: Bind
) -> None:
    calls = []

    class Observed(Session):
        pass

    def execute(state: Any) -> Any:
        calls.append(state.statement)
        return state.invoke_statement()

    if when == "before_bind":
        event.listen(Observed, "do_orm_execute", execute)
    reader = await bind()
    if when == "after_bind":
        event.listen(Observed, "do_orm_execute", execute)
    observed = sessionmaker(
        bind=database.engine, class_=AsyncSession, sync_session_class=Observed, expire_on_commit=False
    )
    expected = await reader.truth(names)
    for turn in range(3):
        assert (await ask(reader, observed, names)).value == expected
        assert len(calls) == turn + 1, "each read passes the listener once"
    await database_change(database)
    assert (await ask(reader, observed, names)).value == await reader.truth(names)


async def test_an_after_begin_listener_that_executes_changes_nothing(database: Database, bind: Bind) -> None:
    class Beginning(Session):
        pass

    def begun(session: Any, transaction: Any, connection: Any) -> None:
        connection.execute(text("SELECT 1"))

    event.listen(Beginning, "after_begin", begun)
    reader = await bind()
    beginning = sessionmaker(
        bind=database.engine, class_=AsyncSession, sync_session_class=Beginning, expire_on_commit=False
    )
    for _ in range(3):
        async with beginning() as session:
            assert (await reader.ask(names, session)).value == await reader.truth(names)
            async with session.begin_nested():
                assert (await session.get(User, 1)).name
            await session.commit()
    async with beginning() as session:
        (await session.get(User, 1)).name = "zed"
        await session.commit()
    assert (await ask(reader, beginning, names)).value == await reader.truth(names)


async def test_a_comment_that_instrumentation_adds(database: Database, bind: Bind) -> None:
    numbers = iter(range(1000))

    def comment(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> Any:
        return f"{statement} /*traceparent='00-{next(numbers)}'*/", parameters

    event.listen(database.engine.sync_engine, "before_cursor_execute", comment, retval=True)
    reader = await bind()
    await reader.warm(names, USER_1)
    await database_change(database)
    for read in (names, USER_1):
        await reader.miss(read, BY_WRITE)
        await reader.hit(read)


async def test_echo_does_not_log_a_replay(
    database: Database, bind: Bind, caplog: pytest.LogCaptureFixture
) -> None:
    async with with_engine(database, echo=True) as other:
        reader = await bind(other)
        await reader.warm(names)
        caplog.clear()
        await reader.hit(names)
        assert not [record for record in caplog.records if record.name.startswith("sqlalchemy.engine")]


# -- routing -----------------------------------------------------------------------------------------------------------


async def _two(database: Database, source: Any, bind: Bind, honours: bool) -> None:
    async with source.fresh() as url:
        second = Database(url)
        await change(User, 1, name="second")(second)
        target = {"engine": database.engine.sync_engine}

        class Routing(Session):
            def get_bind(self, mapper: Any = None, clause: Any = None, bind: Any = None, **kw: Any) -> Any:
                return bind if honours and bind is not None else target["engine"]

        reader = await bind()
        await reader.cache.bind(second.engine)
        routing = sessionmaker(class_=AsyncSession, sync_session_class=Routing)
        try:
            for _ in range(3):
                for one, name in ((database, "ann"), (second, "second")):
                    target["engine"] = one.engine.sync_engine
                    assert (1, name) in table(await ask(reader, routing, names))
            target["engine"] = second.engine.sync_engine
            async with routing() as session:
                (await session.get(User, 1)).name = "changed"
                await session.commit()
            assert (1, "changed") in table(await ask(reader, routing, names))
            target["engine"] = database.engine.sync_engine
            assert (1, "ann") in table(await ask(reader, routing, names))
        finally:
            await reader.cache.disconnect()
            await second.dispose()


@pytest.mark.parametrize("honours", [True, False], ids=["honours_bind", "ignores_bind"])
async def test_a_session_that_routes_between_two_databases(
    honours: bool, database: Database, bind: Bind, request: pytest.FixtureRequest, cached: None
) -> None:
    await _two(database, request.getfixturevalue(f"{database.dialect}_databases"), bind, honours)


async def test_a_session_on_a_connection_in_a_transaction(reader: Reader) -> None:
    await reader.warm(names, teams)
    async with reader.database.engine.connect() as connection:
        await connection.execute(RENAME)
        async with reader.database.sessions(bind=connection) as session:
            own = await reader.bypass(names, "dirty_transaction", session)
            assert (1, "zed") in table(own)
        await reader.hit(names)
        await connection.commit()
    await reader.miss(names, BY_WRITE)
    await reader.hit(teams)


async def test_engines_made_by_execution_options_share_the_cache(reader: Reader) -> None:
    engine = reader.database.engine.execution_options(logging_token="other")
    sessions = make_sessions(engine)
    await reader.warm(names)
    assert (await ask(reader, sessions, names)).hits
    async with sessions() as session:
        await session.execute(RENAME)
        await session.commit()
    await reader.miss(names, BY_WRITE)


async def test_no_autoflush_reads_what_is_there_and_a_pending_change_is_not_lost(reader: Reader) -> None:
    await reader.warm(count_users)
    async with reader.database.sessions() as session:
        with session.no_autoflush:
            session.add(new_user(100))
            answer = await reader.ask(count_users, session)
            assert answer.value == ("int", 5)
            assert answer.hits == answer.decisions
        assert (await reader.bypass(count_users, "dirty_transaction", session)).value == ("int", 6)
        await session.commit()
    await reader.miss(count_users, BY_WRITE)


# -- binding -----------------------------------------------------------------------------------------------------------


async def test_binding_twice_changes_nothing(reader: Reader, cached: None) -> None:
    await reader.warm(names)
    hooks = dict(vars(reader.database.engine.sync_engine.dialect))
    await reader.cache.bind(reader.database.engine)
    await reader.cache.bind(reader.database.engine.execution_options(logging_token="x"))
    assert dict(vars(reader.database.engine.sync_engine.dialect)) == hooks
    await reader.hit(names)
    with reader.watch() as seen:
        await database_change(reader.database)
    assert len(seen.invalidations) == 1
    await reader.miss(names, BY_WRITE)


async def test_what_was_cached_before_disconnect_is_not_served_after_binding_again(
    reader: Reader, cached: None
) -> None:
    await reader.warm(names)
    await reader.cache.disconnect()
    await database_change(reader.database)  # nobody sees it
    await reader.cache.bind(reader.database.engine)
    await reader.miss(names, {"absent"})
    await reader.hit(names)


async def test_disconnect_leaves_nothing_on_the_engine(database: Database, bind: Bind, cached: None) -> None:
    engine = database.engine.sync_engine
    async with database.engine.connect():
        pass  # connecting initialises the dialect
    before = set(vars(engine.dialect))
    reader = await bind()
    await reader.warm(names)
    await database_change(database)
    assert set(vars(engine.dialect)) - before
    await reader.cache.disconnect()
    left = set(vars(engine.dialect)) - before
    assert not {name for name in left if name.startswith("do_")}
    for target in (engine, engine.pool, engine.dialect):
        for name in target.dispatch._event_names:
            for listener in getattr(target.dispatch, name):
                assert not (getattr(listener, "__module__", None) or "").startswith("sqlacache"), (
                    target,
                    name,
                )
    with database.probe() as traffic:
        async with database.sessions() as session:
            await session.execute(select(User.id))
    assert len(traffic.statements) == 1


async def test_two_databases_with_one_name_are_refused(
    database: Database, bind: Bind, request: pytest.FixtureRequest, cached: None
) -> None:
    from sqlacache import ConfigError

    reader = await bind()
    source = request.getfixturevalue(f"{database.dialect}_databases")
    async with source.fresh() as url:
        second = Database(url)
        try:
            with pytest.raises(ConfigError, match="database="):
                await reader.cache.bind(second.engine, database=database.engine.url.database)
            await reader.cache.bind(second.engine, database="second")
            await reader.warm(names)
            expected = await reader.truth(names)
            assert (await ask(reader, second.sessions, names)).misses
            await database_change(second)
            await reader.hit(names)
            assert (await ask(reader, second.sessions, names)).value != expected
        finally:
            await reader.cache.disconnect()
            await second.dispose()


async def test_sessions_at_once_on_one_engine_keep_their_own_objects(reader: Reader) -> None:
    await reader.warm(USER_1)

    async def own() -> Any:
        async with reader.database.sessions() as session:
            return await session.get(User, 1)

    found = await asyncio.gather(*(own() for _ in range(10)))
    assert len({id(user) for user in found}) == 10
    await add(lambda: new_user(100))(reader.database)
    await reader.hit(USER_1)
