"""Connections to the nodes of a Redis Cluster: a pool per node, process and event loop.

redis-py hashes the keys and reads the answers. Its cluster client is not used for the protocol: it waits a quarter of a
second when the cluster is down, fails rather than waits when all connections of a node are taken, and says neither over
which connection an answer came nor lets it be introduced.

Which node has which slot is asked when the first command is sent and when a node is being probed; in between, the nodes
themselves correct it (MOVED). A node that fails is left alone, while the others are used, until the whole cluster is
well again: its slots may have gone to a replica meanwhile.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, MovedError, NoScriptError

from ..errors import TransportError
from ..front.port import Front
from .breaker import FAILURES as FAILURES_IN_A_ROW
from .breaker import describe
from .transport import CONNECT, FAILURES, Answer, Transport, name_of

Address = tuple[str, int]

REDIRECTIONS = 5
"""Times that a command follows when nodes name another one."""
ASKED = 5
"""Nodes that are asked for the slots, at most."""

_KEY_OF_SCRIPT = 3
_WITHOUT_KEY = frozenset((b"PING",))


class ClusterTransport(Transport):
    """Sends commands to the nodes of a cluster, each to the one that has the slot of its first key.

    Args: as :class:`.transport.Transport`; ``url`` names a node that tells of the others, and ``nodes`` further ones.
    """

    _failures: Counter[Address]
    _shut: dict[Address, str]
    """Nodes that are left alone, and why."""

    def __init__(self, url: str, *, nodes: Sequence[Address] = (), **options: Any) -> None:
        super().__init__(url, **options)
        of_url = self._wire.of_url(url)
        first: Address = (of_url.get("host", "localhost"), of_url.get("port", 6379))
        self._first: tuple[Address, ...] = (first, *nodes)
        """Whom to ask who else there is."""
        self._owners: list[Address | None] = []
        """The master of each slot; empty until it is known."""

    async def call(self, *command: Any, run_at: int = 0, at: Address | None = None) -> Answer:
        """Send one command, to the node ``at`` if given. Raises :class:`~sqlacache.errors.TransportError`."""
        name = name_of(command)
        nodes = self._pool()
        if not self._owners:
            await self._learn_once(nodes, name)
        address = at or self._owner_for(command)
        asking, began = False, time.monotonic()
        for _ in range(REDIRECTIONS):
            self._check(nodes.pool(address))
            try:
                answer = await self._ask(nodes.pool(address), command, run_at, asking=asking)
            except MovedError as error:
                address, asking = _redirected(address, error), False
                self._owners[error.slot_id] = address
            except AskError as error:
                address, asking = _redirected(address, error), True
            except NoScriptError:
                raise
            except FAILURES as error:
                self._failed_at(address, error, name, time.monotonic() - began)
                raise TransportError(f"{name} at {_text(address)}: {describe(error)}") from error
            else:
                self._failures.pop(address, None)
                return answer
        raise TransportError(f"{name}: redirected more than {REDIRECTIONS} times")

    def _owner_for(self, command: Sequence[Any]) -> Address:
        if command[0] in _WITHOUT_KEY:
            return random.choice(self.masters)
        key = command[_KEY_OF_SCRIPT if command[0] in (b"EVALSHA", b"EVAL") else 1]
        slot = key_slot(key if isinstance(key, bytes) else key.encode())
        owner = self._owners[slot]
        if owner is None:
            raise TransportError(f"{name_of(command)}: no node has slot {slot}")
        return owner

    @property
    def masters(self) -> list[Address]:
        """The nodes that have slots, as far as is known."""
        return [address for address in dict.fromkeys(self._owners) if address is not None]

    def _check(self, pool: Any) -> None:
        address = (pool.connection_kwargs["host"], pool.connection_kwargs["port"])
        if address in self._shut:
            if self.breaker.on_open is not None:
                self.breaker.on_open()  # the loop that probed may have ended
            raise TransportError(f"{_text(address)} is being probed: {self._shut[address]}")

    def shut(self) -> list[tuple[str, str]]:
        """Return the nodes that are not asked until they have been probed, and why."""
        return [(_text(address), why) for address, why in self._shut.items()]

    def _failed_at(self, address: Address, error: BaseException, name: str, took: float) -> None:
        if not self._is_news(error):
            return
        if self.breaker.on_failure is not None:
            self.breaker.on_failure(name, error)
        if not self._is_gone(error, took):
            return
        self._failures[address] += 1
        if self._failures[address] >= FAILURES_IN_A_ROW and address not in self._shut:
            self._shut[address] = describe(error)
            self.breaker.open(error)

    def _not_opened_at(self, address: Address, error: BaseException) -> None:
        if address not in self._shut:
            self._failed_at(address, error, CONNECT, 0.0)

    async def probe(self) -> None:
        """Ask who has which slot, and each of them whether all is well. Raises :class:`TransportError`."""
        nodes = self._pool()
        try:
            await self._learn(nodes)
        except FAILURES as error:
            raise TransportError(f"CLUSTER SLOTS: {describe(error)}") from error
        masters = self.masters
        found = await all_of(self.front, (self._trouble_of(nodes, one) for one in masters))
        self._shut = {one: why for one, why in zip(masters, found) if why}
        if None in self._owners:
            raise TransportError(f"no node has slot {self._owners.index(None)}")
        for address, why in self._shut.items():
            raise TransportError(f"{_text(address)}: {why}")
        self._failures.clear()

    async def _trouble_of(self, nodes: _Nodes, address: Address) -> str:
        try:
            answer = await self._exchange(nodes.pool(address), (b"CLUSTER", b"INFO"))
        except FAILURES as error:
            return describe(error)
        return "" if b"cluster_state:ok" in answer.value else "the cluster is down as it sees it"

    # -- who has which slot --------------------------------------------------------------------------------------------

    async def _learn_once(self, nodes: _Nodes, name: str) -> None:
        self.breaker.check()
        async with nodes.learning:
            if self._owners:
                return
            try:
                await self._learn(nodes)
            except FAILURES as error:
                self._failed(error, name)
                raise TransportError(f"{name}: CLUSTER SLOTS: {describe(error)}") from error

    async def _learn(self, nodes: _Nodes) -> None:
        """Ask several nodes, one of which may be cut off from the others, and believe the most."""
        known = self.masters
        begin = self._first if not known else (random.choice(self._first),)
        asked = {*begin, *random.sample(known, min(len(known), ASKED - 1))}
        answers = await self.front.gather(self._slots(nodes, one) for one in asked)
        views = Counter(answer for answer in answers if isinstance(answer, tuple))
        if not views:
            raise next(answer for answer in answers if isinstance(answer, BaseException))
        [(view, _)] = views.most_common(1)
        owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for start, end, address in view:
            owners[start : end + 1] = [address] * (end + 1 - start)
        self._owners = owners

    async def _slots(self, nodes: _Nodes, asked: Address) -> tuple[tuple[int, int, Address], ...]:
        found = (await self._exchange(nodes.pool(asked), (b"CLUSTER", b"SLOTS"))).value
        # A node that does not know its own name leaves it out.
        return tuple(
            sorted(
                (start, end, ((host or b"").decode() or asked[0], port))
                for start, end, (host, port, *_), *_ in found
            )
        )

    # -- pools ---------------------------------------------------------------------------------------------------------

    def client(self) -> Any:
        """Return redis-py's cluster client of this loop, for what is not the protocol's own business."""
        return self._pool().client()

    def pubsub(self) -> Any:
        """Return what listens to channels, at one of the nodes: each passes on what is published at any."""
        up = [address for address in self.masters if address not in self._shut]
        pool = self._pool().pool(random.choice(up or self._first))
        return self._wire.pubsub(pool)

    def forked(self) -> None:
        self._shut = {}
        self._failures = Counter()
        super().forked()

    def _make_pool(self) -> Any:
        options = {**self._wire.of_url(self.url), **self._wire.PARSER, **self._of_connections()}
        return _Nodes(self.url, options, self.front, self._wire, self._not_opened_at)


class _Nodes:
    """The pools of one event loop, or of all threads."""

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        front: Front,
        wire: Any,
        failed: Callable[[Address, BaseException], None],
    ) -> None:
        self.learning = front.lock()
        self._failed = failed
        self._front = front
        self._wire = wire
        self._url = url
        self._options = options
        self._pools: dict[Address, Any] = {}
        self._client: Any = None

    def pool(self, address: Address) -> Any:
        """Return the connections to one node."""
        pool = self._pools.get(address)
        if pool is None:
            host, port = address
            options = {**self._options, "host": host, "port": port}
            made = self._wire.pool(self._front, options, partial(self._failed, address))
            pool = self._pools.setdefault(address, made)  # another thread may have made one, too
        return pool

    def client(self) -> Any:
        """Return redis-py's client of the whole cluster."""
        if self._client is None:
            not_taken = ("timeout", "redis_connect_func", "retry", "parser_class")
            options = {name: value for name, value in self._options.items() if name not in not_taken}
            of_url = self._wire.of_url(self._url)
            self._client = self._wire.cluster_client(
                self._url, {name: value for name, value in options.items() if name not in of_url}
            )
        return self._client

    async def disconnect(self) -> None:
        """Close all of them."""
        for pool in self._pools.values():
            await pool.disconnect()
        if self._client is not None:
            await self._wire.close(self._client)


async def all_of(front: Front, coroutines: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Await all of them, at once if possible; raise the first error after the last one has ended."""
    answers = await front.gather(coroutines)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def _redirected(asked: Address, error: AskError) -> Address:
    """Return where a node sends a command; one that does not know its name leaves it out."""
    return (error.host or asked[0], error.port)


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
