"""What a forked process makes anew: locks that a thread of its parent may hold, and threads that it has not got."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Renewed(Protocol):
    """Keeps something that a child must not take over as it is."""

    def forked(self) -> None:
        """Make it anew; called in the child, before anything else runs there."""


_renewed: WeakSet[Renewed] = WeakSet()
_restarted: WeakSet[Renewed] = WeakSet()


def renew(owner: Renewed, *, last: bool = False) -> None:
    """Call ``owner.forked()`` in every child of this process, as long as it is there; ``last``: after all others."""
    (_restarted if last else _renewed).add(owner)


def _in_child() -> None:
    for owner in [*_renewed, *_restarted]:
        owner.forked()


if hasattr(os, "register_at_fork"):  # where processes fork
    os.register_at_fork(after_in_child=_in_child)
