"""Parameters that look alike are kept apart, those that cannot be told apart bypass, and no hit shares its values."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any

import pytest
from sqlalchemy import JSON, any_, bindparam, cast, func, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Integer, NullType

from tests.support.models import Tag, User
from tests.support.reading import Read, Reader
from tests.support.reads import get, rows
from tests.support.situations import BY_WRITE
from tests.support.writes import execute

from .support_exact import POSTGRESQL_ONLY, SQLITE_ONLY, exact, exactly, furnished, raw_rows
from .support_kinds import UTC, Rich, Thing, furnish

sqlite_databases, postgresql_databases = furnished(furnish)

TAGS = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))


class Word(str):
    """A string of its own kind."""


class Level(str, enum.Enum):
    A = "a"


def echoed(value: Any, type_: Any = None) -> Read:
    """A row of the database that holds what was sent."""
    return exactly(raw_rows(lambda: select(Thing.id, literal(value, type_)).where(Thing.id == 1)))


ALIKE = [1, True, "1", 1.0, b"1", "True", 0, False, "", "0", 0.0, -0.0]


@SQLITE_ONLY
async def test_parameters_that_look_alike_are_kept_apart(reader: Reader) -> None:
    """SQLite gives back what it was sent, kind and all."""
    reads = [echoed(value) for value in ALIKE]
    answers = [await reader.current(read) for read in reads]
    for read, answer in zip(reads, answers):
        assert (await reader.hit(read)).value == answer.value
    assert len({str(answer.value) for answer in answers}) == len(ALIKE)


@SQLITE_ONLY
async def test_untyped_parameters_that_look_alike_are_kept_apart(reader: Reader) -> None:
    def sent(value: Any) -> Read:
        async def read(session: AsyncSession) -> Any:
            statement = select(Thing.id, bindparam("v", type_=NullType())).where(Thing.id == 1)
            return exact((await session.execute(statement, {"v": value})).all())

        return read

    values = [1, True, "1", 1.0, b"1", None, ""]
    for value in values:
        await reader.current(sent(value))
    for value in values:
        await reader.hit(sent(value))


@SQLITE_ONLY
async def test_conditions_by_values_that_sqlite_finds_equal_are_seen_by_each_other(reader: Reader) -> None:
    """``'1' = 1`` and ``1 = 1.0`` to a column of integers: none of them may keep what the others' row was."""

    def by(value: Any) -> Read:
        async def read(session: AsyncSession) -> Any:
            statement = select(Thing.id, Thing.other).where(Thing.small == bindparam("v", type_=NullType()))
            return exact((await session.execute(statement, {"v": value})).all())

        return read

    await execute(lambda _: update(Thing).where(Thing.id == 1).values(small=1))(reader.database)
    reads = [by(1), by("1"), by(1.0), by(True)]
    for read in reads:
        await reader.current(read)
        await reader.hit(read)
    await execute(lambda _: update(Thing).where(Thing.id == 1).values(other="changed"))(reader.database)
    for read in reads:
        await reader.miss(read, BY_WRITE)


@pytest.mark.parametrize("value", [Word("x"), Level.A], ids=["subclass", "enum"])
async def test_text_of_another_class_finds_the_same_row(value: str, reader: Reader) -> None:
    await execute(lambda _: update(Thing).where(Thing.id == 1).values(name=str.__str__(value)))(
        reader.database
    )
    read = rows(lambda: select(Thing.id).where(Thing.name == value))
    await reader.current(read)
    await execute(lambda _: update(Thing).where(Thing.id == 1).values(name="y"))(reader.database)
    await reader.current(read)


async def test_writing_text_of_another_class_is_seen(reader: Reader) -> None:
    read = rows(lambda: select(Thing.id).where(Thing.name == "x"))
    await reader.warm(read, TAGS)
    await execute(lambda _: update(Thing).where(Thing.id == 1).values(name=Word("x")))(reader.database)
    await reader.miss(read, BY_WRITE)
    await reader.hit(TAGS)


