"""Leaks that are planted, to see that each kind is found."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from redis import RedisError
from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from sqlacache import Observer
from sqlacache.read.flight import Flights
from tests.leaks.work import Work
from tests.support.redis_server import RedisServer

Leak = Callable[[int], None]


def sessions(work: Work, redis: RedisServer) -> Leak:
    """Every session that began a transaction is kept."""
    kept: list[Any] = []
    event.listen(Session, "after_begin", lambda session, transaction, connection: kept.append(session))
    return lambda number: None


def decisions(work: Work, redis: RedisServer) -> Leak:
    """Every decision is kept, by one who was told of it."""
    kept: list[Any] = []

    class Keeping(Observer):
        def decided(self, decision: Any, scope: Any) -> None:
            kept.append(decision)

    work.cache.add_observer(Keeping())
    return lambda number: None


def flights(work: Work, redis: RedisServer) -> Leak:
    """A load that has ended stays in the table of those that are under way."""
    finish = Flights.finish

    def finish_and_keep(self: Flights, flight: Any, entry: Any) -> None:
        finish(self, flight, entry)
        self._flights[flight.key[0], f"{flight.key[1]}{id(flight)}"] = flight

    Flights.finish = finish_and_keep  # type: ignore[method-assign]  # that is the point
    return lambda number: None


def texts(work: Work, redis: RedisServer) -> Leak:
    """Text that no garbage collector knows of."""
    kept: list[str] = []
    return lambda number: kept.append(f"{number}" + "x" * 100) if number % 2 else None


def tasks(work: Work, redis: RedisServer) -> Leak:
    """A task that waits for what never comes."""
    kept: list[Any] = []

    def leak(number: int) -> None:
        if number % 25 == 0:
            kept.append(asyncio.ensure_future(asyncio.Event().wait()))

    return leak


def threads(work: Work, redis: RedisServer) -> Leak:
    """A thread that waits for what never comes."""

    def leak(number: int) -> None:
        if number % 100 == 0:
            threading.Thread(target=threading.Event().wait, daemon=True).start()

    return leak


def connections(work: Work, redis: RedisServer) -> Leak:
    """A connection to Redis that nobody closes."""
    kept: list[Any] = []

    def leak(number: int) -> None:
        if number % 50 == 0:
            with suppress(OSError):  # it is down now and then
                kept.append(socket.create_connection(redis.address))

    return leak


def transactions(work: Work, redis: RedisServer) -> Leak:
    """A connection to PostgreSQL that nobody gives back."""
    kept: list[Any] = []

    def leak(number: int) -> None:
        if number % 60 == 0 and len(kept) < 20:
            connect = work.unbound().connect
            kept.append(asyncio.ensure_future(greenlet_spawn(connect)) if work.is_async else connect())

    return leak


def keys(work: Work, redis: RedisServer) -> Leak:
    """A key of Redis that never expires."""
    client = redis.client()

    def leak(number: int) -> None:
        if number % 10 == 0:
            with suppress(RedisError):  # it is down now and then
                client.set(f"planted:{number}", "x")

    return leak


KINDS: dict[str, Callable[[Work, RedisServer], Leak]] = {
    one.__name__: one
    for one in (*(sessions, decisions, flights, texts, tasks, threads, connections, transactions, keys),)
}


def plant(names: Collection[str], work: Work, redis: RedisServer) -> Leak:
    """Plant leaks; what is returned is to be called with the number of every operation."""
    leaks = [KINDS[name](work, redis) for name in names]

    def leak(number: int) -> None:
        for one in leaks:
            one(number)

    return leak
