"""A program that hangs says where: its threads, its tasks, and the greenlets that wait in them."""

from __future__ import annotations

import asyncio
import threading
from itertools import count

from sqlalchemy.util import await_only, greenlet_spawn

from tests.leaks.watchdog import Watchdog


def wait_in_a_greenlet(event: asyncio.Event) -> None:
    await_only(event.wait())


async def test_what_everything_waits_for_is_told_once_when_nothing_gets_on() -> None:
    loop, event, looked = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    told: list[str] = []
    looks = count()

    def progress() -> int:
        if next(looks) > 10 and len(told) >= 2:
            loop.call_soon_threadsafe(looked.set)
        return 1

    waiting = asyncio.ensure_future(greenlet_spawn(wait_in_a_greenlet, event))
    with Watchdog(progress, loop, patience=0.01, tell=told.append):
        await looked.wait()
    event.set()
    await waiting
    assert len(told) == 2
    assert "no operation has ended for 0.01 s" in told[0]
    assert "test_watchdog.py" in told[1]
    assert "in wait_in_a_greenlet" in told[1]


def test_a_thread_that_blocks_the_loop_is_told_of_though_the_loop_is_not() -> None:
    told: list[str] = []
    lock = threading.Lock()

    def tell(what: str) -> None:
        told.append(what)
        lock.release()

    async def block() -> None:
        lock.acquire()
        with Watchdog(lambda: 1, asyncio.get_running_loop(), patience=0.01, tell=tell):
            lock.acquire()  # until it is told

    asyncio.run(block())
    assert "in block" in told[0]


def test_nothing_is_told_while_operations_end() -> None:
    told: list[str] = []
    numbers, seen = count(), threading.Event()

    def progress() -> int:
        number = next(numbers)
        if number == 5:
            seen.set()
        return number

    with Watchdog(progress, None, patience=0.001, tell=told.append):
        seen.wait()
    assert told == []
