"""Switching from ``off`` to ``on`` did not void what a reader had sampled before ``off``.

1. A reader misses: it samples its stamps, the database answers, and it is slow to store.
2. The cache is switched off. A writer commits; being off, the cache replaces no stamp.
3. The cache is switched on. That voids everything by replacing the stamp of everything, but the mode was still ``off``
   while it did so, in which nothing is replaced. Only the entries were removed.
4. The reader stores what it read before the write, under stamps that are still current: stale, and served from then on.

For the same reason ``invalidate()`` and ``touched()`` did nothing while the cache was off.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from tests.support.gates import after_select
from tests.support.models import User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import get, rows
from tests.support.writes import change

READS = {"get": get(User, 1), "list": rows(lambda: select(User.id, User.name).order_by(User.id))}

pytestmark = pytest.mark.skipif(UNCACHED, reason="is about the cache's modes")


@pytest.mark.parametrize("mode", ["off", "write_only"])
@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_what_was_read_before_a_write_in_another_mode_is_not_stored(
    read: Any, mode: Any, reader: Reader
) -> None:
    with after_select(reader.database) as gate:
        slow = await gate.reached_by(reader.ask(read))
        await reader.cache.set_mode(mode)
        await change(User, 1, name="zed")(reader.database)
        await reader.cache.set_mode("on")
        gate.open()
        await slow
    await reader.current(read)
    await reader.hit(read)


async def test_what_is_invalidated_while_the_cache_is_off_is_not_served_afterwards(reader: Reader) -> None:
    read = READS["get"]
    await reader.warm(read)
    await reader.cache.set_mode("off")
    await change(User, 1, name="zed")(reader.database)
    await reader.cache.invalidate(User, pks=[1])
    await reader.cache.set_mode("on")
    await reader.current(read)
    await reader.hit(read)
