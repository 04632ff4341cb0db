"""Values of every kind, as data and as conditions: after a hit they are what they are after a miss, to the type."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import literal, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.support.databases import Database
from tests.support.models import Tag
from tests.support.reading import Read, Reader
from tests.support.reads import entities, get, rows
from tests.support.situations import BY_WRITE
from tests.support.writes import read_past_the_cache

from .support_exact import POSTGRESQL_ONLY, SQLITE_ONLY, bound, exact, exactly, furnished, raw_rows
from .support_kinds import KINDS, RICH_KINDS, UTC, Kind, Rich, Thing, furnish

sqlite_databases, postgresql_databases = furnished(furnish)

TAGS = rows(lambda: select(Tag.id, Tag.name).order_by(Tag.id))


def kinds(of: list[Kind]) -> pytest.MarkDecorator:
    names = [f"{kind.column}-{ascii(kind.before)[:20]}" for kind in of]
    return pytest.mark.parametrize("kind", of, ids=names)


def columns(entity: Any, *names: str) -> Read:
    """Columns of all rows."""
    return exactly(raw_rows(lambda: select(*(getattr(entity, name) for name in names)).order_by(entity.id)))


def found_by(entity: Any, kind: Kind, value: Any) -> Read:
    """The rows whose column equals ``value``."""
    column = getattr(entity, kind.column)
    # SQLAlchemy 1.4 would send an address to asyncpg as VARCHAR, which PostgreSQL does not compare with one.
    sent = literal(value, column.type) if kind.column in ("address", "network") else value
    return exactly(raw_rows(lambda: select(entity.id, column).where(column == sent).order_by(entity.id)))


async def write(database: Database, entity: Any, key: int, **values: Any) -> None:
    async with database.transaction() as session:
        found = await read_past_the_cache(session, entity, key)
        for name, value in values.items():
            setattr(found, name, value)


def _unkeyable(kind: Kind, database: Database) -> bool:
    """SQLite's driver takes bytes as a memoryview, of which no key is made: see pending_values.py."""
    return database.dialect == "sqlite" and kind.column in ("blob", "sealed")


async def _a_value(entity: Any, kind: Kind, reader: Reader) -> None:
    await write(reader.database, entity, 1, **{kind.column: kind.before})
    column, one = columns(entity, "id", kind.column), exactly(get(entity, 1))
    everything = exactly(entities(lambda: select(entity).order_by(entity.id)))
    others = columns(entity, "id", "other")
    reads = [column, one, everything]
    found = kind.found and not _unkeyable(kind, reader.database)
    if found:
        reads += [found_by(entity, kind, kind.before), found_by(entity, kind, kind.after)]
    await reader.warm(*reads, others, exactly(get(entity, 2)))
    if found and kind.before == kind.before:
        assert (await reader.hit(reads[3])).value != (await reader.hit(reads[4])).value
    if exact(kind.before) == exact(kind.after):
        return
    await write(reader.database, entity, 1, **{kind.column: kind.after})
    for read in reads:
        await reader.miss(read, BY_WRITE)
    await reader.hit(others)
    await reader.hit(exactly(get(entity, 2)))
    for read in reads:
        await reader.hit(read)
    await write(reader.database, entity, 1, **{kind.column: None})
    for read in reads:
        await reader.current(read)
    await reader.hit(others)


@kinds(KINDS)
async def test_a_value(kind: Kind, reader: Reader) -> None:
    await _a_value(Thing, kind, reader)


@POSTGRESQL_ONLY
@kinds(RICH_KINDS)
async def test_a_value_that_only_postgresql_has(kind: Kind, reader: Reader) -> None:
    await _a_value(Rich, kind, reader)


@POSTGRESQL_ONLY
async def test_a_range(reader: Reader) -> None:
    read = columns(Rich, "id", "period")
    async with reader.database.transaction() as session:
        await session.execute(Rich.__table__.update().where(Rich.id == 1).values(period=_range(1, 5)))
    await reader.warm(read, exactly(get(Rich, 1)))
    async with reader.database.transaction() as session:
        await session.execute(Rich.__table__.update().where(Rich.id == 1).values(period=_range(2, 5)))
    await reader.miss(read, BY_WRITE)
    await reader.hit(read)
    await reader.miss(exactly(get(Rich, 1)), BY_WRITE)


