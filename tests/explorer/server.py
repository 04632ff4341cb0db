"""A server of this exploration's own, every command to which is a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from sqlacache.errors import TransportError
from sqlacache.front.blocking import BlockingFront
from sqlacache.store.breaker import Breaker
from sqlacache.store.layout import Layout
from sqlacache.store.scripts import FILL, MARK, SAMPLE, SETTLE, UNMARK, Script
from sqlacache.store.transport import RUN, Answer, Transport
from sqlacache.tags import EVERYTHING
from tests.explorer.scheduler import Actor, pause
from tests.explorer.standins import AFTER, BEFORE, told, told_of

if TYPE_CHECKING:
    from tests.explorer.on_redis import RedisWorld

LOOKS_UP, IS_TOLD = "looks up", "is told so"
SCRIPTS = (SAMPLE, FILL, MARK, SETTLE, UNMARK)
SAYS = {
    "sample": "samples and registers",
    "fill": "fills",
    "mark": "marks",
    "settle": "settles",
    "unmark": "unmarks",
}


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
            told_of(told=[_touching(command)])
        process = world.processes.get(actor.process)
        actor.arrived = process.pushed.arrived if process is not None and process.pushed is not None else 0
        how = pause(
            SAYS.get(name, LOOKS_UP if command[0] == b"MGET" else "asks for the registry"), world.faults
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
            pause(IS_TOLD)  # announcements may arrive before the answer is looked at
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


def _touching(command: Sequence[Any]) -> Any:
    """Return which keys a mark touches, and under which revisions of the registries."""
    keys = int(command[2])
    arguments = command[3 + keys :]
    return command[3 : 3 + keys], arguments[9 : 8 + 3 * int(arguments[7]) : 3]
