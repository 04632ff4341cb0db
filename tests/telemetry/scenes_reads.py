"""Scenes that bring about each reason of a miss and of a bypass; each returns how often it must have been counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Integer, column, event, func, select, table, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.types import TypeDecorator

from tests.support.gates import before_commit
from tests.support.models import AuditLog, Order, User
from tests.support.reads import entities, get, rows
from tests.support.writes import read_past_the_cache
from tests.telemetry.stage import ALL, FREE, ROOM, USER, Scene, Stage, entry_of, twice

# -- misses ------------------------------------------------------------------------------------------------------------


async def absent(stage: Stage) -> int:
    await twice(await stage.bound())
    return 1


async def expired(stage: Stage) -> int:
    reader = await stage.bound()
    answer = await twice(reader)
    reader.cache.bindings[0].store.with_expiry(answer.decisions[0].key, 1.0)
    await reader.ask(USER)
    return 1


async def row_invalidated(stage: Stage) -> int:
    reader = await stage.bound()
    for name in ("one", "two"):
        await twice(reader)
        await stage.write(name=name)
    await reader.ask(USER)
    return 2


async def condition_invalidated(stage: Stage) -> int:
    reader = await stage.bound()
    await twice(reader, FREE)
    await stage.write(plan="gold")
    await reader.ask(FREE)
    return 1


async def table_invalidated(stage: Stage) -> int:
    reader = await stage.bound()
    await twice(reader)
    await stage.execute(text("UPDATE OR IGNORE users SET name = upper(name)"))
    await reader.ask(USER)
    return 1


async def manual_invalidated(stage: Stage) -> int:
    reader = await stage.bound()
    await twice(reader)
    await reader.cache.invalidate(User, pks=[1])
    await twice(reader)
    await reader.cache.touched("users", columns={"name"}, pks=[1])
    await reader.ask(USER)
    return 2


async def write_in_flight(stage: Stage) -> int:
    """1. The user was read in another way. 2. A writer has marked it and has not committed. 3. Two readers come."""
    listed = entities(lambda: select(User).where(User.id == 1).order_by(User.id))
    reader = await stage.bound()
    await twice(reader)
    async with before_commit(stage.database) as gate:
        writer = await gate.reached_by(stage.write(name="new"))
        for _ in range(2):
            await reader.current(listed)
        gate.open()
        await writer
    return 2


async def generation_changed(stage: Stage) -> int:
    """The server comes back with old data: its entries are there, and its generation is another one."""
    reader, server = await stage.on_redis()
    name = entry_of(reader, await twice(reader))
    kept = server.command("GET", name)
    server.command("FLUSHALL")
    await twice(reader, get(User, 2))
    server.command("SET", name, kept)
    await reader.ask(USER)
    return 1


async def capacity_evicted(stage: Stage) -> int:
    reader = await stage.bound({"url": "mem://", "max_bytes": ROOM})
    for key in (1, 2, 3, 4, 5, 1):
        await reader.ask(get(User, key))
    return 1


async def backend_evicted(stage: Stage) -> int:
    reader, server = await stage.on_redis()
    server.command("DEL", entry_of(reader, await twice(reader)))
    await reader.ask(USER)
    return 1


async def corrupt(stage: Stage) -> int:
    reader, server = await stage.on_redis()
    name = entry_of(reader, await twice(reader))
    server.command("SET", name, server.command("GET", name)[:-3] + b"???")
    await reader.ask(USER)
    return 1


async def unknown(stage: Stage) -> int:
    """An entry that lies under other stamps than its key says: nothing does that, so it is planted."""
    reader = await stage.bound()
    key = (await twice(reader)).decisions[0].key
    store = reader.cache.bindings[0].store
    store._entries[key] = replace(store._entries[key], stamps=store._entries[key].stamps[:-1])
    await reader.ask(USER)
    return 1


# -- bypasses ----------------------------------------------------------------------------------------------------------


async def disabled(stage: Stage) -> int:
    reader = await stage.bound()
    await twice(reader)
    await reader.cache.set_mode("off")
    await reader.ask(USER)
    await reader.cache.set_mode("on")
    await twice(reader)
    return 1


async def not_configured(stage: Stage) -> int:
    reader = await stage.bound(models={User: {"timeout": 60, "ops": {"get"}}})
    await reader.ask(USER)
    await reader.ask(FREE)
    await reader.ask(get(Order, 1))
    return 2


async def opted_out(stage: Stage) -> int:
    reader = await stage.bound()
    await reader.ask(get(AuditLog, 1))
    await reader.ask(entities(lambda: select(User).execution_options(sqlacache_skip=True)))
    return 2


async def locking_read(stage: Stage) -> int:
    reader = await stage.bound()
    await reader.ask(get(User, 1, with_for_update=True))
    return 1


async def raw_sql(stage: Stage) -> int:
    reader = await stage.bound()
    await reader.ask(rows(lambda: text("SELECT name FROM users")))
    return 1


async def untracked_source(stage: Stage) -> int:
    await stage.run("CREATE VIEW names AS SELECT name FROM users")
    reader = await stage.bound()
    await reader.ask(rows(lambda: select(table("names", column("name")))))
    return 1


async def nondeterministic(stage: Stage) -> int:
    reader = await stage.bound()
    await reader.ask(rows(lambda: select(User.id).order_by(func.random())))
    return 1


async def connection_state(stage: Stage) -> int:
    reader = await stage.bound()
    async with stage.database.sessions() as session:
        await session.execute(text("PRAGMA case_sensitive_like = ON"))
        await reader.ask(ALL, session)
    return 1


async def dirty_transaction(stage: Stage) -> int:
    """The writer sees what it wrote, past the cache; nobody else's reads change."""
    reader = await stage.bound()
    await twice(reader, ALL)
    async with stage.database.sessions() as session:
        (await read_past_the_cache(session, User, 1)).name = "mine"
        assert "mine" in str((await reader.ask(ALL, session)).value)
        await reader.hit(ALL)
    return 1


