"""What ``configure(telemetry=...)`` takes, checked: a wrong value is an error at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry

from sqlacache.errors import ConfigError

Trace = Literal["all", "misses", "off"]


@dataclass(frozen=True)
class Telemetry:
    """What is told about the cache, and to whom.

    Raises:
        ConfigError: a field has a value that it does not take.
    """

    tracer_provider: TracerProvider | None = None
    """Where spans go; ``None``: the global provider, as soon as one is set."""
    registry: CollectorRegistry | None = None
    """Where metrics are registered; ``None``: prometheus_client's default registry."""
    trace: Trace = "all"
    """``all``: a span of every read, invalidation and commit announced by another process; ``misses``: of misses and
    invalidations; ``off``: none."""
    query_text: bool = False
    """Whether spans of reads carry their SQL, as SQLAlchemy rendered it: with placeholders, never with values."""
    metrics: bool = True
    """Whether metrics are counted at all."""
    exemplars: bool = True
    """Whether misses, loads and invalidations that are traced leave their trace id with the metric."""

    def __post_init__(self) -> None:
        if self.tracer_provider is not None and not isinstance(self.tracer_provider, TracerProvider):
            raise _wrong("tracer_provider", self.tracer_provider, "an OpenTelemetry TracerProvider or None")
        if self.registry is not None and not isinstance(self.registry, CollectorRegistry):
            raise _wrong("registry", self.registry, "a prometheus_client CollectorRegistry or None")
        if self.trace not in get_args(Trace):
            raise _wrong("trace", self.trace, '"all", "misses" or "off"')
        for name in ("query_text", "metrics", "exemplars"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise _wrong(name, value, "True or False")


def resolve(telemetry: object) -> Telemetry | None:
    """Return what ``configure(telemetry=...)`` was given as a :class:`Telemetry`, ``None`` for no telemetry.

    Raises:
        ConfigError: it is not a bool, ``None``, a :class:`Telemetry` or a mapping of its fields.
    """
    if telemetry is True:
        return Telemetry()
    if telemetry is None or telemetry is False:
        return None
    if isinstance(telemetry, Telemetry):
        return telemetry
    if not isinstance(telemetry, Mapping):
        takes = "True, False, None, sqlacache_telemetry.Telemetry or a mapping of its fields"
        raise ConfigError(f"telemetry: got {telemetry!r}, takes {takes}")
    known = [field.name for field in fields(Telemetry)]
    for key in telemetry:
        if key not in known:
            raise ConfigError(f"telemetry: got the unknown key {key!r}, takes {', '.join(known)}")
    return Telemetry(**telemetry)


def _wrong(key: str, got: object, takes: str) -> ConfigError:
    return ConfigError(f"telemetry.{key}: got {got!r}, takes {takes}")
