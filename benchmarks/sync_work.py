"""What every contender with ordinary sessions does: the works of :mod:`.work`, without ``await``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from . import work as asynchronous
from .models import Customer, Event, new_event
from .work import Work

Options = Sequence[Any]
"""Options that a contender gives to every statement."""


def get(sessions: Any, options: Options, number: int) -> Any:
    with sessions() as session:
        return session.get(Customer, number % asynchronous.KEYS + 1, options=list(options) or None)


def _read(build: Callable[[], Any], take: Callable[[Any], Any]) -> Callable[[Any, Options, int], Any]:
    def read(sessions: Any, options: Options, number: int) -> Any:
        with sessions() as session:
            return take(session.execute(build().options(*options)))

    return read


def commit_one(sessions: Any, options: Options, number: int) -> None:
    with sessions() as session:
        session.add(Event(**new_event(number)))
        session.commit()


def commit_many(sessions: Any, options: Options, number: int) -> None:
    with sessions() as session:
        session.add_all([Event(**new_event(each)) for each in range(1000)])
        session.commit()


def bulk_update(sessions: Any, options: Options, number: int) -> None:
    with sessions() as session:
        session.execute(
            update(Event).values(note=f"bulk {number}").execution_options(synchronize_session=False)
        )
        session.commit()


def _same(work: Work) -> Work:
    return replace(work, run=get if work.build is None else _read(work.build, work.take))


READS = tuple(map(_same, asynchronous.READS))
_WRITES = {
    asynchronous.commit_one: commit_one,
    asynchronous.commit_many: commit_many,
    asynchronous.bulk_update: bulk_update,
}
WRITES = tuple(replace(work, run=_WRITES[work.run]) for work in asynchronous.WRITES if work.run in _WRITES)


def reads_of_what_is_written(session: Session) -> None:
    """Read what the writes are about to change, so that a cache has stamps to replace."""
    session.get(Event, 1)
    session.execute(select(Event).where(Event.kind == "visit").limit(5))
    session.execute(select(func.count()).select_from(Event))


def fresh_events(connection: Connection, rows: int = 1000) -> None:
    """Leave ``rows`` events, with keys from 1."""
    connection.execute(text("TRUNCATE events RESTART IDENTITY"))
    connection.execute(insert(Event.__table__), [new_event(number) for number in range(rows)])
