"""The store that many processes share: Redis (or Valkey), one round trip per lookup, fill and phase of a commit.

What must be atomic is a script in ``lua/``. Beyond the store inside one process:

- A lookup is one MGET of the generation, the fence, the fleet's mode, the entry and its stamps.
- An entry holds under the **generation** that its stamps were sampled under. A server that restarted, failed over or
  was emptied has another one, and whatever came back with it is void.
- A shape counts as registered only under the generation and the table stamp that this process registered it under: a
  registry that was lost is noticed by the first writer (who replaces the table stamp), and then by everybody.
- A writer that the server has forgotten meanwhile replaces the table stamp in phase two.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from ..decisions import FLEET_MODES, BypassReason, Cause, FillOutcome, MissReason
from ..errors import SerializationError
from ..tags import EVERYTHING, Shape, TableTouch, table_stamp
from .announcing import Announcement
from .codec import Codec
from .layout import Layout
from .local import LocalTier
from .purging import purge
from .pushed import Generation, PushedTier, unasked
from .records import NOT_DECODED, Header, decode_stamp, encode_entry, encode_shape, entry_of, split_entry
from .redis_commit import Commits, milliseconds, run
from .scripts import FILL, SAMPLE
from .stamps import Entry, Sample, StampView
from .transport import UNKNOWN_RUN, Transport

MAX_SHAPES = 512
"""Shapes in a table's registry; one more begins a new registry under a new table stamp."""
READ_BUDGET = 0.25
"""Seconds that all calls of one read may take together, with the timeout that calls have unless configured."""
REMEMBERED = 10_000
"""Keys of entries whose expiry is remembered, so that a miss can say that it expired or was evicted."""

_MODES = frozenset(mode.encode() for mode in FLEET_MODES if mode != "on")
"""Modes that keep every process from serving; other bytes at the key are none of ours."""


class Found(NamedTuple):
    """What a server has for a lookup."""

    generation: bytes | None
    """Its generation; ``None`` if it has none, or that of another run of the server, or of another protocol."""
    fence: bytes | None
    mode: bytes | None
    data: bytes | None
    """The entry's bytes."""
    stamps: Sequence[bytes | None]


