"""The pages as a WSGI application, for Flask and Django: the same, asked in another way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from sqlacache.errors import ConfigError
from sqlacache.sync import SyncCacheManager

from .access import Auth, Scope
from .app import KEEP, Pages, headers_of


class WSGIPages:
    """Takes what :class:`Pages` takes, of a cache as ``configure_sync()`` made it.

    ``auth`` is given what ASGI would say of the request, with the WSGI environment under ``wsgi.environ``.

    Raises:
        ConfigError: As :class:`Pages`, and for a cache that waits in an event loop.
    """

    def __init__(
        self,
        cache: SyncCacheManager,
        *,
        auth: Auth | None = None,
        development: bool = False,
        challenge: str | None = None,
        keep: int = KEEP,
    ) -> None:
        given: Any = cache
        if not isinstance(given, SyncCacheManager):
            raise ConfigError(f"pages: WSGI takes a cache as configure_sync() made it, got {given!r}")
        self.pages = Pages(cache, auth=auth, development=development, challenge=challenge, keep=keep)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        scope = _scope_of(environ)
        answer = asyncio.run(self.pages.answer(scope))
        status = HTTPStatus(answer.status)
        start_response(f"{status.value} {status.phrase}", list(headers_of(answer).items()))
        return [b"" if scope["method"] == "HEAD" else answer.body]


def _scope_of(environ: dict[str, Any]) -> Scope:
    """Return what ASGI calls a request by. WSGI texts are bytes, each character one (PEP 3333)."""
    root = environ.get("SCRIPT_NAME", "")
    headers = [
        (name[5:].replace("_", "-").lower().encode("ascii"), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    return {
        "type": "http",
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["wsgi.url_scheme"],
        "root_path": _decoded(root),
        "path": _decoded(root + environ.get("PATH_INFO", "")),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "headers": headers,
        "client": (environ.get("REMOTE_ADDR", ""), 0),
        "wsgi.environ": environ,
    }


def _decoded(path: str) -> str:
    return path.encode("latin-1").decode("utf-8", "replace")
