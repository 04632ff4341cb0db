"""One cache under a thread pool of sessions, in memory (on Redis: ``tests/redis/test_threads.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sqlacache import configure_sync
from tests.support.databases import Database
from tests.support.storm import Counting, Storm


@pytest.fixture
def database(database: Database) -> Iterator[Database]:
    ordinary = Database(database.url, "sync")
    yield ordinary
    ordinary.engine.sync_engine.dispose()
    ordinary.truth_engine.sync_engine.dispose()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("max_bytes", [None, 12_000], ids=["room", "little_room"])
def test_nobody_goes_back_in_time(
    database: Database, max_bytes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlacache.read.identify.MAX_PLANS", 6)  # plans come and go all the time
    registry, counting = CollectorRegistry(), Counting()
    engine = database.engine.sync_engine
    cache = configure_sync(
        models={"*": {"timeout": 3600}},
        name="storm",
        max_bytes=max_bytes,
        telemetry={"registry": registry},
        observers=[counting],
    )
    with cache.bound(engine):
        storm = Storm(engine, cache)
        storm.blow()
        assert storm.reads > 100
        assert counting.decisions["hit"] > 0
        assert not cache.observers.errors
        assert _told(registry) == counting.decisions
        (binding,) = cache.bindings
        cache.capacity.tell()
        for name in ("entries", "bytes"):
            held = len(binding.store) if name == "entries" else binding.store.bytes
            assert registry.get_sample_value(f"sqlacache_{name}", {"cache": "storm"}) == held
        assert not binding.dirty
        assert not binding.reads._flights._flights
        assert not binding.reads._flights._approaching
        assert not binding.store._writers


def _told(registry: CollectorRegistry) -> dict[str, float]:
    """Decisions as the metrics have them."""
    found = {"hit": 0.0, "miss": 0.0, "bypass": 0.0}
    names = {
        "sqlacache_hits_total": "hit",
        "sqlacache_misses_total": "miss",
        "sqlacache_bypasses_total": "bypass",
    }
    for family in registry.collect():
        for sample in family.samples:
            if sample.name in names:
                found[names[sample.name]] += sample.value
    return {kind: count for kind, count in found.items() if count}
