"""Fixtures of the tests of pages and middleware."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sqlacache import configure

from .shelf import Shelf, shelf


@pytest_asyncio.fixture
async def books(tmp_path: Path) -> AsyncIterator[Shelf]:
    """A cached database of books."""
    async with shelf(tmp_path) as made:
        yield made


@pytest.fixture
def unbound() -> Any:
    """A cache that is bound to nothing."""
    return configure(backend="mem://", models={"*": {}}, prefix="shelf", telemetry=None)


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Any:
    """The records that tell of requests, as they come."""
    caplog.set_level(logging.INFO, "sqlacache.requests")

    def told() -> list[dict[str, Any]]:
        return [vars(each) for each in caplog.records if each.name == "sqlacache.requests"]

    return told
