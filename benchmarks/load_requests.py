"""What requests do, each in a session of its own: one kind over and over, or a web-like mix of them.

The mix is what a small shop is asked, 5% of it commits that change what the others read. Who asks what is drawn
beforehand, from a seed, and is the same for every contender. Customers are not equally popular: the square of a random
number chooses one of 100, so that half of the requests ask for a quarter of them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.orm import selectinload

from .models import REGIONS, Customer, Order
from .work import Options, Sessions

POPULAR = 100
PLANS = ("pro", "free", "team")
REQUESTS = 5_000
"""Of one schedule; who has done them all begins again."""


@dataclass(frozen=True)
class Request:
    """What one request does, and for whom."""

    kind: str
    subject: int


SHARES: Mapping[str, float] = {
    "customer": 0.45,
    "orders": 0.22,
    "region": 0.10,
    "with orders": 0.06,
    "count": 0.07,
    "exists": 0.05,
    "pay": 0.03,
    "note": 0.02,
}
"""What part of the requests is of each kind; the last two commit."""
COMMITS = ("pay", "note")


@cache
def schedule(seed: int, popular: int = POPULAR) -> Sequence[Request]:
    """Draw what is asked, one request after the other, of the first ``popular`` customers."""
    drawn = random.Random(seed)
    kinds = drawn.choices(list(SHARES), list(SHARES.values()), k=REQUESTS)
    return [Request(kind, _subject(kind, drawn, popular)) for kind in kinds]


def _subject(kind: str, drawn: random.Random, popular: int) -> int:
    if kind in _subjects(popular):
        return drawn.randrange(_subjects(popular)[kind]) + 1
    return int(popular * drawn.random() ** 2) + 1


def _subjects(popular: int) -> Mapping[str, int]:
    """Return how many subjects there are of kinds that are not about one of the ``popular`` customers."""
    return {"count": len(PLANS), **dict.fromkeys(("region", "with orders"), min(REGIONS, popular))}


MIX = "mix, 5% commits"
ALONE: Mapping[str, Sequence[Request]] = {
    "get": [Request("customer", number) for number in range(1, 11)],
    "list of 100": [Request("first", 100)],
    "list of 1,000": [Request("first", 1000)],
    "count": [Request("count", 1)],
    "selectinload, 10 + 50": [Request("with orders", number) for number in range(1, 11)],
}
"""Works of one kind: what is asked, one after the other and from the beginning again."""


def requests_of(work: str, seed: int, popular: int = POPULAR) -> Sequence[Request]:
    """Return what is asked in a work: :data:`MIX`, or one of :data:`ALONE`."""
    return schedule(seed, popular) if work == MIX else ALONE[work]


def reads_of(work: str, popular: int = POPULAR) -> Sequence[Request]:
    """Return every read there can be in a work, once."""
    if work != MIX:
        return ALONE[work]
    subjects = _subjects(popular)
    reads = [kind for kind in SHARES if kind not in COMMITS]
    return [Request(kind, each + 1) for kind in reads for each in range(subjects.get(kind, popular))]


# -- through sessions ------------------------------------------------------------------------------------------------


async def ask(sessions: Sessions, options: Options, request: Request) -> Any:
    """Do what a request does, in a session of its own, and return what it found."""
    async with sessions() as session:
        return await _ASK[request.kind](session, options, request.subject)


async def _customer(session: Any, options: Options, subject: int) -> Any:
    return await session.get(Customer, subject, execution_options=dict(options))


async def _first(session: Any, options: Options, subject: int) -> Any:
    wanted = select(Customer).where(Customer.id <= subject).order_by(Customer.id)
    return (await session.execute(wanted, execution_options=dict(options))).scalars().all()


async def _orders(session: Any, options: Options, subject: int) -> Any:
    wanted = select(Order).where(Order.customer_id == subject).order_by(Order.id)
    return (await session.execute(wanted, execution_options=dict(options))).scalars().all()


async def _region(session: Any, options: Options, subject: int) -> Any:
    wanted = select(Customer).where(Customer.region_id == subject).order_by(Customer.id).limit(20)
    return (await session.execute(wanted, execution_options=dict(options))).scalars().all()


async def _with_orders(session: Any, options: Options, subject: int) -> Any:
    wanted = select(Customer).where(Customer.region_id == subject).order_by(Customer.id).limit(10)
    wanted = wanted.options(selectinload(Customer.orders))
    return (await session.execute(wanted, execution_options=dict(options))).scalars().all()


async def _count(session: Any, options: Options, subject: int) -> Any:
    wanted = select(func.count()).select_from(Customer).where(Customer.plan == PLANS[subject - 1])
    return (await session.execute(wanted, execution_options=dict(options))).scalar_one()


async def _exists(session: Any, options: Options, subject: int) -> Any:
    wanted = select(exists().where(Customer.email == f"customer.{subject}@example.com"))
    return (await session.execute(wanted, execution_options=dict(options))).scalar_one()


async def _pay(session: Any, options: Options, subject: int) -> int:
    """Return whose order it is."""
    order = await session.get(Order, subject)
    order.status = "sent" if order.status == "paid" else "paid"
    await session.commit()
    whose: int = order.customer_id
    return whose


async def _note(session: Any, options: Options, subject: int) -> int:
    """Return the customer's region."""
    customer = await session.get(Customer, subject)
    customer.notes = "called" if customer.notes != "called" else "to be called"
    await session.commit()
    region: int = customer.region_id
    return region


_ASK: Mapping[str, Callable[[Any, Options, int], Awaitable[Any]]] = {
    "customer": _customer,
    "first": _first,
    "orders": _orders,
    "region": _region,
    "with orders": _with_orders,
    "count": _count,
    "exists": _exists,
    "pay": _pay,
    "note": _note,
}


def plain(request: Request, found: Any) -> Any:
    """Make of an answer what can be compared with that of another contender."""
    if isinstance(found, Sequence) and not isinstance(found, (str, bytes)):
        return [_row(each, "orders" if request.kind == "with orders" else None) for each in found]
    return _row(found, None)


def _row(found: Any, relation: str | None) -> Any:
    if not hasattr(found, "_sa_instance_state"):
        return found
    row = {name: value for name, value in vars(found).items() if not name.startswith("_sa_")}
    if relation is not None:
        row[relation] = [_row(each, None) for each in row[relation]]
    return row


def mixes_told(
    answered: Mapping[str, Counter[str]], stale: Mapping[str, int], checked: int, *, width: int
) -> Iterator[str]:
    """Tell how the reads of mixes were answered, by contender (of at most ``width`` characters), and what was stale."""
    yield f"{MIX}: how its reads were answered, while somebody looked"
    for name, counted in answered.items():
        total = sum(counted.values())
        if total:
            shares = ", ".join(f"{why} {many / total:.1%}" for why, many in counted.most_common())
            yield f"  {name:<{width}}{shares}"[:160]
    found = ", ".join(f"{name} {many}" for name, many in stale.items() if many) or "none"
    yield f"  Stale among {checked:,} reads compared with the database after the writers had ended: {found}"
