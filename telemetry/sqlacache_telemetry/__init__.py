"""Telemetry of sqlacache: every decision as an OpenTelemetry span and a Prometheus metric.

It is on by default; ``configure(telemetry=None)`` leaves it out. To choose::

    from sqlacache_telemetry import Telemetry
    cache = configure(..., telemetry=Telemetry(trace="misses", registry=my_registry))
    cache = configure(..., telemetry={"metrics": False})            # a mapping of the same fields

**Metrics** go to prometheus_client's default registry, so that its own application serves them::

    app.mount("/metrics", prometheus_client.make_asgi_app())

Several caches in one process count in the same families, told apart by the label ``cache``.

**Spans** need an OpenTelemetry SDK, set up as for any other library, before or after ``configure()``. Without
one, a read costs about a microsecond more.

**Pages** that show and explain what was decided lately (:mod:`.pages`), and what each request did, in a
``Server-Timing`` header and the log (:mod:`.middleware`), are off until an application installs them.

All metrics, spans and attributes are described in :mod:`sqlacache_telemetry.names` and in
``telemetry/README.md``.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy

from sqlacache.decisions import Mode
from sqlacache.observers import Observer

from .config import Telemetry, resolve
from .metrics import MetricsObserver
from .spans import SpanObserver
from .version import library_version

__all__ = ["MetricsObserver", "SpanObserver", "Telemetry", "observers"]


def observers(
    telemetry: Telemetry | Mapping[str, object] | bool | None = True, *, mode: Mode | None = None
) -> tuple[Observer, ...]:
    """Return the observers that ``configure(telemetry=...)`` asks for.

    ``True`` asks for spans and metrics with the defaults of :class:`Telemetry`, ``None`` and ``False`` for nothing.
    Spans come first, so that the exemplars of metrics can name them. ``mode`` is the mode that the cache is configured
    with, for ``sqlacache_build_info``; without it that metric is not set.

    Raises:
        ConfigError: ``telemetry`` is not understood, or the registry has metrics of the same names that are not ours.
    """
    chosen = resolve(telemetry)
    made: list[Observer] = []
    if chosen is None:
        return ()
    if chosen.trace != "off":
        only_misses = chosen.trace == "misses"
        made.append(
            SpanObserver(chosen.tracer_provider, only_misses=only_misses, query_text=chosen.query_text)
        )
    if chosen.metrics:
        metrics = MetricsObserver(chosen.registry, exemplars=chosen.exemplars)
        if mode is not None:
            metrics.built(library_version(), sqlalchemy.__version__, mode)
        made.append(metrics)
    return tuple(made)
