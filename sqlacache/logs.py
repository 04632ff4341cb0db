"""What is logged: every record has a stable ``event`` and stable fields, and says nothing of values or passwords.

Records go to the logger ``sqlacache`` and those below it. The library adds no handler and sets no level: what an
application has set up decides where they go. An ordinary request logs nothing, at no level, unless it is asked to (the
summary of requests). A record of :data:`logging.WARNING` or more is something for a person to look at; what could come
with every request, while the same thing is wrong, comes once, or :data:`SELDOM` seconds apart with the number of those
that were left out (``suppressed``).

:data:`EVENTS` is the closed list, the telemetry's own included. ``docs/logs.md`` is checked against it, and so is every
call of :func:`log`.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, NamedTuple

from .forks import renew

logger = logging.getLogger("sqlacache")

SELDOM = 60.0
"""Seconds between two records of one event that could come with every request."""


class Event(NamedTuple):
    """One kind of record."""

    name: str
    """Its field ``event``."""
    level: int
    fields: tuple[str, ...]
    """Its other fields; tables, columns, keys and tags are names, in which digests stand for values."""
    when: str
    """When it is logged, and how often, in words."""
    logger: str = "sqlacache"


MEMORY_UNSHARED = Event(
    "sqlacache.memory.unshared",
    logging.WARNING,
    ("cache", "why"),
    "A cache on `mem://` is in one of several processes, which do not hear of each other's writes. `why`: `workers` "
    "(as it is bound) or `fork` (in a child).",
)
CALL_UNBOUND = Event(
    "sqlacache.call.unbound",
    logging.WARNING,
    ("cache", "call"),
    "`touched()`, `invalidate()` or `invalidate_all()` on a cache that is bound to no engine did nothing.",
)
BACKEND_LOST = Event(
    "sqlacache.backend.lost",
    logging.WARNING,
    ("cache", "error"),
    "The backend does not answer (also as the cache is bound): reads go to the database and it is probed. Once per "
    "outage.",
)
BACKEND_PROBED = Event(
    "sqlacache.backend.probed",
    logging.DEBUG,
    ("cache", "error"),
    "A probe was not answered. At most once a second or so.",
)
BACKEND_BACK = Event(
    "sqlacache.backend.back", logging.INFO, ("cache", "seconds"), "The backend answers again, after so long."
)
RECOVERY_FAILED = Event(
    "sqlacache.recovery.failed",
    logging.ERROR,
    ("cache", "error", "suppressed"),
    "Probing, or delivering what is owed, failed in a way that nobody expected; it is tried again. With a traceback, "
    "and a minute apart.",
)
UNDELIVERED = Event(
    "sqlacache.invalidations.undelivered",
    logging.ERROR,
    ("cache", "owed"),
    "`disconnect()` ended while invalidations were owed: others may serve what was until it expires. Per database.",
)
CATALOG_UNREADABLE = Event(
    "sqlacache.catalog.unreadable",
    logging.WARNING,
    ("database", "what"),
    "A part of the database's catalog could not be read as the cache was bound; what it would have told is taken to be "
    "the worst.",
)
TRIGGER_UNKNOWN = Event(
    "sqlacache.trigger.unknown",
    logging.WARNING,
    ("table", "trigger"),
    "It cannot be told what a trigger writes: each commit that fires it evicts everything, until "
    "`writes_also=` says it. As the cache is bound.",
)
STATEMENT_UNKNOWN = Event(
    "sqlacache.statement.unknown",
    logging.WARNING,
    ("way", "error"),
    "A statement could not be analysed. `way`: `read` (it is not cached) or `write` (it counts as a write of "
    "everything). Once per kind of error.",
)
MISMATCH = Event(
    "sqlacache.verification.mismatch",
    logging.ERROR,
    (
        "cache",
        "database",
        "tables",
        "key",
        "tags",
        "cached_rows",
        "database_rows",
        "explanation",
        "suppressed",
    ),
    "A verified hit would have been stale, and no write explains it; the message ends in the entry's explanation, of "
    "which the field has the parts. A minute apart.",
)
SUBSCRIPTION_FAILED = Event(
    "sqlacache.subscription.failed",
    logging.ERROR,
    ("error", "suppressed"),
    "Listening to other processes failed in a way that nobody expected, and begins anew. With a traceback, a minute "
    "apart.",
)
OBSERVER_FAILED = Event(
    "sqlacache.observer.failed",
    logging.WARNING,
    ("observer", "method", "error"),
    "An observer or a hook raised; its text is the message's. Once per class of observer, then they are only counted.",
)
PAGES_FAILED = Event(
    "sqlacache.pages.failed",
    logging.ERROR,
    ("error",),
    "A page could not be shown. With a traceback.",
    "sqlacache.pages",
)
PAGES_AUTH_FAILED = Event(
    "sqlacache.pages.auth_failed",
    logging.ERROR,
    ("error",),
    "The pages' auth callback raised: refused. With a traceback, once per kind of error.",
    "sqlacache.pages",
)
REQUEST = Event(
    "sqlacache.request",
    logging.INFO,
    ("cache", "method", "route", "path", "status"),
    "What one request did, if the middleware is asked for it; `docs/pages.md` has its further fields.",
    "sqlacache.requests",
)

EVENTS: tuple[Event, ...] = (
    MEMORY_UNSHARED,
    CALL_UNBOUND,
    BACKEND_LOST,
    BACKEND_PROBED,
    BACKEND_BACK,
    RECOVERY_FAILED,
    UNDELIVERED,
    CATALOG_UNREADABLE,
    TRIGGER_UNKNOWN,
    STATEMENT_UNKNOWN,
    MISMATCH,
    SUBSCRIPTION_FAILED,
    OBSERVER_FAILED,
    PAGES_FAILED,
    PAGES_AUTH_FAILED,
    REQUEST,
)
"""Every event that there is."""


def log(
    event: Event, message: str, *arguments: object, exc_info: BaseException | None = None, **fields: Any
) -> None:
    """Log a record of ``event`` with the event's fields."""
    if logger.isEnabledFor(event.level):
        given = {"event": event.name, **fields}
        logger.log(event.level, message, *arguments, exc_info=exc_info, extra=given, stacklevel=2)


class Seldom:
    """Lets one record pass in :data:`SELDOM` seconds, and counts the others."""

    def __init__(self) -> None:
        self._suppressed = 0
        self._passed_at: float | None = None
        self.forked()
        renew(self)

    def forked(self) -> None:
        self._lock = threading.Lock()

    def passes(self) -> int | None:
        """Return how many did not pass since the last that did; ``None`` if this one does not."""
        now = time.monotonic()
        with self._lock:
            if self._passed_at is not None and now - self._passed_at < SELDOM:
                self._suppressed += 1
                return None
            suppressed, self._suppressed, self._passed_at = self._suppressed, 0, now
            return suppressed
