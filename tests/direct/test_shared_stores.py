"""With Redis, the short way is there only where hits ask nobody: in the pushed tier, while it is live."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import sessionmaker

from sqlacache import AsyncDirectSession, configure
from sqlacache.direct import ways
from sqlacache.events import binding_of
from tests.support.processes import eventually
from tests.support.programs import started
from tests.support.redis_server import redis_server

from .models import Person

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with ExitStack() as stack:
        yield started(stack, redis_server())


class Process:
    """A cache of its own, as another process has it."""

    def __init__(self, url: str, server: Any, prefix: str, local: str | None) -> None:
        self.engine = create_async_engine(url)
        self.sessions: Any = sessionmaker(bind=self.engine, class_=AsyncDirectSession)  # type: ignore[call-overload]  # typed for sync engines
        self.cache = configure(
            backend={"url": server.url, "bound": 3.0, "timeout": 5},
            local=local,
            models={"*": {"timeout": 3600}},
            prefix=prefix,
            telemetry=None,
            name=f"direct-{uuid4().hex[:6]}",
        )

    async def __aenter__(self) -> Process:
        await self.cache.bind(self.engine, database="main")
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.cache.disconnect()
        await self.engine.dispose()

    @property
    def store(self) -> Any:
        binding: Any = binding_of(self.engine.sync_engine.dialect)
        return binding.store

    async def name(self) -> Any:
        async with self.sessions() as session:
            return (await session.get(Person, 1)).name

    def why(self) -> Any:
        return self.sessions().why_not_direct(Person, 1)

    async def rename(self, name: str) -> None:
        async with self.sessions() as session:
            (await session.get(Person, 1)).name = name
            await session.commit()

    async def is_direct(self) -> bool:
        await self.name()
        return self.why() is None


@pytest.fixture
def url(tmp_path: Path, seeded: Path) -> str:
    path = tmp_path / "fresh.db"
    path.write_bytes(seeded.read_bytes())
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid4().hex[:12]}"


async def pushed(one: Process) -> None:
    await eventually(one.is_direct, "the pushed tier to answer directly")


async def test_the_pushed_tier_answers_directly_until_another_process_commits(
    url: str, server: Any, prefix: str
) -> None:
    async with (
        Process(url, server, prefix, "pushed") as ours,
        Process(url, server, prefix, "pushed") as theirs,
    ):
        await pushed(ours)
        ways.clear()
        with ours.cache.record() as seen:
            assert await ours.name() == "Ann"
        assert dict(ways) == {"direct": 1}
        assert [one.tier for one in seen.decisions] == ["local"]
        await theirs.rename("Bea")

        async def is_seen() -> bool:
            return await ours.name() == "Bea"

        await eventually(is_seen, "the announcement")
        await pushed(ours)
        assert await ours.name() == "Bea"


async def test_ones_own_commit_is_seen_at_once(url: str, server: Any, prefix: str) -> None:
    async with Process(url, server, prefix, "pushed") as ours:
        await pushed(ours)
        await ours.rename("Bea")
        assert ours.why() is not None
        assert await ours.name() == "Bea"


async def test_a_tier_that_may_have_missed_something_answers_nothing(
    url: str, server: Any, prefix: str
) -> None:
    async with Process(url, server, prefix, "pushed") as ours:
        await pushed(ours)
        ours.store.pushed._live_until = 0.0  # no proof has come for longer than the bound
        assert ours.why().startswith("miss: ")
        await pushed(ours)
        ours.store.lost("a connection was lost")
        assert ours.why().startswith("miss: ")


async def test_a_fleet_that_is_switched_off_is_not_answered(url: str, server: Any, prefix: str) -> None:
    async with Process(url, server, prefix, "pushed") as ours, Process(url, server, prefix, None) as theirs:
        await pushed(ours)
        await theirs.cache.set_mode("off", fleet=True)

        async def is_off() -> bool:
            await asyncio.sleep(0)
            return ours.why() is not None

        await eventually(is_off, "the mode")
        assert await ours.name() == "Ann"
        assert ours.why() is not None


@pytest.mark.parametrize("local", ["validated", None])
async def test_where_a_hit_asks_the_server_it_goes_the_long_way(
    url: str, server: Any, prefix: str, local: str | None
) -> None:
    async with Process(url, server, prefix, local) as ours:
        ways.clear()
        for _ in range(3):
            assert await ours.name() == "Ann"
        assert ours.why().startswith("miss: ")
        assert "direct" not in ways
