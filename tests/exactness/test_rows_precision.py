"""What a write of rows leaves alone: other columns, other rows, and conditions that its rows never met."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import bindparam, exists, func, insert, select, update
from sqlalchemy.orm import Session, aliased, joinedload, load_only, selectinload

from tests.support.models import Order, OrderLine, Role, Tag, Team, User
from tests.support.reading import UNCACHED, Read, Reader
from tests.support.reads import entities, follow, get, rows, scalar
from tests.support.situations import BY_WRITE, Write, check_untouched
from tests.support.writes import add, change, delete, execute, execute_on_connection, in_session, new_user

from .support_exact import furnished
from .support_schema import Account, Document, Node, Seat, furnish

sqlite_databases, postgresql_databases = furnished(furnish)

LATER = datetime(2031, 1, 1)


def _loaded_only() -> Any:
    return select(User).options(load_only(User.id, User.name)).order_by(User.name)


def _joined() -> Any:
    return select(User.name, Team.name).join(User.team).order_by(User.id)


def _named_in_a_subquery() -> Any:
    return (
        select(Order.id)
        .where(Order.user_id.in_(select(User.id).where(User.name == "ann")))
        .order_by(Order.id)
    )


def _ranked() -> Any:
    return select(User.name, func.row_number().over(order_by=User.name)).order_by(User.id)


def _aliased() -> Any:
    other = aliased(User)
    return (
        select(User.name, other.name).join(other, User.team_id == other.team_id).order_by(User.id, other.id)
    )


WITHOUT_LAST_SEEN: dict[str, Read] = {
    "names": rows(lambda: select(User.id, User.name).order_by(User.id)),
    "count": scalar(lambda: select(func.count()).select_from(User)),
    "count_of_a_column": scalar(lambda: select(func.count(User.name))),
    "count_of_a_subquery": scalar(
        lambda: select(func.count()).select_from(select(User.id).where(User.plan == "free").subquery())
    ),
    "count_under_a_condition": scalar(lambda: select(func.count(User.id)).where(User.active == True)),
    "exists": scalar(lambda: select(exists().where(User.name == "ann"))),
    "sum": scalar(lambda: select(func.sum(User.balance))),
    "groups": rows(lambda: select(User.plan, func.count(User.id)).group_by(User.plan).order_by(User.plan)),
    "distinct": rows(lambda: select(User.plan).distinct().order_by(User.plan)),
    "loaded_only": entities(_loaded_only),
    "join": rows(_joined),
    "subquery": rows(_named_in_a_subquery),
    "window": rows(_ranked),
    "aliases": rows(_aliased),
    "one_column_of_one_row": scalar(lambda: select(User.name).where(User.id == 1)),
}

LAST_SEEN: dict[str, Write] = {
    "attribute": change(User, 1, last_seen=LATER),
    "to_null": change(User, 1, last_seen=None),
    "statement": execute(lambda _: update(User).where(User.id == 1).values(last_seen=LATER)),
    "every_row": execute_on_connection(lambda _: update(User.__table__).values(last_seen=LATER)),
    "by_condition": execute(lambda _: update(User).where(User.plan == "free").values(last_seen=LATER)),
    "parameters": execute(lambda _: update(User).where(User.id == 1), {"last_seen": LATER}),
    "many": execute_on_connection(
        lambda _: update(User.__table__).where(User.__table__.c.id == bindparam("key")),
        [{"key": 1, "last_seen": LATER}, {"key": 2, "last_seen": LATER}],
    ),
}


@pytest.mark.parametrize("write", LAST_SEEN.values(), ids=LAST_SEEN.keys())
async def test_updating_last_seen_evicts_nothing_that_does_not_read_it(write: Write, reader: Reader) -> None:
    seen = rows(lambda: select(User.id, User.last_seen).order_by(User.id))
    await reader.warm(seen)
    await check_untouched(list(WITHOUT_LAST_SEEN.values()), write, reader)
    await reader.miss(seen, BY_WRITE)


def orders_of(user_id: int) -> Read:
    return entities(lambda: select(Order).where(Order.user_id == user_id).order_by(Order.id))


def open_orders_of(user_id: int) -> Read:
    query = select(Order.id, Order.status).where(Order.status != "sent", user_id == Order.user_id)
    return rows(lambda: query.order_by(Order.id))


def orders_by_join(user_id: int) -> Read:
    return rows(
        lambda: select(Order.id, Order.status).join(Order.user).where(User.id == user_id).order_by(Order.id)
    )


def latest_of(user_id: int) -> Read:
    return rows(
        lambda: select(Order.status).where(Order.user_id == user_id).order_by(Order.id.desc()).limit(1)
    )


def total_of(user_id: int) -> Read:
    return rows(lambda: select(func.max(Order.status), func.count()).where(Order.user_id == user_id))


def eager_orders_of(user_id: int) -> Read:
    return entities(lambda: select(User).where(User.id == user_id).options(selectinload(User.orders)))


def joined_orders_of(user_id: int) -> Read:
    return entities(lambda: select(User).where(User.id == user_id).options(joinedload(User.orders)))


LISTS: dict[str, Callable[[int], Read]] = {
    "list": orders_of,
    "condition_beside": open_orders_of,
    "join": orders_by_join,
    "page": latest_of,
    "aggregate": total_of,
    "selectinload": eager_orders_of,
    "joinedload": joined_orders_of,
    "lazy_load": lambda user_id: follow(User, user_id, "orders"),
}


def bulk_update(session: Session) -> None:
    session.bulk_update_mappings(Order, [{"id": 1, "status": "lost"}])


STATUS: dict[str, Write] = {
    "attribute": change(Order, 1, status="lost"),
    "statement": execute(lambda _: update(Order).where(Order.id == 1).values(status="lost")),
    "core": execute_on_connection(
        lambda _: update(Order.__table__).where(Order.__table__.c.id == 1).values(status="lost")
    ),
    "bulk": in_session(bulk_update),
    "by_user": execute(lambda _: update(Order).where(Order.user_id == 1, Order.id < 3).values(status="lost")),
    "sql_expression": execute(lambda _: update(Order).where(Order.id == 1).values(status=func.lower("LOST"))),
}


@pytest.mark.parametrize("write", STATUS.values(), ids=STATUS.keys())
async def test_updating_an_orders_status_evicts_its_users_lists_and_no_others(
    write: Write, reader: Reader
) -> None:
    mine, theirs = [make(1) for make in LISTS.values()], [make(2) for make in LISTS.values()]
    for read in (*mine, *theirs):  # some of them are loaded as parts of others
        await reader.current(read)
        await reader.hit(read)
    await write(reader.database)
    for read in theirs:
        await reader.hit(read)
    for name, read in zip(LISTS, mine):
        answer = await reader.current(read)
        assert UNCACHED or name in ("page", "aggregate") or answer.decisions, name
    for make in (orders_of, open_orders_of, latest_of, total_of):
        await reader.hit(make(1))


async def test_updating_an_orders_total_leaves_lists_that_do_not_read_it(reader: Reader) -> None:
    await reader.warm(orders_of(1))
    await check_untouched(
        [open_orders_of(1), latest_of(1), total_of(1)], change(Order, 1, total=Decimal(7)), reader
    )
    await reader.miss(orders_of(1), BY_WRITE)


def users_where(*criteria: Any) -> Read:
    return entities(lambda: select(User).where(*criteria).order_by(User.id))


NEW = {
    "id": 100,
    "name": "x",
    "email": "x",
    "plan": "free",
    "active": True,
    "balance": 0,
    "role": Role.MEMBER,
}

OUTSIDE: dict[str, tuple[Read, Write]] = {
    "text": (users_where(User.plan == "pro"), add(new_user)),
    "boolean": (users_where(User.active == False), add(new_user)),
    "boolean_alone": (users_where(~User.active), add(new_user)),
    "enum": (users_where(User.role == Role.ADMIN), add(new_user)),
    "foreign_key": (users_where(User.team_id == 1), add(lambda: new_user(team_id=2))),
    "foreign_key_null": (users_where(User.team_id == 1), add(lambda: new_user(team_id=None))),
    "is_null": (users_where(User.team_id.is_(None)), add(lambda: new_user(team_id=2))),
    "list": (users_where(User.plan.in_(["pro", "max"])), add(new_user)),
    "two_columns_one_of_them": (
        users_where(User.plan == "free", User.team_id == 1),
        add(lambda: new_user(team_id=2)),
    ),
    "beside_a_comparison": (users_where(User.plan == "pro", User.balance > 5), add(new_user)),
    "beside_an_alternative": (
        users_where(User.plan == "pro", (User.id == 2) | (User.id == 4)),
        add(new_user),
    ),
    "count": (
        scalar(lambda: select(func.count()).select_from(User).where(User.plan == "pro")),
        add(new_user),
    ),
    "aggregate": (scalar(lambda: select(func.max(User.balance)).where(User.plan == "pro")), add(new_user)),
    "page": (
        rows(lambda: select(User.id).where(User.plan == "pro").order_by(User.name).limit(1)),
        add(new_user),
    ),
    "renamed_column": (
        entities(lambda: select(Account).where(Account.office == "south")),
        add(lambda: Account(number=100, owner="x", office="west")),
    ),
    "half_a_key": (
        rows(lambda: select(Seat.place).where(Seat.hall == "a,b")),
        add(lambda: Seat(hall="a", place="b,c,d", guest="x")),
    ),
    "versioned": (
        entities(lambda: select(Document).where(Document.folder == 2)),
        add(lambda: Document(id=100, folder=1, title="x")),
    ),
    "tree": (
        rows(lambda: select(Node.name).where(Node.parent_id == 2)),
        add(lambda: Node(id=100, parent_id=1, name="x")),
    ),
    "core_insert": (
        users_where(User.plan == "pro"),
        execute_on_connection(lambda _: insert(User.__table__), NEW),
    ),
    "joined": (
        rows(lambda: select(OrderLine.product).join(OrderLine.order).where(Order.id == 4)),
        add(lambda: OrderLine(id=100, order_id=1, product="x")),
    ),
}


@pytest.mark.parametrize(("read", "write"), OUTSIDE.values(), ids=OUTSIDE.keys())
async def test_inserting_a_row_outside_a_condition_evicts_nothing_under_it(
    read: Read, write: Write, reader: Reader
) -> None:
    await check_untouched([read], write, reader)


async def test_deleting_and_moving_rows_outside_a_condition_evicts_nothing_under_it(reader: Reader) -> None:
    kept = [users_where(User.plan == "pro"), users_where(User.team_id == 1), get(User, 1)]
    await check_untouched(kept, delete(User, 5), reader)
    for read in kept:
        await reader.hit(read)
    await change(User, 3, plan="max", team_id=3)(reader.database)
    for read in kept:
        await reader.hit(read)


async def test_hits_of_every_kind_send_nothing_and_take_no_connection(reader: Reader) -> None:
    reads = [get(User, 1), orders_of(1), *WITHOUT_LAST_SEEN.values(), *(make(2) for make in LISTS.values())]
    for read in reads:
        await reader.current(read)
    with reader.database.probe() as traffic:
        async with reader.database.sessions() as session:
            for read in reads:
                await read(session)
                session.expunge_all()
        async with reader.database.sessions() as session, session.begin():
            for read in reads:
                await read(session)
            async with session.begin_nested():
                await get(Tag, 1)(session) if UNCACHED else await get(User, 1)(session)
    assert UNCACHED or (traffic.statements, traffic.checkouts) == ([], 0)