class RedisStore:
    """Implements :class:`~sqlacache.store.port.Store` on one Redis server.

    With the asynchronous front, it is to be called inside SQLAlchemy's greenlet.

    Args:
        transport: Connections to the server.
        layout: Names of the keys.
        codec: Makes rows of an entry's bytes.
        lease: Seconds after which a writer that did not come back is no longer considered to be under way.
        local: Where this process keeps decoded entries, if it does.
    """

    tier = "remote"
    keeps_bytes = True

    def __init__(
        self,
        transport: Transport,
        layout: Layout,
        *,
        codec: Codec,
        lease: float,
        local: LocalTier | None = None,
    ) -> None:
        self.transport = transport
        self.layout = layout
        self.codec = codec
        self.lease = lease
        self.budget = max(READ_BUDGET, transport.timeout * 1.25)
        self.local = local
        self.pushed = local if isinstance(local, PushedTier) else None
        self.on_received: Callable[[Announcement], None] | None = None
        """Told of commits of other processes."""
        self.on_resync: Callable[[int, str], None] = lambda entries, why: None
        """Told how many entries left the pushed tier because announcements may have been missed, and why."""
        self._commits = self._make_commits()
        self._ours = b"%d|" % layout.spoken
        self._looks_up = (b"MGET", layout.generation(EVERYTHING), layout.fence(EVERYTHING), layout.mode)
        """How every lookup begins."""
        self._registered: dict[str, tuple[Any, int]] = {}
        self._expiries: OrderedDict[str, float] = OrderedDict()

    def _make_commits(self) -> Commits:
        return Commits(self.transport, self.layout, lease=self.lease)

    # -- reading -------------------------------------------------------------------------------------------------------

    def lookup(self, key: str, names: Sequence[str]) -> Sample:
        held = self.local.get(key) if self.local is not None else None
        if held is None:
            return self._kept(key, self._ask(key, names, with_entry=True))
        if self.pushed is not None and self.pushed.is_live:
            return unasked(held)
        began = time.monotonic()
        sample = self._ask(key, names, with_entry=False)
        if sample.under == held.under and _holds(held, sample.stamps):
            return Sample(held, sample.stamps, under=sample.under, tier="local")
        if sample.bypass is not None or any(stamp is None or stamp.in_flight for stamp in sample.stamps):
            return self._with_stale(sample, held)
        # Another process may have filled it anew.
        assert self.local is not None
        self.local.drop([key])
        within = self.budget - (time.monotonic() - began)
        return self._with_stale(self._kept(key, self._ask(key, names, with_entry=True, within=within)), held)

    def at_hand(self, key: str, names: Sequence[str]) -> Sample | None:
        if self.pushed is None:
            return None
        held = self.pushed.get(key)
        return unasked(held) if held is not None and self.pushed.is_live else None

    def unconfirmed(self, key: str) -> Entry | None:
        return self.local.get(key) if self.local is not None else None

    async def confirm(self, key: str, names: Sequence[str], entry: Entry) -> Sample | None:
        arrived = self._arrived
        found = await self.transport.in_time(inf, self._fetch(key, names, with_entry=False))
        sample = self._sampled(key, len(names), found, arrived, with_entry=False)
        if sample.under != entry.under or not _holds(entry, sample.stamps):
            return None
        return sample._replace(entry=entry, gone=None, tier="local")

    def peek(self, key: str, names: Sequence[str]) -> Sample:
        return self._ask(key, names, with_entry=True)

    def _with_stale(self, sample: Sample, held: Entry) -> Sample:
        """Let a miss know what it was filled under before, so that it can say what changed."""
        if sample.entry is not None or sample.bypass is not None or sample.gone == "corrupt":
            return sample
        if sample.under != held.under:
            return sample._replace(gone="generation_changed")
        return sample._replace(entry=held, gone=None)

    def _kept(self, key: str, sample: Sample) -> Sample:
        if self.local is not None and sample.entry is not None and sample.entry.description:
            self.local.put(key, sample.entry)
        return sample

    def _ask(self, key: str, names: Sequence[str], *, with_entry: bool, within: float = inf) -> Sample:
        """Ask the server for the stamps of an entry and, if it is not here, for the entry."""
        arrived = self._arrived
        found = self._wait(within, self._fetch(key, names, with_entry=with_entry))
        return self._sampled(key, len(names), found, arrived, with_entry=with_entry)

    def _sampled(self, key: str, count: int, found: Found, arrived: int, *, with_entry: bool) -> Sample:
        """Say what a lookup of ``count`` stamps has found; ``arrived`` is what had when it was asked."""
        if found.mode is not None and found.mode in _MODES:
            return _nothing(count, "disabled", f"the mode of all processes is {_text(found.mode)}")
        if found.fence is not None and found.fence.isdigit():
            return _nothing(count, "protocol_mismatch", self.layout.other(found.fence))
        if found.generation is None:
            gone: MissReason | None = "generation_changed" if found.data is not None else None
            return Sample(None, [None] * count, gone)
        under = Generation(found.generation, arrived)
        stamps: list[Any] = [decode_stamp(stamp) for stamp in found.stamps]
        if not with_entry:
            return Sample(None, stamps, under=under)
        if found.data is None:
            return Sample(None, stamps, self._why_gone(key), under=under)
        try:
            header, encoded = split_entry(found.data)
            if header.under != under:
                return Sample(None, stamps, "generation_changed", under=under)
            rows = self.codec.decode_rows(encoded) if _holds(header, stamps) else NOT_DECODED
            entry = entry_of(header, under, encoded, rows)
        except SerializationError:
            return Sample(None, stamps, "corrupt", under=under)
        self._remember(key, entry)
        return Sample(entry, stamps, under=under)

    async def _fetch(self, key: str, names: Sequence[str], *, with_entry: bool) -> Found:
        layout = self.layout
        keys = layout.stamps(names)
        if with_entry:
            keys.append(layout.entry(key, EVERYTHING))
        values, run_id = await self.transport.call(*self._looks_up, *keys)
        generation, fence, mode, *stamps = values
        data = stamps.pop() if with_entry else None
        return Found(self._of_run(generation, run_id), fence, mode, data, stamps)

    def _of_run(self, generation: bytes | None, run_id: bytes) -> bytes | None:
        """Return a generation if it is of this run of the server, and of our protocol."""
        ours = generation is not None and generation.startswith(b"%s%s|" % (self._ours, run_id))
        return generation if ours else None

    def _wait(self, within: float, call: Coroutine[Any, Any, Any]) -> Any:
        """Await a call of a read, for what is left of its time."""
        return self.transport.front.wait(self.transport.in_time(within, call))

    @property
    def _arrived(self) -> int:
        return self.pushed.arrived if self.pushed is not None else 0

    def _remember(self, key: str, entry: Entry) -> None:
        self._expiries[key] = entry.expires_at
        if len(self._expiries) > REMEMBERED:
            self._expiries.popitem(last=False)

    def _why_gone(self, key: str) -> MissReason | None:
        expires_at = self._expiries.get(key)
        if expires_at is None:
            return None
        return "expired" if expires_at <= time.time() else "backend_evicted"

    def sample(
        self,
        names: Sequence[str],
        tables: Iterable[str],
        shapes: Iterable[Shape],
        ttl: float,
        within: float = inf,
    ) -> tuple[Sample, bool]:
        by_table: dict[str, list[Shape]] = {EVERYTHING: []}
        for table in tables:
            by_table.setdefault(table, [])
        for shape in shapes:
            by_table.setdefault(shape.table, []).append(shape)
        arrived = self._arrived
        status, generation, found = self._wait(within, self._sample(names, by_table, ttl))
        generation = Generation(generation, arrived)
        if status == b"fenced":
            return _nothing(len(names), "protocol_mismatch", self.layout.other(b"")), False
        stamps: list[Any] = [decode_stamp(stamp) for stamp in found]
        sample = Sample(None, stamps, under=generation)
        if status != b"ok":
            return sample, False
        for table, wanted in by_table.items():
            held_under = self._held_under(table, names, sample)
            if held_under is not None:
                self._registered.update((shape.name, held_under) for shape in wanted)
                self._commits.registered(wanted)
        return sample, True

    async def _sample(
        self, names: Sequence[str], by_table: Mapping[str, Sequence[Shape]], ttl: float
    ) -> tuple[bytes, bytes, Sequence[bytes | None]]:
        """Call the script with the shapes to register of each table; return its status, the generation and stamps."""
        layout, first = self.layout, next(iter(by_table))
        keys = [layout.generation(first), layout.fence(first)]
        arguments: list[Any] = [milliseconds(ttl), MAX_SHAPES, len(by_table)]
        for table, wanted in by_table.items():
            keys += [layout.writers(table), layout.registry(table), layout.stamp(table_stamp(table), table)]
            wanted = [] if table == EVERYTHING else wanted
            arguments.append(len(wanted))
            for shape in wanted:
                arguments += [shape.name, encode_shape(shape)]
        keys += layout.stamps(names)
        answer = await run(self.transport, layout.spoken, SAMPLE, keys, "", self.lease, arguments)
        status, generation, found = answer.value
        return status, generation, found

    def registered(self, shapes: Iterable[Shape], names: Sequence[str], sample: Sample) -> bool:
        """Tell whether ``shapes`` are registered under the generation and the table stamps of ``sample``."""
        if any(stamp is None for stamp in sample.stamps):
            return False
        for shape in shapes:
            if shape.table == EVERYTHING:
                continue
            held_under = self._held_under(shape.table, names, sample)
            if held_under is None or self._registered.get(shape.name) != held_under:
                return False
        return True

    def _held_under(self, table: str, names: Sequence[str], sample: Sample) -> tuple[Any, int] | None:
        """Return the generation and the nonce of the table stamp; ``None`` if the stamp is not there."""
        nonce = self._table_nonce(table, names, sample.stamps)
        return None if nonce is None else (self._generation_of(table, names, sample.under), nonce)

    def _generation_of(self, table: str, names: Sequence[str], under: Any) -> Any:
        return under

    @staticmethod
    def _table_nonce(table: str, names: Sequence[str], stamps: Sequence[Any]) -> int | None:
        try:
            stamp = stamps[names.index(table_stamp(table))]
        except ValueError:
            return None
        return None if stamp is None else stamp.nonce

    def fill(self, key: str, entry: Entry, within: float = inf) -> FillOutcome:
        if entry.under is None or entry.encoded is None:
            return "fenced"
        life = entry.expires_at - time.time()
        if life <= 0:
            return "fenced"  # it expired on its way
        data = encode_entry(entry, entry.encoded)
        if self._wait(within, self._store(key, entry, data, milliseconds(life))) != b"stored":
            return "fenced"
        self._remember(key, entry)
        if self.local is not None:
            self.local.put(key, entry)
        return "stored"

    def learn(self, key: str, entry: Entry, what: Any) -> None:
        if self.local is not None:
            self.local.learn(key, entry, what)

    async def _store(self, key: str, entry: Entry, data: bytes, life: int) -> Any:
        layout, names = self.layout, [name for name, _, _ in entry.stamps]
        home = self._home(names)
        beside = self._beside(names, home)
        keys = [layout.generation(home), layout.fence(home), layout.entry(key, home)]
        keys += [layout.stamp(names[place], home) for place in beside]
        nonces = [b"%016x" % entry.stamps[place][2] for place in beside]
        stored = [data, life, *nonces]
        return (await run(self.transport, layout.spoken, FILL, keys, "", self.lease, stored)).value

    def _beside(self, names: Sequence[str], home: str) -> Sequence[int]:
        """Return which of ``names`` one script can look at together with an entry of the table ``home``."""
        return range(len(names))

    def _home(self, names: Sequence[str]) -> str:
        """Return the table whose keys an entry with these stamps lies among."""
        return EVERYTHING

    # -- writing: :mod:`.redis_commit` ---------------------------------------------------------------------------------

    def shapes(self, tables: Iterable[str]) -> Mapping[str, tuple[bytes, tuple[Shape, ...]]]:
        return self._commits.shapes(tables)

    def begin_unread(self, token: str, tables: Iterable[str]) -> bool:
        return False

    def end_unread(self, token: str, tables: Iterable[str]) -> bool:
        return False

    def mark(
        self,
        token: str,
        touched: Mapping[str, TableTouch],
        revisions: Mapping[str, Any],
        causes: Mapping[str, Cause],
    ) -> dict[str, int] | None:
        # Without a registry, the script replaces the table's stamp as well.
        self._forget(touched, [table for table in touched if not revisions.get(table)])
        return self._commits.mark(token, touched, revisions, causes)

    def settle(self, token: str, touched: Mapping[str, TableTouch], causes: Mapping[str, Cause]) -> None:
        forgotten = len(touched)
        try:
            forgotten = self._commits.settle(token, touched, causes)
        finally:
            # Again: what was sampled before phase one reached the server may have been filled meanwhile.
            self._forget(touched, touched if forgotten else ())

    def unmark(self, token: str, touched: Mapping[str, TableTouch]) -> None:
        self._commits.unmark(token, touched)

    def _forget(self, touched: Mapping[str, TableTouch], whole: Iterable[str] = ()) -> None:
        """Drop what this process serves without asking and this commit touches, before ``commit()`` returns."""
        if self.pushed is not None:
            names = [name for what in touched.values() for name in what.names()]
            self.pushed.touch([*names, *map(table_stamp, whole)])

    # -- listening to other processes ----------------------------------------------------------------------------------

    def announced(self, announcement: Announcement) -> None:
        """Drop what a commit elsewhere touched, and tell whoever wants to know."""
        if self.pushed is not None:
            self.pushed.announce(announcement)
        if self.on_received is not None and announcement.origin != self._commits.announcer.origin:
            self.on_received(announcement)

    def lost(self, why: str) -> None:
        """Serve nothing without asking until what was missed can no longer matter."""
        if self.pushed is not None:
            self.on_resync(self.pushed.suspend(), why)

    def proved(self, sent_at: float) -> None:
        """Serve without asking for a while: everything announced before ``sent_at`` has arrived."""
        if self.pushed is not None:
            self.pushed.proved(sent_at)

    # -- calls ---------------------------------------------------------------------------------------------------------

    def delete_everything(self) -> int:
        """Forget what this process holds.

        What the server has is void once the stamp of everything is replaced, and ends with its TTL.
        """
        return self.local.clear() if self.local is not None else 0

    def purge(self, tables: Iterable[str]) -> int:
        """Delete the bytes of every entry that depends on one of ``tables``; return how many there were."""
        if self.local is not None:
            self.local.clear()
        wanted = {table_stamp(table) for table in tables}
        deleted: int = self.transport.front.wait(purge(self.transport, self.layout.entries, wanted))
        return deleted

    async def switch(self, mode: str, ttl: float | None) -> None:
        """Set the mode of every process under this prefix, for ``ttl`` seconds; ``on`` leaves each with its own.

        Raises :class:`~sqlacache.errors.TransportError`.
        """
        if mode == "on":
            await self.transport.call(b"DEL", self.layout.mode)
        else:
            life = [] if ttl is None else [b"PX", milliseconds(ttl)]
            await self.transport.call(b"SET", self.layout.mode, mode, *life)
        # The pushed tier does not look at the mode with every read.
        await self.transport.call(b"PUBLISH", self.layout.generation(EVERYTHING), mode)

    async def troubles(self) -> list[str]:
        """Return what keeps every process from serving, in words; raise :class:`TransportError` without an answer."""
        layout = self.layout
        (mode, fence), run = await self.transport.call(b"MGET", layout.mode, layout.fence(EVERYTHING))
        found = []
        if mode is not None and mode in _MODES:
            found.append(f"the mode of all processes is {_text(mode)}")
        if fence is not None and fence.isdigit():
            found.append(layout.other(fence))
        if run == UNKNOWN_RUN:
            found.append("the server does not tell its run id: restarts and failovers go unnoticed")
        return found


def _holds(entry: Entry | Header, stamps: Sequence[StampView | None]) -> bool:
    """Tell whether an entry's stamps are all current; :func:`.stamps.decide` says the rest."""
    for was, stamp in zip(entry.stamps, stamps):
        if stamp is None or stamp.nonce != was[2] or stamp.in_flight:
            return False
    return len(entry.stamps) == len(stamps)


def _nothing(count: int, reason: BypassReason, why: str) -> Sample:
    return Sample(None, [None] * count, bypass=reason, why=why)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
