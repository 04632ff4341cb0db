"""A Redis, an application whose data is private, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from sqlacache import SyncCacheManager, configure_sync
from tests.support.programs import started
from tests.support.redis_server import RedisServer, redis_server

from .people import Base, Person, Seat, Ticket


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests choose their backends and keys themselves."""
    for name in ("SQLACACHE_BACKEND", "SQLACACHE_MODE", "SQLACACHE_DIGEST_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def server() -> Iterator[RedisServer]:
    """A server that the tests of this folder share: use the keys under ``prefix``."""
    with ExitStack() as stack:
        yield started(stack, redis_server())


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid4().hex[:12]}"


class Application:
    """One process's engine and cache, on the database and the backend of others."""

    def __init__(self, url: str, **options: Any) -> None:
        self.engine = create_engine(url, future=True)
        defaults: dict[str, Any] = {"models": {"*": {"timeout": 600}}, "telemetry": None}
        self.cache: SyncCacheManager = configure_sync(**{**defaults, **options})
        self.cache.bind(self.engine, database="people")

    def close(self) -> None:
        self.cache.disconnect()
        self.engine.dispose()

    def session(self) -> Session:
        return Session(self.engine, future=True)

    def ask(self, statement: Any) -> list[Any]:
        with self.session() as session:
            return list(session.execute(statement).all())

    def get(self, model: Any, key: Any) -> Any:
        with self.session() as session:
            return session.get(model, key)

    def decided(self, read: Callable[[], Any]) -> tuple[str, str | None]:
        """Return how the last read inside was answered."""
        with self.cache.record() as seen:
            read()
        last = seen.decisions[-1]
        return last.decision, last.reason


@pytest.fixture
def people(tmp_path: Path) -> str:
    """URL of a database."""
    url = f"sqlite:///{tmp_path}/people.sqlite"
    engine = create_engine(url, future=True)
    Base.metadata.create_all(engine)
    with Session(engine, future=True) as session:
        for name in ("ann", "bob"):
            session.add(Person(email=f"{name}@example.com", nick=name, age=40, active=True, secret="s"))
        session.flush()
        session.add(Seat(hall=1, holder="ann@example.com", row=7))
        session.add(Ticket(id=1, owner="ann@example.com", code=1234))
        session.add(Ticket(id=2, owner="bob@example.com", code=9))
        session.commit()
    engine.dispose()
    return url


@pytest.fixture
def start(people: str, prefix: str) -> Iterator[Callable[..., Application]]:
    """Start an application with ``start(**options)`` of ``configure_sync()``, on ``mem://`` unless told otherwise."""
    with ExitStack() as stack:

        def make(**options: Any) -> Application:
            application = Application(people, **{"prefix": prefix, **options})
            stack.callback(application.close)
            return application

        yield make


@pytest.fixture
def on_redis(start: Callable[..., Application], server: RedisServer) -> Callable[..., Application]:
    """Start an application on the shared server."""
    return lambda **options: start(**{"backend": {"url": server.url, "timeout": 5.0}, **options})


@pytest.fixture
def cli(
    server: RedisServer,
    prefix: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[int, str]]:
    """Carry out a command in this process; return its status and all that it wrote."""
    from sqlacache.cli import main

    monkeypatch.setenv("SQLACACHE_PREFIX", prefix)

    def run(*arguments: str, url: str = server.url, **environment: str) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            patch.setenv("SQLACACHE_BACKEND", url)
            for name, value in environment.items():
                patch.setenv(name, value)
            capsys.readouterr()
            status = main(arguments)
        return status, "".join(capsys.readouterr())

    return run
