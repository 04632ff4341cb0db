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

from sqlacache.errors import SerializationError, TransportError
from sqlacache.front.blocking import BlockingFront
from sqlacache.store import pushed as pushed_module
from sqlacache.store.breaker import Breaker
from sqlacache.store.codec import SafeCodec
from sqlacache.store.layout import Layout
from sqlacache.store.local import LocalTier
from sqlacache.store.records import decode_entry, decode_stamp
from sqlacache.store.redis import RedisStore
from sqlacache.store.scripts import FILL, MARK, SAMPLE, SETTLE, UNMARK, Script
from sqlacache.store.subscription import Subscription
from sqlacache.store.transport import RUN, Answer, Transport
from sqlacache.tags import EVERYTHING
from tests.explorer.scheduler import Actor, Choice, pause
from tests.explorer.world import AFTER, BEFORE, Process, Versions, World, told

SCRIPTS = (SAMPLE, FILL, MARK, SETTLE, UNMARK)
SAYS = {
    "sample": "samples and registers",
    "fill": "fills",
    "mark": "marks",
    "settle": "settles",
    "unmark": "unmarks",
}
BOUND = 1.0
PINGS = "pings"
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


class Server:
    """A connection to a server of this exploration's own, and one that listens."""

    def __init__(self, url: str, client: Any) -> None:
        self.client = client
        self.transport = Steps(url, timeout=30, options={}, breaker=Breaker(), front=BlockingFront())
        self.transport.server = self
        self.layout = Layout("x", "bank")
        self.listener = client.pubsub()
        self.channels = (self.layout.channel, self.layout.generation(EVERYTHING))
        self.listens = False
        self.names: dict[bytes, str] = {}
        for script in SCRIPTS:
            self.load(script)
        self.world: RedisWorld | None = None

    def load(self, script: Script) -> None:
        self.client.script_load(script.source)
        self.names[script.digest] = script.name

    def listen(self, whether: bool) -> None:
        """Listen to what is announced, or not any more."""
        if whether != self.listens:
            self.listens = whether
            (self.listener.subscribe if whether else self.listener.unsubscribe)(*self.channels)
            left = len(self.channels)
            while left:
                message = self.listener.get_message(timeout=30)
                left -= message is not None and message["type"].endswith("subscribe")
        elif whether:
            self.heard()

    def heard(self) -> list[dict[str, Any]]:
        """Return what was announced since the last time."""
        found = []
        self.listener.ping()
        while True:
            message = self.listener.get_message(timeout=30)
            assert message is not None, "the server is silent"
            if message["type"] == "pong":
                return found
            if message["type"] == "message":
                found.append(message)

    def close(self) -> None:
        self.listener.close()
        self.transport.front.wait(self.transport.close())


class Steps(Transport):
    """Lets others go on before a command is sent; sends all of them over one connection."""

    server: Server
    _kept: Any = None

    async def call(self, *command: Any, run_at: int = 0) -> Answer:
        actor = getcurrent()
        if not isinstance(actor, Actor):
            return await super().call(*command, run_at=run_at)
        world = self.server.world
        assert world is not None
        name = self.server.names.get(command[1], "") if command[0] == b"EVALSHA" else ""
        if name == "mark":
            actor.token = command[int(command[2]) + 6]
        how = pause(
            SAYS.get(name, "looks up" if command[0] == b"MGET" else "asks for the registry"), world.faults
        )
        told(how)
        if how == BEFORE:
            raise TransportError("the server does not answer")
        if actor.floor is None:
            world.begins(actor)
        answer = await super().call(*command, run_at=run_at)
        if name != "fill" and name:
            world.hear()
        if how == AFTER:
            raise TransportError("the answer was lost")
        told(answer.value)
        if world.tiers and name in ("", "fill") and not actor.is_writing:
            pause("is told so")  # announcements may arrive before the answer is looked at
        return answer

    async def _exchange(
        self, pool: Any, command: Sequence[Any], run_at: int = 0, *, asking: bool = False
    ) -> Answer:
        if self._kept is None:
            self._kept = await pool.get_connection()
        connection = self._kept
        if run_at:
            command = [*command[:run_at], connection.sqlacache_run, *command[run_at + 1 :]]
            assert RUN not in command
        await connection.send_command(*command)
        return Answer(await connection.read_response(), connection.sqlacache_run)


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
        self.pushed = store.pushed
        self.subscription: Any = None
        if self.pushed is not None:
            self.subscription = Subscription(server.transport, beat=BOUND / 2)
            self.subscription.add(server.channels[0], store, resets=server.channels[1:])
            for channel in server.channels:
                self.subscription._take({"type": "subscribe", "channel": channel.encode(), "data": 1})
            self.pushed.proved(world.clock)


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
                process.waiting.append(message)

    # -- freshness within a bound --------------------------------------------------------------------------------------

    def acknowledge(self, versions: Versions, processes: Any) -> None:
        super().acknowledge(versions, processes)
        actor = getcurrent()
        self.returned.append((self.clock, actor.process if isinstance(actor, Actor) else "", dict(versions)))

    def begins(self, actor: Actor) -> None:
        self._begin(actor)
        for name, process in self.processes.items():
            if process.pushed is not None and process.waiting:
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
            pause("reads")  # a hit of the pushed tier asks nobody
            actor.last = None  # within the bound, it may go back in time
            self.begins(actor)

    def warm(self, process: str, *what: str) -> None:
        for _ in range(2):  # the first read makes the generation, which empties the pushed tier
            super().warm(process, *what)
            for one in self.processes.values():
                self._catch_up(one)

    def _catch_up(self, process: Any) -> None:
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
        self.end_leases(token.encode())

    def end_leases(self, token: bytes = b"") -> None:
        """Do as the server does when the lease of a writer (or of all) has ended."""
        client = self.server.client
        for key, content in self._dump():
            if b":w:" in key:
                client.zadd(key, {member: 1 for member in content[::2] if token in (b"", member)})
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
        found = self.server.client.execute_command("EVAL", _DUMP, 0, f"{self.server.layout.prefix}:*")
        return sorted((key, content) for key, content in found if not key.endswith(b"sequence"))

    def stored(self) -> Any:
        kept = []
        for key, content in self._dump():
            if isinstance(content, list) and b":w:" in key:
                content = [(member, score == b"1") for member, score in zip(content[::2], content[1::2])]
            kept.append((key, self.essence(content)))
        return (
            kept,
            [self._local(one) for one in self.processes.values()],
            self.clock,
            self.returned if self.tiers else None,
        )

    def _local(self, process: Any) -> Any:
        store = process.binding.store
        local: Any = store.local
        entries = (
            None
            if local is None
            else [
                (key, self.essence(entry), getattr(entry.under, "arrived", None))
                for key, entry in local._entries.items()
            ]
        )
        tier = (
            None
            if process.pushed is None
            else (
                local.arrived,
                local._last,
                local._floor,
                local._live_until,
                process.ping,
                [message["channel"] for message in process.waiting],
            )
        )
        return store._registered, store._commits._shapes, entries, tier

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
