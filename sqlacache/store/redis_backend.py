"""The cashews backend behind ``redis://``: it owns the connections, and the stores of a cache live in it.

cashews' own Redis backend opens one client when it is initialised; this one opens a pool per process and event loop
when it is first used, so that a process may be forked, and loops may come and go, after ``configure()``. What cashews
itself offers (``cache.cashews.get``, ``set``...) goes over the same connections.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from cashews import register_backend
from cashews.backends.redis import Redis as CashewsRedis

from ..backend import Backend
from ..errors import CacheError
from ..front.port import Front
from ..tags import EVERYTHING
from .announcing import Announcement
from .breaker import Breaker
from .cluster import ClusterStore
from .cluster_layout import ClusterLayout
from .cluster_transport import ClusterTransport
from .codec import Codec
from .layout import Layout
from .local import LocalTier
from .pushed import PushedTier
from .redis import RedisStore
from .subscription import Subscription
from .transport import Transport
from .unbound import unneeded

try:
    from cashews.picklers import PicklerType
except ImportError:
    PicklerType = None  # type: ignore[assignment,misc]  # cashews before 7.5

ALIAS = "sqlacache+redis"
"""What cashews knows the backend by."""


class RedisBackend(CashewsRedis):
    """cashews' Redis backend over :class:`~sqlacache.store.transport.Transport`.

    Args:
        address: The server's URL.
        backend: The options given to ``configure()``.
        codec: Makes rows of an entry's bytes.
        prefix_of_keys: Under which every key lies.
        breaker: Opened when the server does not answer.
        front: How answers are waited for.
        scheme: How values appear in names (:mod:`sqlacache.digests`).
    """

    def __init__(
        self,
        address: str,
        *,
        backend: Backend,
        codec: Codec,
        prefix_of_keys: str,
        breaker: Breaker,
        front: Front,
        scheme: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(address, suppress=False, **kwargs)
        self.breaker = breaker
        common: dict[str, Any] = {
            "timeout": backend.timeout,
            "options": backend.options,
            "breaker": breaker,
            "front": front,
        }
        self.transport: Transport = (
            ClusterTransport(address, nodes=backend.nodes, **common)
            if backend.cluster
            else Transport(address, sentinel=backend.sentinel, **common)
        )
        self._is_cluster = backend.cluster
        self._codec = codec
        self._local = backend.local
        self._bound = backend.bound
        self.subscription = Subscription(self.transport, beat=backend.bound / 4)
        self._prefix = prefix_of_keys
        self.scheme = scheme
        self._stores: dict[str, RedisStore] = {}

    @property
    def is_init(self) -> bool:
        """Always: connections open when they are needed."""
        return True

    async def init(self) -> None:
        """Nothing: connections open when they are needed."""

    def listen(
        self,
        store: RedisStore,
        on_received: Callable[[Announcement], None] | None,
        on_resync: Callable[[int, str], None],
    ) -> None:
        """Listen to the commits of other processes, if somebody wants to hear of them."""
        if on_received is None and store.pushed is None:
            return
        store.on_received, store.on_resync = on_received, on_resync
        self.subscription.add(store.layout.channel, store, resets=(store.layout.generation(EVERYTHING),))
        self.subscription.start()

    async def keep(self, bound: Collection[str], awaited: Collection[str]) -> None:
        """Forget what this process has of every database that is not ``bound``; a writer who is ``awaited`` tells
        the others by the same store as whoever binds it meanwhile."""
        for database in unneeded(self._stores, bound, awaited):
            self.subscription.remove(self._stores.pop(database))
        if self.subscription.was_begun and not self.subscription.is_wanted:
            await self.subscription.stop()

    def forked(self) -> None:
        """Listen again if the parent did: its thread is not here."""
        if self.subscription.was_begun:
            self.subscription.start()

    async def close(self) -> None:
        await self.subscription.stop()
        for store in self._stores.values():
            store.delete_everything()
        await self.transport.close()

    @property
    def _client(self) -> Any:  # type: ignore[override]  # cashews sets it once; here it is that of the running loop
        if self.transport.front.is_blocking:
            raise CacheError("what cashews itself offers takes an event loop: use it with configure()")
        return self.transport.client()

    def open(
        self, database: str, *, max_bytes: int, lease: float, on_drop: Callable[[str, int], None]
    ) -> RedisStore:
        """Return the store of one database."""
        store = self._stores.get(database)
        if store is None:
            local: LocalTier | None = None
            if self._local == "pushed":
                local = PushedTier(max_bytes, self._bound, on_drop)
            elif self._local is not None:
                local = LocalTier(max_bytes, on_drop)
            kind, layout = (ClusterStore, ClusterLayout) if self._is_cluster else (RedisStore, Layout)
            store = self._stores[database] = kind(
                self.transport,
                layout(self._prefix, database, scheme=self.scheme),
                codec=self._codec,
                lease=lease,
                local=local,
            )
        return store


# What users store through cashews themselves is pickled as with its own Redis backend; entries never are.
if PicklerType is None:  # before 7.5 the backend, not its registration, says so
    register_backend(ALIAS, RedisBackend)
else:
    register_backend(ALIAS, RedisBackend, pickler=PicklerType.DEFAULT)