@pytest.mark.parametrize("value", [1, True, "1"], ids=repr)
async def test_json_parameters_are_kept_apart(value: Any, reader: Reader) -> None:
    def read(sent: Any) -> Read:
        if reader.database.dialect == "sqlite":
            return exactly(raw_rows(lambda: select(Thing.id).where(Thing.data == {"a": sent})))
        return exactly(raw_rows(lambda: select(Rich.id).where(Rich.document == {"a": sent})))

    entity, column = (Thing, "data") if reader.database.dialect == "sqlite" else (Rich, "document")
    await reader.warm(read(1), read(True), read("1"), TAGS)
    await execute(lambda _: update(entity).where(entity.id == 1).values(**{column: {"a": value}}))(
        reader.database
    )
    await reader.miss(read(value), BY_WRITE)
    for other in (1, True, "1"):
        await reader.current(read(other))
    await reader.hit(TAGS)


async def test_a_json_parameter_is_found_whatever_the_order_of_its_keys(reader: Reader) -> None:
    path = exactly(raw_rows(lambda: select(Thing.id, Thing.data["a"]).order_by(Thing.id)))
    other = exactly(raw_rows(lambda: select(Thing.id, Thing.data["b"]).order_by(Thing.id)))
    await reader.warm(path, other)
    await execute(lambda _: update(Thing).where(Thing.id == 1).values(data={"a": 5, "b": {}}))(
        reader.database
    )
    await reader.miss(path, BY_WRITE)
    await reader.miss(other, BY_WRITE)


@POSTGRESQL_ONLY
async def test_parameters_that_cannot_be_hashed(reader: Reader) -> None:
    def holding(*numbers: int) -> Read:
        return exactly(raw_rows(lambda: select(Rich.id).where(Rich.numbers.contains(list(numbers)))))

    def any_of(*numbers: int) -> Read:
        listed = literal(list(numbers), ARRAY(Integer))
        return exactly(raw_rows(lambda: select(Rich.id).where(Rich.id == any_(listed))))

    await reader.warm(holding(1), holding(1, 2), holding(7), any_of(1), any_of(2), TAGS)
    await execute(lambda _: update(Rich).where(Rich.id == 1).values(numbers=[7]))(reader.database)
    for read in (holding(1), holding(1, 2), holding(7)):
        await reader.miss(read, BY_WRITE)
    await reader.hit(any_of(1))
    await reader.hit(TAGS)


async def test_a_list_that_is_changed_after_the_statement_was_made(reader: Reader) -> None:
    keys = [1]
    read = rows(lambda: select(Thing.id).where(Thing.id.in_(keys)).order_by(Thing.id))
    await reader.warm(read)
    keys.append(2)
    assert len((await reader.current(read)).value) == 3


