"""Asynchronous sessions: the short way needs no greenlet, and a session that used no connection ends at once."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy
from sqlalchemy import event, inspect
from sqlalchemy.exc import MissingGreenlet, StatementError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import AsyncAdaptedQueuePool

from sqlacache import AsyncDirectSession, DirectSession, configure
from sqlacache.direct import ways

from .models import Config, Person, Pet

pytestmark = pytest.mark.asyncio


class Pair:
    """An engine behind a cache, and its sessions."""

    def __init__(self, url: str) -> None:
        self.engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool)
        self.sessions: Any = sessionmaker(bind=self.engine, class_=AsyncDirectSession)  # type: ignore[call-overload]  # typed for sync engines

    async def warm(self, entity: Any, ident: Any) -> None:
        for _ in range(2):
            async with self.sessions() as session:
                await session.get(entity, ident)
        ways.clear()


@pytest.fixture
def url(tmp_path: Path, seeded: Path) -> str:
    path = tmp_path / "fresh.db"
    path.write_bytes(seeded.read_bytes())
    return f"sqlite+aiosqlite:///{path}"


@pytest_asyncio.fixture
async def pair(url: str) -> AsyncIterator[Pair]:
    made = Pair(url)
    cache = configure(models={"*": {"timeout": 3600}}, telemetry=None, name="direct")
    await cache.bind(made.engine)
    yield made
    await cache.disconnect()
    await made.engine.dispose()


async def tasks_made_by(coroutine: Any) -> int:
    """How many tasks a coroutine has made."""
    loop, made = asyncio.get_running_loop(), 0

    def factory(loop: Any, coroutine: Any, **named: Any) -> Any:
        nonlocal made
        made += 1
        return asyncio.Task(coroutine, loop=loop, **named)

    loop.set_task_factory(factory)
    try:
        await coroutine
    finally:
        loop.set_task_factory(None)
    return made


async def test_a_hit_is_the_object_that_a_plain_session_loads(pair: Pair) -> None:
    await pair.warm(Person, 1)
    async with pair.sessions() as session, AsyncSession(pair.engine) as plain:
        made, loaded = await session.get(Person, 1), await plain.get(Person, 1)
        assert dict(ways) == {"direct": 1}
        assert {**vars(made), "_sa_instance_state": 0} == {**vars(loaded), "_sa_instance_state": 0}
        assert session.in_transaction()
        assert inspect(made).async_session is session
        made.name = "Bea"
        await session.commit()
    async with pair.sessions() as session:
        assert (await session.get(Person, 1)).name == "Bea"


async def test_a_hit_and_the_end_of_its_session_make_no_task(pair: Pair) -> None:
    await pair.warm(Person, 1)

    async def hit(sessions: Any) -> Any:
        async with sessions() as session:
            return await session.get(Person, 1)

    assert await tasks_made_by(hit(pair.sessions)) == 0
    assert dict(ways) == {"direct": 1}
    plain: Any = sessionmaker(bind=pair.engine, class_=AsyncSession)  # type: ignore[call-overload]  # typed for sync engines
    assert await tasks_made_by(hit(plain)) > 0, "else nothing is shown"


async def test_after_the_end_of_its_session_an_object_is_detached(pair: Pair) -> None:
    await pair.warm(Person, 1)
    for close in (False, True):
        async with pair.sessions() as session:
            found = await session.get(Person, 1)
            if close:
                await session.close()
        assert inspect(found).detached
        assert not session.in_transaction()
        assert not list(session.sync_session.identity_map)


async def test_a_connection_that_was_used_is_given_back(pair: Pair) -> None:
    await pair.warm(Person, 1)
    pool: Any = pair.engine.pool
    async with pair.sessions() as session:
        await session.get(Pet, 1)
        await session.get(Person, 1)
        assert pool.checkedout() == 1
    assert pool.checkedout() == 0
    async with pair.sessions() as session:
        await session.connection()
        await session.begin_nested()  # which has used none of its own
        assert pool.checkedout() == 1
        await session.close()
    assert pool.checkedout() == 0


@pytest.mark.parametrize("name", ["after_transaction_end", "persistent_to_detached"])
async def test_who_listens_to_the_end_of_a_session_may_still_wait_in_it(pair: Pair, name: str) -> None:
    await pair.warm(Person, 1)
    heard = []

    def wait(*given: Any) -> None:
        sqlalchemy.util.await_only(asyncio.sleep(0))
        heard.append(given)

    for how in ("block", "call"):
        async with pair.sessions() as session:
            event.listen(session.sync_session, name, wait)
            heard.append(await session.get(Person, 1))
            if how == "call":
                await session.close()
    assert len(heard) >= 4


async def test_an_error_in_the_block_is_raised_as_ever(pair: Pair) -> None:
    await pair.warm(Person, 1)
    session = pair.sessions()

    async def fail() -> None:
        async with session:
            await session.get(Person, 1)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await fail()
    assert not session.in_transaction()


async def test_a_class_with_a_close_of_its_own_is_asked(pair: Pair) -> None:
    closed = []

    class Own(AsyncDirectSession):
        async def close(self) -> None:
            closed.append(self)
            await super().close()

    class Ordinary(DirectSession):
        def close(self) -> None:
            closed.append(self)
            super().close()

    async with Own(pair.engine) as one:
        pass
    async with AsyncDirectSession(pair.engine, sync_session_class=Ordinary) as other:
        pass
    assert closed == [one, other.sync_session]


async def test_a_get_through_the_ordinary_session_is_direct_too(pair: Pair) -> None:
    await pair.warm(Person, 1)
    async with pair.sessions() as session:
        found = await session.run_sync(lambda ordinary: ordinary.get(Person, 1))
        assert found.name == "Ann"
        assert dict(ways) == {"direct": 1}


async def test_outside_of_a_greenlet_a_hit_fails_as_a_miss_does(pair: Pair) -> None:
    await pair.warm(Person, 1)
    session = pair.sessions()
    assert session.why_not_direct(Person, 1) is None
    assert session.sync_session.why_not_direct(Person, 1).startswith("bind: ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the driver's coroutine is never awaited
        with pytest.raises((MissingGreenlet, StatementError), match="greenlet_spawn has not been called"):
            session.sync_session.get(Person, 1)
        gc.collect()
    assert dict(ways) == {"bind": 1}
    await session.close()


async def test_a_scoped_session_gets_directly(pair: Pair) -> None:
    await pair.warm(Person, 1)
    sessions = async_scoped_session(pair.sessions, scopefunc=asyncio.current_task)
    assert (await sessions.get(Person, 1)).name == "Ann"
    assert dict(ways) == {"direct": 1}
    await sessions.remove()


async def test_what_takes_the_long_way_takes_it_once(pair: Pair) -> None:
    await pair.warm(Person, 1)
    async with pair.sessions() as session:
        await session.get(Person, 1, populate_existing=True)
        await session.get(Config, 1)
        await session.get(Person, "1")
        assert dict(ways) == {"arguments": 1, "new": 1, "key": 1}


async def test_sessions_with_a_get_of_their_own_are_asked(pair: Pair) -> None:
    await pair.warm(Person, 1)
    asked = []

    class Behind(AsyncSession):
        async def get(self, *arguments: Any, **named: Any) -> Any:
            asked.append("behind")
            return await super().get(*arguments, **named)

    class Mixed(AsyncDirectSession, Behind):
        pass

    class Ordinary(DirectSession):
        def get(self, *arguments: Any, **named: Any) -> Any:
            asked.append("ordinary")
            return super().get(*arguments, **named)

    async with Mixed(pair.engine) as session:
        assert session.why_not_direct(Person, 1).startswith("session: ")
        await session.get(Person, 1)
    async with AsyncDirectSession(pair.engine, sync_session_class=Ordinary) as session:
        await session.get(Person, 1)
    async with AsyncDirectSession(pair.engine, sync_session_class=Session) as session:
        assert (await session.get(Person, 1)).name == "Ann"
    assert asked == ["behind", "ordinary"]


async def test_a_get_that_must_not_find_nothing(pair: Pair) -> None:
    await pair.warm(Person, 1)
    async with pair.sessions() as session:
        if not hasattr(session, "get_one"):
            pytest.skip("since 2.0.22")
        assert (await session.get_one(Person, 1)).name == "Ann"
        assert dict(ways) == {"direct": 1}
