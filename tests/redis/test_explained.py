"""Explanations across processes: who stored it, who wrote, and what only the other process knows."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from sqlalchemy import select, update

from sqlacache.reasons import BYPASSES, MISSES
from tests.support.databases import Database
from tests.support.fleet import LOCAL, reading, settled, user
from tests.support.fronts import asynchronous, configure
from tests.support.models import Team, User
from tests.support.reading import Reader
from tests.support.reads import get
from tests.support.redis_server import RedisServer
from tests.support.workers import Worker
from tests.support.writes import change
from tests.telemetry.traced import Traced

pytestmark = pytest.mark.integration

StartWorkers = Callable[..., AbstractAsyncContextManager[list[Worker]]]


async def got(reader: Reader, key: int = 1) -> Any:
    async with reader.database.sessions() as session:
        return await reader.cache.explain_get(session, User, key)


@asynchronous("in the tests, ordinary sessions live in threads, whose stack has no caller")
async def test_a_process_that_stored_nothing_tells_which_trace_did_and_which_commit_voided_it(
    file: str, redis_url: str, prefix: str, start_workers: StartWorkers
) -> None:
    traced = Traced()
    telemetry = {"tracer_provider": traced.provider, "metrics": False}
    backend = {"url": redis_url, "timeout": 5}
    async with (
        start_workers(1, file, backend=backend, history=50, debug=True) as [worker],
        reading(file, backend, prefix=prefix, telemetry=telemetry, debug=True) as near,
    ):
        with traced.tracer.start_as_current_span("stores") as storing:
            await settled(near, user(1))
        told = await worker.call("explain_get", model="User", key=1)
        trace = f"{storing.get_span_context().trace_id:032x}"
        assert (told["decision"], told["stored_by"].split("-")[1]) == ("hit", trace)
        assert (told["hits"], told["complete"]) == (0, True), "hits of this process are none of the worker's"
        assert (await got(near)).hits >= 1

        with traced.tracer.start_as_current_span("writes") as writing:
            await change(User, 1, name="zed")(near.database)
        told = await worker.call("explain_get", model="User", key=1)
        cause = told["cause"]
        assert (told["decision"], told["reason"]) == ("miss", "row_invalidated")
        assert (cause["pid"], cause["columns"], cause["keys"]) == (os.getpid(), ["name"], ["users:1"])
        assert cause["traceparent"].split("-")[1] == f"{writing.get_span_context().trace_id:032x}"
        assert told["stored_by"].split("-")[1] == trace
        # The line that wrote is known here and nowhere else.
        assert cause["site"] is None
        assert told["unknown"] == [f"which line wrote it: at most process {os.getpid()} knows"]
        here = await got(near)
        assert here.cause.site.file.endswith("databases.py")
        assert here.unknown == ()
        assert here.cause == (await got(near)).cause, "a site is no part of what a cause is"

        # And the other way round.
        await settled(near, user(1))
        await worker.call("update", model="User", key=1, values={"name": "yan"})
        told = await got(near)
        assert (told.reason, told.cause.pid, told.cause.site) == ("row_invalidated", worker.pid, None)
        assert f" by {worker.pid}@" in str(told)


@asynchronous("in the tests, ordinary sessions live in threads, whose stack has no caller")
async def test_each_table_of_a_commit_has_the_line_that_wrote_it(
    file: str, redis_url: str, prefix: str
) -> None:
    async with reading(file, {"url": redis_url, "timeout": 5}, prefix=prefix, debug=True) as near:
        await settled(near, user(1), get(Team, 1))
        first = sys._getframe().f_lineno + 2
        async with near.database.sessions() as session:
            await session.execute(update(Team).where(Team.id == 1).values(name="x"))
            await session.execute(update(User).where(User.id == 1).values(name="x"))
            await session.commit()
        async with near.database.sessions() as session:
            lines = [
                (await near.cache.explain_get(session, model, 1)).cause.site.line for model in (Team, User)
            ]
        assert lines == [first, first + 1]


@pytest.mark.parametrize("local", LOCAL, ids=str)
async def test_the_trace_comes_with_the_entry_through_every_tier(
    file: str, redis_url: str, prefix: str, local: str | None
) -> None:
    traced = Traced()
    backend = {"url": redis_url, "timeout": 5}
    options: dict[str, Any] = {"prefix": prefix, "local": local}
    telemetry = {"tracer_provider": traced.provider, "metrics": False}
    async with (
        reading(file, backend, telemetry=telemetry, **options) as near,
        reading(file, backend, **options) as far,
    ):
        with traced.tracer.start_as_current_span("stores") as storing:
            await settled(near, user(1))
        await far.hit(user(1))
        for reader in (near, far):
            assert f"trace {storing.get_span_context().trace_id:032x}" in str(await got(reader))


async def test_an_absent_entry_leaves_open_whether_it_was_ever_stored(
    file: str, redis_url: str, prefix: str
) -> None:
    async with reading(file, {"url": redis_url, "timeout": 5}, prefix=prefix) as near:
        told = await got(near)
        assert (told.decision, told.reason) == ("miss", "absent")
        assert any("whether another process had stored it" in one for one in told.unknown)


def put(server: RedisServer, name: str, value: Any) -> None:
    server.command("SET", name, value)


async def test_what_befalls_the_server_is_told_in_words(
    file: str, redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlacache.core.OWED_WAIT", 0.01)
    async with reading(file, {"url": redis_server.url, "timeout": 5}, prefix=prefix, local=None) as near:
        await settled(near, user(1))
        held = await got(near)
        name = f"{prefix}:1:{near.cache.bindings[0].store.layout.database}:e:{held.key}"

        data = redis_server.command("GET", name)
        put(redis_server, name, data[:-3] + b"???")
        told = await got(near)
        assert (told.reason, told.advice) == ("corrupt", MISSES["corrupt"].hit_if)
        await near.miss(user(1), {"corrupt"})
        await near.hit(user(1))

        redis_server.command("DEL", name)
        told = await got(near)
        assert (told.reason, told.advice) == ("backend_evicted", MISSES["backend_evicted"].hit_if)
        await near.miss(user(1), {"backend_evicted"})

        data = redis_server.command("GET", name)
        redis_server.command("FLUSHALL")
        await settled(near, user(2))  # the server has a generation again
        put(redis_server, name, data)
        told = await got(near)
        assert (told.reason, told.advice) == ("generation_changed", MISSES["generation_changed"].hit_if)

        put(redis_server, f"{prefix}:mode", "off")
        told = await got(near)
        assert (told.decision, told.reason, told.advice) == (
            "bypass",
            "disabled",
            BYPASSES["disabled"].hit_if,
        )
        redis_server.command("DEL", f"{prefix}:mode")
        put(redis_server, f"{prefix}:fence", "9")
        told = await got(near)
        assert (told.reason, told.advice) == ("protocol_mismatch", BYPASSES["protocol_mismatch"].hit_if)
        redis_server.command("DEL", f"{prefix}:fence")

        redis_server.kill()
        told = await got(near)
        assert (told.reason, told.advice) == ("backend_unavailable", BYPASSES["backend_unavailable"].hit_if)
        await change(User, 1, name="zed")(near.database)
        told = await got(near)
        assert str(told).startswith("BYPASS (backend_unavailable): ") and "owed" in str(told)


async def test_a_process_without_a_backend_explains_all_the_same(file: str, prefix: str) -> None:
    database = Database(file)
    cache = configure(
        backend="redis://localhost:1/0", models={"*": {"timeout": 60}}, telemetry=None, prefix=prefix
    )
    await cache.bind(database.engine)
    try:
        async with database.sessions() as session:
            told = await cache.explain(session, select(User))
        assert (told.decision, told.reason) == ("bypass", "backend_unavailable")
        assert told.parts is not None and told.parts.sql is not None
    finally:
        await cache.disconnect()
        await database.dispose()
