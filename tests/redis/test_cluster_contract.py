"""The store on a Redis Cluster keeps the contract of all stores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from sqlacache.front.asynchronous import AsyncFront
from sqlacache.front.blocking import BlockingFront
from sqlacache.store.breaker import Breaker
from sqlacache.store.cluster import ClusterStore
from sqlacache.store.cluster_layout import ClusterLayout
from sqlacache.store.cluster_transport import ClusterTransport
from sqlacache.store.codec import SafeCodec
from sqlacache.tags import table_stamp
from sqlacache.testing.contract import StoreContract
from tests.support.fronts import run_on
from tests.support.redis_cluster import RedisCluster

pytestmark = pytest.mark.integration

TABLES = ("*", "users", "orders")


class TestCluster(StoreContract):
    orders = 8

    @pytest.fixture(autouse=True, params=[AsyncFront, BlockingFront])
    def _on(
        self, request: pytest.FixtureRequest, shared_cluster: RedisCluster, prefix: str
    ) -> Iterator[None]:
        self.front = request.param()
        self.cluster = shared_cluster
        self.prefix = prefix
        self.stores: list[ClusterStore] = []
        with redis.RedisCluster.from_url(shared_cluster.url) as self.client:
            yield

    def run(self, test: Callable[[], None]) -> None:
        run_on(self.front, test, self._close)

    async def _close(self) -> None:
        for store in self.stores:
            await store.transport.close()

    def open(self, database: str = "main", prefix: str = "contract") -> ClusterStore:
        transport = ClusterTransport(
            self.cluster.url, timeout=5, options={}, breaker=Breaker(), front=self.front
        )
        layout = ClusterLayout(f"{self.prefix}-{prefix}", database)
        self.stores.append(ClusterStore(transport, layout, codec=SafeCodec(), lease=30))
        return self.stores[-1]

    def another(self, store: Any) -> ClusterStore:
        other = self.open()
        other.layout = other._commits.layout = store.layout
        return other

    def end_leases(self, store: Any) -> None:
        for table in TABLES:
            self._delete(store.layout.writers(table))
        for node in self.cluster.nodes:
            for key in node.command("KEYS", f"{self.prefix}*[}}:]s:*"):
                stamp = node.command("GET", key)
                if stamp is not None and stamp.split(b"|")[3]:
                    node.command("DEL", key)

    def lose(self, store: Any, name: str) -> None:
        self._delete(self._stamp(store, name))

    def lose_registry(self, store: Any, table: str) -> None:
        self._delete(store.layout.registry(table))

    def lose_writers(self, store: Any, table: str) -> None:
        self._delete(store.layout.writers(table))

    def expire(self, store: Any, key: str) -> None:
        self._delete(store.layout.entry(key, key.partition(":")[0]))
        store._expiries[key] = time.time() - 1

    def change_generation(self, store: Any) -> None:
        for table in TABLES:
            generation = store.layout.generation(table)
            self.client.set(generation, b"1|another-run|0")

    def stamp_ttl(self, store: Any, name: str) -> float:
        return float(self.client.pttl(self._stamp(store, name))) / 1000

    def _stamp(self, store: Any, name: str) -> str:
        [table] = [table for table in TABLES if name.startswith(table_stamp(table)[: len(table)])]
        return str(store.layout.stamp(name, table))

    def _delete(self, key: str) -> None:
        self.client.delete(key)
