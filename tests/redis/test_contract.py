"""The store on Redis keeps the contract of every store, on both fronts, with and without a tier in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sqlacache.front.asynchronous import AsyncFront
from sqlacache.front.blocking import BlockingFront
from sqlacache.store.breaker import Breaker
from sqlacache.store.codec import SafeCodec
from sqlacache.store.layout import Layout
from sqlacache.store.local import LocalTier
from sqlacache.store.pushed import PushedTier
from sqlacache.store.records import PROTOCOL
from sqlacache.store.redis import RedisStore
from sqlacache.store.transport import Transport
from sqlacache.testing.contract import StoreContract
from tests.store.samples import VALUES
from tests.support.fronts import run_on

pytestmark = pytest.mark.integration

ROOM = 10_000_000


class TestRedis(StoreContract):
    values = VALUES
    orders = 30

    @pytest.fixture(autouse=True, params=[AsyncFront, BlockingFront])
    def server(self, request: pytest.FixtureRequest, redis_url: str, prefix: str) -> None:
        self.prefix = prefix
        self.transport = Transport(redis_url, timeout=5, options={}, breaker=Breaker(), front=request.param())

    def run(self, test: Callable[[], None]) -> None:
        run_on(self.transport.front, test, self.transport.close)

    def open(self, database: str = "main", prefix: str = "contract") -> Any:
        return self._open(Layout(f"{self.prefix}-{prefix}", database))

    def tier(self) -> LocalTier | None:
        """What of the entries stays in this process."""
        return None

    def _open(self, layout: Layout) -> Any:
        return RedisStore(self.transport, layout, codec=SafeCodec(), lease=30, local=self.tier())

    def another(self, store: Any) -> Any:
        return self._open(store.layout)

    def _call(self, *command: Any) -> Any:
        return self.transport.front.wait(self.transport.call(*command)).value

    def end_leases(self, store: Any) -> None:
        stamp = store.layout.stamp("", "").encode()
        for key in self._call(b"KEYS", f"{store.layout.prefix}:*"):
            kind = self._call(b"TYPE", key)
            in_flight = (
                kind == b"string" and key.startswith(stamp) and self._call(b"GET", key).split(b"|")[3] != b""
            )
            if kind == b"zset" or in_flight:
                self._call(b"DEL", key)

    def lose(self, store: Any, name: str) -> None:
        self._call(b"DEL", store.layout.stamp(name, "users"))

    def lose_registry(self, store: Any, table: str) -> None:
        self._call(b"DEL", store.layout.registry(table))

    def lose_writers(self, store: Any, table: str) -> None:
        self._call(b"DEL", store.layout.writers(table))

    def expire(self, store: Any, key: str) -> None:
        self._call(b"DEL", store.layout.entry(key, "users"))
        if store.local is not None:
            store.local.drop([key])

    def change_generation(self, store: Any) -> None:
        self._call(b"SET", store.layout.generation("*"), f"{PROTOCOL}|another|x")

    def stamp_ttl(self, store: Any, name: str) -> float:
        life: float = self._call(b"PTTL", store.layout.stamp(name, "users")) / 1000
        return life


class TestRedisValidated(TestRedis):
    def tier(self) -> LocalTier:
        return LocalTier(ROOM)


class TestRedisPushedWithoutAnnouncements(TestRedis):
    """Nobody proves that announcements arrive: the pushed tier asks the server, as the validated one does."""

    def tier(self) -> LocalTier:
        return PushedTier(ROOM, bound=1.0)
