"""What a session remembers of a row is not what its UPDATE finds: rows that another transaction has written since.

On PostgreSQL, at READ COMMITTED, with two real transactions.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import delete as delete_statement
from sqlalchemy import func, inspect, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, defer
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from tests.support.models import Order, Tag, User
from tests.support.reading import UNCACHED, Read, Reader
from tests.support.reads import entities, get, rows, scalar
from tests.support.situations import BY_KEY, BY_WRITE, check_untouched
from tests.support.writes import change, read_past_the_cache

from .support_exact import POSTGRESQL_ONLY, furnished
from .support_schema import Document, furnish

sqlite_databases, postgresql_databases = furnished(furnish)

TAGS = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))


def orders_of(user_id: int) -> Read:
    return entities(lambda: select(Order).where(Order.user_id == user_id).order_by(Order.id))


def orders_with(status: str) -> Read:
    return rows(lambda: select(Order.id, Order.total).where(Order.status == status).order_by(Order.id))


def count_of(user_id: int) -> Read:
    return scalar(lambda: select(func.count()).select_from(Order).where(Order.user_id == user_id))


@POSTGRESQL_ONLY
async def test_an_update_of_a_row_that_moved_evicts_the_list_it_moved_to(reader: Reader) -> None:
    """The order was user 1's when we loaded it and is user 2's when we set its status."""
    async with reader.database.transaction() as ours:
        order = await read_past_the_cache(ours, Order, 1)
        await change(Order, 1, user_id=2)(reader.database)
        await reader.warm(orders_of(2), orders_of(3), count_of(2))
        order.status = "sent"
    await reader.miss(orders_of(2), BY_WRITE)
    await reader.hit(orders_of(3))
    await reader.hit(count_of(2))


@POSTGRESQL_ONLY
async def test_a_row_that_moved_and_moves_on_is_missed_by_all_three(reader: Reader) -> None:
    async with reader.database.transaction() as ours:
        order = await read_past_the_cache(ours, Order, 1)
        await change(Order, 1, user_id=2)(reader.database)
        await reader.warm(orders_of(1), orders_of(2), orders_of(3), orders_of(4))
        order.user_id = 3
    await reader.miss(orders_of(2), BY_WRITE)
    await reader.miss(orders_of(3), BY_WRITE)
    await reader.hit(orders_of(4))
    await reader.current(orders_of(1))


@POSTGRESQL_ONLY
async def test_a_delete_of_a_row_that_moved_evicts_the_list_it_moved_to(reader: Reader) -> None:
    async with reader.database.transaction() as ours:
        order = await read_past_the_cache(ours, Order, 5)
        await change(Order, 5, user_id=3)(reader.database)
        await reader.current(get(Order, 5))
        await reader.warm(orders_of(2), orders_of(3), orders_of(4), get(Order, 4))
        await ours.delete(order)
    await reader.miss(orders_of(3), BY_WRITE)
    await reader.miss(get(Order, 5), BY_KEY)
    await reader.hit(orders_of(4))
    await reader.hit(get(Order, 4))


@POSTGRESQL_ONLY
@pytest.mark.parametrize(
    "build",
    [
        lambda: update(Order).where(Order.id == 1).values(total=7),
        lambda: update(Order.__table__).where(Order.__table__.c.id == 1).values(total=7),
        lambda: update(Order).where(Order.status == "lost").values(total=7),
        lambda: delete_statement(Order).where(Order.id == 5),
    ],
    ids=["by_key", "core", "by_condition", "delete"],
)
async def test_a_statement_finds_rows_where_they_are_now(build: Any, reader: Reader) -> None:
    async with reader.database.transaction() as ours:
        await read_past_the_cache(ours, Order, 1)
        await change(Order, 1, status="lost")(reader.database)
        await change(Order, 5, status="lost")(reader.database)
        await reader.warm(orders_with("lost"), orders_with("paid"), get(User, 1))
        await ours.execute(build())
    await reader.miss(orders_with("lost"), BY_WRITE)
    await reader.hit(get(User, 1))
    await reader.current(orders_with("paid"))


@POSTGRESQL_ONLY
async def test_a_row_that_moves_while_our_update_waits_for_its_lock(reader: Reader) -> None:
    """They move order 1 and have not committed; our UPDATE waits; they commit; ours writes the moved row."""
    async with reader.database.sessions() as theirs:
        (await read_past_the_cache(theirs, Order, 1)).user_id = 2
        await theirs.flush()
        ours = reader.database.sessions()
        order = await read_past_the_cache(ours, Order, 1)
        order.status = "sent"
        waiting = asyncio.create_task(ours.commit())
        await _someone_waits(reader)
        await theirs.commit()
        await reader.ask(orders_of(2))  # with or without our commit, which is on its way
        await waiting
        await ours.close()
    await reader.current(orders_of(2))
    await reader.current(orders_of(1))
    await reader.hit(orders_of(2))


async def _someone_waits(reader: Reader) -> None:
    """Until the server says that a backend waits for a lock."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while True:
        async with reader.database.truth_engine.connect() as connection:
            if (await connection.exec_driver_sql(waits)).scalar():
                return


