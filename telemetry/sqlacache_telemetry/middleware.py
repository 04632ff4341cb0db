"""What the cache did for each request: a ``Server-Timing`` header and a record in the log. Off until installed.

::

    from sqlacache_telemetry.middleware import RequestMiddleware, WSGIRequestMiddleware

    app.add_middleware(RequestMiddleware, cache=cache)                    # FastAPI, Starlette
    app = RequestMiddleware(app, cache)                                   # any ASGI application
    app.wsgi_app = WSGIRequestMiddleware(app.wsgi_app, cache)             # Flask

The header says what was decided until the response began::

    Server-Timing: cache;desc="3 hit, 1 miss, 0 bypass";dur=0.712, db;desc="1 load";dur=4.021

The record comes when the request has ended: logger ``sqlacache.requests``, level INFO, the figures as its fields (see
``docs/pages.md``). A request in which nothing was decided has neither.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

from sqlacache.manager import CacheManager
from sqlacache.sync import SyncCacheManager

from .tally import SERVER_TIMING, Tallies

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class RequestMiddleware:
    """ASGI middleware; everything but HTTP requests passes as it is.

    Args:
        app: The application.
        cache: As ``configure()`` or ``configure_sync()`` made it.
        server_timing: Add the header. Whoever gets it learns what was cached, so that others had read it before.
        log: Log the record.

    Raises:
        ConfigError: ``cache`` is none, or an option is not a bool.
    """

    def __init__(
        self,
        app: App,
        cache: CacheManager | SyncCacheManager,
        *,
        server_timing: bool = True,
        log: bool = True,
    ) -> None:
        self.app = app
        self._tallies = Tallies(cache, server_timing=server_timing, log=log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        tallies, status = self._tallies, None

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if tallies.is_timed and tally:
                    header = (SERVER_TIMING.lower().encode("ascii"), tally.server_timing().encode("ascii"))
                    message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        tally = tallies.begin()
        try:
            await self.app(scope, receive, sending)
        finally:
            tallies.end()
            tallies.tell(tally, scope["method"], scope["path"], _route(scope), status)


def _route(scope: Scope) -> str | None:
    """Return the route's template, such as ``/products/{product_id}``, where the framework leaves it in the scope."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else None


class WSGIRequestMiddleware:
    """The same for WSGI applications; takes what :class:`RequestMiddleware` takes.

    A server calls the application, and iterates over what it returns, in one thread: what is read there, and in threads
    that run in a copy of its context, is counted.
    """

    def __init__(
        self,
        app: WSGIApp,
        cache: CacheManager | SyncCacheManager,
        *,
        server_timing: bool = True,
        log: bool = True,
    ) -> None:
        self.app = app
        self._tallies = Tallies(cache, server_timing=server_timing, log=log)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        tallies, status, route = self._tallies, None, None
        tally = tallies.begin()

        def starting(line: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            nonlocal status, route
            status, route = int(line.partition(" ")[0]), _rule(environ)  # which Flask then takes away again
            if tallies.is_timed and tally:
                headers = [*headers, (SERVER_TIMING, tally.server_timing())]
            return start_response(line, headers, *error)

        def end() -> None:
            tallies.end()
            path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
            tallies.tell(tally, environ["REQUEST_METHOD"], path, route, status)

        try:
            body = self.app(environ, starting)
        except BaseException:
            end()
            raise
        return _Body(body, end)


def _rule(environ: dict[str, Any]) -> str | None:
    """Return the route's template, such as ``/products/<int:product_id>``, where Flask leaves it in the environment."""
    rule = getattr(getattr(environ.get("werkzeug.request"), "url_rule", None), "rule", None)
    return rule if isinstance(rule, str) else None


class _Body:
    """What a WSGI application returned; its end, which servers announce whatever happens, is the request's."""

    def __init__(self, body: Iterable[bytes], end: Callable[[], None]) -> None:
        self._body, self._end = body, end

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            getattr(self._body, "close", lambda: None)()
        finally:
            self._end()
