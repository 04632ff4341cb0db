"""One process of a history: sessions that read and write at random, on either front, and write down what they saw.

Started by :mod:`tests.histories.running` as ``python -m tests.histories.client <JSON>``. Each line of its log is
written with one call of the system before what follows it happens, so that a process that is killed leaves all of it:

- ``read``: what a read returned, and when it began and ended, on the clock that all processes of the machine share;
  a ``witness`` read by an engine that no cache is bound to: what it has seen, the next one of the session must see;
- ``begin``: what is about to be committed, before COMMIT is asked for; ``end``: what came of it;
- ``held``: a commit of which Redis could not be told; ``owing``: it has ended, and is owed; ``owed``: how many are;
- ``sample``: memory, tasks, threads and files of this process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from sqlacache import Observer, configure, configure_sync
from sqlacache.write.owed import Owed
from sqlacache.write.phases import Commit
from tests.histories import program

MODELS: dict[str, Any] = {"tests.histories.program.Hold": None}
WITNESSED = 0.15
"""Share of reads that are a pair: one past the cache, and then the same by it."""
READ_BACK = 0.6
"""Share of commits after which the session reads at once what it has written."""
SAMPLED = 0.5
"""Seconds between samples."""


class Doing:
    """What a session does now."""

    def __init__(self, write: str | None = None) -> None:
        self.write = write
        self.hits: list[bool] = []


DOING: ContextVar[Doing | None] = ContextVar("doing", default=None)


class Log(Observer):
    """The log of one process."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, what: str, **more: Any) -> None:
        os.write(self._file, f"{json.dumps({'what': what, 'at': time.monotonic(), **more})}\n".encode())

    def decided(self, decision: Any, scope: Any) -> None:
        doing = DOING.get()
        if doing is not None:
            doing.hits.append(decision.decision == "hit")

    def owed(self, cache: str, count: int) -> None:
        self("owed", count=count)


def _tell_nothing() -> None:
    Commit.mark = Commit.settle = lambda self, **how: None  # type: ignore[method-assign]  # that is the point


def _tell_after_commit() -> None:
    mark, settle = Commit.mark, Commit.settle

    def settle_late(self: Commit, **how: Any) -> None:
        mark(self, **how)
        settle(self, **how)

    Commit.mark = lambda self, **how: None  # type: ignore[method-assign]  # that is the point
    Commit.settle = settle_late  # type: ignore[method-assign]  # as above


def _read_what_is_owed() -> None:
    Owed.meets = lambda self, tables: False  # type: ignore[method-assign]  # that is the point


BROKEN = {"silent": _tell_nothing, "late": _tell_after_commit, "trusting": _read_what_is_owed}
"""What clients of a library do that is wrong: commits that tell Redis nothing, or only after COMMIT; a process that
reads from the cache what it owes."""


