"""``health`` and ``mode``: whether the server is fit for the cache, and what keeps every process from serving."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..decisions import FLEET_MODES
from ..errors import CacheError, TransportError
from ..front.blocking import finish
from ..store.transport import UNKNOWN_RUN
from .connect import Server
from .show import as_json, duration, line, seconds

PINGS = 5
"""Times that the server is asked for its latency."""
SLOW = 0.05
"""Seconds above which the median of these counts as slow: a read may wait 0.25 s for all of its calls."""
OLDEST = (6, 2)
"""The oldest Redis whose scripts may write after asking for the time."""

_POLICIES = {
    "noeviction": "nothing new can be stored when it is full; allkeys-lru or allkeys-lfu suit a cache",
    "allkeys-random": "it evicts the generation now and then, and everything is filled anew; allkeys-lru suits better",
    "volatile-random": "it evicts what is read most as gladly as what nobody reads; volatile-lru suits better",
}
_KNOWN_POLICIES = (*_POLICIES, "allkeys-lru", "allkeys-lfu", "volatile-lru", "volatile-lfu", "volatile-ttl")


@dataclass
class Node:
    """One server, as it describes itself."""

    name: str
    version: str
    role: str
    maxmemory: int
    maxmemory_policy: str
    used_memory: int
    evicted_keys: int
    run_id: str | None
    """``None``: it does not tell."""
    latency: float
    """Seconds, the median of some."""


@dataclass
class Found:
    """What ``health`` prints."""

    nodes: list[Node] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """``ok`` or ``degraded``."""
        return "degraded" if self.reasons else "ok"


def health(server: Server, *, json: bool) -> int:
    """Print how the server is; return the exit status."""
    found = Found()
    for node in server.nodes:
        _look(server, node, found)
    troubles = finish(server.anything().troubles())
    found.reasons += [one for one in troubles if "run id" not in one]
    found.reasons = list(dict.fromkeys(found.reasons))
    if json:
        as_json(
            {"status": found.status, "reasons": found.reasons, "nodes": [asdict(one) for one in found.nodes]}
        )
    else:
        line(f"{found.status}: {server.name}, prefix {server.where.prefix}")
        for one in found.nodes:
            limit = f"of {one.maxmemory} ({one.maxmemory_policy})" if one.maxmemory else "without a limit"
            line(
                f"  {one.name}  version {one.version}, {one.role}, latency {duration(one.latency)}, "
                f"memory {one.used_memory} bytes {limit}, evicted keys {one.evicted_keys}, "
                f"run id {one.run_id or 'not told'}"
            )
        for reason in found.reasons:
            line(f"  ! {reason}")
    return 1 if found.reasons else 0


def unreachable(name: str, error: BaseException, *, json: bool) -> None:
    """Print that there is no answer, for those who read the output rather than the exit status."""
    if json:
        as_json({"status": "unreachable", "reasons": [str(error)], "nodes": []})
    else:
        line(f"unreachable: {name}")


def _look(server: Server, at: Any, found: Found) -> None:
    took = []
    for _ in range(PINGS):
        began = time.perf_counter()
        server.call(b"PING", at=at)
        took.append(time.perf_counter() - began)
    name = "server" if at is None else f"{at[0]}:{at[1]}"
    run = server.answer(b"PING", at=at).run
    try:
        info = server.info(at)
    except TransportError as error:
        info = {}
        found.reasons.append(
            f"{name}: INFO is not to be had ({error}): version, memory and evictions are not known"
        )
    if run == UNKNOWN_RUN:
        found.reasons.append(f"{name}: it does not tell its run id: restarts and failovers go unnoticed")
    node = Node(
        name,
        info.get("valkey_version") or info.get("redis_version", "?"),
        info.get("role", "?"),
        _number(info, "maxmemory"),
        info.get("maxmemory_policy", "?"),
        _number(info, "used_memory"),
        _number(info, "evicted_keys"),
        None if run == UNKNOWN_RUN else run.decode("ascii", "replace"),
        statistics.median(took),
    )
    found.nodes.append(node)
    found.reasons += [f"{name}: {reason}" for reason in _reasons(node)]


def _reasons(node: Node) -> Iterable[str]:
    numbers = re.findall(r"\d+", node.version)
    if numbers and tuple(map(int, numbers[:2])) < OLDEST:
        yield f"version {node.version} is older than {'.'.join(map(str, OLDEST))}"
    if node.role in ("slave", "replica"):
        yield "it is a replica: the cache speaks to the master only"
    if node.maxmemory and node.maxmemory_policy in _POLICIES:
        yield f"maxmemory-policy {node.maxmemory_policy}: {_POLICIES[node.maxmemory_policy]}"
    elif node.maxmemory and node.maxmemory_policy not in _KNOWN_POLICIES:
        yield f"maxmemory-policy {node.maxmemory_policy} is not known here"
    if node.maxmemory and node.used_memory > 0.95 * node.maxmemory and node.maxmemory_policy == "noeviction":
        yield "it is all but full"
    if node.latency > SLOW:
        yield f"it takes {duration(node.latency)} to answer a PING"


def _number(info: dict[str, str], name: str) -> int:
    value = info.get(name, "")
    return int(value) if value.isdigit() else 0


def mode(server: Server, wanted: str | None, ttl: str | None, *, json: bool) -> None:
    """Show the mode of every process under the prefix, or switch it. Raises :class:`CacheError`."""
    if wanted is not None and wanted not in FLEET_MODES:
        raise CacheError(f"mode: takes one of {', '.join(FLEET_MODES)}, got {wanted!r}")
    if ttl is not None and wanted in (None, "on"):
        raise CacheError("--ttl: goes with write_only or off: after it, every process has its own mode again")
    store = server.anything()
    if wanted is not None:
        finish(store.switch(wanted, None if ttl is None else seconds("--ttl", ttl)))
    found, left = fleet_mode(server)
    if json:
        as_json({"mode": found, "ttl": left})
        return
    if found is None:
        line("on: each process has its own mode")
        return
    line(f"{found}: in every process, {'until it is switched' if left is None else f'for {duration(left)}'}")


def fleet_mode(server: Server) -> tuple[str | None, float | None]:
    """Return the mode of every process, ``None`` where each has its own, and the seconds that it lasts if it ends."""
    key = server.anything().layout.mode
    value = server.call(b"GET", key)
    text = None if value is None else value.decode("utf-8", "replace")
    if text not in FLEET_MODES or text == "on":  # bytes that are none of ours count for nobody
        return None, None
    left = server.call(b"PTTL", key)
    return text, left / 1000 if left >= 0 else None
