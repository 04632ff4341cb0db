"""A Redis, a cache that fills it as an application would, and the command line as a function."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from sqlacache import Decision, Observer, SyncCacheManager, configure_sync
from sqlacache.cli import main
from tests.support.models import Base, Order, Stock, Team, User
from tests.support.programs import started
from tests.support.redis_server import RedisServer, redis_server


@pytest.fixture(scope="session")
def server() -> Iterator[RedisServer]:
    """A server that the tests of this folder share: use the keys under ``prefix``."""
    with ExitStack() as stack:
        yield started(stack, redis_server(maxmemory="256mb", maxmemory_policy="allkeys-lru"))


@pytest.fixture
def make_server() -> Iterator[Callable[..., RedisServer]]:
    """Start a server of this test's own."""
    with ExitStack() as stack:
        yield lambda **options: started(stack, redis_server(**options))


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid4().hex[:12]}"


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def problem(self) -> str:
        """The one line on standard error of a command that could not be carried out."""
        assert self.status == 2, self
        assert self.err.startswith("sqlacache: ") and self.err.count("\n") == 1 and self.err.endswith("\n"), (
            self
        )
        assert "Traceback" not in self.out + self.err
        return self.err

    @property
    def well(self) -> str:
        """The output of one that was."""
        assert self.status == 0, self
        return self.out


Command = Callable[..., Ended]


@pytest.fixture
def cli(
    request: pytest.FixtureRequest,
    prefix: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    """Carry out a command in this process, on the server that is shared unless told otherwise."""
    if "SQLACACHE_BACKEND" in os.environ:  # that of the tests' caches, with SQLACACHE_TEST_BACKEND=redis
        monkeypatch.delenv("SQLACACHE_BACKEND")
    monkeypatch.setenv("SQLACACHE_PREFIX", prefix)

    def run(*arguments: str, url: str | None = "") -> Ended:
        if url == "":
            url = request.getfixturevalue("server").url
        with monkeypatch.context() as patch:
            if url is not None:
                patch.setenv("SQLACACHE_BACKEND", url)
            capsys.readouterr()
            status = main(arguments)
        return Ended(status, *capsys.readouterr())

    return run


class Shop(Observer):
    """A database, the cache of an application on it, and what the cache decided."""

    def __init__(self, engine: Any, cache: SyncCacheManager) -> None:
        self.engine = engine
        self.cache = cache
        self.decisions: list[Decision] = []
        cache.add_observer(self)

    def decided(self, decision: Decision, scope: Any) -> None:
        self.decisions.append(decision)

    def session(self) -> Session:
        return Session(self.engine, future=True)

    def get(self, model: Any, key: Any) -> Decision:
        """Read a row in a session of its own, and say how it was answered."""
        with self.session() as session:
            session.get(model, key)
        return self.decisions[-1]

    def ask(self, statement: Any) -> Decision:
        with self.session() as session:
            session.execute(statement).all()
        return self.decisions[-1]

    def write(self, statement: Any) -> None:
        with self.session() as session:
            session.execute(statement, execution_options={"synchronize_session": False})
            session.commit()

    def rename(self, key: int, name: str) -> None:
        """Write a row as the ORM does."""
        with self.session() as session:
            session.get(User, key).name = name
            session.commit()
        self.decisions.pop()


@pytest.fixture
def open_shop(tmp_path: Path, prefix: str, cli: Command) -> Iterator[Callable[..., Shop]]:
    """Open a shop with ``open_shop(backend, database="shop", **options)``."""
    with ExitStack() as stack:

        def make(backend: Any, database: str = "shop", **options: Any) -> Shop:
            engine = create_engine(f"sqlite:///{tmp_path}/{uuid4().hex}.sqlite", future=True)
            stack.callback(engine.dispose)
            Base.metadata.create_all(engine)
            with Session(engine) as session:
                session.add(Team(id=1, name="red"))
                session.add_all(User(id=key, name=f"user {key}", email=f"{key}@x") for key in (1, 2, 3))
                session.flush()
                session.add(Order(id=1, user_id=1, created=datetime(2024, 2, 29)))
                session.add_all(
                    [Stock(warehouse="north", sku=7, quantity=3), Stock(warehouse="a:b,c", sku=7, quantity=1)]
                )
                session.commit()
            cache = configure_sync(
                **{
                    "backend": backend,
                    "models": {"*": {"timeout": 3600}},
                    "prefix": prefix,
                    "telemetry": None,
                    **options,
                }
            )
            cache.bind(engine, database=database)
            stack.callback(cache.disconnect)
            return Shop(engine, cache)

        yield make


@pytest.fixture
def shop(open_shop: Callable[..., Shop], server: RedisServer) -> Shop:
    """An application's cache on the server."""
    return open_shop({"url": server.url, "timeout": 5.0})
