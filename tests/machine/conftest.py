"""Databases with the machine's schema, and figures that every run prints."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.engine import make_url

_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Any:
    """Print a line at the end of the test run, also when every test passed."""
    return request.config.stash.setdefault(_FIGURES, []).append


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    lines = config.stash.get(_FIGURES, [])
    if lines:
        terminalreporter.section("exactness")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One event loop for all examples of a test, since the drivers' connections belong to theirs."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def empty_database(
    request: pytest.FixtureRequest, tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> Iterator[str]:
    """URL of an empty database, on every dialect."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'machine.db'}"
        return
    server = make_url(request.getfixturevalue("postgres_url"))
    name = f"sqlacache_machine_{uuid4().hex[:12]}"
    loop.run_until_complete(_administer(server, f"CREATE DATABASE {name}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    loop.run_until_complete(_administer(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _administer(server: Any, statement: str) -> None:
    connection = await asyncpg.connect(**server.get_dialect()().create_connect_args(server)[1])
    await connection.execute(statement)
    await connection.close()
