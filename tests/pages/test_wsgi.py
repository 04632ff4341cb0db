"""The same for WSGI: what Flask's requests did."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flask", reason="Flask is not here")

from flask import Flask
from sqlalchemy.orm import Session
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from sqlacache import ConfigError
from sqlacache_telemetry.middleware import WSGIRequestMiddleware
from sqlacache_telemetry.pages import WSGIPages

from .recorded import counts, timing
from .shelf import Book, sync_shelf


@pytest.fixture
def flask(tmp_path: Path) -> Iterator[Flask]:
    with sync_shelf(tmp_path) as (cache, engine):
        app = Flask(__name__)

        def read(key: int) -> str:
            with Session(engine) as session:
                return str(session.get(Book, key).title)

        @app.get("/books/<int:key>")
        def one(key: int) -> str:
            return read(key)

        @app.get("/streamed")
        def streamed() -> Any:
            read(50)
            return map(read, range(1, 4))

        @app.get("/broken")
        def broken() -> None:
            read(1)
            raise RuntimeError("the application's own")

        @app.get("/nothing")
        def nothing() -> str:
            return ""

        app.wsgi_app = WSGIRequestMiddleware(app.wsgi_app, cache)  # type: ignore[method-assign]  # as Flask says
        yield app


def test_wsgi_requests_are_counted_too(flask: Flask, records: Any) -> None:
    client = flask.test_client()
    client.get("/books/1").close()
    answer = client.get("/books/1")
    answer.close()
    assert timing(answer.headers["Server-Timing"])["cache"]["desc"] == "1 hit, 0 miss, 0 bypass"
    nothing = client.get("/nothing")
    nothing.close()
    assert "Server-Timing" not in nothing.headers
    first, hit = records()
    assert (counts(first), counts(hit)) == ((0, 1, 0), (1, 0, 0))
    assert (hit["method"], hit["route"], hit["path"], hit["status"]) == ("GET", "/books/<int:key>", None, 200)


def test_a_wsgi_stream_is_counted_to_its_end(flask: Flask, records: Any) -> None:
    answer = flask.test_client().get("/streamed", buffered=False)
    assert records() == []
    assert [*answer.response] == [b"book 1", b"book 2", b"book 3"]
    answer.close()
    assert timing(answer.headers["Server-Timing"])["cache"]["desc"] == "0 hit, 1 miss, 0 bypass"
    (record,) = records()
    assert counts(record) == (0, 4, 0)


def test_wsgi_exceptions_pass(flask: Flask, records: Any) -> None:
    flask.testing = True
    with pytest.raises(RuntimeError, match="the application's own"):
        flask.test_client().get("/broken")
    (record,) = records()
    assert (counts(record), record["status"]) == ((0, 1, 0), None)


def test_wsgi_requests_in_threads_that_serve_one_after_another_count_each_its_own(
    flask: Flask, records: Any
) -> None:
    def ask(number: int) -> None:
        flask.test_client().get(f"/books/{number}").close()

    wanted = [number for number in range(1, 9) for _ in range(number)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, wanted))
    assert len(records()) == len(wanted)
    assert all(sum(counts(each)) == 1 for each in records())
    assert sum(each["misses"] for each in records()) >= 8


def test_what_a_thread_does_between_requests_is_nobodys(flask: Flask, records: Any) -> None:
    """A server's thread that is done with a request reads again, on its own account."""
    client = flask.test_client()
    client.get("/books/1").close()
    (record,) = records()
    tallies = flask.wsgi_app._tallies  # type: ignore[attr-defined]  # it is our middleware
    assert tallies._current.get() is None
    assert counts(record) == (0, 1, 0)


async def with_token(scope: Any) -> bool:
    assert scope["wsgi.environ"]["REQUEST_METHOD"] == scope["method"]
    return (b"authorization", b"Bearer right") in scope["headers"]


def test_the_pages_are_the_same_below_a_wsgi_application(tmp_path: Path) -> None:
    with sync_shelf(tmp_path) as (cache, engine):
        open_pages, guarded = WSGIPages(cache, development=True), WSGIPages(cache, auth=with_token)
        client = Client(
            DispatcherMiddleware(Flask(__name__), {"/ops/cache": open_pages, "/guarded": guarded})  # type: ignore[arg-type]  # WSGI
        )
        for _ in range(2):
            with Session(engine) as session:
                session.get(Book, 1)
        page = client.get("/ops/cache/decisions/2")
        assert page.status == "200 OK"
        assert "HIT: 1 row(s) would be served from the cache" in page.text
        assert page.headers["Cache-Control"] == "no-store"
        told = client.get("/ops/cache/api/decisions?decision=hit").json
        assert [one["number"] for one in told["decisions"]] == [2]
        assert client.get("/ops/cache").headers["Location"].endswith("./cache/")
        head = client.head("/ops/cache/")
        assert (head.status_code, head.data) == (200, b"")
        assert client.post("/ops/cache/").status == "405 Method Not Allowed"
        assert client.get("/ops/cache/", headers={"Host": "evil.example"}).status_code == 403
        assert client.get("/guarded/").status_code == 403
        assert client.get("/guarded/", headers={"Authorization": "Bearer right"}).status_code == 200


def test_wsgi_pages_of_a_cache_that_waits_in_an_event_loop_are_refused(unbound: Any) -> None:
    with pytest.raises(ConfigError, match=r"WSGI takes a cache as configure_sync\(\) made it"):
        WSGIPages(unbound, development=True)
