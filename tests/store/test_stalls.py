"""The event loop is never blocked by a janitor: with 100,000 entries, no single call works long.

Counted is the processor time of this thread, so that a busy machine does not matter: the longest single call, which is
the longest that the loop stands still. The bound is generous; looking at every entry takes several times as long.
Python's own garbage collector is kept out of it: it looks at whatever a process holds (docs/operations.md).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sqlacache.decisions import Cause
from sqlacache.store.local import LocalTier
from sqlacache.store.memory import MemoryStore
from sqlacache.store.pushed import Generation, PushedTier
from sqlacache.store.stamps import Entry
from sqlacache.tags import Shape, TableTouch

ENTRIES = 100_000
BOUND = 0.025
"""Seconds of processor time."""
PLENTY = 1 << 40
USER = Shape("users", ("id",), None, keyed=True)


class Longest:
    """The longest of many calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Call and measure."""
        began = time.thread_time()
        result = work(*arguments)
        self.seconds = max(self.seconds, time.thread_time() - began)
        return result


def names(number: int) -> list[str]:
    return ["*", "users#table", USER.name, f"users:{number}"]


def entry(stamps: tuple[tuple[str, int, int], ...], under: Any = None, life: float = 60.0) -> Entry:
    now = time.time()
    return Entry(stamps, (("id", None),), ((1,),), None, now, now + life, 0.01, 100, 1, under)


@pytest.fixture
def longest() -> Iterator[Longest]:
    gc.collect()
    gc.disable()
    yield Longest()
    gc.enable()


def test_a_store_in_memory_that_fills_up_expires_and_makes_room(longest: Longest) -> None:
    store = MemoryStore(max_bytes=PLENTY, lease=30)
    for number in range(ENTRIES + 1000):
        if number == ENTRIES:
            store.max_bytes = store.bytes
        sample, _ = longest.call(store.sample, names(number), ["users"], [USER], 0.001)
        stamps = tuple(
            (name, one.version, one.nonce) for name, one in zip(names(number), sample.stamps) if one
        )
        longest.call(store.fill, f"users:{number}", entry(stamps, life=0.001))
    assert ENTRIES - 100 < len(store) < ENTRIES + 100, "the last thousand took the room of the first"
    for number in range(ENTRIES, 0, -100):
        longest.call(store.lookup, f"users:{number}", names(number))
    touched = {"users": TableTouch("users", "bulk_write", scope="table")}
    causes = {"users": Cause("bulk_write", "users")}
    revisions = {"users": store.shapes(["users"])["users"][0]}
    longest.call(store.mark, "token", touched, revisions, causes)
    longest.call(store.settle, "token", touched, causes)
    assert longest.seconds < BOUND


def test_a_pushed_tier_that_is_voided_at_once(longest: Longest) -> None:
    tier = PushedTier(PLENTY, bound=60)
    stamps = [tuple((name, 1, 1) for name in names(number)) for number in range(ENTRIES)]
    under = Generation(b"g", tier.arrived)
    for number in range(ENTRIES):
        longest.call(tier.put, f"users:{number}", entry(stamps[number], under))
    assert tier.get("users:7") is not None
    longest.call(tier.touch, ["users#table"])
    assert tier.get("users:7") is None
    longest.call(tier.suspend)
    assert tier.get("users:8") is None
    assert longest.seconds < BOUND


def test_a_local_tier_that_makes_room(longest: Longest) -> None:
    tier = LocalTier(PLENTY)
    stamps = (("*", 1, 1),)
    for number in range(ENTRIES + 1000):
        if number == ENTRIES:
            tier.max_bytes = tier.bytes
        longest.call(tier.put, f"users:{number}", entry(stamps))
    assert ENTRIES - 100 < len(tier) < ENTRIES + 100
    assert longest.seconds < BOUND
