"""What requests under way at the same time send to Redis together, as the server counts it (INFO)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

import redis

from .load_contenders import Crowded, crowd
from .load_requests import ALONE

CONCURRENT = (1, 10, 50, 200)
REQUESTS = 1000


class Together(NamedTuple):
    """Of requests that were under way at the same time, per request."""

    concurrent: int
    commands: float
    """Commands of lookups (MGET, GET) that the server did."""
    server_reads: float
    """How often the server read from a socket: at most one for each packet, fewer when several came together."""
    server_writes: float
    """How often it wrote to one."""
    sent: float
    """Bytes that it received."""


async def together(runner: Crowded, url: str, *, quick: bool) -> Sequence[Together]:
    """Count what ``get`` sends, for every number of concurrent requests."""
    asked = ALONE["get"]
    found, requests = [], 20 if quick else REQUESTS
    async with runner.turn():
        await runner.empty()
        await runner.warm_up(asked)
        for many in CONCURRENT[: 2 if quick else None]:
            await crowd(runner.answer, islice(cycle(asked), many), many)  # connections are opened
            before = _counted(url)
            await crowd(runner.answer, islice(cycle(asked), requests), many)
            after = _counted(url)
            found.append(Together(many, *((late - early) / requests for early, late in zip(before, after))))
    return found


def _counted(url: str) -> Sequence[float]:
    client: Any = redis.Redis.from_url(url)
    try:
        told = {**client.info("stats"), **client.info("commandstats")}
    finally:
        client.close()
    lookups = sum(told.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("mget", "get"))
    # this counting itself is some commands, which are few among the requests counted
    return (
        lookups,
        told.get("total_reads_processed", 0),
        told.get("total_writes_processed", 0),
        told["total_net_input_bytes"],
    )
