"""Scenes that bring about each outcome of a fill and each cause of an eviction.

Each returns how often it must have been counted; of evictions, at least.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from tests.support.gates import after_select
from tests.support.models import Order, User
from tests.support.processes import eventually
from tests.support.reads import get
from tests.support.writes import new_user, read_past_the_cache
from tests.telemetry.records import Scrape
from tests.telemetry.stage import ALL, FREE, ROOM, USER, Base, Book, Scene, Shelf, Stage, twice

# -- fills -------------------------------------------------------------------------------------------------------------


async def stored(stage: Stage) -> int:
    reader = await stage.bound()
    for read in (USER, ALL, FREE):
        await twice(reader, read)
    return 3


async def fenced(stage: Stage) -> int:
    """1. A reader has the old row. 2. A writer commits. 3. The reader may not store it."""
    reader = await stage.bound()
    with after_select(stage.database) as gate:
        reading = await gate.reached_by(reader.ask(USER))
        async with stage.database.transaction() as session:
            await session.execute(update(User).where(User.id == 1).values(name="new"))
        gate.open()
        await reading
    assert (await reader.current(USER)).misses
    return 1


async def too_large(stage: Stage) -> int:
    reader = await stage.bound(max_entry_bytes=50)
    await reader.ask(ALL)
    await reader.ask(ALL)
    return 2


async def unserializable(stage: Stage) -> int:
    """The driver hands out objects of the application's own."""
    reader = await stage.bound()

    async def odd(session: AsyncSession) -> Any:
        connection = await (await session.connection()).get_raw_connection()
        driver = connection.driver_connection
        await driver._execute(setattr, driver._conn, "row_factory", lambda cursor, row: (object(), *row[1:]))
        return len((await session.execute(select(User.id, User.name))).all())

    await reader.ask(odd)
    return 1


async def not_selected(stage: Stage) -> int:
    """The cache is switched off while a miss loads."""
    reader = await stage.bound()
    with after_select(stage.database) as gate:
        reading = await gate.reached_by(reader.ask(USER))
        await reader.cache.set_mode("off")
        gate.open()
        await reading
    return 1


async def backend_error(stage: Stage) -> int:
    """The backend goes while a miss loads."""
    proxy = stage.proxy()
    reader, _ = await stage.on_redis(proxy.url)
    with after_select(stage.database) as gate:
        reading = await gate.reached_by(reader.ask(USER))
        proxy.cut()
        gate.open()
        await reading
    return 1


# -- evictions: how many stamps there are is the engine's to know; that there are some, and of which cause, is not -----


async def row_insert(stage: Stage) -> int:
    await twice(await stage.bound(), FREE)
    async with stage.database.transaction() as session:
        session.add(new_user(plan="free"))
    return 1


async def row_update(stage: Stage) -> int:
    await twice(await stage.bound())
    await stage.write(name="new")
    return 1


async def row_delete(stage: Stage) -> int:
    await twice(await stage.bound(), get(Order, 5))
    async with stage.database.transaction() as session:
        await session.delete(await read_past_the_cache(session, Order, 5))
    return 1


async def bulk_write(stage: Stage) -> int:
    await twice(await stage.bound(), FREE)
    await stage.execute(update(User).values(plan="pro"))
    return 1


async def raw_write(stage: Stage) -> int:
    await twice(await stage.bound())
    await stage.execute(text("UPDATE OR IGNORE users SET name = upper(name)"))
    return 1


async def cascade(stage: Stage) -> int:
    async with stage.database.truth_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(Shelf.__table__.insert(), {"id": 1})
        await connection.execute(Book.__table__.insert(), {"id": 1, "shelf_id": 1})
    await twice(await stage.bound(), get(Book, 1))
    await stage.execute(delete(Shelf).where(Shelf.id == 1))
    return 1


async def trigger(stage: Stage) -> int:
    await stage.run(
        "CREATE TRIGGER copies AFTER UPDATE ON users BEGIN UPDATE orders SET status = 'paid'; END"
    )
    await twice(await stage.bound(writes_also={"users": ["orders"]}), get(Order, 1))
    await stage.write(name="new")
    return 1


async def touched(stage: Stage) -> int:
    reader = await stage.bound()
    await twice(reader)
    await reader.cache.touched("users", columns={"name"})
    return 1


async def explicit(stage: Stage) -> int:
    reader = await stage.bound()
    await twice(reader)
    await reader.cache.invalidate(User, pks=[1])
    return 1


async def flush(stage: Stage) -> int:
    reader = await stage.bound()
    await twice(reader)
    await reader.cache.invalidate_all()
    return 1


async def size(stage: Stage) -> int:
    reader = await stage.bound({"url": "mem://", "max_bytes": ROOM})
    for key in (1, 2, 3, 4, 5):
        await reader.ask(get(User, key))
    return 1


async def resync(stage: Stage) -> int:
    """Announcements may have been missed: what was served without asking is dropped."""
    proxy = stage.proxy()
    reader, _ = await stage.on_redis(proxy.url, local="pushed")

    async def is_local() -> bool:
        return [one.tier for one in (await reader.ask(USER)).decisions] == ["local"]

    await eventually(is_local, "the pushed tier to serve")
    proxy.drop()
    await eventually(lambda: dropped(stage) > 0, "the tier to be emptied")
    return 1


def dropped(stage: Stage) -> float:
    return Scrape(stage.registry).total("sqlacache_evictions_total", cause="resync")


# -- all of them -------------------------------------------------------------------------------------------------------

FILLS: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (stored, fenced, too_large, unserializable, not_selected, backend_error)
}
EVICTIONS: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (
        *(
            row_insert,
            row_update,
            row_delete,
            bulk_write,
            raw_write,
            cascade,
            trigger,
            touched,
            explicit,
            flush,
        ),
        *(size, resync),
    )
}
