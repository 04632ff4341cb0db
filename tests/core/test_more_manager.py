"""What callers get wrong easily: not an error of ours yet (the cause is in sqlacache/core.py)."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from sqlacache import CacheError, ConfigError, configure
from tests.support.listeners import listeners_of_ours
from tests.support.models import User
from tests.support.reading import Reader
from tests.support.reads import entities, get


@pytest.mark.parametrize("pks", [1, "1", b"1"], ids=repr)
async def test_one_key_in_place_of_several_is_an_error_of_ours(pks: Any, reader: Reader) -> None:
    await reader.warm(get(User, 1))
    with pytest.raises(CacheError, match="pks takes a collection of primary keys"):
        await reader.cache.invalidate(User, pks=pks)
    with pytest.raises(CacheError, match="pks takes a collection of primary keys"):
        await reader.cache.touched("users", pks=pks)
    await reader.hit(get(User, 1))


@pytest.mark.parametrize("pk", ["one", 1.5, object()], ids=["text", "float", "object"])
async def test_a_key_of_the_wrong_type_is_an_error_of_ours(pk: Any, reader: Reader) -> None:
    with pytest.raises(CacheError, match=r"users: .*id"):
        await reader.cache.invalidate(User, pks=[pk])


async def test_a_lifespan_without_an_engine_is_an_error() -> None:
    with pytest.raises(ConfigError, match="lifespan: takes at least one AsyncEngine"):
        configure(telemetry=None).lifespan()


async def test_a_lifespan_whose_second_engine_cannot_be_bound_lets_go_of_the_first(database: Any) -> None:
    cache = configure(models={"*": {}}, telemetry=None)
    lifespan = cache.lifespan(database.engine, "not an engine")
    with pytest.raises(ConfigError):
        async with lifespan(None):
            pass
    assert not listeners_of_ours()


async def test_no_keys_are_no_rows(reader: Reader) -> None:
    listed = entities(lambda: select(User).order_by(User.id))
    await reader.warm(listed)
    assert await reader.cache.invalidate(User, pks=[]) == 0
    assert await reader.cache.touched("users", pks=()) == 0
    await reader.hit(listed)
