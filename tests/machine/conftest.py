"""Databases with the machine's schema, and figures that every run prints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.databases import DATABASES, with_driver


@pytest.fixture
def show(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Print a line at the end of the test run, also when every test passed."""
    return lambda line: record_property("figure", line)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One event loop for all examples of a test, since the drivers' connections belong to theirs."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture(params=DATABASES)
def empty_database(
    request: pytest.FixtureRequest, tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> Iterator[str]:
    """URL of an empty database, on every dialect."""
    dialect, _, driver = request.param.partition("+")
    if dialect == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'machine.db'}"
        return
    empty = request.getfixturevalue(f"{dialect}_databases").empty()
    yield with_driver(loop.run_until_complete(empty.__aenter__()), driver)
    loop.run_until_complete(empty.__aexit__(None, None, None))
