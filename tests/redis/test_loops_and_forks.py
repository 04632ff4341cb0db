"""Connections belong to a process and to an event loop: forks, a loop for each task, and several loops at once.

Each test is a program of its own, as no loop of pytest's may be around.
"""

from __future__ import annotations

import pytest

from tests.support.programs import run_with_redis

pytestmark = pytest.mark.integration

BEGINNING = """
import asyncio, os, sys, threading, time
from contextlib import contextmanager
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool
from sqlacache import configure
from sqlacache.testing import record
from tests.support.models import Team
from tests.support.proxy import Proxy
from tests.support.redis_server import redis_server

URL = sys.argv[1]
OPTIONS = {"models": {"*": {"timeout": 3600}}, "telemetry": None, "prefix": "loops"}

def engine():
    return create_async_engine(URL, poolclass=NullPool)

async def read(cache, bound):
    with record(cache) as seen:
        async with AsyncSession(bound) as session:
            name = (await session.get(Team, 1)).name
    (decision,) = seen.decisions
    return name, decision.decision, decision.reason

async def write(bound, name):
    async with AsyncSession(bound) as session:
        (await session.get(Team, 1)).name = name
        await session.commit()

async def status(cache):
    return (await cache.health()).status

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
"""


def run(program: str, *arguments: str) -> None:
    run_with_redis(BEGINNING + program, *arguments, timeout=60)


def test_workers_forked_after_configure_each_open_their_own_connections(file: str) -> None:
    run(
        """
with redis_server() as server:
    cache = configure(backend={"url": server.url, "timeout": 2}, **OPTIONS)

    def worker(expected, new):
        async def main():
            bound = engine()
            await cache.bind(bound)
            assert (await read(cache, bound))[:2] == expected
            assert (await read(cache, bound))[:2] == (expected[0], "hit")
            if new:
                await write(bound, new)
                assert (await read(cache, bound))[:2] == (new, "miss")
                assert (await read(cache, bound))[:2] == (new, "hit")
            await cache.disconnect()
        return lambda: asyncio.run(main())

    child(worker(("red", "miss"), None))
    child(worker(("red", "hit"), "new"))
    child(worker(("new", "hit"), None))
    worker(("new", "hit"), None)()
""",
        file,
    )


def test_a_fork_after_use_leaves_the_parents_connections_to_the_parent(file: str) -> None:
    run(
        """
with redis_server() as server:
    for local in (None, "validated", "pushed"):
        cache = configure(backend={"url": server.url, "timeout": 2}, local=local, **{**OPTIONS, "prefix": str(local)})
        bound = engine()
        loop = asyncio.new_event_loop()
        loop.run_until_complete(cache.bind(bound))
        for _ in range(2):
            before = loop.run_until_complete(read(cache, bound))[0]

        def work():
            asyncio.set_event_loop(None)
            async def main():
                assert (await read(cache, bound))[0] == before
                await write(bound, f"by the child {local}")
                for _ in range(2):
                    name, decision, _ = await read(cache, bound)
                    assert name == f"by the child {local}"
                assert decision == "hit"
            asyncio.run(main())

        child(work)
        deadline = time.monotonic() + 1  # what a pushed tier may be behind
        while True:
            name, decision, reason = loop.run_until_complete(read(cache, bound))
            if name == f"by the child {local}":
                break
            assert local == "pushed" and time.monotonic() < deadline + 10, name
        loop.run_until_complete(write(bound, f"by the parent {local}"))
        for _ in range(2):
            name, decision, _ = loop.run_until_complete(read(cache, bound))
            assert name == f"by the parent {local}"
        assert decision == "hit"
        loop.run_until_complete(cache.disconnect())
        loop.close()
""",
        file,
    )


