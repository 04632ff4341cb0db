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
from tests.telemetry.records import hit, invalidation, load, miss, received
from opentelemetry.sdk.trace import TracerProvider
told = Observers(observers({{"tracer_provider": TracerProvider()}}, mode="on"))
told.bound("shop", ["users"])
told.decided(hit())
scopes = told.load_started(load())
told.load_finished(scopes, None)
told.decided(miss(), scopes)
scopes, traceparent = told.invalidation_started("shop", ("users",))
told.invalidated(invalidation(traceparent=traceparent), scopes)
told.received(received())
told.backend_failed("shop", "MGET", TimeoutError())
told.owed("shop", 2)
told.capacity("shop", 10, 1000)
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
    assert seen.get("sqlacache_invalidation_lag_seconds_count", cache="shop") == 3
    errors = {"cache": "shop", "operation": "MGET", "error": "TimeoutError"}
    assert seen.get("sqlacache_backend_errors_total", **errors) == 3
    assert seen.total("sqlacache_build_info") == 1
    gauges = ("sqlacache_owed_invalidations", "sqlacache_entries", "sqlacache_bytes")
    assert [seen.get(gauge, cache="shop") for gauge in gauges] == [6, 30, 3000]
    assert [len(seen.series(gauge)) for gauge in gauges] == [1, 1, 1]


def test_a_process_that_is_known_to_have_ended_holds_and_owes_nothing(tmp_path: Path):
    source = WORKER.format(path=[path for path in sys.path if path])
    dead = "import os, subprocess, sys; print(os.getpid()); sys.stdout.flush()\n" + source
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    run = {"capture_output": True, "text": True, "env": environment, "timeout": 60, "check": True}
    pid = subprocess.run([sys.executable, "-c", dead], **run).stdout.split()[0]
    marked = f"from prometheus_client.multiprocess import mark_process_dead; mark_process_dead({pid})"
    subprocess.run([sys.executable, "-c", marked], **run)
    seen = Scrape(subprocess.run([sys.executable, "-c", source], **run).stdout)
    assert seen.get("sqlacache_owed_invalidations", cache="shop") == 2
    assert seen.get("sqlacache_entries", cache="shop") == 10
    assert seen.get("sqlacache_invalidation_lag_seconds_count", cache="shop") == 2