def _range(lower: int, upper: int) -> Any:
    try:
        from sqlalchemy.dialects.postgresql import Range
    except ImportError:  # 1.4
        from asyncpg import Range
    return Range(lower, upper)


@kinds([kind for kind in KINDS if kind.found])
async def test_a_value_that_is_null_is_found_as_such(kind: Kind, reader: Reader) -> None:
    column = getattr(Thing, kind.column)
    nulls = rows(lambda: select(Thing.id).where(column.is_(None)).order_by(Thing.id))
    others = rows(lambda: select(Thing.id).where(column.isnot(None)).order_by(Thing.id))
    await write(reader.database, Thing, 1, **{kind.column: kind.before})
    await reader.warm(nulls, others, TAGS)
    await write(reader.database, Thing, 2, **{kind.column: kind.before})
    await reader.miss(nulls, BY_WRITE)
    await reader.miss(others, BY_WRITE)
    await write(reader.database, Thing, 1, **{kind.column: None})
    await reader.miss(nulls, BY_WRITE)
    await reader.miss(others, BY_WRITE)
    await reader.hit(TAGS)


# A list of values that are lists themselves: see pending_values.py.
@kinds([kind for kind in KINDS if kind.found and kind.column != "pair"])
async def test_a_list_of_values_with_null(kind: Kind, reader: Reader) -> None:
    if _unkeyable(kind, reader.database):
        return
    column = getattr(Thing, kind.column)
    listed = exactly(
        raw_rows(lambda: select(Thing.id).where(column.in_([kind.after, None])).order_by(Thing.id))
    )
    both = exactly(
        raw_rows(lambda: select(Thing.id).where(column.in_([kind.after, kind.before])).order_by(Thing.id))
    )
    await write(reader.database, Thing, 1, **{kind.column: kind.before})
    await reader.warm(listed, both, TAGS)
    await write(reader.database, Thing, 2, **{kind.column: kind.after})
    await reader.miss(listed, BY_WRITE)
    await reader.miss(both, BY_WRITE)
    await write(reader.database, Thing, 1, **{kind.column: None})
    await reader.current(listed)
    await reader.miss(both, BY_WRITE)
    await reader.hit(TAGS)


async def test_a_decimal_that_the_database_rounds(reader: Reader) -> None:
    def priced(value: str) -> Read:
        return exactly(raw_rows(lambda: select(Thing.id, Thing.price).where(Thing.price == Decimal(value))))

    reads = [priced("1.00"), priced("1.005"), priced("1.01"), priced("1.010")]
    await reader.warm(TAGS)
    for read in reads:
        await reader.current(read)
    await write(reader.database, Thing, 1, price=Decimal("1.005"))
    for read in reads:
        await reader.current(read)
    await reader.hit(TAGS)


@pytest.mark.parametrize("written", ["ab", "ab    ", "AB"])
async def test_padded_text(written: str, reader: Reader) -> None:
    def coded(code: str) -> Read:
        return exactly(raw_rows(lambda: select(Thing.id, Thing.code).where(Thing.code == code)))

    await write(reader.database, Thing, 1, code="zz")
    reads = [coded("ab"), coded("ab    "), coded("AB"), coded("zz"), coded("zz  ")]
    await reader.warm(*reads, TAGS)
    await write(reader.database, Thing, 1, code=written)
    for read in reads:
        await reader.current(read)
    await reader.hit(TAGS)


@pytest.mark.parametrize("written", ["ANN", "ann", "Ann "])
@SQLITE_ONLY
async def test_text_whose_case_does_not_matter_on_sqlite(written: str, reader: Reader) -> None:
    await _case(written, reader)


CASELESS = (
    ("CREATE EXTENSION citext", "ALTER TABLE odd_things ALTER COLUMN nick TYPE citext"),
    (
        "CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "ALTER TABLE odd_things ALTER COLUMN nick TYPE varchar(20) COLLATE caseless",
    ),
    ("ALTER TABLE odd_things ALTER COLUMN nick TYPE char(20)",),  # a server without either: padded at least
)