def test_a_child_forked_during_an_outage_recovers_by_itself(file: str) -> None:
    """
    1. The parent notices the outage: its recovery is under way, in the parent's loop.
    2. The child inherits a task that will never go on. It notices the outage by itself, and recovers by itself.
    """
    run(
        """
with redis_server() as server:
    server.kill()
    cache = configure(backend={"url": server.url, "timeout": 0.5}, **OPTIONS)
    bound = engine()

    def work():
        asyncio.set_event_loop(None)
        async def main():
            for _ in range(3):
                assert (await read(cache, bound))[1:] == ("bypass", "backend_unavailable")
            await write(bound, "owed")
            assert await status(cache) == "owed"
            server_is_back.set()
            deadline = time.monotonic() + 30
            while (await read(cache, bound))[:2] != ("owed", "hit"):
                assert time.monotonic() < deadline
            assert await status(cache) == "ok"
        asyncio.run(main())

    class Pipe:
        def __init__(self):
            self.r, self.w = os.pipe()
        def set(self):
            os.write(self.w, b"x")
    server_is_back = Pipe()
    starter = threading.Thread(target=lambda: (os.read(server_is_back.r, 1), server.start()))
    starter.start()

    async def parent():
        await cache.bind(bound)
        assert cache.backend.breaker.is_open
        child(work)  # whose copy of this loop is one that runs, for all it knows

    loop = asyncio.new_event_loop()
    loop.run_until_complete(parent())
    starter.join()
    loop.run_until_complete(cache.disconnect())
    loop.close()
""",
        file,
    )


def test_a_fresh_loop_for_each_task_also_through_an_outage(file: str) -> None:
    """
    1. A task notices the outage, and its commit owes an invalidation. Its loop ends, and recovery with it.
    2. The next tasks bypass. Each takes recovery up again, until it gets through.
    """
    run(
        """
with redis_server() as server, Proxy(server.address) as proxy:
    cache = configure(backend={"url": proxy.url, "timeout": 0.5}, **OPTIONS)
    bound = engine()
    asyncio.run(cache.bind(bound))
    for expected in ("miss", "hit", "hit"):
        assert asyncio.run(read(cache, bound))[:2] == ("red", expected)
    for failures, owes in ((1, True), (4, True), (4, False)):
        proxy.cut()
        if owes:
            name = f"owed {failures}"
            asyncio.run(write(bound, name))
        for _ in range(failures):
            assert asyncio.run(read(cache, bound)) == (name, "bypass", "backend_unavailable")
        assert asyncio.run(status(cache)) == ("owed" if owes else "degraded")
        proxy.heal()
        deadline = time.monotonic() + 30
        while asyncio.run(read(cache, bound))[:2] != (name, "hit"):
            assert time.monotonic() < deadline
        assert asyncio.run(status(cache)) == "ok"
    asyncio.run(cache.disconnect())
""",
        file,
    )


def test_several_loops_in_threads_of_one_process_share_a_cache(file: str) -> None:
    run(
        """
with redis_server() as server, Proxy(server.address) as proxy:
    cache = configure(backend={"url": proxy.url, "timeout": 2}, **OPTIONS)
    committed, stop, failures = [0], threading.Event(), []
    ready = threading.Barrier(4)

    def thread(number):
        async def main():
            bound = engine()
            await cache.bind(bound)  # all at the same time
            await asyncio.to_thread(ready.wait, 20)
            n = 0
            while not stop.is_set():
                since = committed[0]
                async with AsyncSession(bound) as session:
                    name = (await session.get(Team, 1)).name
                assert not since or int(name) >= since, f"read {name} after {since}"
                if number == 0:
                    n += 1
                    async with AsyncSession(bound) as session:
                        (await session.get(Team, 1)).name = str(n)
                        await session.commit()
                    committed[0] = n
            since = committed[0]  # the writer may be committing its last one just now
            async with AsyncSession(bound) as session:
                name = (await session.get(Team, 1)).name
            assert int(name) >= since, f"read {name} after {since}"
            await bound.dispose()
        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(repr(error))
            stop.set()
            ready.abort()

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(3)]
    for one in threads:
        one.start()
    ready.wait(20)
    deadline = time.monotonic() + 30
    while committed[0] < 20 and not stop.is_set() and time.monotonic() < deadline:
        time.sleep(0.01)
    proxy.drop()  # every loop connects again
    while committed[0] < 40 and not stop.is_set() and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    for one in threads:
        one.join()
    assert not failures, failures
    assert committed[0] >= 40, committed
    asyncio.run(cache.disconnect())
""",
        file,
    )


def test_loops_that_ended_leave_no_connections(file: str) -> None:
    run(
        """
import gc
from sqlacache.store.transport import Transport

with redis_server() as server:
    bound = engine()
    cache = configure(backend={"url": server.url, "timeout": 5}, local=None, **OPTIONS)
    asyncio.run(cache.bind(bound))
    for _ in range(5):
        assert asyncio.run(read(cache, bound))[0] == "red"
    gc.collect()
    (pools,) = [one._pools for one in gc.get_objects() if type(one) is Transport and len(one._pools)]
    assert len(pools) <= 2, len(pools)
    asyncio.run(cache.disconnect())
""",
        file,
    )
