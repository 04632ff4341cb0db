"""What a cache holds in the memory of this process: told to observers when it has changed, in the task that changed it.

It is told after a fill, a hit that brought an entry here, and a call: nothing else makes or takes away entries but what
comes before these, such as meeting one that has expired. What stamps and announcements take besides is told along with
it: as much as ``max_bytes`` counts. It is not asked for when metrics are scraped: with several
processes, prometheus_client serves what each has written down.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .forks import renew
from .observers import Observers

if TYPE_CHECKING:
    from .core import Core


class Capacity:
    """Looks at the stores of one cache: ``mem://`` itself, or the local tier before a shared backend."""

    def __init__(self, manager: Core) -> None:
        self._manager = manager
        self._told: tuple[int, int] | None = None
        self.forked()
        renew(self)

    def forked(self) -> None:
        self._lock = threading.RLock()  # an observer that is told may make a call

    def tell(self) -> None:
        """Tell how many entries there are and the bytes that the stores count, if that is not what was told last."""
        observers = self._manager.observers
        if not observers.weigh:
            return
        with self._lock:  # what is told last is how it is
            self._tell(observers)

    def _tell(self, observers: Observers) -> None:
        entries = size = 0
        for store in {id(binding.store): binding.store for binding in self._manager.bindings}.values():
            held = getattr(store, "local", store)  # a shared store counts with what it keeps here
            if held is not None:
                entries += len(held)
                size += held.bytes
        if self._told != (entries, size):
            self._told = entries, size
            observers.capacity(self._manager.name, entries, size)
