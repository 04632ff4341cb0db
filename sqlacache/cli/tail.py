"""``tail``: commits and calls as every process announces them to the others.

What is announced is what was evicted, and why. Decisions about reads are not announced: they are in the metrics and
spans of the process that made them.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Collection, Sequence
from typing import Any

from ..decisions import Cause, Eviction
from ..evictions import evictions_elsewhere
from ..front.blocking import finish
from ..store.announcing import Announcement
from ..store.subscription import Subscription
from .connect import Server
from .show import as_json, duration, line, moment, notice

BEAT = 0.5
"""Seconds between two PINGs on the connection that listens."""


class Listening:
    """Hears one database's announcements, in a thread of its own, and hands them on."""

    def __init__(self, database: str, heard: queue.SimpleQueue[Any]) -> None:
        self._database = database
        self._heard = heard

    def announced(self, announcement: Announcement) -> None:
        if announcement.phase == 2:
            self._heard.put((self._database, announcement, time.time()))

    def lost(self, why: str) -> None:
        self._heard.put((self._database, why, time.time()))

    def proved(self, sent_at: float) -> None:
        pass


def tail(
    server: Server,
    databases: Sequence[str],
    *,
    tables: Collection[str],
    causes: Collection[str],
    count: int | None,
    seconds: float | None,
    json: bool,
) -> None:
    """Print evictions until ``count`` of them were printed, ``seconds`` are over, or the user has seen enough."""
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    subscription = Subscription(server.transport, beat=BEAT)
    for database in databases:
        subscription.add(server.store(database).layout.channel, Listening(database, heard))
    ends_at = None if seconds is None else time.monotonic() + seconds
    subscription.start()
    printed = 0
    try:
        while count is None or printed < count:
            left = None if ends_at is None else max(0.0, ends_at - time.monotonic())
            try:
                database, what, at = heard.get(timeout=left)
            except queue.Empty:
                return
            if not isinstance(what, Announcement):
                _tell_lost(databases, database, what)
                continue
            lag = max(0.0, at - what.at)
            for eviction in evictions_elsewhere(server.where.prefix, database, what, lag):
                wanted = not tables or eviction.table in tables
                if wanted and (not causes or eviction.cause.cause in causes):
                    _print(eviction, what, json=json, with_database=len(databases) > 1)
                    printed += 1
    finally:
        finish(subscription.stop())


def _tell_lost(databases: Sequence[str], database: str, why: str) -> None:
    """Say that announcements may be missing, or that from now on they arrive."""
    if why == "subscribed":
        notice(f"listening to the commits of {database}")
    elif database == databases[0] or why.startswith("message "):
        notice(f"announcements may have been missed: {why}")


def _print(eviction: Eviction, announcement: Announcement, *, json: bool, with_database: bool) -> None:
    cause = eviction.cause
    if json:
        as_json(
            {
                "at": announcement.at,
                "database": eviction.database,
                "table": eviction.table,
                "cause": cause.cause,
                "scope": eviction.scope,
                "tags": eviction.tags,
                "columns": cause.columns,
                "statement": cause.statement,
                "pid": cause.pid,
                "host": cause.host,
                "traceparent": cause.traceparent,
                "origin": announcement.origin,
                "lag_s": round(eviction.lag or 0.0, 6),
            },
            indent=None,
        )
        return
    place = f"{eviction.database} " if with_database else ""
    tags = ", ".join(eviction.tags[:5]) + (
        f" and {len(eviction.tags) - 5} more" if len(eviction.tags) > 5 else ""
    )
    line(
        f"{moment(announcement.at)}  {place}{eviction.table}  {cause.cause} ({eviction.scope})  {tags}  "
        f"{by(cause)}  lag {duration(eviction.lag or 0.0)}"
    )


def by(cause: Cause) -> str:
    """Return which statement of which process a cause names, in one line."""
    columns = f" ({', '.join(cause.columns)})" if cause.columns else ""
    parts = cause.traceparent.split("-") if cause.traceparent else []
    trace = f" trace {parts[1]}" if len(parts) > 1 else ""
    return f"{cause.statement or cause.cause}{columns} by {cause.pid}@{cause.host}{trace}"
