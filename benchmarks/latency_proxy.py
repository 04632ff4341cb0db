"""A proxy in a process of its own that holds back what a server says: ``python -m benchmarks.latency_proxy``.

All of the latency is on the way back, once per round trip, and none of it is lost to asyncio: its usual selector counts
whole milliseconds, ``select()`` microseconds. What the proxy itself costs is measured and taken off the delay, so that
a round trip takes as much longer as was asked for (:func:`delayed_by`).
"""

from __future__ import annotations

import asyncio
import os
import selectors
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TRIPS = 300
"""Round trips of one measurement of the latency."""
Address = tuple[str, int] | str
"""A host and a port, or the path of a socket."""


class Proxy:
    """The process, seen from the one that started it. Made by :func:`latency_proxy`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._tell())

    def delay(self, seconds: float) -> None:
        """Hold back everything the server says for so long from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds!r}\n")
        self._process.stdin.flush()
        self._tell()

    def cpu(self) -> float:
        """Return how many seconds of a processor it has taken so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("cpu\n")
        self._process.stdin.flush()
        return float(self._tell())

    def _tell(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the proxy of the benchmark ended")
        return line


@contextmanager
def latency_proxy(target: Address) -> Iterator[Proxy]:
    """Run a proxy in front of ``target`` for the time of the block. It ends with this process, too."""
    where = target if isinstance(target, str) else f"{target[0]}:{target[1]}"
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.latency_proxy", where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield Proxy(process)
    finally:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Trips(NamedTuple):
    """What a round trip takes: seconds, medians."""

    direct: float
    added: float
    """What the proxy adds to it."""

    def __str__(self) -> str:
        return f"{self.direct * 1e3:.3f} ms, and {self.added * 1e3:.3f} ms more through the proxy"


Ask = Callable[[], Awaitable[Any]]
"""Makes one round trip."""


async def delayed_by(
    seconds: float, proxy: Proxy, direct: Ask, proxied: Ask, *, quick: bool = False
) -> Trips:
    """Let the proxy add ``seconds`` to a round trip, as exactly as it can, and return what it adds.

    Args:
        seconds: What is to be added, the proxy's own cost included.
        proxy: The one to set.
        direct: Makes one round trip past the proxy.
        proxied: The same through it.
        quick: Do not try again until it is exact.
    """
    held = seconds
    for _ in range(1 if quick else 4):
        proxy.delay(held)
        trips = await compared(direct, proxied, TRIPS // 30 if quick else TRIPS)
        if abs(trips.added - seconds) < 0.02 * seconds:
            break
        held = max(0.0, held + seconds - trips.added)
    return trips


async def compared(direct: Ask, proxied: Ask, times: int = TRIPS) -> Trips:
    """Return what a round trip takes past the proxy, and how much more through it."""
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(times + 10):
        for ask, found in zip((direct, proxied), took):
            began = time.perf_counter()
            await ask()
            if number >= 10:
                found.append(time.perf_counter() - began)
    near, far = map(statistics.median, took)
    return Trips(near, far - near)


# -- in the process of its own ---------------------------------------------------------------------------------------


class _Delay:
    seconds = 0.0


class _Side(asyncio.Protocol):
    """One of the two connections of a link: what comes here leaves there."""

    def __init__(self, delay: _Delay | None) -> None:
        self.other: _Side | None = None
        self._transport: Any = None
        self._delay = delay
        self._early = bytearray()
        self._held: deque[tuple[float, bytes]] = deque()
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data  # the server is being connected
        elif self._delay is None or not self._delay.seconds:
            self.other.send(data)
        else:
            loop = asyncio.get_running_loop()
            if not self._held:
                loop.call_later(self._delay.seconds, self._let_go)
            self._held.append((loop.time() + self._delay.seconds, data))

    def _let_go(self) -> None:
        loop = asyncio.get_running_loop()
        while self._held:
            at, data = self._held[0]
            if at > loop.time():
                loop.call_at(at, self._let_go)
                return
            self._held.popleft()
            if self.other is not None:
                self.other.send(data)
        if self._ended and self.other is not None:
            self.other.close()

    def join(self, other: _Side) -> None:
        self.other = other
        if self._early:
            other.send(bytes(self._early))

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        if self.other is not None and not self._held:
            self.other.close()


async def _link(client: _Side, target: str, delay: _Delay) -> None:
    loop = asyncio.get_running_loop()
    server = _Side(delay)
    if target.startswith("/"):
        await loop.create_unix_connection(lambda: server, target)
    else:
        host, _, port = target.rpartition(":")
        await loop.create_connection(lambda: server, host, int(port))
    server.join(client)
    client.join(server)


async def _serve(target: str) -> None:
    loop, delay = asyncio.get_running_loop(), _Delay()
    under_way: set[asyncio.Task[None]] = set()

    def accept() -> _Side:
        side = _Side(None)
        task = loop.create_task(_link(side, target, delay))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return side

    server = await loop.create_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()

    def told() -> None:
        line = os.read(0, 100).decode()
        if not line:
            loop.remove_reader(0)
            return ended.set()
        (word,) = line.split()  # its parent waits for an answer before it sends another
        if word == "cpu":
            print(time.process_time(), flush=True)
        else:
            delay.seconds = float(word)
            print("set", flush=True)

    loop.add_reader(0, told)
    await ended.wait()
    server.close()


def main(arguments: Sequence[str]) -> None:
    (target,) = arguments
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    asyncio.set_event_loop(loop)
    loop.run_until_complete(_serve(target))


if __name__ == "__main__":
    main(sys.argv[1:])
