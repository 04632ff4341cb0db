"""Redis at a socket file: the same cache without a network."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cached import cached
from tests.support.fleet import settled, user
from tests.support.models import User
from tests.support.processes import eventually
from tests.support.redis_server import RedisServer
from tests.support.writes import change

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("local", [None, "validated", "pushed"])
async def test_what_one_commits_the_other_sees(
    redis_server: RedisServer, file: str, prefix: str, local: Any
) -> None:
    given = f"{redis_server.unix_url}?db=3&timeout=1"
    async with cached(file, given, prefix, local=local) as one, cached(file, given, prefix) as other:
        await one.warm(user(1))
        await settled(other, user(1))
        await change(User, 1, name="other's")(other.database)

        async def is_current() -> bool:
            return bool((await one.ask(user(1))).value[1]["name"] == "other's")

        await (
            eventually(is_current, "the commit to be heard of") if local == "pushed" else one.current(user(1))
        )
        await settled(one, user(1))
        assert redis_server.info()["db3"]["keys"]


async def test_a_socket_file_that_is_not_there_is_named(
    redis_server: RedisServer, file: str, prefix: str
) -> None:
    nowhere = redis_server.home / "nowhere.sock"
    async with cached(file, f"unix://{nowhere}", prefix) as reader:
        await reader.bypass(user(1), "backend_unavailable")
        [reason] = (await reader.cache.health()).reasons
        assert str(nowhere) in reason
    async with cached(file, redis_server.unix_url, prefix) as reader:
        await reader.warm(user(1))