@POSTGRESQL_ONLY
async def test_a_row_that_another_transaction_deleted_before_our_update(reader: Reader) -> None:
    async with reader.database.sessions() as ours:
        order = await read_past_the_cache(ours, Order, 5)
        async with reader.database.transaction() as theirs:
            await theirs.execute(delete_statement(Order).where(Order.id == 5))
        await reader.warm(orders_of(2), get(Order, 5), orders_of(1))
        order.status = "lost"
        with pytest.raises(StaleDataError):
            await ours.commit()
        await ours.rollback()
    for kept in (orders_of(2), get(Order, 5), orders_of(1)):
        await reader.hit(kept)


@POSTGRESQL_ONLY
async def test_a_key_that_another_transaction_took_before_our_insert(reader: Reader) -> None:
    await reader.warm(get(Tag, 100), TAGS)
    async with reader.database.sessions() as ours:
        ours.add(Tag(id=100, name="ours"))
        async with reader.database.transaction() as theirs:
            theirs.add(Tag(id=100, name="theirs"))
        await reader.miss(TAGS, BY_WRITE)
        with pytest.raises((IntegrityError, DBAPIError)):
            await ours.commit()
        await ours.rollback()
    await reader.hit(TAGS)
    await reader.miss(get(Tag, 100), BY_KEY)


def documents(folder: int) -> Read:
    return entities(lambda: select(Document).where(Document.folder == folder).order_by(Document.id))


async def test_a_versioned_row_is_evicted_by_its_folder(reader: Reader) -> None:
    await reader.warm(documents(1), documents(2), get(Document, 1), get(Document, 3))
    await change(Document, 1, title="new")(reader.database)
    await reader.miss(documents(1), BY_WRITE)
    await reader.miss(get(Document, 1), BY_KEY)
    await reader.hit(documents(2))
    await reader.hit(get(Document, 3))


async def test_a_versioned_row_moves_from_one_folder_to_another(reader: Reader) -> None:
    await reader.warm(documents(1), documents(2), documents(3))
    await change(Document, 1, folder=2)(reader.database)
    await reader.miss(documents(1), BY_WRITE)
    await reader.miss(documents(2), BY_WRITE)
    await reader.hit(documents(3))


async def test_the_version_itself_is_a_column_that_was_written(reader: Reader) -> None:
    versions = rows(lambda: select(Document.id, Document.version).order_by(Document.id))
    first = rows(lambda: select(Document.id).where(Document.version == 1).order_by(Document.id))
    titles = rows(lambda: select(Document.id, Document.title).order_by(Document.id))
    await reader.warm(versions, first, titles)
    await change(Document, 1, folder=3)(reader.database)
    await reader.miss(versions, BY_WRITE)
    await reader.miss(first, BY_WRITE)
    await reader.hit(titles)


async def test_an_update_of_an_old_version_writes_nothing_and_evicts_nothing(reader: Reader) -> None:
    async with reader.database.sessions() as ours:
        document = await read_past_the_cache(ours, Document, 1)
        await ours.commit()
        await change(Document, 1, title="theirs")(reader.database)
        await reader.warm(documents(1))
        document.title = "ours"
        with pytest.raises(StaleDataError):
            await ours.commit()
        await ours.rollback()
    await reader.hit(documents(1))


