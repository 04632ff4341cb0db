"""Who may look at the pages: everybody is refused of whom it is not known that they may."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from inspect import isawaitable
from typing import Any

from sqlacache.errors import ConfigError
from sqlacache.logs import PAGES_AUTH_FAILED

logger = logging.getLogger(PAGES_AUTH_FAILED.logger)

Scope = MutableMapping[str, Any]
"""What ASGI servers say of a request: ``headers``, ``client``, ``path``."""
Auth = Callable[[Scope], "bool | Awaitable[bool]"]
"""Tells whether who asks may look, by ``True``; anything else, an error too, refuses."""


_HOST = re.compile(r"(\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:]+))(:\d+)?")


class Access:
    """Decides by a callback, or in development by the name under which the pages are asked for.

    Raises:
        ConfigError: Neither a callback nor development, or both; or something else that is not taken.
    """

    def __init__(self, auth: Auth | None, development: bool, challenge: str | None) -> None:
        given: Any = auth
        if development not in (True, False):
            raise ConfigError(f"pages.development: takes True or False, got {development!r}")
        if given is None and not development:
            raise ConfigError(
                "pages.auth: got nothing, takes a function of the ASGI scope that returns True for those who may look "
                "(or development=True, on a developer's machine: then whoever reaches the pages sees them)"
            )
        if given is not None and development:
            raise ConfigError("pages: takes auth=... or development=True, got both")
        if given is not None and not callable(given):
            raise ConfigError(f"pages.auth: takes a function of the ASGI scope, got {given!r}")
        header: Any = challenge
        if header is not None:
            if not (isinstance(header, str) and header.isascii() and header.isprintable()):
                takes = """a WWW-Authenticate header such as 'Basic realm="sqlacache"'"""
                raise ConfigError(f"pages.challenge: takes {takes}, got {challenge!r}")
            if auth is None:
                raise ConfigError("pages.challenge: goes with auth=..., got it without")
        self._auth = auth
        self.challenge = challenge
        self.errors: Counter[str] = Counter()
        """Errors that the callback raised, by their class; each refused a request."""

    async def allows(self, scope: Scope) -> bool:
        if self._auth is None:
            return _is_local_name(_host(scope))
        try:
            answer = self._auth(scope)
            if isawaitable(answer):
                answer = await answer
        except Exception as error:
            self._failed(error)
            return False
        return answer is True

    def _failed(self, error: Exception) -> None:
        name = type(error).__name__
        self.errors[name] += 1
        if self.errors[name] == 1:  # whoever may not look shall not be able to fill the log
            logger.error(
                "pages: the auth callback raised %s: refused; further ones are only counted",
                name,
                exc_info=error,
                extra={"event": PAGES_AUTH_FAILED.name, "error": name},
            )


def _host(scope: Scope) -> str:
    """Return the host that was asked for, without its port; empty if there is none that can be understood."""
    hosts = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name.lower() == b"host"]
    found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    return (found["six"] or found["name"]).lower() if found is not None else ""


def _is_local_name(host: str) -> bool:
    """Tell whether no page of another site can have brought a browser here under this name (DNS rebinding).

    1. Somebody who develops looks at evil.example, whose name first is an address of evil's.
    2. Then evil.example has the address 127.0.0.1; the page there, still of evil.example, asks for ours.
    3. The browser takes both for one site, and lets the page read the answer. Its Host header says evil.example.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(host) and "." not in host  # of this network, such as a container's
    return True
