"""Who of a cache's observers wants to hear of other processes, and when listening to them begins.

It begins with ``bind()`` if somebody wants it then, or with the first observer or hook that does. It takes one more
connection of this process, and ends with ``disconnect()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import CacheError
from .observers import Observer

if TYPE_CHECKING:
    from .binding import Binding
    from .core import Core


def listen(manager: Core, binding: Binding) -> None:
    """Listen to what other processes commit to a database, if somebody wants to hear of it; again changes nothing."""
    if manager.backend.transport is not None:
        wanted = binding.received if manager.observers.listen else None
        manager.backend.listen(binding.store, wanted, binding.resynced)


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
