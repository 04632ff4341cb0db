"""Deleting the bytes of entries on a server: a scan over all of them, a few hundred at a time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from redis.exceptions import ResponseError

from ..errors import SerializationError, TransportError
from .records import decode_header
from .transport import Answer

BATCH = 200
"""Keys looked at per round trip."""
BEGINNING = 2048
"""Bytes read of each entry; its header tells what it depends on, and is longer only with very many stamps."""


class Caller(Protocol):
    """A server, or one node of a cluster."""

    async def call(self, *command: Any) -> Answer:
        """Send one command and return its answer."""


async def purge(transport: Caller, pattern: str, stamps: Collection[str]) -> int:
    """Delete every entry that was filled under one of ``stamps``; return how many there were.

    Bytes under our keys that are no entries are deleted, too. Raises :class:`~sqlacache.errors.TransportError`.
    """
    deleted = 0
    cursor: Any = 0
    while True:
        cursor, keys = (await transport.call(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", BATCH)).value
        doomed = [key for key in keys if await _depends(transport, key, stamps)]
        if doomed:
            deleted += (await transport.call(b"UNLINK", *doomed)).value
        if not int(cursor):
            return deleted


async def _depends(transport: Caller, key: bytes, stamps: Collection[str]) -> bool:
    try:
        data = (await transport.call(b"GETRANGE", key, 0, BEGINNING - 1)).value
    except TransportError as error:
        if isinstance(error.__cause__, ResponseError):
            return True  # a key of another type
        raise
    try:
        try:
            found = decode_header(data)
        except EOFError:
            found = decode_header((await transport.call(b"GET", key)).value or b"")
    except (SerializationError, EOFError):
        return bool(data)
    return any(name in stamps for name, _, _ in found.stamps)
