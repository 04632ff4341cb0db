"""A TCP proxy between clients and a Redis server that tells what was asked, and that can be cut, slow or in the way.

It runs in a thread and a loop of its own, so that it works while the test's loop is blocked, closed or another one.
Every method may be called from any thread, and has taken effect when it returns.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple

from .processes import eventually, free_port
from .resp import Command, Requests, name_of

HANDSHAKE = frozenset(("HELLO", "AUTH", "CLIENT", "SELECT", "INFO", "PING"))
CHUNK = 1 << 20
Match = str | Callable[[Command], bool]


class Request(NamedTuple):
    """A command that came to the proxy."""

    command: Command
    """Its name and arguments."""
    connection: int
    trip: int
    """Commands of one connection with the same number were sent without waiting for a reply in between."""

    @property
    def name(self) -> str:
        """Name in capitals, with the second word where that says what is done: ``MGET``, ``SCRIPT LOAD``."""
        return name_of(self.command)


class Counts(Mapping[str, int]):
    """How often each command came since the block began, until now or until it ended: equal to a dictionary of that."""

    def __init__(self, requests: list[Request], ignoring: frozenset[str]) -> None:
        self._all = requests
        self._begin = len(requests)
        self._end: int | None = None
        self._ignoring = ignoring

    @property
    def requests(self) -> list[Request]:
        """The commands counted."""
        return [
            one for one in self._all[self._begin : self._end] if one.name.split()[0] not in self._ignoring
        ]

    @property
    def trips(self) -> int:
        """Round trips: commands sent together count as one."""
        return len({(one.connection, one.trip) for one in self.requests})

    def end(self) -> None:
        """Count nothing that comes later."""
        self._end = len(self._all)

    def _counter(self) -> Counter[str]:
        return Counter(one.name for one in self.requests)

    def __getitem__(self, name: str) -> int:
        return self._counter()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counter())

    def __len__(self) -> int:
        return len(self._counter())

    def __repr__(self) -> str:
        return repr(dict(self))


class Hold:
    """A place in the proxy where the first command that matches stops; made by :meth:`Proxy.hold`."""

    def __init__(self, match: Match) -> None:
        self.command: Command | None = None
        """The command that was stopped here."""
        self._match = match
        self._taken = threading.Event()
        self._decision: asyncio.Future[bool] | None = None
        self._decided: bool | None = None

    async def reached(self, patience: float = 15.0) -> Command:
        """Wait until a command is stopped here, and return it."""
        await eventually(self._taken.is_set, f"{self._match!r} to come to the proxy", patience)
        assert self.command is not None
        return self.command

    def pass_on(self) -> None:
        """Send the command on to the server."""
        self._decide(True)

    def drop(self) -> None:
        """Close the client's connection; the server never gets the command."""
        self._decide(False)

    def _decide(self, passes: bool) -> None:
        if self._decided is None:
            self._decided = passes
            if self._decision is not None:
                with suppress(RuntimeError):  # the proxy has ended
                    self._decision.get_loop().call_soon_threadsafe(_resolve, self._decision, passes)

    def _takes(self, command: Command) -> bool:
        if self._taken.is_set() or self._decided is not None:
            return False
        return self._match(command) if callable(self._match) else name_of(command) == self._match

    async def _stop(self, command: Command) -> bool:
        self.command = command
        self._decision = asyncio.get_running_loop().create_future()
        self._taken.set()
        if self._decided is not None:
            return self._decided
        return await self._decision


def _resolve(decision: asyncio.Future[bool], passes: bool) -> None:
    if not decision.done():
        decision.set_result(passes)


