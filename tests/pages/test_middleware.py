"""What a request's header and its record in the log say of the cache."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware

from sqlacache import ConfigError
from sqlacache_telemetry.middleware import RequestMiddleware, WSGIRequestMiddleware

from .recorded import counts, timing
from .shelf import Book, Shelf, asking, sync_shelf


def application(books: Shelf, **options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(RequestMiddleware, cache=books.cache, **options)

    @app.get("/books/{key}")
    async def one(key: int) -> Any:
        return {"title": await books.read(key)}

    @app.put("/books/{key}")
    async def change(key: int, title: str) -> None:
        await books.write(title, key)

    @app.get("/nothing")
    async def nothing() -> None:
        """Reads nothing."""

    @app.get("/random")
    async def random() -> None:
        async with books.session() as session:
            await session.execute(select(func.random()).select_from(Book))

    @app.get("/broken/{key}")
    async def broken(key: int) -> None:
        await books.read(key)
        raise RuntimeError("the application's own")

    @app.get("/streamed")
    async def streamed() -> StreamingResponse:
        async def titles() -> AsyncIterator[str]:
            for key in range(1, 4):
                yield await books.read(key)

        await books.read(50)
        return StreamingResponse(titles())

    return app


async def test_the_header_and_the_record_count_what_the_request_did(books: Shelf, records: Any) -> None:
    async with asking(application(books)) as client:
        await client.get("/books/1")
        answer = await client.get("/books/1")
        changed = await client.put("/books/1", params={"title": "new"})
        again = await client.get("/books/1")
        await client.get("/random")
    cache = timing(answer.headers["server-timing"])["cache"]
    assert cache["desc"] == "1 hit, 0 miss, 0 bypass"
    assert float(cache["dur"]) > 0
    assert timing(changed.headers["server-timing"])["cache"]["desc"] == "1 hit, 0 miss, 0 bypass"
    parsed = timing(again.headers["server-timing"])
    assert parsed["cache"]["desc"] == "0 hit, 1 miss, 0 bypass"
    assert parsed["db"]["desc"] == "1 load"
    first, hit, write, miss, bypass = records()
    assert [counts(each) for each in (first, hit, write, miss, bypass)] == [
        (0, 1, 0),
        (1, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
    ]
    assert bypass["bypasses"] == {"nondeterministic": 1}
    assert (first["method"], first["route"], first["path"], first["status"]) == (
        "GET",
        "/books/{key}",
        None,
        200,
    )
    assert (first["event"], first["cache"]) == ("sqlacache.request", "shelf")
    assert write["evictions"] == 1
    assert first["load_seconds"] > 0
    assert hit["load_seconds"] == 0
    assert hit["saved_seconds"] >= 0
    assert hit["lookup_seconds"] > 0
    assert hit["msg"] % hit["args"]
    assert float(parsed["db"]["dur"]) == pytest.approx(miss["load_seconds"] * 1000, abs=0.001)
    assert float(parsed["cache"]["dur"]) == pytest.approx(miss["lookup_seconds"] * 1000, abs=0.001)


async def test_seconds_are_summed_and_saved_is_what_the_load_took_less_the_lookup(
    books: Shelf, records: Any
) -> None:
    with books.cache.record() as seen:
        await books.read()
        await books.read()
    miss, hit = seen.decisions

    async def app(*given: Any) -> None:
        for decision in (
            miss._replace(lookup_seconds=0.25, load_seconds=2.0),
            miss._replace(lookup_seconds=0.25, load_seconds=None),  # the load raised
            hit._replace(lookup_seconds=0.5, load_seconds=2.0),
            hit._replace(lookup_seconds=0.5, load_seconds=0.25),  # a hit that saved nothing
            hit._replace(decision="bypass", reason="raw_sql", lookup_seconds=0.125, load_seconds=None),
        ):
            books.cache.observers.decided(decision)

    await RequestMiddleware(app, books.cache)({"type": "http", "method": "GET", "path": "/"}, None, None)  # type: ignore[arg-type]  # unused
    (record,) = records()
    assert counts(record) == (2, 2, 1)
    assert record["bypasses"] == {"raw_sql": 1}
    assert (record["lookup_seconds"], record["load_seconds"], record["saved_seconds"]) == (1.625, 2.0, 1.5)


async def test_fifty_requests_at_once_count_each_its_own(books: Shelf, records: Any) -> None:
    """Every request reads as often as its number says, in its task and in tasks that it starts, turn about."""
    here: list[int] = []
    all_here = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number = int(scope["path"][1:])
        here.append(number)
        if len(here) == 50:
            all_here.set()
        await all_here.wait()
        for turn in range(number % 5 + 1):
            await books.read(number)
            await asyncio.gather(books.read(number), asyncio.create_task(books.read(number)))
            if turn == 0 and number % 2:
                await books.write(f"by {number}", number)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async with asking(RequestMiddleware(app, books.cache)) as client:
        answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(1, 51)))
    told = {each["args"][1]: each for each in records()}
    assert len(told) == 50
    for number, answer in enumerate(answers, 1):
        assert answer.status_code == 200
        turns, writes = number % 5 + 1, number % 2
        desc = timing(answer.headers["server-timing"])["cache"]["desc"]
        hits, misses, bypasses = map(int, re.findall(r"\d+", desc))
        assert hits + misses + bypasses == 3 * turns + writes
        record = told[f"/{number}"]
        assert counts(record) == (hits, misses, bypasses)
        assert record["evictions"] == writes
        assert misses == 1 + (writes if turns > 1 else 0)


async def test_a_request_counts_what_its_threads_read(tmp_path: Path, records: Any) -> None:
    with sync_shelf(tmp_path) as (cache, engine):
        app = FastAPI()
        app.add_middleware(RequestMiddleware, cache=cache)

        def read(key: int) -> None:
            with Session(engine) as session:
                session.get(Book, key)

        @app.get("/blocking/{key}")
        def blocking(key: int) -> None:
            read(key)

        @app.get("/threads/{key}")
        async def threads(key: int) -> None:
            await asyncio.gather(*(asyncio.to_thread(read, key + n) for n in range(3)))

        async with asking(app) as client:
            await asyncio.gather(*(client.get(f"/blocking/{key}") for key in range(1, 9)))
            await client.get("/threads/20")
        assert sorted(counts(each) for each in records()) == [(0, 1, 0)] * 8 + [(0, 3, 0)]


async def test_it_also_counts_below_middleware_that_runs_the_application_in_a_task(
    books: Shelf, records: Any
) -> None:
    app = application(books)

    async def passes(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    below = FastAPI()
    below.mount("/", app)
    below.add_middleware(BaseHTTPMiddleware, dispatch=passes)
    async with asking(below) as client:
        answer = await client.get("/books/1")
    assert "server-timing" in answer.headers
    assert [counts(each) for each in records()] == [(0, 1, 0)]


async def test_a_request_without_reads_has_neither_header_nor_record(books: Shelf, records: Any) -> None:
    async with asking(application(books)) as client:
        answer = await client.get("/nothing")
        assert "server-timing" not in answer.headers
    await books.read()  # by nobody's request
    assert records() == []


async def test_each_of_the_two_can_be_left_out(books: Shelf, records: Any) -> None:
    async with asking(application(books, server_timing=False)) as client:
        assert "server-timing" not in (await client.get("/books/1")).headers
    assert len(records()) == 1
    async with asking(application(books, log=False)) as client:
        assert "server-timing" in (await client.get("/books/2")).headers
    assert len(records()) == 1


async def test_a_stream_passes_as_it_comes_and_its_reads_are_in_the_record(
    books: Shelf, records: Any
) -> None:
    app = application(books)
    sent: list[Any] = []
    seen: list[int] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)
        seen.append(len(records()))

    scope = {"type": "http", "method": "GET", "path": "/streamed", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    assert [each.get("body") for each in sent[1:]] == [b"book 1", b"book 2", b"book 3", b""]
    assert set(seen) == {0}  # it is told when all has been sent
    headers = dict(sent[0]["headers"])
    assert b"0 hit, 1 miss, 0 bypass" in headers[b"server-timing"]
    (record,) = records()
    assert counts(record) == (0, 4, 0)


async def test_an_exception_passes_and_the_record_says_what_was_read_before(
    books: Shelf, records: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await books.read()
        raise RuntimeError("the application's own")

    async with asking(RequestMiddleware(app, books.cache)) as client:
        with pytest.raises(RuntimeError, match="the application's own"):
            await client.get("/some/path%0AWARNING forged")
    (record,) = records()
    assert counts(record) == (0, 1, 0)
    assert record["status"] is None
    assert record["path"] == "/some/path%0AWARNING%20forged"


async def test_a_header_of_the_application_stays(books: Shelf) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await books.read()
        await send(
            {"type": "http.response.start", "status": 204, "headers": [(b"server-timing", b"app;dur=1")]}
        )
        await send({"type": "http.response.body"})

    async with asking(RequestMiddleware(app, books.cache)) as client:
        answer = await client.get("/")
    assert set(timing(answer.headers["server-timing"])) == {"app", "cache", "db"}


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
async def test_what_is_no_request_passes_as_it_is(books: Shelf, kind: str, records: Any) -> None:
    async def app(*given: Any) -> None:
        passed.append(given)
        await books.read()

    passed: list[Any] = []
    given = ({"type": kind, "path": "/"}, object(), object())
    await RequestMiddleware(app, books.cache)(*given)  # type: ignore[arg-type]  # whatever it is, it passes
    assert [list(map(id, each)) for each in passed] == [list(map(id, given))]
    assert records() == []


async def test_nothing_listens_until_it_is_installed(books: Shelf) -> None:
    assert not books.cache.observers
    RequestMiddleware(application(books), books.cache)
    assert books.cache.observers


async def test_two_caches_are_told_apart(books: Shelf, tmp_path: Path, records: Any) -> None:
    (tmp_path / "other").mkdir()
    with sync_shelf(tmp_path / "other", name="other") as (other, engine):

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await books.read()
            await books.read()
            with Session(engine) as session:
                session.get(Book, 1)

        both = RequestMiddleware(RequestMiddleware(app, books.cache), other)
        async with asking(both) as client:
            with pytest.raises(AssertionError):  # the client's: the application sent nothing
                await client.get("/")
    assert {each["cache"]: counts(each) for each in records()} == {"shelf": (1, 1, 0), "other": (0, 1, 0)}


@pytest.mark.parametrize("made", [RequestMiddleware, WSGIRequestMiddleware], ids=["asgi", "wsgi"])
def test_what_is_not_taken_is_said_at_once(unbound: Any, made: Any) -> None:
    with pytest.raises(ConfigError, match="middleware: takes a cache as configure"):
        made(None, "redis://")
    with pytest.raises(ConfigError, match=r"middleware.log: takes True or False, got 'yes'"):
        made(None, unbound, log="yes")
