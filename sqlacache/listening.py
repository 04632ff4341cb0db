"""Who of a cache's observers wants to hear of other processes, and when listening to them begins.

It begins with ``bind()`` if somebody wants it then, or with the first observer or hook that does. It takes one more
connection of this process, and ends with ``disconnect()``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .decisions import Drop, Received
from .errors import CacheError
from .evictions import evictions_elsewhere
from .observers import Observer, Observers

if TYPE_CHECKING:
    from .binding import Binding
    from .core import Core


class Told:
    """Tells observers what becomes of a database's entries without a read: it belongs to no engine of it."""

    def __init__(self, name: str, database: str, observers: Observers) -> None:
        self._name = name
        self._database = database
        self._observers = observers

    def received(self, announcement: Any) -> None:
        """Tell what another process announced that it has committed."""
        if announcement.phase != 2:
            return
        at = announcement.at
        lag = max(0.0, time.time() - at)
        self._observers.received(
            Received(
                self._name,
                self._database,
                announcement.origin,
                tuple(touched.table for touched in announcement.touched),
                tuple(touched.cause for touched in announcement.touched if touched.cause is not None),
                at,
                lag,
                evictions_elsewhere(self._name, self._database, announcement, lag),
            )
        )

    def resynced(self, entries: int, why: str) -> None:
        """Tell that entries left the pushed tier, because announcements may have been missed."""
        if entries:
            self._observers.dropped(Drop(self._name, "", "resync", entries))

    def dropped(self, table: str, entries: int) -> None:
        """Tell that entries left for want of room."""
        self._observers.dropped(Drop(self._name, table, "size", entries))


def listen(manager: Core, binding: Binding) -> None:
    """Listen to what other processes commit to a database, if somebody wants to hear of it; again changes nothing."""
    if manager.backend.transport is not None:
        told = Told(manager.name, binding.database, manager.observers)
        wanted = told.received if manager.observers.listen else None
        manager.backend.listen(binding.store, wanted, told.resynced)


def add_observer(manager: Core, observer: Observer) -> None:
    """Tell ``observer`` from now on; begin to listen if it wants to hear of others, and nobody did before.

    Raises :class:`~sqlacache.errors.CacheError` if that takes an event loop and none runs.
    """
    heard = manager.observers.listen
    manager.observers.add(observer)
    if heard or not manager.observers.listen or manager.backend.transport is None or not manager.bindings:
        return
    if not manager.front.can_start():
        manager.observers.remove(observer)
        raise CacheError(
            "add_observer, on_evict: once the cache is bound to a backend that processes share, the first that wants "
            "to hear of other processes is to be added where an event loop runs"
        )
    for binding in manager.bindings:
        listen(manager, binding)
