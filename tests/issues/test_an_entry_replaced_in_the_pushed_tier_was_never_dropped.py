"""An entry that took another one's place in the pushed tier was served for good, whatever was announced.

1. Two tasks look the same key up, as the tier has nothing. Both find the entry on the server.
2. Each puts it into the tier. The second noted which stamps the entry depends on, then removed the first one, and with
   it the note, as both have the same key.
3. An announcement touches the stamps: nothing is noted under them, and the entry stays.
"""

from __future__ import annotations

import time

import pytest

from sqlacache.store.pushed import Generation, PushedTier
from sqlacache.store.stamps import Entry

STAMPS = (("users#table", 1, 11), ("users:1", 1, 12))


def entry(tier: PushedTier) -> Entry:
    now = time.time()
    return Entry(
        STAMPS, (("id", None),), ((1,),), None, now, now + 60, 0.01, 100, 1, Generation(b"g", tier.arrived)
    )


@pytest.mark.parametrize("touched", [name for name, _, _ in STAMPS])
def test_an_entry_put_twice_is_dropped_by_an_announcement(touched: str) -> None:
    tier = PushedTier(max_bytes=10_000, bound=1.0)
    for _ in range(2):
        tier.put("key", entry(tier))
    assert tier.get("key") is not None
    tier.touch([touched])
    assert tier.get("key") is None
    assert len(tier) == 0


def test_an_entry_put_again_after_an_announcement_is_dropped_by_the_next() -> None:
    tier = PushedTier(max_bytes=10_000, bound=1.0)
    old = entry(tier)
    tier.put("key", old)
    tier.touch(["users:1"])
    tier.put("key", old)  # sampled before: refused
    assert tier.get("key") is None
    tier.put("key", entry(tier))
    assert tier.get("key") is not None
    tier.touch(["users:1"])
    assert tier.get("key") is None