async def test_a_version_loaded_from_the_cache_is_the_last_one(reader: Reader) -> None:
    for title in ("a", "b", "c"):
        await reader.current(get(Document, 1))
        await reader.hit(get(Document, 1))
        await change(Document, 1, title=title)(reader.database)
    assert (await reader.current(get(Document, 1))).value[1]["version"] == ("int", 4)


# Expired attributes


async def test_attributes_expired_by_commit_are_loaded_as_they_are_then(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(User, 2))
    async with reader.database.sessions(expire_on_commit=True) as session:
        user = await session.get(User, 1)
        await session.commit()
        await change(User, 1, name="zed")(reader.database)
        assert await session.run_sync(lambda _: user.name) == "zed"
        await session.commit()
        await change(User, 1, name="zoe")(reader.database)
        assert await session.run_sync(lambda _: user.name) == "zoe"
    await reader.hit(get(User, 2))


async def test_attributes_expired_by_commit_may_be_loaded_from_the_cache(reader: Reader) -> None:
    async with reader.database.sessions(expire_on_commit=True) as session:
        user = await session.get(User, 1)
        await session.commit()
        await reader.current(get(User, 1))
        with reader.database.probe() as traffic:
            assert await session.run_sync(lambda _: user.name) == "ann"
        assert UNCACHED or len(traffic.statements) <= 1


async def test_our_own_change_is_what_expired_attributes_load(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(User, 2))
    async with reader.database.sessions(expire_on_commit=True) as session:
        user = await session.get(User, 1)
        user.name = "zed"
        await session.flush()
        session.expire(user)
        assert await session.run_sync(lambda _: user.name) == "zed"
        await reader.hit(get(User, 1))
        await session.rollback()
        assert await session.run_sync(lambda _: user.name) == "ann"
    await reader.hit(get(User, 1))
    await reader.hit(get(User, 2))


@pytest.mark.parametrize("names", [None, ["name"], ["name", "email"]], ids=["all", "one", "two"])
async def test_expired_attributes_are_loaded_after_another_transaction_wrote(
    names: Any, reader: Reader
) -> None:
    await reader.warm(get(User, 1))
    async with reader.database.sessions() as session:
        user = await session.get(User, 1)
        await change(User, 1, name="zed")(reader.database)
        await reader.current(get(User, 1))
        session.expire(user, names)
        assert await session.run_sync(lambda _: user.name) == "zed"
        assert not inspect(user).modified


async def test_refresh_after_a_write_of_another_transaction(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    async with reader.database.sessions() as session:
        user = await session.get(User, 1)
        await change(User, 1, name="zed", plan="max")(reader.database)
        await session.refresh(user, ["name"])
        assert (user.name, user.plan) == ("zed", "free")
        await session.refresh(user)
        assert (user.name, user.plan) == ("zed", "max")


async def test_an_expired_row_that_was_deleted_is_not_found(reader: Reader) -> None:
    await reader.warm(get(User, 5))
    async with reader.database.sessions() as session:
        user = await session.get(User, 5)
        async with reader.database.transaction() as other:
            await other.execute(delete_statement(User).where(User.id == 5))
        session.expire(user)
        with pytest.raises(ObjectDeletedError):
            await session.run_sync(lambda _: user.name)


async def test_a_deferred_column_is_loaded_as_it_is_then(reader: Reader) -> None:
    async def read(session: AsyncSession) -> Any:
        options = [defer(User.name)]
        user = (await session.execute(select(User).where(User.id == 1).options(*options))).scalar_one()
        return await session.run_sync(lambda _: user.name)

    async def other(session: AsyncSession) -> Any:
        return await session.run_sync(_email_of_2)

    await reader.warm(other)
    await reader.current(read)  # on SQLAlchemy 1.4 such a load looks like a refresh, and bypasses
    await change(User, 1, name="zed")(reader.database)
    assert (await reader.current(read)).value == "zed"
    await reader.hit(other)


def _email_of_2(session: Session) -> Any:
    return session.execute(select(User.email).where(User.id == 2)).scalar_one()


async def test_a_flush_that_changes_nothing_evicts_nothing(reader: Reader) -> None:
    async def write(database: Any) -> None:
        async with database.transaction() as session:
            user = await session.get(User, 1)
            user.name = user.name + ""
            user.plan = "free"

    await check_untouched([get(User, 1), orders_of(1)], write, reader)