async def isolation(stage: Stage) -> int:
    engine = create_async_engine(stage.database.url, isolation_level="READ UNCOMMITTED")
    reader = await stage.bound(engine=engine)
    async with sessionmaker(engine, class_=AsyncSession)() as session:
        await reader.ask(USER, session)
    await engine.dispose()
    return 1


async def streaming(stage: Stage) -> int:
    reader = await stage.bound()

    async def streamed(session: AsyncSession) -> Any:
        return [row.id async for row in await session.stream(select(User.id))]

    await reader.ask(streamed)
    return 1


async def refresh(stage: Stage) -> int:
    reader = await stage.bound()

    async def refreshed(session: AsyncSession) -> Any:
        user = await session.get(User, 1)
        await session.refresh(user)
        return user

    await reader.ask(refreshed)
    return 1


class Odd(TypeDecorator[int]):
    """Binds what only its driver knows how to send."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return Sent(value)


class Sent:
    def __init__(self, value: int) -> None:
        self.value = value

    def __conform__(self, protocol: Any) -> int:
        return self.value


async def unkeyable_params(stage: Stage) -> int:
    reader = await stage.bound()
    odd = func.coalesce(User.id, User.id, type_=Odd())
    answer = await reader.ask(rows(lambda: select(User.name).where(odd == 1)))
    assert "ann" in str(answer.value) and "bob" not in str(answer.value)
    return 1


async def rewritten(stage: Stage) -> int:
    """A listener after the cache's own adds a criterion to what would have been a hit."""
    reader = await stage.bound()
    await twice(reader, ALL)

    def only_the_first(state: Any) -> None:
        state.statement = state.statement.where(User.id == 1)

    async with stage.database.sessions() as session:
        event.listen(session.sync_session, "do_orm_execute", only_the_first)
        assert "bob" not in str((await reader.ask(ALL, session)).value)
    return 1


async def writer_under_way(stage: Stage) -> int:
    """1. A writer has marked. 2. A read comes whose shape no writer knows yet: it may not begin now."""
    reader = await stage.bound()
    async with before_commit(stage.database) as gate:
        writer = await gate.reached_by(stage.write(plan="new"))
        await reader.ask(FREE)
        gate.open()
        await writer
    return 1


async def protocol_mismatch(stage: Stage) -> int:
    reader, server = await stage.on_redis()
    server.command("SET", reader.cache.bindings[0].store.layout.fence("*"), "9")
    await reader.ask(USER)
    return 1


async def backend_unavailable(stage: Stage) -> int:
    proxy = stage.proxy()
    reader, _ = await stage.on_redis(proxy.url)
    await twice(reader)
    proxy.cut()
    for _ in range(3):
        await reader.current(USER)
    return 3


# -- all of them -------------------------------------------------------------------------------------------------------

MISSES: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (
        *(absent, expired, row_invalidated, condition_invalidated, table_invalidated, manual_invalidated),
        *(write_in_flight, generation_changed, capacity_evicted, backend_evicted, corrupt, unknown),
    )
}
BYPASSES: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (
        *(disabled, not_configured, opted_out, locking_read, raw_sql, untracked_source, nondeterministic),
        *(connection_state, dirty_transaction, isolation, streaming, refresh, unkeyable_params, rewritten),
        *(writer_under_way, protocol_mismatch, backend_unavailable),
    )
}
