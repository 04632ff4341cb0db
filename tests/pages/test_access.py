"""Who may look at the pages."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sqlacache import ConfigError
from sqlacache_telemetry.pages import Pages

from .shelf import Shelf, asking

PATHS = ("/", "/decisions/1", "/api/decisions", "/invalidations", "/pages.css", "/nothing")


def with_token(scope: Any) -> bool:
    return (b"authorization", b"Bearer right") in scope["headers"]


async def with_token_after_a_while(scope: Any) -> bool:
    await asyncio.sleep(0)
    return with_token(scope)


class Asked:
    """An object that can be called, and is a coroutine function by its method only."""

    async def __call__(self, scope: Any) -> bool:
        return with_token(scope)


@pytest.mark.parametrize(
    "auth", [with_token, with_token_after_a_while, Asked()], ids=["function", "coroutine", "object"]
)
async def test_who_may_look_sees_the_pages_and_who_may_not_gets_the_same_nothing_everywhere(
    books: Shelf, auth: Callable[[Any], Any]
) -> None:
    pages = Pages(books.cache, auth=auth)
    await books.read()
    async with asking(pages) as client:
        answers = []
        for path in PATHS:
            for method in ("GET", "HEAD", "POST", "DELETE"):
                answer = await client.request(method, path, headers={"Authorization": "Bearer wrong"})
                answers.append((answer.status_code, answer.headers, answer.text or "forbidden\n"))
        assert all(each == answers[0] for each in answers)
        assert answers[0][0] == 403
        assert answers[0][2] == "forbidden\n"
        allowed = await client.get("/", headers={"Authorization": "Bearer right"})
        assert allowed.status_code == 200
        assert "books" in allowed.text
    assert pages.refused == len(answers)


async def test_a_challenge_makes_browsers_ask_for_a_password(unbound: Any) -> None:
    pages = Pages(unbound, auth=lambda scope: False, challenge='Basic realm="sqlacache"')
    async with asking(pages) as client:
        answer = await client.get("/")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="sqlacache"'
    assert answer.text == "unauthorized\n"


@pytest.mark.parametrize(
    "answer", [None, 1, "yes", [True], object()], ids=["none", "one", "text", "list", "object"]
)
async def test_anything_but_true_refuses(unbound: Any, answer: Any) -> None:
    async with asking(Pages(unbound, auth=lambda scope: answer)) as client:
        assert (await client.get("/")).status_code == 403


@pytest.mark.parametrize("awaited", [False, True], ids=["function", "coroutine"])
async def test_an_auth_callback_that_raises_refuses_tells_nothing_and_is_logged_once_and_counted(
    unbound: Any, awaited: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(scope: Any) -> bool:
        raise RuntimeError("the password of the directory is xyzzy")

    async def broken_later(scope: Any) -> bool:
        return broken(scope)

    pages = Pages(unbound, auth=broken_later if awaited else broken)
    async with asking(pages) as client:
        answers = [await client.get("/") for _ in range(3)]
    assert {(each.status_code, each.text) for each in answers} == {(403, "forbidden\n")}
    assert pages.access.errors == {"RuntimeError": 3}
    (record,) = [each for each in caplog.records if each.name == "sqlacache.pages"]
    assert record.levelno == logging.ERROR
    assert record.__dict__["event"] == "sqlacache.pages.auth_failed"


async def test_a_cancelled_auth_callback_is_not_taken_for_a_refusal(unbound: Any) -> None:
    async def waits_forever(scope: Any) -> bool:
        asked.set()
        await asyncio.Event().wait()
        return True

    asked = asyncio.Event()
    pages = Pages(unbound, auth=waits_forever)
    async with asking(pages) as client:
        task = asyncio.ensure_future(client.get("/"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert pages.refused == 0


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("shop.localhost:8000", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("web", 200),
        ("shop.example.com", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("[::1].evil.example", 403),
        ("", 403),
    ],
)
async def test_in_development_no_site_that_a_browser_visits_can_read_the_pages(
    unbound: Any, host: str, status: int
) -> None:
    async with asking(Pages(unbound, development=True)) as client:
        answer = await client.get("/", headers={"Host": host})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("options", "takes"),
    [
        ({}, "takes a function of the ASGI scope that returns True .* development=True"),
        ({"development": False}, "takes a function of the ASGI scope that returns True .* development=True"),
        ({"auth": with_token, "development": True}, "auth=... or development=True, got both"),
        ({"auth": "secret"}, "takes a function of the ASGI scope, got 'secret'"),
        ({"development": "yes"}, "takes True or False, got 'yes'"),
        ({"auth": with_token, "challenge": "Basic\r\nSet-Cookie: a=b"}, "takes a WWW-Authenticate header"),
        ({"auth": with_token, "challenge": 7}, "takes a WWW-Authenticate header"),
        ({"development": True, "challenge": "Basic"}, "goes with auth=..., got it without"),
        ({"development": True, "keep": 0}, "a whole number from 1 to 100000, got 0"),
        ({"development": True, "keep": True}, "a whole number from 1 to 100000, got True"),
        ({"development": True, "keep": 1e3}, "a whole number from 1 to 100000, got 1000.0"),
    ],
    ids=[
        "neither",
        "neither, said so",
        "both",
        "a text for a callback",
        "a text for development",
        "a challenge of two lines",
        "a number for a challenge",
        "a challenge without a callback",
        "none kept",
        "true kept",
        "a fraction kept",
    ],
)
async def test_what_is_not_taken_is_said_when_the_pages_are_made(
    unbound: Any, options: dict[str, Any], takes: str
) -> None:
    with pytest.raises(ConfigError, match=takes):
        Pages(unbound, **options)


def test_pages_of_something_else_than_a_cache_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes a cache as configure"):
        Pages("redis://", development=True)  # type: ignore[arg-type]  # that is the point


def test_without_jinja2_the_extra_is_named(unbound: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigError, match=r"takes Jinja2, .* pip install 'sqlacache\[pages\]'"):
        Pages(unbound, development=True)


async def test_websockets_are_refused(unbound: Any) -> None:
    sent = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await Pages(unbound, development=True)({"type": "websocket", "path": "/"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
