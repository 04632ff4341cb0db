"""The pages as HTTP: methods, headers, paths, and where they are mounted."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from sqlacache_telemetry.pages import Pages

from .shelf import Shelf, asking, in_json

PAGES = (
    "/",
    "/decisions",
    "/decisions/1",
    "/invalidations",
    "/explain",
    "/pages.css",
    "/pages.js",
    "/icon.svg",
)


@pytest.fixture
def pages(unbound: Any) -> Pages:
    return Pages(unbound, development=True)


async def test_every_answer_forbids_all_that_the_pages_do_not_need(pages: Pages) -> None:
    refused = Pages(pages._cache, auth=lambda scope: False)
    seen = set()
    for app in (pages, refused):
        async with asking(app) as client:
            for path in (*PAGES, "/api/decisions", "/nothing", "/?color=red"):
                for method in ("GET", "HEAD", "POST"):
                    answer = await client.request(method, path)
                    seen.add(answer.status_code)
                    assert answer.headers["cache-control"] == "no-store"
                    assert answer.headers["x-content-type-options"] == "nosniff"
                    assert answer.headers["x-frame-options"] == "DENY"
                    assert answer.headers["referrer-policy"] == "no-referrer"
                    policy = answer.headers["content-security-policy"]
                    assert policy.startswith("default-src 'none'; ")
                    assert "unsafe" not in policy
                    assert "http" not in policy
                    assert "set-cookie" not in answer.headers
                    assert "access-control-allow-origin" not in answer.headers
    assert seen == {200, 400, 403, 404, 405}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
async def test_only_get_and_head_are_allowed(pages: Pages, method: str) -> None:
    async with asking(pages) as client:
        for path in ("/", "/nothing"):
            answer = await client.request(method, path)
            assert answer.status_code == 405
            assert answer.headers["allow"] == "GET, HEAD"


async def test_head_is_get_without_the_body(books: Shelf) -> None:
    pages = Pages(books.cache, development=True)
    await books.read()
    async with asking(pages) as client:
        for path in (*PAGES, "/api/decisions", "/nothing", "/?color=red"):
            got, head = await client.get(path), await client.head(path)
            assert (head.status_code, head.headers) == (got.status_code, got.headers)
            assert int(head.headers["content-length"]) == len(got.content) > 0
            assert await body_sent(pages, "HEAD", path.partition("?")[0]) == b""
        assert await body_sent(pages, "GET", "/") != b""


async def body_sent(app: Any, method: str, path: str) -> bytes:
    """What an application sends by itself: servers and clients leave a body out that should not be there."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"host", b"localhost")]}
    await app(scope, None, send)
    assert [each["type"] for each in sent] == ["http.response.start", "http.response.body"]
    return bytes(sent[1]["body"])


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/decisions/0",
        "/decisions/1",
        "/decisions/-1",
        "/decisions/1/2",
        "/decisions/x",
        "/decisions/",
        "/decisions/99999999999999999999999999",
        "/decisions/%D9%A1",
        "/invalidations/1",
        "/static/pages.css",
        "/api/pages.css",
        "/api/api/decisions",
        "/../pages/app.py",
        "/%2e%2e/app.py",
        "//",
        "/templates/base.html",
    ],
)
async def test_an_unknown_path_is_not_found(pages: Pages, path: str) -> None:
    async with asking(pages) as client:
        assert (
            await client.get(httpx.URL("http://localhost").copy_with(raw_path=path.encode()))
        ).status_code == 404


async def test_a_path_that_is_html_comes_back_as_text(pages: Pages) -> None:
    async with asking(pages) as client:
        answer = await client.get("/<script>alert(1)</script>/%22%3E<img src=x>?x=%22><script>")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script>alert" not in answer.text
    assert "<img" not in answer.text


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("color=red", "got the unknown parameter 'color', takes before, limit, table, decision, reason, key"),
        ("decision=maybe", "decision: takes hit, miss or bypass, got 'maybe'"),
        ("reason=because", "got 'because'"),
        ("limit=0", "limit: takes a whole number from 1 to 1000, got '0'"),
        ("limit=1001", "limit: takes a whole number from 1 to 1000, got '1001'"),
        ("before=-1", "before: takes a whole number from 1, got '-1'"),
        ("table=a&table=b", "table: takes one value, got two"),
        ("&".join(f"a{n}=1" for n in range(50)), "takes at most 20 parameters"),
    ],
    ids=["unknown", "decision", "reason", "limit 0", "limit 1001", "before", "twice", "too many"],
)
async def test_a_query_that_is_not_understood_is_refused_by_name(pages: Pages, query: str, says: str) -> None:
    async with asking(pages) as client:
        answer = await client.get(f"/api/decisions?{query}")
        assert answer.status_code == 400
        assert says in in_json(answer)["error"]
        page = await client.get(f"/?{query}")
        assert page.status_code == 400
        assert page.headers["content-type"] == "text/html; charset=utf-8"