@pytest.mark.parametrize("written", ["ANN", "ann", "Ann "])
@POSTGRESQL_ONLY
async def test_text_whose_case_does_not_matter_on_postgresql(written: str, database: Database) -> None:
    """By the database's declaration alone: the metadata says plain text."""
    async with database.truth_engine.begin() as connection:
        for how in CASELESS:
            try:
                async with connection.begin_nested():
                    for statement in how:
                        await connection.execute(text(statement))
                break
            except DBAPIError:
                continue
        else:
            pytest.fail("no way to declare the column otherwise than the metadata does")
    async with bound(database) as reader:
        await _case(written, reader)


async def _case(written: str, reader: Reader) -> None:
    def nicked(nick: str) -> Read:
        return exactly(raw_rows(lambda: select(Thing.id, Thing.nick).where(Thing.nick == nick)))

    await write(reader.database, Thing, 1, nick="bob")
    reads = [nicked("Ann"), nicked("ann"), nicked("BOB"), nicked("bob")]
    await reader.warm(*reads, TAGS)
    await write(reader.database, Thing, 1, nick=written)
    for read in reads:
        await reader.current(read)
    await reader.hit(TAGS)


async def test_moments_of_one_instant_in_two_zones_are_one(reader: Reader) -> None:
    def at(value: dt.datetime) -> Read:
        return exactly(raw_rows(lambda: select(Thing.id, Thing.zoned).where(Thing.zoned == value)))

    noon = dt.datetime(2024, 6, 1, 12, tzinfo=UTC)
    same = noon.astimezone(dt.timezone(dt.timedelta(hours=5)))
    await reader.warm(at(noon), at(same), TAGS)
    await write(reader.database, Thing, 1, zoned=same)
    for read in (at(noon), at(same)):
        await reader.current(read)
    await reader.hit(TAGS)


async def test_empty_text_and_null_are_two_values(reader: Reader) -> None:
    def named(value: Any) -> Read:
        return rows(lambda: select(Thing.id).where(Thing.name == value).order_by(Thing.id))

    texts = ["", "null", "NULL", "None", '""', "%6Eull", " ", None]
    await write(reader.database, Thing, 1, name="start")
    for word in texts:
        await write(reader.database, Thing, 1, name="start")
        await reader.current(named("start"))
        reads = [named(other) for other in texts]
        for read in reads:
            await reader.current(read)
            await reader.hit(read)
        await write(reader.database, Thing, 1, name=word)
        await reader.miss(named(word), BY_WRITE)
        for other in texts:
            if other != word:
                await reader.current(named(other))


async def test_narrowing_by_kinds_whose_equality_is_known_evicts_no_other_value(reader: Reader) -> None:
    """The precision that integers, booleans, dates, enums, UUIDs and plain text have."""
    narrow = {"flag", "small", "big", "name", "note", "label", "day", "mood", "temper", "word", "uid"}
    narrow |= {"lowered", "rank"}
    checked = set()
    for kind in KINDS:
        if kind.column not in narrow or kind.column in checked:
            continue
        checked.add(kind.column)
        await write(reader.database, Thing, 1, **{kind.column: kind.before})
        mine, theirs = found_by(Thing, kind, kind.before), found_by(Thing, kind, kind.after)
        await reader.current(mine)
        await reader.current(theirs)
        await write(reader.database, Thing, 1, **{kind.column: None})
        await reader.miss(mine, BY_WRITE)
        answer = await reader.current(theirs)
        assert answer.hits == answer.decisions, f"{kind.column}: {answer}"
    assert checked == narrow


async def test_types_of_what_a_session_gets_are_those_of_a_miss(reader: Reader) -> None:
    async def types(session: AsyncSession) -> Any:
        thing = await session.get(Thing, 1)
        return {
            name: type(value).__qualname__ for name, value in sorted(thing.__dict__.items()) if name[0] != "_"
        }

    await reader.warm(types)
