"""A real Redis Cluster on this machine: masters that share the 16,384 slots, and replicas when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from .processes import BUS, until
from .proxy import Proxy
from .redis_server import Binary, RedisServer, redis_server

NODE_TIMEOUT = 1000


@contextmanager
def redis_cluster(
    nodes: int = 3,
    replicas: int = 0,
    *,
    proxied: bool = False,
    binary: Binary | None = None,
    **options: Any,
) -> Iterator[RedisCluster]:
    """Run a cluster for the time of the block; it covers all slots when the block begins (after some 2 s).

    Args:
        nodes: Masters; each has an equal part of the slots, in order.
        replicas: Replicas of each master.
        proxied: Put a proxy in front of each node and let the cluster name the proxies' ports to its clients, so that
            commands can be counted node by node (:attr:`RedisCluster.proxies`) and clients be cut off from one.
        binary: As for :func:`redis_server`.
        options: Further settings of each node.
    """
    settings: dict[str, Any] = {
        "cluster_enabled": "yes",
        "cluster_config_file": "nodes.conf",
        "cluster_node_timeout": NODE_TIMEOUT,
        "cluster_replica_validity_factor": 0,
        **options,
    }
    with ExitStack() as stack:
        cluster = RedisCluster()
        for number in range(nodes * (1 + replicas)):
            server = stack.enter_context(redis_server(binary, **settings))
            if proxied:
                proxy = stack.enter_context(Proxy(server.address))
                # Redis 6.2 names itself as it was configured when it started.
                server.restart(cluster_announce_port=proxy.port, cluster_announce_bus_port=server.port + BUS)
                cluster.proxies.append(proxy)
            (cluster.nodes if number < nodes else cluster.replicas).append(server)
        cluster.join()
        yield cluster


class RedisCluster:
    """A cluster; made by :func:`redis_cluster`."""

    def __init__(self) -> None:
        self.nodes: list[RedisServer] = []
        """The masters at the beginning."""
        self.replicas: list[RedisServer] = []
        """The replicas at the beginning: the first of each master in the order of :attr:`nodes`, then the second."""
        self.proxies: list[Proxy] = []
        """With ``proxied``: one for each of :attr:`nodes`, then one for each of :attr:`replicas`."""

    @property
    def url(self) -> str:
        """URL of the first node (of its proxy, if it has one): clients learn of the others from it."""
        return self.proxies[0].url if self.proxies else self.nodes[0].url

    @property
    def everyone(self) -> list[RedisServer]:
        """Every node, up or down."""
        return [*self.nodes, *self.replicas]

    def join(self) -> None:
        """Make one cluster of nodes that know nothing of each other."""
        first, count = self.nodes[0], len(self.nodes)
        bounds = [REDIS_CLUSTER_HASH_SLOTS * number // count for number in range(count + 1)]
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER ADDSLOTS", *range(bounds[number], bounds[number + 1]))
            node.command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in self.everyone[1:]:
            first.command("CLUSTER MEET", "127.0.0.1", node.port, node.port + BUS)
        size = len(self.everyone)
        until(lambda: all(_known(node) == size for node in self.everyone), "the nodes to know each other")
        masters = [node.command("CLUSTER MYID") for node in self.nodes]
        for number, replica in enumerate(self.replicas):
            replica.command("CLUSTER REPLICATE", masters[number % count])
        self.await_ok()
        for replica in self.replicas:
            replica.await_replication()

    def await_ok(self, patience: float = 30.0) -> None:
        """Wait until every node that is up finds every slot served, and they agree by which master."""
        until(self._is_ok, "the cluster to be ok", patience)

    def _is_ok(self) -> bool:
        views = set()
        for node in self.everyone:
            try:
                if _state(node) != b"ok":
                    return False
                views.add(_owners(node))
            except redis.ConnectionError:
                continue
        return len(views) == 1

    def master_of(self, key: str | bytes) -> RedisServer:
        """Return the node that serves the slot of ``key`` now."""
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        for node in self.everyone:
            try:
                owners = _owners(node)
            except redis.ConnectionError:
                continue
            owner = next(name for start, end, name in owners if start <= slot <= end)
            return next(one for one in self.everyone if _is_named(one, owner))
        raise RuntimeError("no node is up")

    def command(self, name: str, key: str | bytes, *args: Any) -> Any:
        """Send one command about ``key`` to the node that serves it."""
        return self.master_of(key).command(name, key, *args)

    def failover(self, node: RedisServer, patience: float = 30.0) -> None:
        """Kill ``node``, a master with a replica, and wait until every slot is served again (after some 2 s)."""
        name = node.command("CLUSTER MYID")
        node.kill()

        def replaced() -> bool:
            up = [one for one in self.everyone if one is not node]
            return all(name not in {owner for _, _, owner in _owners(one)} for one in up)

        until(replaced, f"a replica of {node!r} to be promoted", patience)
        self.await_ok(patience)


def _state(node: RedisServer) -> bytes:
    return _text(node, "CLUSTER INFO").split(b"cluster_state:")[1].split()[0]


def _known(node: RedisServer) -> int:
    return int(_text(node, "CLUSTER INFO").split(b"cluster_known_nodes:")[1].split()[0])


def _owners(node: RedisServer) -> frozenset[tuple[int, int, bytes]]:
    """Return who serves which slots, as ``node`` sees it: first slot, last slot, name of the master."""
    slots = node.command("CLUSTER", "SLOTS")
    return frozenset((start, end, bytes(master[2])) for start, end, master, *_ in slots)


def _is_named(node: RedisServer, name: bytes) -> bool:
    try:
        return bytes(node.command("CLUSTER MYID")) == name
    except redis.ConnectionError:
        return False


def _text(node: RedisServer, command: str) -> bytes:
    """Return the reply as it is: given in two words, redis-py does not take it apart."""
    return bytes(node.command(*command.split()))
