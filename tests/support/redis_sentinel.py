"""A real Redis Sentinel on this machine: a master, replicas, and the sentinels that promote one when it is gone.

Replication logs in as a user of its own, so that a test can hold it back (:meth:`RedisSentinel.cut_replication`) while
clients and sentinels go on as ever: the replica then lags, and is promoted as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import redis

from .processes import until
from .redis_server import Binary, RedisServer, redis_server

SERVICE = "cache"
DOWN_AFTER = 500
REPLICATION: dict[str, Any] = {
    "user": "replicator on >replicating +psync +replconf +ping",
    "masteruser": "replicator",
    "masterauth": "replicating",
}


@contextmanager
def redis_sentinel(
    replicas: int = 1,
    sentinels: int = 1,
    *,
    down_after: int = DOWN_AFTER,
    binary: Binary | None = None,
    **options: Any,
) -> Iterator[RedisSentinel]:
    """Run a watched master for the time of the block.

    Args:
        replicas: Replicas of the master.
        sentinels: 1 or 3; a majority of them decides.
        down_after: Milliseconds without an answer until a master counts as down. A replica that was cut off for more
            than ten times as long is not promoted.
        binary: As for :func:`redis_server`.
        options: Further settings of the master and the replicas; ``tls`` is that of the sentinels, too.
    """
    with ExitStack() as stack:
        master = stack.enter_context(redis_server(binary, **REPLICATION, **options))
        settings = {**REPLICATION, "replicaof": f"127.0.0.1 {master.port}", **options}
        servers = [
            master,
            *(stack.enter_context(redis_server(binary, **settings)) for _ in range(replicas)),
        ]
        for replica in servers[1:]:
            replica.await_replication()
        watched: dict[str, Any] = {
            "sentinel": [
                f"monitor {SERVICE} 127.0.0.1 {master.port} {sentinels // 2 + 1}",
                f"down-after-milliseconds {SERVICE} {down_after}",
                f"failover-timeout {SERVICE} 6000",
            ]
        }
        watched["tls"] = options.get("tls")
        watchers = [stack.enter_context(_sentinel(binary, watched)) for _ in range(sentinels)]
        watch = RedisSentinel(servers, watchers)
        watch.await_ready()
        yield watch


@contextmanager
def _sentinel(binary: Binary | None, settings: dict[str, Any]) -> Iterator[_Sentinel]:
    with redis_server(binary, kind=_Sentinel, **settings) as sentinel:
        assert isinstance(sentinel, _Sentinel)
        yield sentinel


class _Sentinel(RedisServer):
    arguments = ("--sentinel",)
    settings = ("bind", "port", "dir", "unixsocket", "logfile", "daemonize", "sentinel")

    def _write(self, settings: dict[str, Any]) -> None:
        kept = (name for name in settings if name in self.settings or name.startswith("tls-"))
        super()._write({name: settings[name] for name in kept})


class RedisSentinel:
    """A watched master; made by :func:`redis_sentinel`."""

    service = SERVICE
    """The name under which the sentinels know the master."""

    def __init__(self, servers: list[RedisServer], watchers: list[RedisServer]) -> None:
        self.servers = servers
        """Master and replicas; the first is the master at the beginning."""
        self.watchers = watchers
        """The sentinels' own processes."""

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        """Host and port of each sentinel."""
        return [watcher.address for watcher in self.watchers]

    @property
    def master(self) -> RedisServer:
        """The server that the first sentinel names as the master now; it may be down."""
        _, port = self.watchers[0].command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    @property
    def replicas(self) -> list[RedisServer]:
        """Every server but the master."""
        master = self.master
        return [server for server in self.servers if server is not master]

    @property
    def replica(self) -> RedisServer:
        """The first replica."""
        return self.replicas[0]

    def await_ready(self, patience: float = 30.0) -> None:
        """Wait until every sentinel knows the others and sees every server up and every replica following."""
        until(lambda: all(map(self._is_ready, self.watchers)), "the sentinels to know everyone", patience)

    def _is_ready(self, watcher: RedisServer) -> bool:
        master = _pairs(watcher.command("SENTINEL", "MASTER", SERVICE))
        replicas = [_pairs(one) for one in watcher.command("SENTINEL", "REPLICAS", SERVICE)]
        return (
            master["flags"] == "master"
            and int(master["num-other-sentinels"]) == len(self.watchers) - 1
            and sorted(int(one["port"]) for one in replicas) == sorted(one.port for one in self.replicas)
            and all(one["flags"] == "slave" and one["master-link-status"] == "ok" for one in replicas)
        )

    def kill_master(self) -> RedisServer:
        """Kill the master and return it; :meth:`await_failover` waits for what follows."""
        master = self.master
        master.kill()
        return master

    def await_failover(self, old: RedisServer, patience: float = 45.0) -> RedisServer:
        """Wait until every sentinel finds another master than ``old`` up, and that one takes writes; return it."""

        def promoted() -> RedisServer | None:
            views = [_pairs(watcher.command("SENTINEL", "MASTER", SERVICE)) for watcher in self.watchers]
            ports = {int(view["port"]) for view in views}
            if len(ports) > 1 or old.port in ports or {view["flags"] for view in views} != {"master"}:
                return None
            master = self.master
            return master if master.info()["role"] == "master" else None

        found: RedisServer = until(promoted, f"a replica of {old!r} to be promoted", patience)
        return found

    def failover(self, *, kill: bool = True) -> RedisServer:
        """Replace the master and return the new one, after some 2 to 4 s.

        With ``kill=False`` the old one is not killed but told to become a replica, as in planned maintenance.
        """
        old = self.master
        if kill:
            old.kill()
        else:
            self.watchers[0].command("SENTINEL", "FAILOVER", SERVICE)
        return self.await_failover(old)

    def cut_replication(self) -> None:
        """From now on no replica hears of writes; each stays as it is, and may be promoted so.

        That holds for ten times ``down_after``: a sentinel promotes no replica that was cut off for longer.
        """
        master = self.master
        master.command("ACL SETUSER", "replicator", "off")
        master.command("CLIENT KILL", "TYPE", "replica")
        for replica in self.replicas:
            replica.await_replication("down")

    def heal_replication(self) -> None:
        """Let the replicas catch up, and wait until they have."""
        master = self.master
        master.command("ACL SETUSER", "replicator", "on")
        self.await_replicated()

    def await_replicated(self) -> None:
        """Wait until the replicas that are up have everything that the master has."""
        until(self._is_level, "the replicas to catch up", 30)

    def _is_level(self) -> bool:
        return {_offset(replica) for replica in self.replicas} <= {_offset(self.master), None}


def _offset(server: RedisServer) -> int | None:
    try:
        info = server.info()
    except redis.ConnectionError:
        return None
    if info["role"] == "master":
        return int(info["master_repl_offset"])
    return int(info["slave_repl_offset"]) if info["master_link_status"] == "up" else -1


def _pairs(reply: Any) -> dict[str, str]:
    """Return a reply of SENTINEL as a dictionary of texts, in whichever form it came."""
    if not isinstance(reply, dict):
        reply = dict(zip(reply[::2], reply[1::2]))
    return {_text(name): _text(value) for name, value in reply.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
