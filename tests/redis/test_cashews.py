"""cashews owns the backend: what it offers itself goes over the same connections, beside the cache's own keys."""

from __future__ import annotations

import pytest

from sqlacache import configure

pytestmark = pytest.mark.integration


async def test_what_users_store_through_cashews_comes_back(redis_url: str, prefix: str) -> None:
    cache = configure(backend=redis_url, prefix=prefix, telemetry=None)
    key = f"{prefix}-mine"
    await cache.cashews.set(key, {"a": [1, None]}, expire=10)
    assert await cache.cashews.get(key) == {"a": [1, None]}
    assert await cache.cashews.incr(f"{key}-count") == 1
    assert await cache.cashews.delete(key)
    assert await cache.cashews.get(key) is None
    await cache.disconnect()


async def test_disabling_the_backend_through_cashews_bypasses_the_cache(redis_url: str, prefix: str) -> None:
    cache = configure(backend=redis_url, prefix=prefix, telemetry=None)
    with cache.cashews.disabling():
        assert cache.is_bypassed()
    assert not cache.is_bypassed()
    await cache.disconnect()
