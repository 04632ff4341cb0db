"""The cause of both is in sqlacache/tags.py."""

from __future__ import annotations

from sqlalchemy import Column, Integer, String
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import declarative_base
from sqlalchemy.pool import StaticPool

from sqlacache import configure, testing
from sqlacache.tags import Shape
from tests.support.databases import make_sessions


def test_the_row_whose_key_is_the_word_key_has_a_tag_of_its_own() -> None:
    """A write of ``settings['key']`` evicted every cached row of ``settings``: its tag was the name of the shape."""
    shape = Shape("settings", ("name",), None, keyed=True)
    assert shape.tag(["key"]) != shape.name


def test_a_column_with_a_comma_in_its_name_is_not_two_columns() -> None:
    """Two shapes of one name: the second is never registered, and writes do not reach what was read under it."""
    assert Shape("t", (), frozenset({"a", "b"})).name != Shape("t", (), frozenset({"a,b"})).name
    assert Shape("t", ("a", "b"), None).name != Shape("t", ("a&b",), None).name


async def test_tables_of_one_name_in_two_databases_do_not_mix_up_their_keys() -> None:
    """``touch`` looked the key up by name, found the other database's, and left the keyed shape out."""
    first, second = declarative_base(), declarative_base()

    class Thing(first):  # type: ignore[misc, valid-type]
        __tablename__ = "things"
        id = Column(Integer, primary_key=True)
        label = Column(String(20))

    class Other(second):  # type: ignore[misc, valid-type]
        __tablename__ = "things"
        label = Column(String(20), primary_key=True)
        id = Column(Integer)

    cache = configure(models={"*": {}}, telemetry=None)
    engines = {}
    for number, base in enumerate((first, second)):
        engine = engines[base] = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        async with engine.begin() as connection:
            await connection.run_sync(base.metadata.create_all)
        await cache.bind(engine, database=f"db{number}")
    try:
        for base, model, key in ((first, Thing, 1), (second, Other, "one")):
            sessions = make_sessions(engines[base])
            with testing.record(cache) as seen:
                for _ in range(2):
                    async with sessions() as session:
                        assert await session.get(model, key) is None
            seen.assert_hit(model, key)
            async with sessions() as session, session.begin():
                session.add(model(id=1, label="one"))
            async with sessions() as session:
                assert await session.get(model, key) is not None
    finally:
        await cache.disconnect()
        for engine in engines.values():
            await engine.dispose()
        first.registry.dispose()
        second.registry.dispose()
