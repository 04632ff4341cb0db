"""Fixtures of the explorer: its waiting, the caches that it uses, and a server of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.explorer.bank import close_banks
from tests.explorer.on_redis import on_the_clock_of
from tests.explorer.server import Server
from tests.explorer.world import exploring
from tests.support.programs import started
from tests.support.redis_server import redis_server


@pytest.fixture(scope="module")
def explorer() -> Iterator[None]:
    """What actors wait for is the scheduler's to give."""
    with exploring():
        yield
    close_banks()


@pytest.fixture(scope="module")
def server(explorer: None) -> Iterator[Server]:
    """A server that holds nothing else."""
    with ExitStack() as stack:
        server = started(stack, redis_server())
        client = stack.enter_context(server.client())
        found = Server(server.url, client)
        stack.callback(found.close)
        with on_the_clock_of(found):
            yield found
