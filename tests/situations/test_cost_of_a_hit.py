"""What a hit costs the database: nothing. What a repeated shape costs: no compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import bindparam, exists, func, select
from sqlalchemy.orm import joinedload, selectinload
from sqlalchemy.sql.compiler import SQLCompiler

from tests.support.databases import POOL_SIZE
from tests.support.models import Article, Gallery, Manager, Order, Stock, Tag, Team, User
from tests.support.reading import UNCACHED, Read, Reader
from tests.support.reads import entities, follow, get, rows, scalar

HITS = {
    "get": get(User, 1),
    "get_of_an_absent_row": get(User, 100),
    "get_by_a_composite_key": get(Stock, ("north", 1)),
    "get_of_a_subclass": get(Manager, 1),
    "list": entities(lambda: select(User).where(User.active == True).order_by(User.id)),
    "list_of_nothing": entities(lambda: select(User).where(User.plan == "max")),
    "columns": rows(
        lambda: select(User.id, User.balance, User.role, User.avatar, User.profile).order_by(User.id)
    ),
    "count": scalar(lambda: select(func.count()).select_from(User)),
    "exists": scalar(lambda: select(exists().where(User.plan == "pro"))),
    "sum": scalar(lambda: select(func.sum(User.balance))),
    "join": rows(lambda: select(User.name, Team.name).join(User.team).order_by(User.id)),
    "lazy_load": follow(User, 1, "orders"),
    "joinedload": entities(lambda: select(User).options(joinedload(User.orders)).order_by(User.id)),
    "selectinload": entities(lambda: select(User).options(selectinload(User.tags)).order_by(User.id)),
    "join_of_the_mapping": get(Article, 1),
    "second_select_of_the_mapping": get(Gallery, 1),
}


@pytest.mark.parametrize("read", HITS.values(), ids=HITS.keys())
async def test_a_hit_reaches_no_database(read: Read, reader: Reader) -> None:
    await reader.warm(read)


async def test_hits_need_no_connection_when_every_connection_is_taken(reader: Reader) -> None:
    reads = list(HITS.values())
    await reader.warm(*reads[:4])
    if UNCACHED:
        pytest.skip("needs the cache")
    held = [await reader.database.engine.connect() for _ in range(POOL_SIZE)]
    try:
        for read in reads[:4]:
            await reader.hit(read)
    finally:
        for connection in held:
            await connection.close()


async def test_a_hit_in_a_session_that_then_writes_and_commits(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(User, 2))
    async with reader.database.sessions() as session:
        with reader.database.probe() as traffic:
            user = await session.get(User, 1)
        if not UNCACHED:
            assert traffic.statements == []
        user.name = "zed"
        await session.commit()
    await reader.miss(get(User, 1), {"row_invalidated"})
    await reader.hit(get(User, 2))


async def test_a_hit_inside_a_savepoint(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(Tag, 1))
    async with reader.database.sessions() as session, session.begin():
        async with session.begin_nested():
            assert (await session.get(User, 1)).name == "ann"
            session.add(Tag(id=100, name="new"))
        assert (await session.get(Tag, 1)).name == "vip"
    await reader.current(get(Tag, 100))
    await reader.hit(get(User, 1))


@contextmanager
def compilations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect the statements that SQLAlchemy compiles during the block."""
    compiled: list[str] = []
    original = SQLCompiler.__init__

    def compiling(self: Any, dialect: Any, statement: Any, *args: Any, **kwargs: Any) -> None:
        compiled.append(type(statement).__name__)
        original(self, dialect, statement, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SQLCompiler, "__init__", compiling)
        yield compiled


def _paged(number: int) -> Any:
    return select(User).order_by(User.id).limit(1).offset(number)


SHAPES: dict[str, Callable[[int], Read]] = {
    "get": lambda n: get(User, n),
    "get_by_a_composite_key": lambda n: get(Stock, ("north", n)),
    "get_of_a_subclass": lambda n: get(Manager, n),
    "list": lambda n: entities(lambda: select(Order).where(Order.user_id == n).order_by(Order.id)),
    "in": lambda n: rows(lambda: select(User.name).where(User.id.in_(list(range(n)))).order_by(User.id)),
    "comparison": lambda n: rows(lambda: select(User.id).where(User.balance > Decimal(n)).order_by(User.id)),
    "limit": lambda n: entities(lambda: _paged(n)),
    "count": lambda n: scalar(lambda: select(func.count()).select_from(Order).where(Order.user_id == n)),
    "exists": lambda n: scalar(lambda: select(exists().where(Order.user_id == n))),
    "join": lambda n: rows(lambda: select(User.name, Order.id).join(User.orders).where(User.id == n)),
    "lazy_load": lambda n: follow(User, n, "orders"),
    "selectinload": lambda n: entities(
        lambda: select(User).where(User.id == n).options(selectinload(User.orders)).order_by(User.id)
    ),
    "joinedload": lambda n: entities(
        lambda: select(User).where(User.id == n).options(joinedload(User.orders))
    ),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
async def test_a_repeated_shape_is_not_compiled_again(
    shape: Callable[[int], Read], reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reader.ask(shape(1))
    with compilations(monkeypatch) as compiled:
        answers = [await reader.ask(shape(number)) for number in (2, 3)]  # misses of other values
        answers += [await reader.ask(shape(number)) for number in (1, 2, 3)]  # hits
    assert compiled == []
    if not UNCACHED:
        assert all(answer.decisions for answer in answers)
        assert all(answer.hits == answer.decisions for answer in answers[2:])


async def test_parameters_given_at_execution_are_part_of_what_is_read(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = select(User.name).where(User.id == bindparam("key"))

    def named(key: int) -> Read:
        async def read(session: Any) -> Any:
            return (await session.execute(statement, {"key": key})).scalar()

        return read

    await reader.warm(named(1), named(2))
    with compilations(monkeypatch) as compiled:
        assert [(await reader.ask(named(key))).value for key in (1, 2, 3)] == ["ann", "bob", "cid"]
    assert compiled == []
