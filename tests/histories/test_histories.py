"""A short history on a real PostgreSQL and Redis: clients of both fronts, and a few of the faults of ``make soak``.

``SQLACACHE_HISTORY_SEED=7`` does with another seed what it printed; what is done is repeated, and not when.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.histories.gathering import gather
from tests.histories.running import Plan, run
from tests.support.programs import started
from tests.support.redis_server import RedisServer
from tests.support.redis_server import redis_server as run_server

pytestmark = pytest.mark.integration

SEED = int(os.environ.get("SQLACACHE_HISTORY_SEED", "1"))


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A server of this test's own."""
    with ExitStack() as stack:
        yield started(stack, run_server())


def test_nothing_stale_is_read_while_redis_clients_and_connections_break(
    tmp_path: Path, postgres_url: str, redis_server: RedisServer
) -> None:
    print(f"SQLACACHE_HISTORY_SEED={SEED}")
    plan = Plan(seconds=8, seed=SEED, clients=3, pace=0.4)
    report = gather(run(plan, postgres_url, redis_server, tmp_path), slowest=60, hits=0)
    print(report)
    assert not report.wrong, str(report)
    assert report.operations["read ok"]
    assert report.operations["write ok"]
    assert report.faults


@pytest.mark.parametrize(
    ("broken", "clients", "fault"),
    [
        pytest.param(
            *("late", 3, "pause_in_commit"),
            id="telling Redis only after COMMIT",
            marks=pytest.mark.skipif(
                "SQLACACHE_HISTORIES" not in os.environ,
                reason="takes half a minute: SQLACACHE_HISTORIES=whole runs it",
            ),
        ),
        pytest.param("trusting", 2, "refuse_writes", id="reading from the cache what is owed"),
    ],
)
def test_what_clients_do_wrong_is_found(
    tmp_path: Path, postgres_url: str, redis_server: RedisServer, broken: str, clients: int, fault: str
) -> None:
    """The faults that show it are all that breaks: mostly the first few seconds suffice."""
    for seed in range(SEED, SEED + 3):
        plan = Plan(seconds=5, seed=seed, clients=clients, pace=0.2, only=(fault,), broken=broken)
        folder = tmp_path / str(seed)
        folder.mkdir()
        report = gather(run(plan, postgres_url, redis_server, folder), slowest=60, hits=0)
        if report.stale:
            return
    pytest.fail(f"not found: {report}")
