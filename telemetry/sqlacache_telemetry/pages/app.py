"""The pages as an ASGI application: who may look, the methods and headers of HTTP, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any
from urllib.parse import quote

from sqlacache.core import Core
from sqlacache.errors import ConfigError
from sqlacache.explain import Explanation
from sqlacache.logs import PAGES_FAILED
from sqlacache.manager import CacheManager
from sqlacache.sync import SyncCacheManager

from .access import Access, Auth, Scope
from .recent import Recent
from .site import Answer, Site

logger = logging.getLogger(PAGES_FAILED.logger)

KEEP = 1000
MOST_KEPT = 100_000
METHODS = ("GET", "HEAD")
TEXT = "text/plain; charset=utf-8"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Sent with every answer."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Pages:
    """An ASGI application that shows what ``cache`` decided and invalidated in this process, and explains it.

    It begins to watch when it is made, and keeps the last records. Mount it, or serve it alone. It changes nothing.

    Args:
        cache: As ``configure()`` or ``configure_sync()`` made it; bound or not yet.
        auth: Function or coroutine function of the ASGI scope; returns ``True`` for those who may look. Anything else
            that it returns or raises refuses. A function runs in the event loop: it must not wait for anything.
        development: Do without ``auth``: whoever reaches the pages sees them, under ``localhost``, an address, or a
            name without a dot. For a developer's machine.
        challenge: ``WWW-Authenticate`` header, such as ``'Basic realm="sqlacache"'``: those refused get status 401 with
            it, on which browsers ask for a password; without it, they get status 403.
        keep: How many decisions, and how many invalidations, are kept.

    Raises:
        ConfigError: Neither ``auth`` nor ``development``; something else that is not taken; or no Jinja2.
    """

    def __init__(
        self,
        cache: CacheManager | SyncCacheManager,
        *,
        auth: Auth | None = None,
        development: bool = False,
        challenge: str | None = None,
        keep: int = KEEP,
    ) -> None:
        given: Any = cache
        if not isinstance(given, Core):
            raise ConfigError(
                f"pages: takes a cache as configure() or configure_sync() made it, got {given!r}"
            )
        number: Any = keep
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST_KEPT:
            raise ConfigError(f"pages.keep: takes a whole number from 1 to {MOST_KEPT}, got {keep!r}")
        self.access = Access(auth, development, challenge)
        self.errors: Counter[str] = Counter()
        """Errors that a page raised, by their class; each was answered with status 500."""
        self.refused = 0
        """Requests that were refused."""
        self._cache = cache
        self._recent = Recent(keep)
        self._site = Site(cache, self._recent, self._explain, self._problems)
        cache.add_observer(self._recent)

    def close(self) -> None:
        """Watch no more; what is kept is still shown."""
        self._cache.remove_observer(self._recent)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await _send(scope["method"], await self.answer(scope), send)

    async def answer(self, scope: Scope) -> Answer:
        """Return the answer to one request, whichever way it came."""
        # First of all: who may not look learns nothing, not even which paths and methods there are.
        if not await self.access.allows(scope):
            return self._refuse()
        if scope["method"] not in METHODS:
            return Answer(405, TEXT, b"only GET and HEAD\n", {"Allow": ", ".join(METHODS)})
        path = below(scope)
        if not path:  # relative links need the slash
            mounted = scope.get("root_path", "").rpartition("/")[2]
            return Answer(307, TEXT, b"", {"Location": f"./{quote(mounted)}/"})
        try:
            return await self._site.answer(path, scope.get("query_string", b""))
        except Exception as error:
            self._failed(path, error)
            return Answer(500, TEXT, b"something went wrong; the application's log says what\n")

    def _failed(self, path: str, error: Exception) -> None:
        name = type(error).__name__
        self.errors[name] += 1
        if self.errors[name] == 1:
            logger.error(
                "pages: %s was not shown: %s; further ones are only counted",
                quote(path),
                name,
                exc_info=error,
                extra={"event": PAGES_FAILED.name, "error": name},
            )

    def _refuse(self) -> Answer:
        self.refused += 1
        if self.access.challenge is None:
            return Answer(403, TEXT, b"forbidden\n")
        return Answer(401, TEXT, b"unauthorized\n", {"WWW-Authenticate": self.access.challenge})

    async def _explain(self, key: str, database: str | None) -> Explanation:
        if isinstance(self._cache, SyncCacheManager):
            # It waits by blocking, which the event loop must not.
            return await asyncio.to_thread(partial(self._cache.explain_key, key, database))
        return await self._cache.explain_key(key, database)

    def _problems(self) -> dict[str, Any]:
        """Return what went wrong in this process: with who may look, with pages, with those told of decisions."""
        return {
            "refused": self.refused,
            "auth": dict(self.access.errors),
            "pages": dict(self.errors),
            "observers": dict(self._cache.observers.errors),
        }


def below(scope: Scope) -> str:
    """Return the path below where the application is mounted.

    By the ASGI specification ``path`` begins with ``root_path``. It does not where the framework took the mount off
    already, or where a proxy took a prefix off that ``root_path`` still has: then ``path`` may begin with its end.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    while root:
        if path == root or path.startswith(f"{root}/"):
            return path[len(root) :]
        _, slash, rest = root[1:].partition("/")
        root = slash + rest
    return path


async def _live(receive: Receive, send: Send) -> None:
    """Take part in a server's start and end, where nobody else does."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def headers_of(answer: Answer) -> dict[str, str]:
    """Return all headers of an answer."""
    return {
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        **HEADERS,
        **answer.headers,
    }


async def _send(method: str, answer: Answer, send: Send) -> None:
    headers = [
        (name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers_of(answer).items()
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})
