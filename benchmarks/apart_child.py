"""A process in which one contender of this library's does what it is told: ``python -m benchmarks.apart_child NAME``.

It takes the lines that :mod:`.peer_child` takes, by :mod:`.child`; which backend it has is in its name.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from .child import serve
from .contenders import contenders
from .heap import all_garbage
from .work import READS

WORKS = {work.name: work for work in READS}


class Child:
    """A contender, and its turn."""

    def __init__(self, name: str) -> None:
        (self._contender,) = [one for one in contenders() if one.name == name]
        self._turn = AsyncExitStack()

    async def open(self, url: str, redis_url: str) -> None:
        self._contender.open(url, redis_url)

    async def bind(self) -> None:
        await self._turn.enter_async_context(self._contender.turn())

    async def unbind(self) -> None:
        await self._turn.aclose()

    async def warm(self, name: str) -> str:
        return await self._contender.ready(WORKS[name])

    async def run(self, name: str, times: str) -> str:
        with all_garbage():
            return repr(await self._contender.seconds(WORKS[name], int(times)))


if __name__ == "__main__":
    asyncio.run(serve(Child(sys.argv[1])))
