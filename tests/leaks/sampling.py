"""Measures what a process at rest holds, here and on its servers. Series begin with a word of :data:`judge.RULES`."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import _lru_cache_wrapper
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY
from redis import RedisError

WATCHED = ("sqlacache", "sqlalchemy", "asyncpg", "psycopg", "redis", "cashews", "asyncio", "greenlet")
"""Packages whose objects are counted, each type by itself."""
OURS = ("sqlacache", "sqlacache_telemetry")
"""Packages of which every container is measured that an object or a module holds."""
CONTAINERS = (
    *(dict, set, list, deque, weakref.WeakSet, weakref.WeakKeyDictionary, weakref.WeakValueDictionary),
)
Sample = dict[str, float]


def of_process(pid: int | str = "self") -> Sample:
    """Memory in MB, threads and files of a process; empty where there is no ``/proc``."""
    home = Path(f"/proc/{pid}")
    if not home.exists():
        return {}  # not on Linux
    told = dict(line.split(":", 1) for line in (home / "status").read_text().splitlines())
    return {
        "memory": int(told["VmRSS"].split()[0]) / 1024,
        "threads": int(told["Threads"]),
        "files": len(os.listdir(home / "fd")),
    }


def of_python(loop: asyncio.AbstractEventLoop | None) -> Sample:
    """Blocks, tasks, objects by type and what containers of ours hold. To be called at rest: it collects garbage."""
    for _ in range(2):  # what finalisers left
        gc.collect()
    found: Counter[str] = Counter()
    for one in gc.get_objects():
        kind = type(one)
        package = str(kind.__module__).partition(".")[0]
        if package in WATCHED:
            found[f"objects {kind.__module__}.{kind.__qualname__}"] += 1
        if package in OURS:
            for name, held in _attributes(one):
                if isinstance(held, CONTAINERS):
                    found[f"held {kind.__module__}.{kind.__qualname__}.{name}"] += len(held)
    for name, held in _of_modules():
        found[f"held {name}"] += held
    return {
        **found,
        "blocks": sys.getallocatedblocks(),
        "threads of Python": threading.active_count(),
        **({} if loop is None else {"tasks": len(asyncio.all_tasks(loop))}),
    }


def _attributes(one: Any) -> Iterator[tuple[str, Any]]:
    yield from list(getattr(one, "__dict__", {}).items())
    for kind in type(one).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with suppress(AttributeError):
                yield name, getattr(one, name)


def _of_modules() -> Iterator[tuple[str, int]]:
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] in OURS:
            for name, held in list(vars(module).items()):
                if isinstance(held, CONTAINERS) and not name.startswith("__"):
                    yield f"{module_name}.{name}", len(held)
                elif isinstance(held, _lru_cache_wrapper) and held.cache_info().maxsize is None:
                    yield f"{module_name}.{name}", held.cache_info().currsize


def of_metrics() -> Sample:
    """How many series the default registry has, and what the gauges of entries say."""
    series, gauges = 0, Counter[str]()
    for family in REGISTRY.collect():
        series += len(family.samples)
        if family.name.startswith("sqlacache") and family.type == "gauge":
            for one in family.samples:
                if "entries" in one.name:
                    gauges[f"held {one.name}"] += one.value
                elif "bytes" in one.name:
                    gauges[f"bytes {one.name}"] += one.value
    return {"metrics": series, **gauges}


def of_postgres(watching: Any) -> Sample:
    """Connections to the database on the server's side, but for the one that asks, which also tidies up."""
    with watching.connect() as connection:
        connection.exec_driver_sql("VACUUM")  # nobody else does, and a dead row makes every read slower
        found = connection.exec_driver_sql(
            "SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in transaction%%') FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).one()
    return {"connections of PostgreSQL": found[0], "connections of PostgreSQL in transactions": found[1]}


def of_redis(server: Any) -> Sample:
    """Connections, keys, keys that never expire and memory on the server's side; empty while it does not answer."""
    try:
        with server.client(socket_timeout=5) as client:
            told: Mapping[str, Any] = client.info()
            clients = client.client_list()
            channels = len(client.pubsub_channels())
    except (RedisError, OSError):
        return {}
    keyspace = told.get("db0", {"keys": 0, "expires": 0})
    return {
        "connections of Redis": len(clients) - 1,
        "connections of Redis that listen": sum(int(one["sub"]) > 0 for one in clients),
        "held channels of Redis": channels,
        "keys of Redis": keyspace["keys"],
        "undying keys of Redis": keyspace["keys"] - keyspace["expires"],
        "bytes of Redis": told["used_memory"],
    }


def named(sample: Mapping[str, float], of: str) -> Sample:
    """Return a sample whose series say of whom they are."""
    return {f"{name} of {of}": much for name, much in sample.items()}
