"""Several processes with ``PROMETHEUS_MULTIPROC_DIR`` add up to one answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.telemetry.records import Scrape

WORKER = """
import sys; sys.path[:0] = {path!r}
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from sqlacache.observers import Observers
from sqlacache_telemetry import observers
from tests.telemetry.records import hit, invalidation, load, miss
from opentelemetry.sdk.trace import TracerProvider
told = Observers(observers({{"tracer_provider": TracerProvider()}}, mode="on"))
told.bound("shop", ["users"])
told.decided(hit())
scopes = told.load_started(load())
told.load_finished(scopes, None)
told.decided(miss(), scopes)
scopes, traceparent = told.invalidation_started("shop", ("users",))
told.invalidated(invalidation(traceparent=traceparent), scopes)
assert not told.errors, told.errors
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def test_the_counts_of_all_processes_add_up_and_exemplars_do_no_harm(tmp_path: Path):
    source = WORKER.format(path=[path for path in sys.path if path])
    for _ in range(3):
        ran = subprocess.run(
            [sys.executable, "-c", source],
            capture_output=True,
            text=True,
            env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr
    seen = Scrape(ran.stdout)
    assert seen.get("sqlacache_hits_total", cache="shop", table="users", op="get", tier="local") == 3
    assert seen.get("sqlacache_misses_total", cache="shop", table="users", op="get", reason="absent") == 3
    assert seen.get("sqlacache_load_duration_seconds_count", cache="shop", table="users") == 3
    assert seen.get("sqlacache_invalidation_duration_seconds_count", cache="shop", phase="commit") == 3
    assert seen.total("sqlacache_build_info") == 1
