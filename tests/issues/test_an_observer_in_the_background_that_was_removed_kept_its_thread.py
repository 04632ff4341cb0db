"""An observer in the background that was removed kept its thread for good, and the thread the observer.

::

    1. ``InBackground`` is told of something, and starts its thread, which waits for more.
    2. It is removed from the cache, and nobody has it any more: but its thread, which waits for what nobody can tell.

A program that adds and removes one for each of its requests had a thread more for each.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sqlacache import InBackground, Observer, background


class Hearing(Observer):
    def __init__(self) -> None:
        self.heard: list[int] = []

    def owed(self, cache: str, count: int) -> None:
        self.heard.append(count)


def thread_of(observer: Any) -> threading.Thread | None:
    found: threading.Thread | None = observer._thread
    return found


def test_its_thread_ends_when_there_is_nothing_to_tell_and_another_begins_when_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "IDLE", 0.001)
    hearing = Hearing()
    observer: Any = InBackground(hearing)
    for count in range(3):
        observer.owed("cache", count)
        thread = thread_of(observer)
        assert observer.flush()
        if thread is not None:  # else it has ended already
            thread.join(60)
            assert not thread.is_alive()
        assert thread_of(observer) is None
    assert hearing.heard == [0, 1, 2]


def test_no_record_is_left_untold_where_threads_end_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "IDLE", 0.0)
    hearing = Hearing()
    observer: Any = InBackground(hearing)
    for count in range(300):
        observer.owed("cache", count)
    assert observer.flush()
    assert hearing.heard == list(range(300))
