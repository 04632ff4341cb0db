"""What people write instead: functions that return plain data under a decorator, and deletions after each commit.

It knows every key that a write makes wrong, which is easy with eight queries. A read that overtakes a commit may still
leave old data behind until it expires, as in every cache that deletes after the commit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cashews import Cache

from .load_requests import COMMITS, Request, ask, plain
from .work import Sessions

TTL = 3600


class ByHand:
    """Answers requests with plain data: dictionaries, lists of them, and values."""

    def __init__(self, sessions: Sessions, url: str) -> None:
        self.calls = 0
        self.loads = 0
        self._sessions = sessions
        self._cache = Cache()
        self._url = url
        names = ("customer", "first", "orders", "region", "with orders", "count", "exists")
        self._read: Mapping[str, Callable[[int], Awaitable[Any]]] = {
            name: self._decorated(name) for name in names
        }

    def _decorated(self, kind: str) -> Callable[[int], Awaitable[Any]]:
        @self._cache(ttl=TTL, key=f"by-hand:{kind}:{{subject}}")
        async def load(subject: int) -> Any:
            self.loads += 1
            request = Request(kind, subject)
            return plain(request, await ask(self._sessions, {}, request))

        found: Callable[[int], Awaitable[Any]] = load
        return found

    async def open(self) -> None:
        """Connect."""
        self._cache.setup(self._url)
        await self._cache.init()

    async def empty(self) -> None:
        """Forget everything."""
        await self._cache.delete_match("by-hand:*")

    async def answer(self, request: Request) -> Any:
        """Do what a request does."""
        if request.kind not in COMMITS:
            self.calls += 1
            return await self._read[request.kind](request.subject)
        written = await ask(self._sessions, {}, request)
        if request.kind == "pay":
            await self._cache.delete(f"by-hand:orders:{written}")
            region = (await self._read["customer"](written))["region_id"]
        else:
            region = written
            await self._cache.delete(f"by-hand:customer:{request.subject}")
            await self._cache.delete(f"by-hand:region:{region}")
        await self._cache.delete(f"by-hand:with orders:{region}")

    async def close(self) -> None:
        """Close the connections."""
        await self._cache.close()
