"""Every word of the closed vocabulary is brought about for real, and counted exactly as often as the test knows.

One scene for each word: it does what the word means (races are told by gates, so that it is known who was where), and
returns how often the word must have been counted. A word without a scene fails the test of its table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest
import pytest_asyncio

from sqlacache.decisions import BYPASS_REASONS, EVICTION_CAUSES, FILL_OUTCOMES, MISS_REASONS
from tests.support.databases import SQLiteDatabases
from tests.support.programs import started
from tests.support.redis_server import RedisServer, redis_server
from tests.telemetry.records import Scrape
from tests.telemetry.scenes_reads import BYPASSES, MISSES
from tests.telemetry.scenes_writes import EVICTIONS, FILLS
from tests.telemetry.stage import Scene, Stage

ON_REDIS = {
    *("generation_changed", "backend_evicted", "corrupt", "protocol_mismatch", "backend_unavailable"),
    *("backend_error", "resync"),
}


def scenes(table: dict[str, Scene]) -> list[Any]:
    marks = {True: [pytest.mark.integration], False: []}
    return [
        pytest.param(word, scene, id=word, marks=marks[word in ON_REDIS]) for word, scene in table.items()
    ]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        pytest.param(MISSES, MISS_REASONS, id="misses"),
        pytest.param(BYPASSES, BYPASS_REASONS, id="bypasses"),
        pytest.param(FILLS, FILL_OUTCOMES, id="fills"),
        pytest.param(EVICTIONS, EVICTION_CAUSES, id="evictions"),
    ],
)
def test_every_word_has_a_scene(table: dict[str, Scene], words: tuple[str, ...]) -> None:
    assert set(table) == set(words)


@pytest.fixture(scope="module")
def server() -> Iterator[Callable[[], RedisServer]]:
    """Give what starts one Redis for all of them, when the first asks for it."""
    with ExitStack() as stack:
        running: list[RedisServer] = []

        def start() -> RedisServer:
            if not running:
                running.append(started(stack, redis_server()))
            return running[0]

        yield start


@pytest_asyncio.fixture
async def stage(sqlite_databases: SQLiteDatabases, server: Callable[[], RedisServer]) -> AsyncIterator[Stage]:
    async with sqlite_databases.fresh() as url, AsyncExitStack() as stack:
        yield Stage(url, stack, server)


async def counted(stage: Stage, scene: Scene, metric: str, **label: str) -> tuple[float, int]:
    """Return how often a word was counted, and how often it must have been."""
    must = await scene(stage)
    return Scrape(stage.registry).total(metric, **label), must


@pytest.mark.parametrize(("word", "scene"), scenes(MISSES))
async def test_a_read_misses_for_the_reason_that_was_brought_about(
    stage: Stage, word: str, scene: Scene
) -> None:
    found, must = await counted(stage, scene, "sqlacache_misses_total", reason=word)
    assert found == must


@pytest.mark.parametrize(("word", "scene"), scenes(BYPASSES))
async def test_a_read_bypasses_for_the_reason_that_was_brought_about(
    stage: Stage, word: str, scene: Scene
) -> None:
    found, must = await counted(stage, scene, "sqlacache_bypasses_total", reason=word)
    assert found == must


@pytest.mark.parametrize(("word", "scene"), scenes(FILLS))
async def test_a_fill_ends_as_it_was_made_to(stage: Stage, word: str, scene: Scene) -> None:
    found, must = await counted(stage, scene, "sqlacache_fills_total", outcome=word)
    assert found == must


@pytest.mark.parametrize(("word", "scene"), scenes(EVICTIONS))
async def test_an_eviction_has_the_cause_that_was_brought_about(
    stage: Stage, word: str, scene: Scene
) -> None:
    found, must = await counted(stage, scene, "sqlacache_evictions_total", cause=word)
    assert found >= must
    others = {labels["cause"] for labels in Scrape(stage.registry).counted("sqlacache_evictions_total")} - {
        word
    }
    assert others <= ALONGSIDE.get(word, set())


ALONGSIDE = {"trigger": {"row_update"}, "cascade": {"bulk_write"}}
"""What must be evicted as well, for the write that is the word's own cause."""
