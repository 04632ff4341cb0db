"""What an engine leaves behind when it is unbound: transactions under way, which are followed to their end.

::

    1. A session writes. What it writes is noted in its connection's ledger.
    2. The engine is unbound. Nothing that is read on it is served or stored any more.
    3. The session commits. Others, on another engine or in another process, may have cached what it wrote: both phases
       are put around its COMMIT, as if the engine were bound.
    4. It was the last one. What listens to the engine is removed.

A transaction that takes its connection after step 2 is one of an engine that is not bound. Which ones do is not known
of the connections that were out before the engine was bound, so that those are followed until they are back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from .write.ledger import Ledger


class Leaving:
    """The transactions of one engine that are followed to their end.

    Args:
        ledgers: Those of every connection whose transactions were seen from their beginning, and whether it is out.
        is_unseen: Tells whether other connections are out.
        let_go: Called once nothing is left to follow.
    """

    def __init__(
        self,
        ledgers: Collection[tuple[Ledger, bool]],
        is_unseen: Callable[[], bool],
        let_go: Callable[[], None],
    ) -> None:
        self._seen = WeakSet(ledger for ledger, _ in ledgers)
        self._under_way = WeakSet(ledger for ledger, is_out in ledgers if is_out)
        self._is_unseen = is_unseen
        self._let_go = let_go
        self._lock = threading.Lock()
        self.is_over = False

    def follows(self, ledger: Ledger | None) -> bool:
        """Tell whether what is done on the connection of ``ledger`` is looked at."""
        if self.is_over:
            return False
        if ledger is not None and ledger in self._under_way:
            return True
        return self._is_unseen() and (ledger is None or ledger not in self._seen)

    def checked_out(self, ledger: Ledger) -> None:
        """Take note of a connection that has left the pool since."""
        self._seen.add(ledger)

    def ended(self, ledger: Ledger) -> None:
        """Take note of the end of a transaction."""
        self._under_way.discard(ledger)
        self.look()

    def look(self) -> None:
        """Let go if nothing is left."""
        if not self._under_way and not self._is_unseen():
            self.give_up()

    def give_up(self) -> None:
        """Let go, whatever is left."""
        with self._lock:
            if self.is_over:
                return
            self.is_over = True
        self._let_go()
