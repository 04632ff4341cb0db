"""The fixed workload's two figures: how many reads hit, and how many evictions were needless."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from . import workload
from .world import Figures, World, prepare

MOST_NEEDLESS = 0.15
LEAST_HITS = 0.62


def test_on_the_fixed_workload_few_evictions_are_needless_and_reads_hit(
    empty_database: str, loop: asyncio.AbstractEventLoop, show: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "sqlacache")

    async def measure() -> workload.Outcome:
        await prepare(empty_database)
        world = World(empty_database, Figures())
        try:
            return await workload.run(world)
        finally:
            await world.dispose()

    outcome = loop.run_until_complete(measure())
    show(
        f"fixed workload on {empty_database.split('+')[0]}: {outcome.hit_ratio:.1%} of {outcome.reads} reads hit; "
        f"{outcome.needless_ratio:.1%} of {outcome.evicted} evictions were needless "
        f"(at most {MOST_NEEDLESS:.0%} is demanded)"
    )
    assert outcome.hit_ratio >= LEAST_HITS
    assert outcome.needless_ratio <= MOST_NEEDLESS, f"needless by kind of read: {outcome.needless_by_kind}"
