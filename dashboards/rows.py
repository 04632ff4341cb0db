"""The dashboard: its rows in their order, and the moments that it marks."""

from __future__ import annotations

from sqlacache_telemetry import names

from .how import CAPACITY, HEALTH, INVALIDATION, LATENCY
from .panels import Annotation
from .queries import RATE, Chosen
from .why import OVERVIEW, WHY_EVICTED, WHY_NOT

STARTED = "process_start_time_seconds"
"""A metric of prometheus_client itself; there is none with several processes in one (PROMETHEUS_MULTIPROC_DIR)."""

now = Chosen(RATE)

ROWS = (OVERVIEW, WHY_NOT, WHY_EVICTED, LATENCY, INVALIDATION, CAPACITY, HEALTH)

_BUILD = now.select(names.BUILD_INFO)
_OFF = now.rate(names.BYPASSES, "job", "cache", reason="disabled")
ANNOTATIONS = (
    Annotation(
        "Deploys",
        f"count by (job, instance, version) ({_BUILD} unless {_BUILD} offset 2m)\n"
        f'  or min by (job, instance) (time() - {STARTED}{{job=~"$job", instance=~"$instance"}}) < 120',
        "blue",
        "Started {{version}}",
        "{{job}} {{instance}}",
    ),
    Annotation(
        "Mode switches",
        f"{_OFF} > 0",
        "orange",
        "The mode is not on: reads are bypassed as disabled",
        "{{job}} {{cache}}",
    ),
    Annotation(
        "Table-wide invalidations",
        f"{now.increase(names.BUMPS, 'table', 'cause')} > 0",
        "purple",
        "All of {{table}}",
        "{{cause}}",
    ),
)
