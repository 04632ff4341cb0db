"""With Redis, the short way asks nobody in the pushed tier while it is live, and else only whether the entry holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from sqlacache import AsyncDirectSession, DirectSession, configure, configure_sync
from sqlacache.direct import ways
from sqlacache.errors import TransportError
from sqlacache.events import binding_of
from sqlacache.read.path import FAILED
from tests.support.processes import eventually
from tests.support.programs import started
from tests.support.redis_server import redis_server

from .models import Person

pytestmark = pytest.mark.integration


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
        return self.why() is None and (self.store.pushed is None or self.store.pushed.is_live)


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
        asked = lookups(server)
        assert await ours.name() == "Ann"
        assert lookups(server) == asked
        ours.store.pushed._live_until = 0.0  # no proof has come for longer than the bound
        assert await ours.name() == "Ann"
        assert lookups(server) == asked + 1
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


async def test_without_a_local_tier_there_is_nothing_to_make_an_object_of(
    url: str, server: Any, prefix: str
) -> None:
    async with Process(url, server, prefix, None) as ours:
        ways.clear()
        for _ in range(3):
            assert await ours.name() == "Ann"
        assert ours.why().startswith("miss: ")
        assert not {"direct", "confirmed"} & set(ways)


# -- validated: the server is asked whether the entry holds --------------------------------------------------------


def lookups(server: Any) -> int:
    """How many lookups the server was asked."""
    with server.client() as client:
        stats = client.info("commandstats")
    return int(stats.get("cmdstat_mget", {}).get("calls", 0))


async def learned(one: Process) -> None:
    """Let the next get of the row take the short way."""
    for _ in range(2):
        await one.name()
    assert one.why() is None


async def test_a_validated_entry_is_asked_about_once_and_made_directly(
    url: str, server: Any, prefix: str
) -> None:
    async with Process(url, server, prefix, "validated") as ours:
        await learned(ours)
        ways.clear()
        asked = lookups(server)
        with ours.cache.record() as seen:
            assert await ours.name() == "Ann"
        assert lookups(server) == asked + 1
        assert dict(ways) == {"confirmed": 1}
        assert [(one.decision, one.tier) for one in seen.decisions] == [("hit", "local")]


async def test_the_get_after_another_process_has_committed_sees_it(
    url: str, server: Any, prefix: str
) -> None:
    async with (
        Process(url, server, prefix, "validated") as ours,
        Process(url, server, prefix, None) as theirs,
    ):
        await learned(ours)
        for name in ("Bea", "Cleo"):
            await theirs.rename(name)
            ways.clear()
            with ours.cache.record() as seen:
                assert await ours.name() == name
            assert dict(ways) == {"miss": 1}
            assert [(one.decision, one.reason) for one in seen.decisions] == [("miss", "row_invalidated")]
            await learned(ours)


async def test_the_get_after_everything_was_invalidated_sees_what_nobody_announced(
    url: str, server: Any, prefix: str
) -> None:
    async with Process(url, server, prefix, "validated") as ours:
        await learned(ours)
        with server.client() as client:
            client.flushall()  # a generation that is gone voids everything
        ways.clear()
        assert await ours.name() == "Ann"
        assert dict(ways) == {"miss": 1}


async def test_a_fleet_that_is_switched_off_is_not_answered_by_validated_entries(
    url: str, server: Any, prefix: str
) -> None:
    async with (
        Process(url, server, prefix, "validated") as ours,
        Process(url, server, prefix, None) as theirs,
    ):
        await learned(ours)
        await theirs.cache.set_mode("off", fleet=True)
        with ours.cache.record() as seen:
            assert await ours.name() == "Ann"
        assert [(one.decision, one.reason) for one in seen.decisions] == [("bypass", "disabled")]


async def test_a_server_that_is_gone_is_asked_once_and_the_database_answers(url: str, prefix: str) -> None:
    with ExitStack() as stack:
        server = started(stack, redis_server())
        async with Process(url, server, prefix, "validated") as ours:
            await learned(ours)
            failures: list[Any] = []
            ours.store.transport.breaker.on_failure = lambda name, error: failures.append(name)
            server.kill()
            ways.clear()
            session = ours.sessions()
            with ours.cache.record() as seen:
                async with session:
                    assert (await session.get(Person, 1)).name == "Ann"
                    assert FAILED not in vars(session.sync_session)
            assert dict(ways) == {"bypass": 1}
            assert [(one.decision, one.reason) for one in seen.decisions] == [
                ("bypass", "backend_unavailable")
            ]
            assert failures == ["MGET"]
            server.start()


async def test_a_failure_says_nothing_of_the_next_read(
    url: str, server: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Process(url, server, prefix, "validated") as ours:
        await learned(ours)

        async def fails(*_: Any) -> Any:
            raise TransportError("MGET: gone")

        monkeypatch.setattr(ours.store, "confirm", fails)
        with ours.cache.record() as seen:
            async with ours.sessions() as session:
                assert (await session.get(Person, 1)).name == "Ann"
                assert (await session.get(Person, 2)).id == 2
        assert [one.reason for one in seen.decisions] == ["backend_unavailable", "absent"]


async def test_a_failure_is_forgotten_with_a_get_that_reads_nothing(
    url: str, server: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Process(url, server, prefix, "validated") as ours:
        await learned(ours)

        async def fails(*_: Any) -> Any:
            raise TransportError("MGET: gone")

        monkeypatch.setattr(ours.store, "confirm", fails)

        def refused(*_: Any, **__: Any) -> Any:
            raise RuntimeError("refused before it reads")

        async with ours.sessions() as session:
            with monkeypatch.context() as patched:
                patched.setattr(Session, "get", refused)
                with pytest.raises(RuntimeError, match="refused"):
                    await session.get(Person, 1)
            assert FAILED not in vars(session.sync_session)


async def test_a_cancelled_get_leaves_the_session_as_it_was(url: str, server: Any, prefix: str) -> None:
    async with Process(url, server, prefix, "validated") as ours:
        await learned(ours)
        async with ours.sessions() as session:
            with server.paused():
                getting = asyncio.create_task(session.get(Person, 1))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                getting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await getting
            assert not session.in_transaction()
            assert (await session.get(Person, 1)).name == "Ann"


async def test_ones_own_write_and_its_commit_are_seen_by_validated_gets(
    url: str, server: Any, prefix: str
) -> None:
    async with Process(url, server, prefix, "validated") as ours:
        await learned(ours)
        async with ours.sessions() as session:
            (await session.get(Person, 1)).name = "Bea"
            await session.flush()
            session.expunge_all()
            assert (await session.get(Person, 1)).name == "Bea"
            assert await ours.name() == "Ann"
            await session.commit()
        assert await ours.name() == "Bea"


def test_ordinary_sessions_ask_whether_a_validated_entry_holds(
    tmp_path: Path, seeded: Path, server: Any, prefix: str
) -> None:
    path = tmp_path / "sync.db"
    path.write_bytes(seeded.read_bytes())
    engine = create_engine(f"sqlite:///{path}", future=True)
    cache = configure_sync(
        backend={"url": server.url, "timeout": 5},
        models={"*": {"timeout": 3600}},
        prefix=prefix,
        telemetry=None,
        name=f"direct-{uuid4().hex[:6]}",
    )
    sessions: Any = sessionmaker(bind=engine, class_=DirectSession, future=True)

    def name() -> Any:
        with sessions() as session:
            return session.get(Person, 1).name

    with cache.bound(engine):
        for _ in range(2):
            name()
        ways.clear()
        asked = lookups(server)
        assert name() == "Ann"
        assert dict(ways) == {"confirmed": 1}
        assert lookups(server) == asked + 1
        with sessions() as session:
            session.get(Person, 1).name = "Bea"
            session.commit()
        assert name() == "Bea"
    engine.dispose()
