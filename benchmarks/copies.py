"""A large cache in seconds: entries that were read once are copied under other keys, with a stamp of their own each.

Reading 100,000 rows one by one would take minutes. What is copied is what a read of another row leaves: an entry and
the stamp of its row in the store, through the store's own methods in this process, and as bytes on Redis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import redis

from sqlacache import CacheManager

TTL = 3600
AT_ONCE = 2000


async def add_copies(cache: CacheManager, sessions: Any, model: Any, number: int, redis_url: str) -> None:
    """Add ``number`` entries to a cache in which row 1 of ``model`` is."""
    (binding,) = cache.bindings
    store: Any = binding.store
    async with sessions() as session:
        found = await cache.explain_get(session, model, 1)
    key, (row,) = found.key, found.dependencies
    assert key is not None and found.decision == "hit", found
    if cache.settings.backend.is_memory:
        entry = store.lookup(key, ()).entry
        for name, copy in _copies(key, row, entry, number):
            sample, _ = store.sample([copy.stamps[-1][0]], [], (), TTL)
            copied = (*copy.stamps[:-1], (copy.stamps[-1][0], 1, sample.stamps[0].nonce))
            assert store.fill(name, replace(copy, stamps=copied)) == "stored"
        return
    if store.local is not None:
        for name, copy in _copies(key, row, store.local.get(key), number):
            store.local.put(name, copy)
    _copy_on_server(redis_url, cache.settings.prefix, key, row, number)


def _copies(key: str, row: str, entry: Any, number: int) -> Iterator[tuple[str, Any]]:
    """Give keys and entries; the stamp of the row comes last."""
    others = tuple(stamp for stamp in entry.stamps if stamp[0] != row)
    ((_, version, nonce),) = [stamp for stamp in entry.stamps if stamp[0] == row]
    table = row.partition(":")[0]
    for each in range(1_000_001, 1_000_001 + number):
        rows = tuple((each, *map(_anew, values[1:])) for values in entry.rows)
        stamps = (*others, (f"{table}:{each}", version, nonce))
        yield f"{key[:-7]}{each}", replace(entry, rows=rows, stamps=stamps)


def _anew(value: Any) -> Any:
    """Return another object of the same value, as the driver would, where that takes memory."""
    return value[:1] + value[1:] if isinstance(value, str) and len(value) > 1 else value


def _copy_on_server(url: str, prefix: str, key: str, row: str, number: int) -> None:
    client = redis.Redis.from_url(url)
    try:
        (entry,) = client.scan_iter(f"{prefix}:*:e:{key}", 10_000)
        (stamp,) = client.scan_iter(f"{prefix}:*:s:{row}", 10_000)
        values = client.mget(entry, stamp)
        for first in range(0, number, AT_ONCE):
            pipeline = client.pipeline(transaction=False)
            for each in range(1_000_001 + first, 1_000_001 + min(number, first + AT_ONCE)):
                pipeline.set(entry[:-7] + str(each).encode(), values[0], ex=TTL)
                pipeline.set(stamp.rpartition(b":")[0] + f":{each}".encode(), values[1], ex=TTL)
            pipeline.execute()
    finally:
        client.close()