async def test_a_value_that_is_not_taken_comes_back_as_text(pages: Pages) -> None:
    async with asking(pages) as client:
        answer = await client.get("/", params={"decision": "<script>alert(1)</script>"})
    assert answer.status_code == 400
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text
    assert "<script>alert" not in answer.text


def mounted_in_starlette(pages: Pages) -> Any:
    return Starlette(routes=[Mount("/ops/cache", app=pages)])


def mounted_in_fastapi(pages: Pages) -> Any:
    app = FastAPI()
    app.mount("/ops/cache", pages)
    return app


def mounted_below_a_root_path(pages: Pages) -> Any:
    """As behind a proxy that takes ``/shop`` off, on a server that is told so."""
    return with_root_path(mounted_in_starlette(pages), "")


def mounted_below_a_root_path_that_paths_have(pages: Pages) -> Any:
    """As ASGI has it, and uvicorn since 0.26."""
    return with_root_path(mounted_in_starlette(pages), "/shop")


def with_root_path(app: Any, put_back: str) -> Any:
    async def served(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/shop", "path": put_back + scope["path"]}, receive, send)

    return served


def mounted_twice_deep(pages: Pages) -> Any:
    return Starlette(routes=[Mount("/ops", app=Starlette(routes=[Mount("/cache", app=pages)]))])


def called_by_a_router_that_takes_the_path_off(pages: Pages) -> Any:
    """As Starlette did before 0.33, and as other routers do."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"].startswith("/ops/cache")
        below = {**scope, "root_path": "/ops/cache", "path": scope["path"].removeprefix("/ops/cache")}
        await pages(below, receive, send)

    return app


@pytest.mark.parametrize(
    "mounted",
    [
        mounted_in_starlette,
        mounted_in_fastapi,
        mounted_below_a_root_path,
        mounted_below_a_root_path_that_paths_have,
        mounted_twice_deep,
        called_by_a_router_that_takes_the_path_off,
    ],
)
async def test_wherever_they_are_mounted_every_link_leads_to_a_page(books: Shelf, mounted: Any) -> None:
    app = mounted(Pages(books.cache, development=True))
    await books.read()
    await books.write("another")
    async with asking(app) as client:
        await every_link_of(client, "http://localhost/ops/cache/", set())


async def test_without_the_slash_at_its_end_their_path_leads_there(pages: Pages) -> None:
    async with asking(called_by_a_router_that_takes_the_path_off(pages)) as client:
        answer = await client.get("/ops/cache")
    assert answer.status_code == 307
    assert answer.url.join(answer.headers["location"]).path == "/ops/cache/"


async def test_alone_they_are_at_the_root(books: Shelf) -> None:
    pages = Pages(books.cache, development=True)
    await books.read()
    async with asking(pages) as client:
        seen: set[str] = set()
        await every_link_of(client, "http://localhost/", seen)
    assert {"http://localhost/decisions/1", "http://localhost/api/decisions"} <= seen


async def every_link_of(client: httpx.AsyncClient, url: str, seen: set[str]) -> None:
    """Follow the links of a page, and of those that they lead to, as a browser resolves them."""
    seen.add(url)
    answer = await client.get(url)
    assert answer.status_code == 200, url
    if not answer.headers["content-type"].startswith("text/html"):
        return
    for attribute in ("href", "src", "action"):
        for part in answer.text.split(f' {attribute}="')[1:]:
            link = part.partition('"')[0].replace("&amp;", "&")
            target = str(answer.url.join(link)).partition("#")[0]
            if target not in seen:
                await every_link_of(client, target, seen)


async def test_a_page_that_fails_tells_the_log_and_not_the_reader(
    books: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    pages = Pages(books.cache, development=True)
    await books.read()
    books.cache.history = "no history"  # which makes explain_key() raise what is no CacheError
    async with asking(pages) as client:
        answer = await client.get("/decisions/1")
        assert answer.status_code == 500
        assert answer.text == "something went wrong; the application's log says what\n"
        problems = in_json(await client.get("/api/decisions"))["process"]["problems"]
    (record,) = [each for each in caplog.records if each.name == "sqlacache.pages"]
    assert record.__dict__["event"] == "sqlacache.pages.failed"
    assert record.exc_info is not None
    assert problems["pages"] == {"AttributeError": 1}


async def test_the_server_may_start_and_end_them(pages: Pages) -> None:
    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent = []

    async def receive() -> Any:
        return next(asked)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await pages({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_json_is_ascii_that_any_client_reads(books: Shelf) -> None:
    pages = Pages(books.cache, development=True)
    await books.read()
    async with asking(pages) as client:
        answer = await client.get("/api/decisions", params={"key": "né"})
    assert in_json(answer)["wanted"]["key"] == "né"
    assert answer.content.isascii()