class Proxy:
    """Listens on a port of its own and passes everything on to ``target``, a host and a port.

    ``login`` is what its URL carries before the host, such as ``":secret@"``. Use as a context manager.
    """

    def __init__(self, target: tuple[str, int], login: str = "") -> None:
        self.target = target
        self.login = login
        self.port = free_port()
        self.requests: list[Request] = []
        """Every command that came, in order, whether or not it was passed on."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._links: set[_Link] = set()
        self._numbers = itertools.count(1)
        self._delay = 0.0
        self._holds: list[Hold] = []
        self._losses: list[Hold] = []

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._do(self._listen())
        self._loop.call_soon_threadsafe(self._flowing.set)
        return self

    def __exit__(self, *exc: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """URL of the server through this proxy, database 0."""
        return f"redis://{self.login}127.0.0.1:{self.port}/0"

    @property
    def connections(self) -> int:
        """Clients connected now."""
        return len(self._links)

    # -- what was asked ------------------------------------------------------------------------------------------------

    @property
    def commands(self) -> list[Command]:
        """Every command that came, in order: name and arguments."""
        return [request.command for request in self.requests]

    @contextmanager
    def counting(self, ignoring: frozenset[str] | set[str] = HANDSHAKE) -> Iterator[Counts]:
        """Count the commands that come during the block by name, but for those whose first word is in ``ignoring``."""
        counts = Counts(self.requests, frozenset(ignoring))
        try:
            yield counts
        finally:
            counts.end()

    # -- trouble -------------------------------------------------------------------------------------------------------

    def cut(self, mode: Literal["refuse", "blackhole"] = "refuse", *, drop: bool = True) -> None:
        """Let nothing through until :meth:`heal`.

        Args:
            mode: New connections are refused, or accepted and never answered.
            drop: Existing connections are reset. Otherwise they stay, and nothing passes on them.
        """
        self._do(self._cut(mode, drop))

    def heal(self, *, drop: bool = False) -> None:
        """End what :meth:`cut` began.

        What was sent in the meantime on connections that stayed is delivered late, as a network would; also for a
        client that has closed its connection since. With ``drop`` those connections are reset instead.
        """
        self._do(self._heal(drop))

    def drop(self) -> None:
        """Reset every connection; new ones are welcome."""
        self._do(self._drop())

    def stall(self) -> None:
        """Let nothing pass any more on the connections there are, without a word; new ones work."""
        self._do(self._stall())

    def delay(self, seconds: float) -> None:
        """Hold back every reply for ``seconds`` from now on (each mebibyte of it); 0 for no longer."""
        self._delay = seconds

    @contextmanager
    def delayed(self, seconds: float) -> Iterator[None]:
        """Hold back every reply for ``seconds`` during the block."""
        self.delay(seconds)
        try:
            yield
        finally:
            self.delay(0)

    @contextmanager
    def hold(self, match: Match) -> Iterator[Hold]:
        """Stop the first command that matches before it reaches the server; what is still held afterwards passes.

        Args:
            match: A name such as ``"EVALSHA"``, or a function of the command's name and arguments.
        """
        hold = Hold(match)
        self._holds.append(hold)
        try:
            yield hold
        finally:
            self._holds.remove(hold)
            hold.pass_on()

    @contextmanager
    def losing_reply(self, match: Match) -> Iterator[Hold]:
        """Let the first command that matches reach the server, and reset the connection instead of its reply."""
        loss = Hold(match)
        self._losses.append(loss)
        try:
            yield loss
        finally:
            self._losses.remove(loss)

    # -- in the proxy's loop -------------------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=20)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=CHUNK)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(next(self._numbers), self, reader, writer)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def _cut(self, mode: str, drop: bool) -> None:
        self._flowing.clear()
        if mode == "refuse":
            await self._stop_listening()
        if drop:
            await self._drop()

    async def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        for listening in server.sockets:
            self._loop.remove_reader(listening.fileno())
        for _ in range(10):
            # Whoever was accepted at the last moment becomes a link: once the server is closed, asyncio loses it.
            await asyncio.sleep(0)
        server.close()

    async def _heal(self, drop: bool) -> None:
        if drop:
            await self._drop()
        self._flowing.set()
        if self._server is None:
            await self._listen()

    async def _stall(self) -> None:
        for link in self._links:
            link.stalled = True

    async def _drop(self) -> None:
        gone = list(self._links)
        for link in gone:
            link.abort()
        await asyncio.gather(*(link.ended.wait() for link in gone))

    async def _close(self) -> None:
        await self._stop_listening()
        await self._drop()


class _Link:
    """One client's connection and ours to the server."""

    def __init__(
        self, number: int, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.ended = asyncio.Event()
        self._number = number
        self._proxy = proxy
        self._client = reader, writer
        self._task: asyncio.Task[None] | None = None
        self._writers = [writer]
        self._trip = 0
        self._answered = True
        self._losing = False
        self.stalled = False

    def abort(self) -> None:
        """Reset both connections."""
        for writer in self._writers:
            writer.transport.abort()
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Pass on what comes, until one side ends or :meth:`abort` is called."""
        self._task = asyncio.ensure_future(self._pass_on())
        with suppress(asyncio.CancelledError, OSError):
            await self._task
        for writer in self._writers:
            writer.transport.abort()
        self.ended.set()

    async def _pass_on(self) -> None:
        await self._proxy._flowing.wait()
        reader, writer = await asyncio.open_connection(*self._proxy.target, limit=CHUNK)
        self._writers.append(writer)
        asked = asyncio.ensure_future(self._requests(self._client[0], writer))
        answered = asyncio.ensure_future(self._replies(reader, self._client[1]))
        try:
            await asyncio.wait({asked, answered}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (asked, answered):
                task.cancel()
            await asyncio.gather(asked, answered, return_exceptions=True)

    async def _may_pass(self) -> None:
        if self.stalled:
            await asyncio.Event().wait()
        await self._proxy._flowing.wait()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy, requests = self._proxy, Requests()
        while data := await reader.read(CHUNK):
            for command, raw in requests.feed(data):
                if self._answered:
                    self._answered, self._trip = False, self._trip + 1
                proxy.requests.append(Request(command, self._number, self._trip))
                for hold in list(proxy._holds):
                    if hold._takes(command) and not await hold._stop(command):
                        return
                await self._may_pass()
                for loss in list(proxy._losses):
                    if loss._takes(command):
                        self._losing, loss.command = True, command
                        loss._taken.set()
                writer.write(raw)
            await writer.drain()
        writer.write_eof()
        await asyncio.Event().wait()  # the server may still have to answer; it closes when it has

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if self._losing:
                return
            if self._proxy._delay:
                await asyncio.sleep(self._proxy._delay)
            await self._may_pass()
            self._answered = True
            writer.write(data)
            await writer.drain()
