"""What the cache did for one request, wherever it did it: in its task, in tasks and threads that it started.

A :class:`ContextVar` carries the request's :class:`Tally` to whatever runs on its behalf: ``asyncio`` gives each task a
copy of the context that started it, and so do the thread pools of Starlette and AnyIO and ``asyncio.to_thread``. A
thread that the application starts by itself has a context of its own, and what it reads is nobody's.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

from sqlacache.core import Core
from sqlacache.decisions import Decision, Invalidation
from sqlacache.errors import ConfigError
from sqlacache.logs import REQUEST
from sqlacache.observers import Observer

logger = logging.getLogger(REQUEST.logger)

SERVER_TIMING = "Server-Timing"


class Tally:
    """Counts the decisions and invalidations of one request. Times are seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0
        self.bypasses: Counter[str] = Counter()
        """By reason."""
        self.lookup_seconds = 0.0
        """Of all lookups."""
        self.loads = 0
        self.load_seconds = 0.0
        """Of the misses' loads from the database."""
        self.saved_seconds = 0.0
        """What the hits' loads took when their entries were filled, less what looking them up took."""
        self.invalidations = 0
        self.evictions = 0
        """Stamps replaced by this request's commits and calls."""

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.hits or self.misses or self.bypasses or self.invalidations)

    def decided(self, decision: Decision) -> None:
        lookup, load = decision.lookup_seconds, decision.load_seconds
        with self._lock:
            self.lookup_seconds += lookup
            if decision.decision == "hit":
                self.hits += 1
                if load is not None and load > lookup:
                    self.saved_seconds += load - lookup
            elif decision.decision == "miss":
                self.misses += 1
                if load is not None:
                    self.loads += 1
                    self.load_seconds += load
            else:
                self.bypasses[decision.reason or ""] += 1

    def invalidated(self, invalidation: Invalidation) -> None:
        with self._lock:
            self.invalidations += 1
            self.evictions += sum(change.evicted for change in invalidation.changes)

    def server_timing(self) -> str:
        """Return the value of a ``Server-Timing`` header (W3C Server Timing): durations are milliseconds."""
        with self._lock:
            counted = [f"{self.hits} hit", f"{self.misses} miss", f"{self.bypasses.total()} bypass"]
            metrics = [_metric("cache", ", ".join(counted), self.lookup_seconds)]
            if self.loads:
                metrics.append(_metric("db", f"{self.loads} load", self.load_seconds))
            return ", ".join(metrics)

    def fields(self) -> dict[str, Any]:
        """Return what a log record carries of it."""
        with self._lock:
            return {
                "hits": self.hits,
                "misses": self.misses,
                "bypasses": dict(self.bypasses),
                "lookup_seconds": self.lookup_seconds,
                "load_seconds": self.load_seconds,
                "saved_seconds": self.saved_seconds,
                "evictions": self.evictions,
            }


class Tallies(Observer):
    """Gives each decision of ``cache`` to the request that it was made for, if any."""

    def __init__(self, cache: Core, *, server_timing: bool, log: bool) -> None:
        given: Any = cache
        if not isinstance(given, Core):
            raise ConfigError(
                f"middleware: takes a cache as configure() or configure_sync() made it, got {given!r}"
            )
        for name, value in (("server_timing", server_timing), ("log", log)):
            if value not in (True, False):
                raise ConfigError(f"middleware.{name}: takes True or False, got {value!r}")
        self.is_timed, self.is_logged = server_timing, log
        self.cache = cache
        self._current: ContextVar[Tally | None] = ContextVar("sqlacache_tally", default=None)
        cache.add_observer(self)

    def decided(self, decision: Decision, scope: object) -> None:
        tally = self._current.get()
        if tally is not None:
            tally.decided(decision)

    def invalidated(self, invalidation: Invalidation | None, scope: object) -> None:
        tally = self._current.get()
        if tally is not None and invalidation is not None and invalidation.committed:
            tally.invalidated(invalidation)

    def begin(self) -> Tally:
        """Count what is decided from now on in this context, and in those copied from it."""
        tally = Tally()
        self._current.set(tally)
        return tally

    def end(self) -> None:
        """Count no more in this context: a thread, which has one for all its requests, goes on to other work."""
        self._current.set(None)

    def tell(self, tally: Tally, method: str, path: str, route: str | None, status: int | None) -> None:
        """Log what a request did, unless it had nothing to do with the cache.

        Its path is logged only where no route is known: a path may name whom it is about.
        """
        if not (self.is_logged and tally and logger.isEnabledFor(REQUEST.level)):
            return
        fields = tally.fields()
        escaped = None if route is not None else quote(path)
        logger.log(
            REQUEST.level,
            "%s %s: %d hit, %d miss, %d bypass; looked up %.1f ms, loaded %.1f ms, saved %.1f ms; %d evicted",
            method,
            route or escaped,
            fields["hits"],
            fields["misses"],
            sum(fields["bypasses"].values()),
            fields["lookup_seconds"] * 1000,
            fields["load_seconds"] * 1000,
            fields["saved_seconds"] * 1000,
            fields["evictions"],
            extra={
                "event": REQUEST.name,
                "cache": self.cache.name,
                "method": method,
                "route": route,
                "path": escaped,
                "status": status,
                **fields,
            },
        )


def _metric(name: str, description: str, seconds: float) -> str:
    return f'{name};desc="{description}";dur={seconds * 1000:.3f}'
