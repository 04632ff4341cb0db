"""The store on a Redis Cluster: every table lies in one slot, and what concerns several tables is asked of each.

Each table (and what belongs to none, the stamp of everything) is a server of its own, with its own generation and
fence; an entry lies with its first table and holds under the generations of all of its tables. Nothing here is atomic
across tables, which the rules of :mod:`.redis` do not need (DESIGN section 5):

- An entry is stale only if a commit wrote a table that it depends on, so that it is enough that **each** table by
  itself keeps a read from serving what a commit to that table made stale.
- *Fresh.* A commit replaces a table's stamps before COMMIT and again after it. A read that starts after ``commit()``
  has returned sees each table's stamps as they were at some moment after both, whatever the other tables' moments were.
  It serves only what was filled under these very stamps: sampled after phase two, and so loaded after COMMIT.
- (a, b) Tokens and the set of writers under way belong to one table. Whoever seeds a table's stamps asks about that
  table's writers in the same script; a read is filled only if no table was busy and none of its stamps was in flight.
- (c) A shape is registered and its table's stamps are sampled in one script; all of them end before the load begins.
  Shapes that were registered while another table of the read was busy do no harm: a registration promises nothing.
- (d) The registry, the table stamp that it holds under, and the generation lie in one slot.
- (e) Both phases touch table by table what the commit touched. A commit whose phase one reached some of its tables is
  retried for all of them (registry changed), or owed for all of them (node gone).
- A slot that moves takes its keys along. At its new node the generation has another run id, which voids what was filled
  before, and so does a failover. While it moves, its tables may not be reached for a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..tags import EVERYTHING, Shape, TableTouch, table_stamp
from .cluster_layout import ClusterLayout
from .cluster_transport import Address, ClusterTransport, all_of
from .purging import purge
from .records import decode_stamp
from .redis import Found, RedisStore
from .redis_commit import Commits
from .scripts import Script
from .transport import Answer

_BETWEEN = b","
"""Separates the generations of several tables."""


class ClusterStore(RedisStore):
    """Implements :class:`~sqlacache.store.port.Store` on a Redis Cluster."""

    layout: ClusterLayout
    transport: ClusterTransport

    def _make_commits(self) -> Commits:
        return ClusterCommits(self.transport, self.layout, lease=self.lease)

    async def _fetch(self, key: str, names: Sequence[str], *, with_entry: bool) -> Found:
        layout, groups = self.layout, self._groups(names)
        home = _home_of(groups)
        asked = []
        for table, places in groups.items():
            others = [layout.mode] if table == EVERYTHING else []
            if with_entry and table == home:
                others.append(layout.entry(key, table))
            asked.append(self._mget(table, others, [layout.stamp(names[place], table) for place in places]))
        answers = await all_of(self.transport.front, asked)
        stamps: list[bytes | None] = [None] * len(names)
        fence = mode = data = None
        for (table, places), (_, fenced, others_found, found) in zip(groups.items(), answers):
            fence = fence or fenced
            if table == EVERYTHING:
                mode = others_found[0]
            if with_entry and table == home:
                data = others_found[-1]
            for place, stamp in zip(places, found):
                stamps[place] = stamp
        return Found(_joined([generation for generation, *_ in answers]), fence, mode, data, stamps)

    async def _mget(
        self, table: str, others: Sequence[str], stamps: Sequence[str]
    ) -> tuple[bytes | None, bytes | None, Sequence[bytes | None], Sequence[bytes | None]]:
        """Return what is at keys that lie together: the generation if it is of this run, the fence, and theirs."""
        keys = [self.layout.generation(table), self.layout.fence(table), *others]
        values, run_id = await self.transport.call(b"MGET", *keys, *stamps)
        return self._of_run(values[0], run_id), values[1], values[2 : len(keys)], values[len(keys) :]

    async def _sample(
        self, names: Sequence[str], by_table: Mapping[str, Sequence[Shape]], ttl: float
    ) -> tuple[bytes, bytes, Sequence[bytes | None]]:
        groups = self._groups(names)
        tables = [*groups, *(table for table in by_table if table not in groups)]
        answers = await all_of(
            self.transport.front,
            [
                super(ClusterStore, self)._sample(
                    [names[place] for place in groups.get(table, ())], {table: by_table.get(table, ())}, ttl
                )
                for table in tables
            ],
        )
        statuses = {status for status, _, _ in answers}
        status = next(one for one in (b"fenced", b"busy", b"ok") if one in statuses)
        stamps: list[bytes | None] = [None] * len(names)
        for places, (_, _, found) in zip(groups.values(), answers):
            for place, stamp in zip(places, found):
                stamps[place] = stamp
        everything = decode_stamp(answers[0][2][0]) if groups[EVERYTHING] else None
        if status == b"ok" and everything is not None and everything.in_flight:
            status = b"busy"  # who writes everything writes these tables, too
        under = _joined([generation for (_, generation, _), _ in zip(answers, groups)])
        return status, under or b"", stamps

    def _groups(self, names: Sequence[str]) -> dict[str, list[int]]:
        """Return which names belong to which table, what belongs to none first: the order of joined generations."""
        return {EVERYTHING: [], **self.layout.by_table(names)}

    def _beside(self, names: Sequence[str], home: str) -> Sequence[int]:
        return self._groups(names)[home]

    def _home(self, names: Sequence[str]) -> str:
        return _home_of(self._groups(names))

    def _generation_of(self, table: str, names: Sequence[str], under: Any) -> Any:
        if under is None:
            return None
        return dict(zip(self._groups(names), under.split(_BETWEEN)))[table]

    async def troubles(self) -> list[str]:
        found = await super().troubles()
        return [*found, *(f"a node is being probed: {node}: {why}" for node, why in self.transport.shut())]

    def purge(self, tables: Iterable[str]) -> int:
        if self.local is not None:
            self.local.clear()
        wanted = {table_stamp(table) for table in tables}
        found: Sequence[int] = self.transport.front.wait(self._purge_everywhere(wanted))
        return sum(found)

    async def _purge_everywhere(self, wanted: set[str]) -> Sequence[int]:
        await self.transport.probe()  # so that every master is known
        masters = self.transport.masters
        entries = self.layout.entries
        return await all_of(
            self.transport.front, [purge(_Master(self.transport, one), entries, wanted) for one in masters]
        )


class ClusterCommits(Commits):
    """The writing half: one call per phase and table, all at once."""

    def _calls(
        self, script: Script, token: str, touched: Mapping[str, TableTouch], *arguments: Any
    ) -> Iterable[tuple[Mapping[str, TableTouch], Any]]:
        parts = [{table: what} for table, what in touched.items()]
        answers = self._wait(
            all_of(self.transport.front, (self._call(script, token, part, *arguments) for part in parts))
        )
        return list(zip(parts, answers))


class _Master:
    """One node's share of the keys."""

    def __init__(self, transport: ClusterTransport, address: Address) -> None:
        self._transport = transport
        self._address = address

    async def call(self, *command: Any) -> Answer:
        if command[0] == b"SCAN":
            return await self._transport.call(*command, at=self._address)
        if command[0] == b"UNLINK":  # of keys in several slots
            answers = await all_of(
                self._transport.front, [self._transport.call(b"UNLINK", key) for key in command[1:]]
            )
            return Answer(sum(answer.value for answer in answers), answers[-1].run)
        return await self._transport.call(*command)


def _home_of(groups: Iterable[str]) -> str:
    return next((table for table in groups if table != EVERYTHING), EVERYTHING)


def _joined(generations: Sequence[bytes | None]) -> bytes | None:
    """Return one generation for those of several tables; ``None`` if one of them is not of its node's current run."""
    present = [generation for generation in generations if generation is not None]
    return _BETWEEN.join(present) if len(present) == len(generations) else None
