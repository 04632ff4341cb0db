"""What one reader does to its result, no other reader sees."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import selectinload

from tests.support.models import Order, User
from tests.support.reading import Read, Reader
from tests.support.reads import entities, get, rows, scalar

PROFILE = scalar(lambda: select(User.profile).where(User.id == 1))
PROFILES = rows(lambda: select(User.id, User.profile).order_by(User.id))
USERS = entities(lambda: select(User).options(selectinload(User.orders)).order_by(User.id))


def spoil(found: Any) -> None:
    """Change everything in a result that can be changed."""
    if isinstance(found, dict):
        for value in found.values():
            spoil(value)
        found["spoilt"] = True
    elif isinstance(found, (list, tuple)):
        for value in found:
            spoil(value)
        if isinstance(found, list):
            found.append("spoilt")
    elif isinstance(found, User):
        spoil(found.profile)
        found.name = "spoilt"
        found.__dict__["email"] = "spoilt"
        if "orders" in found.__dict__:
            for order in found.orders:
                order.status = "spoilt"
            found.orders.append(Order(id=999, status="spoilt"))


READS = {"get": get(User, 1), "json": PROFILE, "rows": PROFILES, "entities": USERS}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_spoiling_a_result_spoils_no_later_one(read: Read, reader: Reader) -> None:
    for _ in range(3):  # what the miss returned, what the first hit returned, what the second hit returned
        async with reader.database.sessions(autoflush=False) as session:
            found = await read(session)
            spoil(found)
        await reader.hit(read)


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_spoiling_a_result_spoils_none_that_another_session_holds(read: Read, reader: Reader) -> None:
    await reader.warm(read)
    sessions = reader.database.sessions
    async with sessions(autoflush=False) as one, sessions(autoflush=False) as other:
        theirs = await read(other)
        ours = await read(one)
        assert theirs is not ours or ours is None
        spoil(ours)
        assert "spoilt" not in repr(_visible(theirs))


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_two_reads_of_one_session_share_no_values(read: Read, reader: Reader) -> None:
    await reader.warm(read)
    async with reader.database.sessions(autoflush=False) as session:
        spoil(await read(session))
        session.expunge_all()
        assert "spoilt" not in repr(_visible(await read(session)))


@pytest.mark.parametrize(
    "database", [pytest.param("postgresql", marks=pytest.mark.integration)], indirect=True
)
async def test_lists_that_the_driver_itself_returns_are_not_shared(reader: Reader) -> None:
    arrays = rows(lambda: select(User.id, array([User.id, User.id + 1])).order_by(User.id))
    for _ in range(3):
        async with reader.database.sessions() as session:
            found = await arrays(session)
            assert found[0] == (1, [1, 2])
            spoil(found)
    await reader.hit(arrays)


async def test_an_entity_loaded_by_a_hit_can_be_changed_and_written(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    async with reader.database.transaction() as session:
        user = await session.get(User, 1)
        user.profile = {**user.profile, "langs": ["de"]}
    answer = await reader.miss(get(User, 1), {"row_invalidated"})
    assert answer.value[1]["profile"]["langs"] == ("list", "de")


def _visible(found: Any) -> Any:
    if isinstance(found, User):
        orders = [order.status for order in found.__dict__.get("orders", ())]
        return [found.name, found.__dict__["email"], found.profile, orders]
    if isinstance(found, (list, tuple)):
        return [_visible(item) for item in found]
    return found
