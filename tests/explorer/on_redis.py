"""The same actors over :class:`.RedisStore` and its scripts on a real server; every command of an actor is a step.

Leases and TTLs do not run out by themselves in the time that a run takes: an event removes what they would remove. What
the server announces waits, per process, until an event hands it over, as do a PING's answer and the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from greenlet import getcurrent

from sqlacache.errors import SerializationError
from sqlacache.store import pushed as pushed_module
from sqlacache.store.announcing import decode
from sqlacache.store.codec import SafeCodec
from sqlacache.store.local import LocalTier
from sqlacache.store.records import decode_stamp
from sqlacache.store.redis import RedisStore
from sqlacache.store.subscription import Subscription
from tests.explorer.processes import Process, Versions
from tests.explorer.scheduler import Actor, Choice, pause
from tests.explorer.server import IS_TOLD, LOOKS_UP, Server
from tests.explorer.world import World
from tests.store.encoded import decode_entry

READS = "reads"
BOUND = 1.0
PINGS = "pings"
CUT = "cut"
"""How often the connection that a process listens on may be cut; what is announced until it is back is not heard."""
TIME = "time"
"""How often more than the bound of the pushed tier may pass."""
_DUMP = b"""
local found = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind, content = redis.call('TYPE', key).ok
  if kind == 'string' then content = redis.call('GET', key)
  elseif kind == 'hash' then content = redis.call('HGETALL', key)
  elseif kind == 'zset' then content = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end
  found[#found + 1] = {key, content}
end
return found
"""


class RedisProcess(Process):
    """A process whose store is on the server, and which may listen."""

    def __init__(self, world: RedisWorld, name: str, local: LocalTier | None) -> None:
        server = world.server
        store = RedisStore(server.transport, server.layout, codec=SafeCodec(), lease=30, local=local)
        super().__init__(world, name, store)
        self.waiting: list[dict[str, Any]] = []
        """What was announced and has not arrived here."""
        self.ping: tuple[float, int] | None = None
        """When a PING was sent, and how many announcements arrive before its answer."""
        self.is_deaf = False
        self.pushed = store.pushed
        self.subscription: Any = None
        if self.pushed is not None:
            self.subscription = Subscription(server.transport, beat=BOUND / 2)
            self.subscription.add(server.channels[0], store, resets=server.channels[1:])
            self.connected(server.channels)
            self.pushed.proved(world.clock)

    def connected(self, channels: Sequence[str]) -> None:
        self.is_deaf = False
        for channel in channels:
            self.subscription._take({"type": "subscribe", "channel": channel.encode(), "data": 1})


class RedisWorld(World):
    """A world whose store is a server that can lose more, and whose processes may serve without asking it."""

    def __init__(
        self,
        server: Server,
        *,
        tiers: Mapping[str, Callable[[], LocalTier]] = MappingProxyType({}),
        faults: Sequence[str] = (),
        loses: Sequence[str] = ("stamp",),
        **options: Any,
    ) -> None:
        self.server, self.faults, self.loses = server, faults, loses
        self.clock = 0.0
        self.returned: list[tuple[float, str, Versions]] = []
        """When commit() returned, in which process, and what it had written."""
        self.tiers = tiers
        server.world = self
        server.client.flushall()
        server.listen(bool(tiers))
        super().__init__(server, **options)

    def process(self, name: str, **options: Any) -> Process:
        make = self.tiers.get(name)
        return RedisProcess(self, name, make() if make is not None else None)

    def hear(self) -> None:
        listening: list[Any] = [one for one in self.processes.values() if one.pushed is not None]
        for message in self.server.heard() if listening else ():
            for process in listening:
                if not process.is_deaf:
                    process.waiting.append(message)

    # -- freshness within a bound --------------------------------------------------------------------------------------

    def acknowledge(self, versions: Versions, processes: Any) -> None:
        super().acknowledge(versions, processes)
        actor = getcurrent()
        self.returned.append((self.clock, actor.process if isinstance(actor, Actor) else "", dict(versions)))

    def begins(self, actor: Actor) -> None:
        self._begin(actor)
        for name, process in self.processes.items():
            if process.pushed is not None and (process.waiting or process.is_deaf):
                actor.floor[name] = self._at_least(name)

    def _at_least(self, name: str) -> Versions:
        """Return what a process must have heard of while announcements are on their way to it."""
        floor = {"accounts": 0, "owners": 0}
        for at, where, versions in self.returned:
            if where == name or at <= self.clock - BOUND:
                floor.update({table: max(floor[table], version) for table, version in versions.items()})
        return floor

    def prepare(self, actor: Any, process: Any) -> None:
        if process.pushed is None:
            super().prepare(actor, process)
        else:
            pause(READS)  # a hit of the pushed tier asks nobody
            actor.last = None  # within the bound, it may go back in time
            self.begins(actor)

    def warm(self, process: str, *what: str) -> None:
        for _ in range(2):  # the first read makes the generation, which empties the pushed tier
            super().warm(process, *what)
            for one in self.processes.values():
                self._catch_up(one)

    def _catch_up(self, process: Any) -> None:
        if process.is_deaf:
            process.connected(self.server.channels)
        while process.waiting:
            self._arrive(process)
        if process.pushed is not None:
            process.pushed.proved(self.clock)

    # -- what nobody does ----------------------------------------------------------------------------------------------

    def events(self) -> list[Choice]:
        found = super().events()
        for name, process in self.processes.items():
            if process.pushed is None:
                continue
            if process.waiting:
                found.append(
                    Choice(
                        f"an announcement arrives at {name}", lambda process=process: self._arrive(process)
                    )
                )
            if process.is_deaf:
                again = Choice(
                    f"{name} is connected again",
                    lambda process=process: process.connected(self.server.channels),
                )
                found.append(again)
                continue
            if self.budget.get(CUT, 0):
                found.append(Choice(f"{name} is cut off", lambda process=process: self._cut(process)))
            if process.ping is None and self.budget.get(PINGS, 0):
                found.append(Choice(f"{name} sends a PING", lambda process=process: self._ping(process)))
            elif process.ping is not None and process.ping[1] == 0:
                found.append(Choice(f"a PONG arrives at {name}", lambda process=process: self._pong(process)))
        if self.budget.get(TIME, 0):
            found.append(Choice("more than the bound passes", self._pass))
        return found

    def _arrive(self, process: Any) -> None:
        message = process.waiting.pop(0)
        if process.ping is not None:
            process.ping = process.ping[0], process.ping[1] - 1
        process.subscription._take(message)

    def _cut(self, process: Any) -> None:
        self.budget[CUT] -= 1
        process.is_deaf, process.waiting, process.ping = True, [], None

    def ping_of(self, name: str) -> None:
        """Let a process have sent a PING before the story begins."""
        self._ping(self.processes[name])

    def _ping(self, process: Any) -> None:
        self.budget[PINGS] -= 1
        process.ping = self.clock, len(process.waiting)

    def _pong(self, process: Any) -> None:
        (sent_at, _), process.ping = process.ping, None
        for listener in process.subscription._everyone(process.subscription._confirmed):
            listener.proved(sent_at)

    def _pass(self) -> None:
        self.budget[TIME] -= 1
        self.clock += 2 * BOUND

    def end_lease(self, token: Any) -> None:
        if token is not None:
            self.end_leases(token.encode())

    def end_leases(self, token: bytes = b"") -> None:
        """Do as the server does when the lease of a writer (or of all) has ended."""
        client = self.server.client
        for key, content in self._dump():
            if b":w:" in key:
                ended = {member: 1 for member in content[::2] if token in (b"", member)}
                if ended:
                    client.zadd(key, ended)
            elif b":s:" in key:
                nonce, version, ttl, tokens, cause = content.split(b"|", 4)
                marks = [mark.partition(b":") for mark in tokens.split(b",") if mark]
                if not any(token in (b"", mark[0]) for mark in marks):
                    continue
                left = [mark[0] + b":" + (b"1" if token in (b"", mark[0]) else mark[2]) for mark in marks]
                if all(mark.endswith(b":1") for mark in left):
                    client.delete(key)  # a stamp in flight lives until the last lease
                else:
                    client.set(key, b"|".join((nonce, version, ttl, b",".join(left), cause)), keepttl=True)

    def forgets_writers(self, lost: str) -> bool:
        return lost == "everything" or ":w:" in lost

    def losses(self) -> list[tuple[str, Callable[[], Any]]]:
        kinds = {"stamp": ":s:", "registry": ":r:", "writers": ":w:", "generation": ":generation"}
        if "everything" in self.loses:
            return [("everything", self.server.client.flushall)]
        parts = [kinds[kind] for kind in self.loses]
        keys = sorted(key.decode() for key, _ in self._dump())
        return [
            (f"the key {key}", lambda key=key: self.server.client.delete(key))
            for key in keys
            if any(part in key for part in parts)
        ]

    # -- what is looked at ---------------------------------------------------------------------------------------------

    def _dump(self) -> list[tuple[bytes, Any]]:
        return [(key, content) for key, content in self._everything() if not key.endswith(b"sequence")]

    def _everything(self) -> list[tuple[bytes, Any]]:
        return sorted(self.server.client.execute_command("EVAL", _DUMP, 0, f"{self.server.layout.prefix}:*"))

    def stored(self) -> Any:
        found = self._everything()
        stamps = {decode_stamp(content) for key, content in found if b":s:" in key}
        nonces = {stamp.nonce for stamp in stamps if stamp is not None}
        kept = []
        for key, content in found:
            if key.endswith(b"sequence") and not self.tiers:
                continue
            if isinstance(content, list) and b":w:" in key:
                content = [(member, score == b"1") for member, score in zip(content[::2], content[1::2])]
            told = self.essence(content)
            if not (self.reduces and is_dead(told, nonces)):
                kept.append((key, told))
        return (
            kept,
            [self._local(one, nonces) for one in self.processes.values()],
            self.clock,
            self.returned if self.tiers else None,
        )

    def _local(self, process: Any, nonces: set[int]) -> Any:
        store = process.binding.store
        local: Any = store.local
        entries: Any = None
        if local is not None:
            entries = [
                (key, self.essence(entry), getattr(entry.under, "arrived", None))
                for key, entry in sorted(local._entries.items())
            ]
            if self.reduces and process.pushed is None:  # one that is dead is met, and asked for anew
                entries = [(key, None if is_dead(told, nonces) else told) for key, told, _ in entries]
        tier = None
        if process.pushed is not None:
            tier = (
                process.is_deaf,
                *(local.arrived, sorted(local._last.items()), local._floor, local._live_until, process.ping),
                [self._announced(message) for message in process.waiting],
                sorted(process.subscription._sequences.items()),
            )
        known = [
            (name, held_under, held_under[1] in nonces)
            for name, held_under in sorted(store._registered.items())
        ]
        return known, sorted(store._commits._shapes.items()), entries, tier

    @staticmethod
    def _announced(message: Mapping[str, Any]) -> Any:
        try:
            said = decode(message["data"])
        except SerializationError:
            return message["channel"]
        return said.sequence, said.phase, [(touched.table, touched.names) for touched in said.touched]

    def on_its_way(self, actor: Actor) -> Any:
        answered = actor.told if actor.label in (IS_TOLD, LOOKS_UP) else ()
        return actor.arrived, self.essence(answered)

    def essence(self, told: Any) -> Any:
        if isinstance(told, bytes):
            return _of_bytes(told)
        if isinstance(told, (list, tuple)) and type(told) in (list, tuple):
            return [self.essence(one) for one in told]
        return super().essence(told)

    def settled(self) -> None:
        for process in self.processes.values():
            self._catch_up(process)
        super().settled()


def _of_bytes(data: bytes) -> Any:
    stamp = decode_stamp(data)
    if stamp is not None:
        tokens = data.split(b"|", 4)[3]
        return stamp.nonce, [(mark.partition(b":")[0], mark.endswith(b":1")) for mark in tokens.split(b",")]
    try:
        entry = decode_entry(data)
    except SerializationError:
        return data
    return [each[2] for each in entry.stamps], entry.under, entry.data


def is_dead(told: Any, nonces: set[int]) -> bool:
    """Tell whether this is an entry under a stamp that is not there any more."""
    return isinstance(told, tuple) and isinstance(told[0], list) and not nonces.issuperset(told[0])


@contextmanager
def on_the_clock_of(server: Server) -> Iterator[None]:
    """Let the pushed tier go by the clock of the world that is under way."""

    class _Clock:
        @staticmethod
        def monotonic() -> float:
            return server.world.clock if server.world is not None else 0.0

    before, pushed_module.time = pushed_module.time, _Clock  # type: ignore[assignment]  # what it uses of it
    try:
        yield
    finally:
        pushed_module.time = before
