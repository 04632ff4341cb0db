"""What every contender does. Each operation takes a new session, as a request would, and builds its statement anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

from sqlalchemy import exists, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from .models import Customer, Document, Event, Order, Region, new_event

Sessions = Callable[[], Any]
Options = Mapping[str, Any]
"""Execution options that a contender gives to every read."""
Operation = Callable[[Sessions, Any, int], Any]
"""Takes a source of sessions, options and a number that differs with every call. With asynchronous sessions, it is a
coroutine function and takes execution options; with ordinary ones (:mod:`.sync_work`), options of a statement."""


@dataclass(frozen=True)
class Work:
    """One kind of work."""

    name: str
    run: Operation
    times: int
    """How often per round; one round's figure is the mean of that many."""
    plain: Callable[[Any], Any] = lambda answer: answer
    """Makes of an answer something that can be compared with that of another contender."""
    keys: int = 1
    """How many different things it asks for, one after the other."""
    build: Callable[[], Any] | None = None
    """Makes its statement anew, if it is one statement."""
    take: Callable[[Any], Any] = lambda result: result
    """Takes what is wanted from that statement's result."""


def fingerprint(plain: Any) -> str:
    """Return a text that is the same for equal answers, in whatever process and by whatever driver they were made."""
    return sha256(_told(plain).encode()).hexdigest()


def _told(plain: Any) -> str:
    if isinstance(plain, dict):
        return "{" + ", ".join(f"{name!r}: {_told(plain[name])}" for name in sorted(plain)) + "}"
    if isinstance(plain, (list, tuple)):
        return "[" + ", ".join(map(_told, plain)) + "]"
    return repr(plain)


def _entity(found: Any) -> Any:
    return {name: value for name, value in vars(found).items() if not name.startswith("_sa_")}


def _entities(found: Any) -> Any:
    return [_entity(each) for each in found]


def _tuples(rows: Any) -> Any:
    return [tuple(row) for row in rows]


def _with(relation: str) -> Callable[[Any], Any]:
    def plain(found: Any) -> Any:
        rows = []
        for each in found:
            row = _entity(each)
            related = row[relation]
            row[relation] = _entities(related) if isinstance(related, list) else _entity(related)
            rows.append(row)
        return rows

    return plain


KEYS = 10


# -- reads -----------------------------------------------------------------------------------------------------


async def get(sessions: Sessions, options: Options, number: int) -> Any:
    async with sessions() as session:
        return await session.get(Customer, number % KEYS + 1, execution_options=dict(options))


def _read(
    name: str,
    build: Callable[[], Any],
    take: Callable[[Any], Any],
    times: int,
    plain: Callable[[Any], Any] = lambda answer: answer,
) -> Work:
    async def read(sessions: Sessions, options: Options, number: int) -> Any:
        async with sessions() as session:
            return take(await session.execute(build(), execution_options=dict(options)))

    return Work(name, read, times, plain, build=build, take=take)


def _entities_of(result: Any) -> Any:
    return result.scalars().all()


def _rows_of(result: Any) -> Any:
    return result.all()


def _value_of(result: Any) -> Any:
    return result.scalar_one()


def _list(rows: int) -> Callable[[], Any]:
    return lambda: select(Customer).where(Customer.id <= rows).order_by(Customer.id)


def _narrow() -> Any:
    return select(Order).where(Order.id <= 1000).order_by(Order.id)


def _documents() -> Any:
    return select(Document).where(Document.id <= 1000).order_by(Document.id)


def _columns() -> Any:
    wanted = (Customer.id, Customer.name, Customer.email, Customer.active, Customer.balance, Customer.joined)
    return select(*wanted).where(Customer.id <= 1000).order_by(Customer.id)


def _count() -> Any:
    return select(func.count()).select_from(Customer).where(Customer.plan == "pro")


def _exists() -> Any:
    return select(exists().where(Customer.email == "customer.77@example.com"))


def _join() -> Any:
    wanted = (Order.id, Order.status, Order.total, Customer.id, Customer.name)
    joined: Any = select(*wanted).join(Customer, Order.customer_id == Customer.id)
    return joined.where(Customer.id <= 20).order_by(Order.id)


def _joined() -> Any:
    return _list(100)().options(joinedload(Customer.region))


