"""``stats``: what lies on the server, table by table."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from redis.exceptions import RedisError, ResponseError

from ..errors import TransportError
from ..store.cluster_layout import ClusterLayout
from ..tags import EVERYTHING, table_stamp
from .connect import Scan, Server, pattern_of, split
from .health import fleet_mode
from .show import as_json, console, line, notice, size, table

LIMIT = 100_000
"""Keys of the server that are looked at, at most, unless more are asked for."""


@dataclass
class Counts:
    """What there is of one table."""

    table: str
    entries: int = 0
    """Of reads whose first table it is, as metrics have it."""
    bytes: int = 0
    """Of these entries, without what the server adds."""
    stamps: int = 0
    shapes: int = 0
    """Ways in which it is read."""
    writers: int = 0
    """Under way: between the two phases of their commits, or dead and within their lease."""


@dataclass
class Found:
    """What ``stats`` prints."""

    database: str
    tables: list[Counts]
    mode: str | None
    fence: str | None
    generation: str | None
    used_memory: int
    maxmemory: int
    keys: int
    """All keys of the server's database, also those of others."""
    looked_at: int
    partial: bool


@dataclass
class _Keys:
    """Keys found, as they were split."""

    registries: set[str] = field(default_factory=set)
    writers: set[str] = field(default_factory=set)
    stamps: set[str] = field(default_factory=set)
    entries: dict[str, bytes] = field(default_factory=dict)


def stats(server: Server, store: Any, limit: int, *, json: bool) -> None:
    """Print it."""
    found = look(server, store, limit)
    if json:
        as_json(asdict(found))
        return
    console().print(
        table(
            {
                "table": False,
                "entries": True,
                "bytes": True,
                "stamps": True,
                "shapes": True,
                "writers": True,
            },
            (
                (one.table, one.entries, size(one.bytes), one.stamps, one.shapes, one.writers)
                for one in found.tables
            ),
        )
    )
    line(f"database    {found.database}")
    line(f"mode        {found.mode or 'each process has its own'}")
    line(f"fence       {'none' if found.fence is None else f'writers of protocol {found.fence}'}")
    line(f"generation  {found.generation or 'none: nothing that is stored would be served'}")
    limit_of_memory = f" of {size(found.maxmemory)}" if found.maxmemory else ", without a limit"
    line(f"memory      {size(found.used_memory)}{limit_of_memory}, {found.keys} keys in all")
    if found.partial:
        notice(f"partial: looked at about {found.looked_at} of {found.keys} keys (--limit)")


def look(server: Server, store: Any, limit: int) -> Found:
    """Count what lies under the prefix for one database. Raises :class:`TransportError`."""
    layout = store.layout
    scan = Scan(server, pattern_of(server, store, "[eswr]"), limit)
    keys = _Keys()
    sizes: Counter[str] = Counter()
    for batch in scan:
        fresh: dict[str, bytes] = {}
        for key in batch:
            kind, rest = split(server, store, key)
            if rest is None:
                continue
            if kind == "e":
                if rest not in keys.entries:  # a scan may come by a key twice
                    fresh[rest] = key
            else:
                {"r": keys.registries, "w": keys.writers, "s": keys.stamps}[kind].add(rest)
        keys.entries.update(fresh)
        sizes.update(dict(zip(fresh, _all(server, [("STRLEN", key) for key in fresh.values()]))))
    info = [server.info(node) for node in server.nodes]
    mode, _ = fleet_mode(server)
    generation, fence = (
        server.call(b"GET", key) for key in (layout.generation(EVERYTHING), layout.fence(EVERYTHING))
    )
    return Found(
        layout.database,
        _counted(server, store, keys, sizes),
        mode,
        None if fence is None else fence.decode("utf-8", "replace"),
        None if generation is None else generation.decode("utf-8", "replace"),
        sum(int(one.get("used_memory", 0)) for one in info),
        sum(int(one.get("maxmemory", 0)) for one in info),
        sum(server.call(b"DBSIZE", at=node) for node in server.nodes),
        scan.looked_at,
        scan.is_partial,
    )


def _counted(server: Server, store: Any, keys: _Keys, sizes: Counter[str]) -> list[Counts]:
    layout = store.layout
    known = {*keys.registries, *keys.writers}
    end = table_stamp("")
    known |= {name.removesuffix(end) for name in keys.stamps if name.endswith(end)}
    known.discard(EVERYTHING)
    counts = {name: Counts(name) for name in sorted(known)}

    def of(name: str) -> Counts:
        return counts.setdefault(name, Counts(name))

    for key in keys.entries:
        one = of(key.rsplit(":", 2)[0])
        one.entries += 1
        one.bytes += sizes[key]
    tables = [table_stamp(name) for name in sorted(known)]
    ordered = [*tables, *sorted(keys.stamps.difference(tables))]
    for name, places in ClusterLayout.by_table(ordered).items():
        if name != EVERYTHING:
            of(name).stamps += sum(1 for place in places if ordered[place] in keys.stamps)
    registries, writers = sorted(keys.registries), sorted(keys.writers)
    for name, length in zip(
        registries, _all(server, [("HLEN", layout.registry(name)) for name in registries])
    ):
        of(name).shapes = max(0, length - 1)  # one field is the revision
    now = int(server.call(b"TIME", at=server.nodes[0])[0]) * 1000
    asked = [("ZCOUNT", layout.writers(name), f"({now}", "+inf") for name in writers]
    for name, count in zip(writers, _all(server, asked)):
        of(name).writers = count
    return [counts[name] for name in sorted(counts)]


def _all(server: Server, commands: list[tuple[Any, ...]]) -> list[int]:
    """Send many commands; 0 for those that the server refuses (a key of another type)."""
    if server.is_cluster:  # each goes to the node of its key
        return [_one(server, command) for command in commands]
    if not commands:
        return []
    try:
        pipeline = server.transport.client().pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        found = pipeline.execute(raise_on_error=False)
    except (RedisError, OSError) as error:
        raise TransportError(f"{commands[0][0]}: {error}") from error
    return [one if isinstance(one, int) else 0 for one in found]


def _one(server: Server, command: tuple[Any, ...]) -> int:
    try:
        return int(server.call(*command))
    except TransportError as error:
        if isinstance(error.__cause__, ResponseError):
            return 0
        raise
