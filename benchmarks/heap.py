"""What a contender is measured with in memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_garbage() -> Iterator[None]:
    """Let the garbage collector look at nothing in the block but what is made in it.

    It stays on: what a contender leaves for it to collect is a part of what the contender costs. What others keep in
    the same process, such as everybody's caches, is not, and would cost whoever makes most objects most.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def all_garbage() -> Iterator[None]:
    """Let the garbage collector do in the block what it does in any program; what was garbage before is gone."""
    gc.collect()
    yield