def _selectin() -> Any:
    return _list(100)().options(selectinload(Customer.orders))


READS = (
    Work("get", get, 40, _entity, keys=KEYS),
    _read("list of 10", _list(10), _entities_of, 25, _entities),
    _read("list of 100", _list(100), _entities_of, 20, _entities),
    _read("list of 1,000", _list(1000), _entities_of, 4, _entities),
    _read("list of 1,000, narrow", _narrow, _entities_of, 4, _entities),
    _read("list of 1,000 with JSON", _documents, _entities_of, 4, _entities),
    _read("columns of 1,000", _columns, _rows_of, 6, _tuples),
    _read("count", _count, _value_of, 25),
    _read("exists", _exists, _value_of, 25),
    _read("join, 100", _join, _rows_of, 15, _tuples),
    _read("joinedload, 100", _joined, _entities_of, 10, _with("region")),
    _read("selectinload, 100 + 500", _selectin, _entities_of, 5, _with("orders")),
)


# -- writes ----------------------------------------------------------------------------------------------------


async def commit_one(sessions: Sessions, options: Options, number: int) -> Any:
    async with sessions() as session:
        session.add(Event(**new_event(number)))
        await session.commit()


async def commit_many(sessions: Sessions, options: Options, number: int) -> Any:
    async with sessions() as session:
        session.add_all([Event(**new_event(each)) for each in range(1000)])
        await session.commit()


async def change_one(sessions: Sessions, options: Options, number: int) -> Any:
    async with sessions() as session:
        found = await session.get(Event, number % 10 + 1)
        found.note = f"changed {number}"
        await session.commit()


async def bulk_update(sessions: Sessions, options: Options, number: int) -> Any:
    async with sessions() as session:
        await session.execute(
            update(Event).values(note=f"bulk {number}").execution_options(synchronize_session=False)
        )
        await session.commit()


WRITES = (
    Work("commit of 1 row", commit_one, 20),
    Work("get, change, commit", change_one, 15),
    Work("commit of 1,000 rows", commit_many, 1),
    Work("bulk update of 1,000 rows", bulk_update, 2),
)


async def reads_of_what_is_written(session: AsyncSession) -> None:
    """Read what the writes are about to change, so that a cache has stamps to replace."""
    await session.get(Event, 1)
    await session.execute(select(Event).where(Event.kind == "visit").limit(5))
    await session.execute(select(Event.id, Event.note).where(Event.customer_id == 3))
    await session.execute(select(func.count()).select_from(Event))


async def fresh_events(connection: AsyncConnection, rows: int = 1000) -> None:
    """Leave ``rows`` events, with keys from 1."""
    await connection.execute(text("TRUNCATE events RESTART IDENTITY"))
    await connection.execute(insert(Event.__table__), [new_event(number) for number in range(rows)])


# -- who sees a commit -----------------------------------------------------------------------------------------


CHANGES: Mapping[str, tuple[Any, int, str, Callable[[int], Any]]] = {
    **dict.fromkeys(
        ("get", "list of 10", "list of 100", "list of 1,000", "columns of 1,000"),
        (Customer, 1, "name", lambda number: f"changed {number}"),
    ),
    "list of 1,000, narrow": (Order, 1, "total", lambda number: Decimal(number)),
    "list of 1,000 with JSON": (Document, 1, "body", lambda number: {"changed": number}),
    "count": (Customer, 1, "plan", lambda number: "pro" if number % 2 else "team"),
    "exists": (Customer, 77, "email", lambda number: f"customer.{77 if number % 2 else number}@example.com"),
    "join, 100": (Customer, 2, "name", lambda number: f"changed {number}"),
    "joinedload, 100": (Region, 2, "name", lambda number: f"changed {number}"),
    "selectinload, 100 + 500": (Order, 2000, "total", lambda number: Decimal(number)),
}
"""By name of a read: a class, a key and a column of a row that its answer shows, and a value to be written there."""


async def change(sessions: Sessions, name: str, number: int) -> None:
    """Commit a change of what the read ``name`` answers; ``number`` is one more than the last time."""
    model, key, column, value = CHANGES[name]
    async with sessions() as session:
        found = await session.get(model, key, populate_existing=True)
        setattr(found, column, value(number))
        await session.commit()
