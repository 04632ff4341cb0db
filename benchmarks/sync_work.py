"""What every contender with sync sessions does: reads of :mod:`.work`, without ``await``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from . import work as asynchronous
from .models import Customer

Options = Sequence[Any]
"""Options that a contender gives to every statement."""


@dataclass(frozen=True)
class Work:
    """One kind of work."""

    name: str
    run: Callable[[Any, Options, int], Any]
    """Takes a source of sessions, options and a number that differs with every call."""
    times: int
    """How often per round; one round's figure is the mean of that many."""
    plain: Callable[[Any], Any]
    """Makes of an answer something that can be compared with that of another contender."""
    keys: int


def get(sessions: Any, options: Options, number: int) -> Any:
    with sessions() as session:
        return session.get(Customer, number % asynchronous.KEYS + 1, options=list(options))


def _list(rows: int) -> Callable[[Any, Options, int], Any]:
    def read(sessions: Any, options: Options, number: int) -> Any:
        with sessions() as session:
            statement = select(Customer).where(Customer.id <= rows).order_by(Customer.id).options(*options)
            return session.scalars(statement).all()

    return read


def _as_in(name: str, run: Callable[[Any, Options, int], Any]) -> Work:
    same = next(work for work in asynchronous.READS if work.name == name)
    return Work(name, run, same.times, same.plain, same.keys)


READS = (
    _as_in("get", get),
    _as_in("list of 10", _list(10)),
    _as_in("list of 100", _list(100)),
    _as_in("list of 1,000", _list(1000)),
)