async def test_zones_and_folds_are_kept_apart(reader: Reader) -> None:
    plain = dt.datetime(2024, 10, 27, 2, 30)
    values = [plain, plain.replace(fold=1), plain.replace(tzinfo=UTC)]
    for value in values[: 2 if reader.database.dialect == "postgresql" else 3]:
        await reader.current(rows(lambda: select(Thing.id).where(Thing.at == value)))  # noqa: B023  # read at once


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63)])
async def test_the_greatest_integers(value: int, reader: Reader) -> None:
    def by(key: int) -> Read:
        return rows(lambda: select(Thing.id).where(Thing.big == key))

    await reader.warm(by(value), by(value // 2))
    await execute(lambda _: update(Thing).where(Thing.id == 2).values(big=value))(reader.database)
    await reader.miss(by(value), BY_WRITE)
    await reader.hit(by(value // 2))


async def test_an_integer_too_great_raises_what_it_raises_uncached(reader: Reader) -> None:
    async def raised(sessions: Any) -> Any:
        async with sessions() as session:
            with pytest.raises(Exception) as caught:
                (await session.execute(select(Thing.id).where(Thing.big == 2**80))).all()
        return type(caught.value)

    assert await raised(reader.database.sessions) is await raised(reader.database.truth_sessions)


@pytest.mark.parametrize("value", ["a\udcffb", object()], ids=["surrogate", "object"])
async def test_a_value_that_no_driver_takes_raises_what_it_raises_uncached(
    value: Any, reader: Reader
) -> None:
    async def raised(sessions: Any) -> Any:
        async with sessions() as session:
            with pytest.raises(Exception) as caught:
                (await session.execute(select(Thing.id).where(Thing.name == value))).all()
        return type(caught.value)

    assert await raised(reader.database.sessions) is await raised(reader.database.truth_sessions)


async def test_a_value_that_its_type_refuses_raises_what_it_raises_uncached(reader: Reader) -> None:
    async def raised(sessions: Any) -> Any:
        async with sessions() as session:
            with pytest.raises(Exception) as caught:
                (await session.execute(select(Thing.id).where(Thing.mood == bindparam("m")), {"m": 5})).all()
        return type(caught.value), str(caught.value)

    assert await raised(reader.database.sessions) == await raised(reader.database.truth_sessions)


def spoil(value: Any) -> None:
    """Change everything in a value that can be changed."""
    if isinstance(value, dict):
        for item in value.values():
            spoil(item)
        value["spoilt"] = "spoilt"
    elif isinstance(value, (list, tuple)):
        for item in value:
            spoil(item)
        if isinstance(value, list):
            value.append(99)
    elif isinstance(value, (Thing, Rich)):
        for item in list(value.__dict__.values()):
            spoil(item)


THINGS = raw_rows(lambda: select(Thing.data, Thing.state, Thing.pair, Thing.pickled).order_by(Thing.id))
RICHES = raw_rows(
    lambda: select(Rich.numbers, Rich.words, Rich.grid, Rich.tracked, Rich.document).order_by(Rich.id)
)


async def _is_private(read: Read, reader: Reader) -> None:
    for _ in range(3):  # what the miss returned, what the first hit returned, what the second hit returned
        async with reader.database.sessions(autoflush=False) as session:
            found = await read(session)
            for row in found if isinstance(found, list) else [found]:
                spoil(tuple(row) if not isinstance(row, (Thing, Rich)) else row)
        answer = await reader.hit(exactly(read))
        assert "spoilt" not in str(answer.value)
        assert "99" not in str(answer.value).replace("999", "")


@pytest.mark.parametrize("read", [THINGS, get(Thing, 1)], ids=["rows", "get"])
async def test_values_that_can_be_changed_are_not_shared(read: Read, reader: Reader) -> None:
    await _is_private(read, reader)


@POSTGRESQL_ONLY
@pytest.mark.parametrize("read", [RICHES, get(Rich, 1)], ids=["rows", "get"])
async def test_arrays_are_not_shared(read: Read, reader: Reader) -> None:
    await _is_private(read, reader)


async def test_a_mutable_dict_from_a_hit_still_tells_its_changes(reader: Reader) -> None:
    await reader.warm(exactly(get(Thing, 1)), exactly(get(Thing, 2)))
    async with reader.database.transaction() as session:
        thing = await session.get(Thing, 1)
        thing.state["n"] = 2
    assert "'2'" in str((await reader.miss(exactly(get(Thing, 1)), BY_WRITE)).value)
    await reader.hit(exactly(get(Thing, 2)))


async def test_a_json_cast_is_not_taken_for_the_column(reader: Reader) -> None:
    read = exactly(raw_rows(lambda: select(cast(Thing.small, JSON)).where(Thing.id == 1)))
    if reader.database.dialect == "postgresql":
        read = exactly(raw_rows(lambda: select(func.to_jsonb(Thing.small)).where(Thing.id == 1)))
        await reader.bypass(read, "nondeterministic")
        return
    await reader.current(read)
    await execute(lambda _: update(Thing).where(Thing.id == 1).values(small=5))(reader.database)
    await reader.current(read)


async def test_user_and_thing_with_one_key_are_two(reader: Reader) -> None:
    await reader.warm(get(User, 1), exactly(get(Thing, 1)))
    await execute(lambda _: update(Thing).where(Thing.id == 1).values(name="x"))(reader.database)
    await reader.hit(get(User, 1))
    await reader.miss(exactly(get(Thing, 1)), BY_WRITE)
