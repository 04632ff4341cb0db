"""A thread pool of sessions on one cache: writers that count up, readers that must never go back in time.

Each writer has a team of its own and writes rising numbers into its name; some of its transactions roll back, with a
name that nobody may ever see. Readers ask in several ways, each time for no less than what had been committed before
they began. Others switch, evict, observe and explain meanwhile. Threads change places as often as Python lets them.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from sqlacache import SyncCacheManager
from sqlacache.decisions import Decision
from sqlacache.observers import Observer

from .models import Team, User

WRITERS = 3
READERS = 15
MEDDLERS = 2
NEVER = "never"


class Counting(Observer):
    """Counts decisions, as one that is told by many threads at once has to."""

    def __init__(self) -> None:
        self.decisions: Counter[str] = Counter()
        self._lock = threading.Lock()

    def decided(self, decision: Decision, scope: Any) -> None:
        with self._lock:
            self.decisions[decision.decision] += 1


class Storm:
    """What goes on in the threads, and what they found."""

    def __init__(self, engine: Any, cache: SyncCacheManager, *, commits: int = 25) -> None:
        self.engine = engine
        self.cache = cache
        self.commits = commits
        self.committed = [0] * (WRITERS + 1)
        self.reads = 0
        self._over = threading.Event()
        self._begin = threading.Barrier(WRITERS + READERS + MEDDLERS)

    def blow(self) -> None:
        """Let all of them do their work; raises what any of them did."""
        work: list[Callable[[], None]] = [
            *(lambda key=key: self._write(key) for key in range(1, WRITERS + 1)),  # type: ignore[misc]  # bound now
            *(lambda seed=seed: self._read(seed) for seed in range(READERS)),  # type: ignore[misc]  # as above
            *[self._meddle] * MEDDLERS,
        ]
        with restless(), ThreadPoolExecutor(len(work)) as pool:
            threads = [pool.submit(one) for one in work]
            for writer in threads[:WRITERS]:
                writer.exception()
            self._over.set()
        for thread in threads:
            thread.result()

    def session(self) -> Session:
        return Session(self.engine, expire_on_commit=False)

    def _write(self, key: int) -> None:
        self._begin.wait()
        for number in range(1, self.commits + 1):
            with self.session() as session:
                session.get(Team, key).name = f"{number:06d}"  # type: ignore[union-attr]  # it is there
                session.execute(update(User).where(User.id == key).values(plan=f"{number:06d}"))
                session.commit()
            self.committed[key] = number
            with self.session() as session:
                assert session.get(Team, key).name == f"{number:06d}"  # type: ignore[union-attr]  # as above
                session.get(Team, key).name = NEVER  # type: ignore[union-attr]  # as above
                session.flush()
                session.rollback()

    def _read(self, seed: int) -> None:
        draw = random.Random(seed)
        ways = [_got, _listed, _counted, _joined, _in_a_shape_of_its_own]
        self._begin.wait()
        while not self._over.is_set():
            key, way = draw.randint(1, WRITERS), draw.choice(ways)
            since = self.committed[key]
            with self.session() as session:
                name = way(session, key, draw)
            self.reads += 1
            assert name != NEVER, f"{way.__name__}: read what was rolled back"
            if since and name is not None:
                assert int(name) >= since, f"{way.__name__}: {name} after {since:06d} had been committed"

    def _meddle(self) -> None:
        self._begin.wait()
        while not self._over.is_set():
            watching = Counting()
            self.cache.add_observer(watching)
            self.cache.invalidate(User, [1])
            with self.session() as session:
                self.cache.explain_get(session, Team, 1)
            self.cache.set_mode("write_only")
            self.cache.set_mode("on")
            self.cache.health()
            self.cache.remove_observer(watching)


def _got(session: Session, key: int, draw: random.Random) -> Any:
    return session.get(Team, key).name  # type: ignore[union-attr]  # it is there


def _listed(session: Session, key: int, draw: random.Random) -> Any:
    names = session.execute(select(Team.name).order_by(Team.id)).scalars().all()
    return names[key - 1]


def _counted(session: Session, key: int, draw: random.Random) -> Any:
    """What is newest by a condition, and not before it is: a count of it cannot be 0 once it is seen."""
    plan = session.execute(select(User.plan).where(User.id == key)).scalar()
    session.execute(select(func.count()).select_from(User).where(User.plan == plan)).scalar()
    return plan if plan is not None and plan.isdigit() else None


def _joined(session: Session, key: int, draw: random.Random) -> Any:
    statement = select(User.plan).join(Team, Team.id == User.team_id).where(User.id == key)
    plan = session.execute(statement).scalar()
    return plan if plan is not None and plan.isdigit() else None


def _in_a_shape_of_its_own(session: Session, key: int, draw: random.Random) -> Any:
    statement = select(Team.name, *[func.count(Team.id).label(f"n{n}") for n in range(draw.randint(1, 12))])
    return session.execute(statement.where(Team.id == key).group_by(Team.name)).scalar()


@contextmanager
def restless() -> Iterator[None]:
    """Let threads change places all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
