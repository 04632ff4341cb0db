"""What is remembered of decisions was read while another was remembered: "deque mutated during iteration".

1. A thread asks for an explanation: the history is copied, for which memory is asked for.
2. Python collects garbage first, and lets another thread run, or a finaliser that reads through a session.
3. A decision is remembered. The copy goes on, and raises into the explanation.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from sqlacache.history import History


class Finalised:
    """Garbage, which remembers something when it is collected."""

    def __init__(self, remember: Any) -> None:
        self.itself, self.remember = self, remember

    def __del__(self) -> None:
        self.remember(object(), None)


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.freeze()  # what other tests have left takes long to look through
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.parametrize(
    ("kind", "told"),
    [("decisions", "decided"), ("invalidations", "invalidated")],
    ids=["decisions", "invalidations"],
)
def test_a_history_can_be_read_while_it_is_written(kind: str, told: str, thresholds: None) -> None:
    history = History(1000)
    remember = getattr(history, told)
    for _ in range(100):
        remember(object(), None)
    for later in range(20):  # one of them is when the copy is made; on 3.12 and later, none is
        gc.set_threshold(1_000_000)
        gc.collect()
        Finalised(remember)
        gc.set_threshold(gc.get_count()[0] + later)
        assert len(getattr(history, kind)) >= 100
    gc.collect()
    assert len(getattr(history, kind)) == 120