class Client:
    """The sessions of one process, and what they share."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.name: str = given["name"]
        self.log = Log(given["log"])
        self.stopped = threading.Event()
        self._parent = os.getppid()
        self._writes = 0
        front = configure if given["front"] == "async" else configure_sync
        self.cache: Any = front(
            backend={"url": given["redis"], "timeout": 0.3},
            models={"*": {"timeout": given["timeout"]}, **MODELS},
            writes_also={"holds": ()},
            observers=[self.log],
            telemetry=None,
            lease=given["lease"],
            local=given["local"],
        )
        is_async = given["front"] == "async"
        named = {"application_name": self.name}
        self.engine: Any = (create_async_engine if is_async else create_engine)(
            given["database"],
            pool_size=8,
            max_overflow=0,
            connect_args={"server_settings": named} if is_async else named,
        )
        self.sync_engine = getattr(self.engine, "sync_engine", self.engine)
        self.witness: Any = (create_async_engine if is_async else create_engine)(
            given["database"],
            pool_size=2,
            max_overflow=given["sessions"],
            connect_args={"server_settings": named} if is_async else named,
        )
        self.sync_witness = getattr(self.witness, "sync_engine", self.witness)

    def begin(self) -> None:
        """Write down what is held back from Redis, once the cache is bound."""
        if self.given["broken"]:
            BROKEN[self.given["broken"]]()
        for binding in self.cache.bindings:
            self._tell_of(binding.owed)
        self.log("ready", pid=os.getpid())

    def _tell_of(self, owed: Any) -> None:
        hold, owe = owed.hold, owed.owe

        def tell_hold(changes: Any) -> None:
            doing = DOING.get()
            self.log("held", id=doing.write if doing is not None else None)
            hold(changes)

        def tell_owe(*what: Any, **how: Any) -> None:
            doing = DOING.get()
            owe(*what, **how)
            self.log("owing", id=doing.write if doing is not None else None, count=len(owed))

        owed.hold, owed.owe = tell_hold, tell_owe

    @property
    def goes_on(self) -> bool:
        """Whether nobody has told this process to end, or is there to tell it."""
        return not self.stopped.is_set() and os.getppid() == self._parent

    def step(self, session: str, random: Random) -> None:
        """Do one thing at random."""
        if random.random() < self.given["writes"]:
            self._write(session, random)
        elif random.random() < WITNESSED:
            key = program.some_key(random)
            self._read(session, f"witness {key}", partial(program.one, key=key), witness=True)
            self._read(session, key, partial(program.one, key=key))
        else:
            read = random.choice(program.READS)
            self._read(session, read.__name__, partial(read, random=random))

    def _read(
        self, name: str, what: str, read: Callable[[Session], program.Seen], witness: bool = False
    ) -> None:
        doing = Doing()
        DOING.set(doing)
        start = time.monotonic()
        try:
            with Session(
                self.sync_witness if witness else self.sync_engine, expire_on_commit=False
            ) as session:
                seen = read(session)
        except Exception as error:
            self.log("failed", s=name, start=start, kind="read", why=f"{what}: {error!r}")
            return
        end = time.monotonic()
        hit = bool(doing.hits) and all(doing.hits)
        self.log("read", s=name, start=start, end=end, hit=hit, seen=seen, witness=witness)

    def _write(self, name: str, random: Random) -> None:
        self._writes += 1
        unique = f"{name}#{self._writes}"
        DOING.set(Doing(unique))
        write, fate, seconds = random.choice(program.WRITES), random.random(), random.uniform(0.05, 0.4)
        start, begun = time.monotonic(), False
        try:
            with Session(self.sync_engine, expire_on_commit=False) as session:
                keys = write(session, random, unique)
                if fate < 0.1:
                    program.hold(session, seconds)
                self.log("begin", s=name, id=unique, keys=keys)
                begun = True
                if fate > 0.9:
                    session.rollback()
                    self.log("end", id=unique, outcome="rolled back")
                    return
                session.commit()
                self.log("end", id=unique, outcome="ok")
            if random.random() < READ_BACK:
                key = random.choice(keys)[0]
                self._read(name, f"own {key}", partial(program.one, key=key))
        except Exception as error:
            why = f"{write.__name__}: {error!r}"
            if begun:
                self.log("end", id=unique, outcome="unknown", why=why)
            else:
                self.log("failed", s=name, start=start, kind="write", why=why)

    def sample(self, tasks: int) -> None:
        """Write down what this process takes."""
        process = Path("/proc/self/status")
        if not process.exists():
            return  # not on Linux
        status = process.read_text()
        memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        self.log(
            "sample",
            memory=memory / 1024,
            tasks=tasks,
            threads=threading.active_count(),
            files=len(os.listdir("/proc/self/fd")),
        )

    def sessions(self) -> list[tuple[str, Random]]:
        """Return each session's name and generator."""
        names = [f"{self.name}/{number}" for number in range(self.given["sessions"])]
        return [(name, Random(f"{self.given['seed']} {name}")) for name in names]

    # -- the fronts ----------------------------------------------------------------------------------------------------

    async def run_async(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stopped.set)
        await self.cache.bind(self.engine, database="main")
        self.begin()

        async def act(session: str, random: Random) -> None:
            while self.goes_on:
                await greenlet_spawn(self.step, session, random)
                await asyncio.sleep(random.random() * self.given["rest"])

        acting = [asyncio.create_task(act(*session)) for session in self.sessions()]
        while self.goes_on:
            self.sample(len(asyncio.all_tasks()))
            await asyncio.sleep(SAMPLED)
        await asyncio.gather(*acting)
        await self.cache.disconnect()
        await self.engine.dispose()
        await self.witness.dispose()

    def run_sync(self) -> None:
        signal.signal(signal.SIGTERM, lambda *told: self.stopped.set())
        self.cache.bind(self.engine, database="main")
        self.begin()

        def act(session: str, random: Random) -> None:
            while self.goes_on:
                self.step(session, random)
                time.sleep(random.random() * self.given["rest"])

        acting = [threading.Thread(target=act, args=session) for session in self.sessions()]
        for thread in acting:
            thread.start()
        while self.goes_on:
            self.sample(0)
            self.stopped.wait(SAMPLED)
        for thread in acting:
            thread.join()
        self.cache.disconnect()
        self.engine.dispose()
        self.witness.dispose()


def main() -> None:
    client = Client(json.loads(sys.argv[1]))
    gc.collect()
    if client.given["front"] == "async":
        asyncio.run(client.run_async())
    else:
        client.run_sync()
    client.log("left")


if __name__ == "__main__":
    main()
