"""Names of keys on a Redis server.

Everything lies under the prefix. What belongs to this version's format lies under the protocol number, too; only the
generation, the fence and the mode are shared with other versions, whose formats are frozen (``lua/common.lua``).

Methods take the table that a key belongs to, which matters on a cluster alone (:mod:`.cluster_layout`).
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from .records import PROTOCOL

_SCHEME_DIGITS = 13
"""Of a number of 40 bits."""
_MOST_DIGITS = 30
"""Of a number that :func:`spoken` returns; more are none of ours, and Python refuses to read thousands."""


def spoken(protocol: int, scheme: int) -> int:
    """Return the number of a protocol under a scheme: its own, or with that of the scheme written after it."""
    return protocol * 10**_SCHEME_DIGITS + scheme if scheme else protocol


def number_of(written: bytes) -> int | None:
    """Return the number of a protocol that is written at a key of control; ``None`` for bytes that are none."""
    return int(written) if written.isdigit() and len(written) <= _MOST_DIGITS else None


def scheme_of(number: int, protocol: int = PROTOCOL) -> int | None:
    """Return the scheme of a number that :func:`spoken` returned; ``None`` if it is that of another protocol."""
    if number == protocol:
        return 0
    base, scheme = divmod(number, 10**_SCHEME_DIGITS)
    return scheme if base == protocol and scheme else None


class Layout:
    """Keys of one database under one prefix, on one server.

    Args:
        prefix: Under which everything lies.
        database: Its name.
        protocol: For tests of two versions side by side.
        scheme: How values appear in names (:mod:`sqlacache.digests`).
    """

    def __init__(self, prefix: str, database: str, protocol: int = PROTOCOL, scheme: int = 0) -> None:
        self.prefix = prefix
        self.protocol = protocol
        self.spoken = spoken(protocol, scheme)
        """What the generation says of the protocol: those of two schemes void what the other stored."""
        self.database = quote(database, safe="/@+=,.")
        self._stamps = f"{self._root('')}s:"
        self._entries = f"{self._root('')}e:"

    def _root(self, table: str) -> str:
        return f"{self.prefix}:{self.protocol}:{self.database}:"

    def generation(self, table: str) -> str:
        """``protocol|run id|nonce`` of the server as we know it; entries of another generation are void."""
        return f"{self.prefix}:generation"

    def fence(self, table: str) -> str:
        """There while writers of another protocol may be under way."""
        return f"{self.prefix}:fence"

    def other(self, fence: bytes) -> str:
        """Say who else writes under the prefix: the fence has the number of one of both, ours or the other."""
        number = number_of(fence)
        if number is not None and scheme_of(number, self.protocol) is None:
            return f"a version of protocol {number} writes here, too"
        return "another version, or a process with another digest_key or expose_values, writes here, too"

    @property
    def mode(self) -> str:
        """The mode of every process of this prefix; absent: each has its own."""
        return f"{self.prefix}:mode"

    @property
    def channel(self) -> str:
        """Where commits are announced."""
        return f"{self._root('')}commits"

    def entry(self, key: str, table: str) -> str:
        return self._entries + key

    def stamp(self, name: str, table: str) -> str:
        return self._stamps + name

    def stamps(self, names: Sequence[str]) -> list[str]:
        """Return the keys of stamps, for a lookup."""
        root = self._stamps
        return [root + name for name in names]

    def writers(self, table: str) -> str:
        """The sorted set of writers under way on a table."""
        return f"{self._root(table)}w:{table}"

    def registry(self, table: str) -> str:
        """The hash of shapes that reads of a table have."""
        return f"{self._root(table)}r:{table}"

    @property
    def entries(self) -> str:
        """A pattern of all entries of this database."""
        return _escaped(self._entries) + "*"


def _escaped(text: str) -> str:
    """Return ``text`` for a glob-style pattern that matches it alone."""
    return "".join(f"\\{char}" if char in "\\*?[]^" else char for char in text)
