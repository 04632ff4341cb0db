"""Who is compared. Only public API is used to bind a cache; :mod:`.contender` says what a contender is.

Everyone takes part in one run: no cache; this library on each backend and tier, with telemetry off, on and sampled; the
package sqlacache 0.1.3 (:mod:`.peer`); functions with a decorator of cashews (:mod:`.decorator`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from prometheus_client import CollectorRegistry

from sqlacache import AsyncDirectSession
from sqlacache.direct import ways
from sqlacache_telemetry import Telemetry

from .contender import EVERYTHING, WAYS, Contender, Unfair
from .decorator import DECORATOR, DECORATOR_REDIS, decorated
from .models import Customer, Setting
from .peer import PEER_MEMORY, PEER_NO_CACHE, PEER_REDIS, peers
from .work import KEYS, Work

NO_CACHE = "no cache"
UNCONFIGURED = "unconfigured"
UNCONFIGURED_TELEMETRY = "unconf., telemetry"
MISS = "miss"
HIT = "hit"
HIT_TELEMETRY = "hit, telemetry"
HIT_SAMPLED = "hit, sampled"
REDIS = "redis"
VALIDATED = "redis, validated"
PUSHED = "redis, pushed"
DIRECT = "direct"
DIRECT_PUSHED = "direct, pushed"
DIRECT_VALIDATED = "direct, validated"
INSTANT = "instant driver"


class Discarded(SpanExporter):
    """An exporter that is rid of its spans at once."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


@dataclass
class Sampled(Contender):
    """A contender whose spans are all recorded, in a span of the application's, and exported to nowhere."""

    provider: TracerProvider = field(init=False, repr=False)

    def open(self, url: Any, redis_url: str) -> None:
        self.provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(Discarded()))
        self.telemetry = Telemetry(tracer_provider=self.provider, registry=CollectorRegistry())
        super().open(url, redis_url)

    def request(self) -> AbstractContextManager[Any]:
        return self.provider.get_tracer("the application").start_as_current_span("request")

    async def close(self) -> None:
        await super().close()
        self.provider.shutdown()


@dataclass
class Direct(Contender):
    """A contender with the session class whose ``get`` makes an object of a local hit without a statement."""

    session_class: Any = AsyncDirectSession
    only: Collection[str] | None = ("get",)

    async def warm(self, work: Work) -> Any:
        """Warm up, and see that every key takes the short way, which begins with an entry's second hit."""
        answer = await super().warm(work)
        deadline = time.monotonic() + (
            10 if self.local == "pushed" else 0
        )  # announcements come when they come
        while True:
            for number in range(2 * work.keys):
                await work.run(self.sessions, self.options, number)
            async with self.sessions() as session:
                why = {session.why_not_direct(Customer, number) for number in range(1, KEYS + 1)} - {None}
            ways.clear()
            for number in range(work.keys):
                await work.run(self.sessions, self.options, number)
            if not why and set(ways) == {WAYS[self.local]}:
                return answer
            if time.monotonic() > deadline:
                raise Unfair(f"{self.name}, {work.name}: not direct: {sorted(why) or sorted(ways)}")
            await asyncio.sleep(0.01)


def contenders() -> Sequence[Contender]:
    """Make them all; the first is what the others are compared with."""
    return (
        Contender(NO_CACHE, "PostgreSQL through asyncpg; no cache is bound to anything"),
        Contender(
            UNCONFIGURED,
            "a cache is bound, but the models read and written are not configured",
            models={Setting: {"timeout": 3600}},
            expects="not_configured",
        ),
        Contender(
            UNCONFIGURED_TELEMETRY,
            "the same with telemetry as it is by default, no OpenTelemetry SDK set up",
            models={Setting: {"timeout": 3600}},
            telemetry=True,
            expects="not_configured",
        ),
        Contender(
            MISS,
            "every read is loaded and stored anew (sqlacache_refresh); telemetry off",
            models=EVERYTHING,
            expects="manual_invalidated",
            options={"sqlacache_refresh": True},
            writes=False,
        ),
        Contender(HIT, "mem://, every read is a hit; telemetry off", models=EVERYTHING, expects="hit"),
        Contender(
            HIT_TELEMETRY,
            "the same with telemetry as it is by default",
            models=EVERYTHING,
            telemetry=True,
            expects="hit",
        ),
        Sampled(
            HIT_SAMPLED,
            "the same with an OpenTelemetry SDK that samples every trace, in a request's span, and exports in batches",
            models=EVERYTHING,
            telemetry=True,
            expects="hit",
        ),
        Contender(
            REDIS,
            "Redis, no local tier; telemetry off",
            models=EVERYTHING,
            expects="hit",
            redis=True,
            local=None,
        ),
        Contender(
            VALIDATED,
            "Redis, decoded rows stay here and Redis is asked whether they hold; telemetry off",
            models=EVERYTHING,
            expects="hit",
            redis=True,
            local="validated",
        ),
        Contender(
            PUSHED,
            "Redis, and nobody is asked while commits are announced; telemetry off",
            models=EVERYTHING,
            expects="hit",
            redis=True,
            local="pushed",
        ),
        Direct(
            DIRECT,
            "mem://, and AsyncDirectSession: its get answers a local hit without a statement; telemetry off",
            models=EVERYTHING,
            expects="hit",
        ),
        Direct(
            DIRECT_PUSHED,
            "the same on Redis, pushed",
            models=EVERYTHING,
            expects="hit",
            redis=True,
            local="pushed",
        ),
        Direct(
            DIRECT_VALIDATED,
            "the same on Redis, which is asked whether the row that is here holds",
            models=EVERYTHING,
            expects="hit",
            redis=True,
            local="validated",
        ),
        Contender(
            INSTANT,
            "no cache, and a driver that answers at once: what SQLAlchemy itself spends",
            instant=True,
            writes=False,
        ),
        *decorated(),
        *peers(),
    )


__all__ = [
    "DECORATOR",
    "DECORATOR_REDIS",
    "DIRECT",
    "DIRECT_PUSHED",
    "DIRECT_VALIDATED",
    "EVERYTHING",
    "HIT",
    "HIT_SAMPLED",
    "HIT_TELEMETRY",
    "INSTANT",
    "MISS",
    "NO_CACHE",
    "PEER_MEMORY",
    "PEER_NO_CACHE",
    "PEER_REDIS",
    "PUSHED",
    "REDIS",
    "UNCONFIGURED",
    "UNCONFIGURED_TELEMETRY",
    "VALIDATED",
    "Contender",
    "Direct",
    "Sampled",
    "Unfair",
    "contenders",
]
