"""Breaks things, one at a time, in an order that its seed decides, and writes down from when to when.

Each fault says what it excuses, by the promise of DESIGN, section 1:

- what happens to Redis or on the way to it "costs speed, never a failed read and never a lost or refused commit"
  (sentence 5): a read or write may be slow then and need not hit, but must not fail;
- a process that is stopped holds the rows that it has locked: others wait, and do not fail;
- a process that is killed and a connection that the database drops take with them what they were at: that may fail.

None of them excuses an old value: :mod:`.gathering` says which writes are owed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

import redis
from sqlalchemy import text

from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer

FILLER = "filler"
NOBODY = "nobody in commit"
IN_COMMIT = (
    "SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database() "
    "AND state = 'active' AND wait_event = 'PgSleep' AND query ILIKE 'commit%'"
)


class Victim(Protocol):
    """A client's process, as :mod:`.running` keeps it."""

    name: str
    pid: int
    proxy: Proxy
    may_die: bool

    def kill(self) -> None: ...

    def restart(self) -> None: ...


@dataclass(frozen=True)
class Broken:
    """A fault that has been."""

    what: str
    begin: float
    end: float
    of_redis: bool = False
    """The server lost something of what it had."""
    fails: bool = False
    """What was under way may have failed."""


@dataclass
class Nemesis:
    """Breaks what it is given."""

    seed: str
    server: RedisServer
    database: Any
    """A SQLAlchemy engine of its own, that commits at once."""
    victims: Sequence[Victim]
    rest: float = 0.5
    """Seconds between faults, on average."""
    only: Sequence[str] = ()
    """Names of the methods that break something, if not all of them are to be tried."""
    broken: list[Broken] = field(default_factory=list)

    def run(self, until: float) -> None:
        """Break one thing after another until the time, on the monotonic clock; each at least once if there is time."""
        random = Random(self.seed)
        kinds: list[Callable[[Random], tuple[str, bool, bool]]] = [
            *(self.pause_redis, self.restart_redis, self.restart_from_old_file, self.take_redis_down),
            *(self.fill_redis, self.partition, self.partition, self.refuse_writes, self.pause_client),
            *(self.pause_in_commit, self.kill_client, self.kill_in_commit, self.drop_commit),
        ]
        if self.only:
            kinds = [one for one in kinds if one.__name__ in self.only]
        waiting: list[Callable[[Random], tuple[str, bool, bool]]] = []
        while time.monotonic() < until:
            time.sleep(min(random.uniform(0.5, 1.5) * self.rest, max(0.0, until - time.monotonic())))
            if time.monotonic() >= until:
                return
            if not waiting:
                waiting = random.sample(kinds, len(kinds))
            begin = time.monotonic()
            what, of_redis, fails = waiting.pop()(random)
            self.broken.append(Broken(what, begin, time.monotonic(), of_redis, fails))

    # -- Redis ---------------------------------------------------------------------------------------------------------

    def pause_redis(self, random: Random) -> tuple[str, bool, bool]:
        with self.server.paused():
            time.sleep(random.uniform(0.2, 0.9))
        return "redis paused", False, False

    def restart_redis(self, random: Random) -> tuple[str, bool, bool]:
        self.server.restart(empty=True)
        return "redis restarted", True, False

    def take_redis_down(self, random: Random) -> tuple[str, bool, bool]:
        self.server.kill()
        time.sleep(random.uniform(0.2, 0.9))
        self.server.start(empty=True)
        return "redis down", True, False

    def restart_from_old_file(self, random: Random) -> tuple[str, bool, bool]:
        """Entries and stamps of some time ago come back together."""
        self.server.save()
        time.sleep(random.uniform(0.2, 0.6))
        self.server.restart()
        return "redis restarted from an old file", True, False

    def fill_redis(self, random: Random) -> tuple[str, bool, bool]:
        """Let it evict what was used least lately, which may be entries, stamps, registries or the generation."""
        with self.server.client() as client:
            used = int(client.info("memory")["used_memory"])
            client.config_set("maxmemory-policy", random.choice(("allkeys-lru", "allkeys-random")))
            client.config_set("maxmemory", used + 200_000)
            ends, number = time.monotonic() + random.uniform(0.2, 0.6), 0
            while time.monotonic() < ends:
                number += 1
                with suppress(redis.ResponseError):  # OOM: there is nothing left to evict
                    client.set(f"{FILLER}:{number % 500}", b"x" * 20_000, ex=60)
                time.sleep(0.002)
            client.config_set("maxmemory", 0)
            client.delete(*(f"{FILLER}:{one}" for one in range(500)))
        return "redis full", True, False

    def refuse_writes(self, random: Random) -> tuple[str, bool, bool]:
        """Let it answer whoever reads, and keep whoever writes waiting: what is committed is owed, and can be read."""
        seconds = random.uniform(0.6, 1.5)
        self.server.command("CLIENT PAUSE", int(seconds * 1000), "WRITE")
        time.sleep(seconds)
        return "redis refuses writes", False, False

    def partition(self, random: Random) -> tuple[str, bool, bool]:
        """Keep one client from Redis, which the others reach."""
        proxy = random.choice(self.victims).proxy
        mode = random.choice(("refuse", "blackhole"))
        proxy.cut(mode, drop=random.random() < 0.5)  # type: ignore[arg-type]  # one of these
        time.sleep(random.uniform(0.2, 1.2))
        proxy.heal(drop=random.random() < 0.5)
        return f"partition ({mode})", False, False

    # -- clients -------------------------------------------------------------------------------------------------------

    def pause_client(self, random: Random) -> tuple[str, bool, bool]:
        self._pause(random.choice(self.victims), random.uniform(0.1, 0.9))
        return "client paused", False, False

    def pause_in_commit(self, random: Random) -> tuple[str, bool, bool]:
        """Stop a writer whose COMMIT the database is at: it lands, and for a while nobody is told."""
        living = {one.name: one for one in self.victims}
        found = self._in_commit(lambda pid, name: name in living)
        if found is None:
            return NOBODY, False, False
        self._pause(living[found[1]], random.uniform(0.6, 1.2))
        return "client paused in commit", False, False

    @staticmethod
    def _pause(victim: Victim, seconds: float) -> None:
        os.kill(victim.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(victim.pid, signal.SIGCONT)

    def kill_client(self, random: Random) -> tuple[str, bool, bool]:
        victim = random.choice([one for one in self.victims if one.may_die])
        victim.kill()
        victim.restart()
        return "client killed", False, True

    def kill_in_commit(self, random: Random) -> tuple[str, bool, bool]:
        """Kill a writer whose COMMIT the database is at: it lands when nobody is there any more."""
        mortal = {one.name: one for one in self.victims if one.may_die}
        found = self._in_commit(lambda pid, name: name in mortal)
        if found is None:
            return NOBODY, False, False
        victim = mortal[found[1]]
        victim.kill()
        victim.restart()
        return "client killed in commit", False, True

    # -- the database --------------------------------------------------------------------------------------------------

    def drop_commit(self, random: Random) -> tuple[str, bool, bool]:
        found = self._in_commit(lambda pid, name: True)
        if found is None:
            return NOBODY, False, False
        with self.database.connect() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": found[0]})
        return "connection dropped in commit", False, True

    def _in_commit(self, wanted: Callable[[int, str], bool], patience: float = 2.0) -> tuple[int, str] | None:
        ends = time.monotonic() + patience
        while time.monotonic() < ends:
            with self.database.connect() as connection:
                for pid, name in connection.execute(text(IN_COMMIT)):
                    if wanted(pid, name):
                        return pid, name
            time.sleep(0.01)
        return None
