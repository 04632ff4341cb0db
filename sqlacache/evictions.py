"""What ``on_evict`` hooks are told: for each table, which write evicted what depends on it, here or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from .decisions import Cause, Eviction, Invalidation, Received, Scope
from .errors import CacheError
from .observers import Observer
from .tags import table_stamp
from .write.phases import MAX_TAGS_TOLD

if TYPE_CHECKING:
    from .store.announcing import Announcement

Hook = Callable[[Eviction], Any]


class EvictionHook(Observer):
    """An observer that calls a function with every :class:`~sqlacache.decisions.Eviction`.

    Raises:
        CacheError: It is not a function, or one that would have to be awaited.
    """

    def __init__(self, hook: Hook) -> None:
        given: object = hook
        if not callable(given) or iscoroutinefunction(given):
            raise CacheError(f"on_evict: takes a function that is not async, got {given!r}")
        self._hook = hook

    def invalidated(self, invalidation: Invalidation | None, scope: Any) -> None:
        if invalidation is not None and invalidation.committed:
            self._call(evictions_here(invalidation))

    def received(self, received: Received) -> None:
        self._call(received.evictions)

    def _call(self, evictions: Iterable[Eviction]) -> None:
        """Call the hook with each; if it raised, raise the first error when all are told, to be counted."""
        first: Exception | None = None
        for eviction in evictions:
            try:
                self._hook(eviction)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first


def evictions_here(invalidation: Invalidation) -> tuple[Eviction, ...]:
    """Return what a commit or a call of this process evicted."""
    return tuple(
        Eviction(
            invalidation.cache,
            invalidation.database,
            change.table,
            Cause(
                change.cause,
                change.table,
                _rows(change.table, change.tags) if change.rows else (),
                change.columns,
                invalidation.statement,
                invalidation.at,
                invalidation.pid,
                invalidation.host,
                invalidation.traceparent,
                change.site,
                change.parameters,
            ),
            change.tags,
            change.scope,
            False,
            None,
        )
        for change in invalidation.changes
    )


def evictions_elsewhere(
    cache: str, database: str, announcement: Announcement, lag: float
) -> tuple[Eviction, ...]:
    """Return what another process announced that it has evicted."""
    return tuple(
        Eviction(
            cache,
            database,
            touched.table,
            touched.cause,
            touched.cause.keys or (touched.names or ())[:MAX_TAGS_TOLD],
            _scope(touched.table, touched.names),
            True,
            lag,
        )
        for touched in announcement.touched
        if touched.cause is not None
    )


def _rows(table: str, tags: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``tags`` that name a row by its primary key."""
    return tuple(tag for tag in tags if tag.startswith(f"{table}:") and not _is_shape(tag))


def _scope(table: str, names: tuple[str, ...] | None) -> Scope:
    if names is None or table_stamp(table) in names:
        return "table"
    return "conditions" if any(map(_is_shape, names)) else "rows"


def _is_shape(name: str) -> bool:
    """Tell whether a stamp is that of all values of its columns: the names that :class:`.tags.Shape` makes."""
    return name.endswith((":#key", ":*")) or ("?" in name and "=" not in name)
