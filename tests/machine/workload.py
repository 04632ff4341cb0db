"""The fixed workload: the requests of a small shop, the same in every run, of which two figures are kept.

Each request has a session of its own. Reads are drawn from a fixed set, popular ones more often: users and orders by
key, a user's orders and tags, lists and counts by condition, a dashboard's totals. Writes are what a shop does: one
is seen, an order is placed, paid or sent, a plan changes, a tag is given. Raw SQL is left out: without the parser of
``sqlacache[rawsql]`` it evicts everything, as documented.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

from .drawing import Seeded
from .reads import Read
from .schema import KEYS, PLANS, STATUSES
from .world import World
from .writes import Write

SEED = 20_240_501
REQUESTS = 1500
WRITES_PER_HUNDRED = 10

_USERS = KEYS[:5]
_ORDERS = KEYS


def _reads() -> tuple[Read, ...]:
    """Every read of the workload, as often as it is popular."""
    by_user = [
        [
            Read("get", ("User", user)),
            Read("get", ("User", user)),
            Read("entities", ("Order", (("user_id", "eq", user),))),
            Read("columns", ("Order", ("id", "total"), (("user_id", "eq", user), ("status", "eq", "paid")))),
            Read("count", ("Order", None, (("user_id", "eq", user),))),
            Read("lazy", ("User", user, "tags")),
            Read("lazy", ("User", user, "orders")),
            Read("eager", ((("orders", "selectin"),), (("id", "eq", user),))),
            Read("eager", ((("tags", "joined"),), (("id", "eq", user),))),
            Read("columns", ("User", ("id", "name"), (("id", "eq", user),))),
            Read("links", (user,)),
        ]
        for user in _USERS
    ]
    by_order = [[Read("get", ("Order", order)), Read("lazy", ("Order", order, "user"))] for order in _ORDERS]
    by_status = [
        [
            Read("count", ("Order", None, (("status", "eq", status),))),
            Read("entities", ("Order", (("status", "eq", status),))),
            Read("in_subquery", ((("status", "eq", status),), False)),
        ]
        for status in STATUSES
    ]
    by_plan = [
        [
            Read("columns", ("User", ("id", "name"), (("plan", "eq", plan),))),
            Read("count", ("User", None, (("plan", "eq", plan), ("active", "eq", True)))),
            Read("join", (False, (("plan", "eq", plan),), ())),
        ]
        for plan in PLANS
    ]
    others = [
        Read("columns", ("User", ("id", "name"), ())),
        Read("count", ("User", None, ())),
        Read("exists", ("User", (("plan", "eq", "c"),))),
        Read("entities", ("User", (("id", "in_", (1, 2, 3)),))),
        Read("entities", ("Tag", ())),
        Read("tagged", ((("id", "eq", 1),), True)),
        Read("totals", ("user_id", ())),
        Read("page", ((("status", "eq", "new"),), 3)),
        Read("entities", ("Vehicle", (("owner_id", "eq", 1),))),
        Read("get", ("Truck", 1)),
        Read("entities", ("Truck", ())),
    ]
    return (*chain(*by_user, *by_order, *by_status, *by_plan), *others)


def _write(choose: Seeded) -> Write:
    """One write of the workload."""
    user, order = choose.of(_USERS[:4]), choose.of(_ORDERS)
    kinds = (
        *[
            Write(
                "set",
                (
                    "User",
                    user,
                    (
                        (
                            "seen",
                            choose.of((0, 1, 2)),
                        ),
                    ),
                ),
            )
        ]
        * 6,
        *[Write("add", ("Order", None, (("user_id", choose.of((1, 2, 3))), ("total", choose.of((0, 1, 2))))))]
        * 3,
        *[Write("set", ("Order", order, (("status", choose.of(STATUSES)),)))] * 5,
        *[Write("set", ("User", user, (("plan", choose.of(PLANS)),)))] * 2,
        *[Write("set", ("User", user, (("name", choose.of(("ann", "bob", "cid"))),)))] * 2,
        Write("tag", (user, choose.of((1, 2, 3)), False)),
        Write("tag", (user, choose.of((1, 2, 3)), False)),
        Write("delete", ("Order", order)),
        Write("move", (order, choose.of((1, 2, 3)))),
        Write(
            "orm_update",
            ("Order", (("user_id", "eq", user), ("status", "eq", "new")), (("status", "paid"),), False),
        ),
        Write("set", ("Vehicle", choose.of((1, 2, 3)), (("name", choose.of(("v1", "x"))),))),
        Write("set", ("Truck", 1, (("load", choose.of((0, 1, 2))),))),
        Write("upsert", (user, (("plan", choose.of(PLANS)),), "update")),
    )
    return choose.of(kinds)


class Outcome(NamedTuple):
    """The figures of the workload."""

    reads: int
    hits: int
    evicted: int
    needless: int
    needless_by_kind: dict[str, str]

    @property
    def hit_ratio(self) -> float:
        """Share of reads of which every part came from the cache."""
        return self.hits / self.reads

    @property
    def needless_ratio(self) -> float:
        """Share of reads evicted by a write whose result had not changed."""
        return self.needless / max(1, self.evicted)


async def run(world: World) -> Outcome:
    """Run the workload; every read is compared with the database."""
    choose = Seeded(SEED)
    reads = _reads()
    await world.start(())
    try:
        for _ in range(REQUESTS):
            if choose.of(range(100)) < WRITES_PER_HUNDRED:
                await world.write_at_once(_write(choose))
            else:
                await world.read_at_once(choose.of(reads))
    finally:
        await world.stop()
    figures = world.figures
    by_kind = {
        kind: f"{figures.needless_by_kind[kind]} of {evicted}"
        for kind, evicted in figures.evicted_by_kind.items()
    }
    return Outcome(figures.first_reads, figures.first_hits, figures.evicted, figures.needless, by_kind)
