"""The server that a command is about: its connections, and what lies there under a prefix.

The library's own parts do the work: the backend's options are those of ``configure()``, and the store is the one that
applications have. Only rows are never decoded here: a command needs neither the application's serializer nor its data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ..backend import Backend, check_backend, masked
from ..config import check_digest_key, check_name
from ..digests import Conceal, Digests
from ..errors import CacheError, ConfigError, SerializationError, TransportError
from ..front.blocking import BlockingFront, finish
from ..store.breaker import Breaker
from ..store.codec import Rows
from ..store.layout import Layout, number_of, scheme_of
from ..store.records import PROTOCOL
from ..tags import EVERYTHING

TIMEOUT = 5.0
"""Seconds to wait for an answer, unless the URL says otherwise: a person waits longer than a read may."""
LEASE = 30.0
"""Seconds after which a command that died between its two phases no longer counts as a writer."""
COUNT = 1000
"""Keys that the server looks at per step of a scan."""
LIMIT = 1_000_000
"""Keys that are looked at to find out what lies under a prefix, at most."""

_REMOTE = ("redis", "rediss", "unix")


@dataclass(frozen=True)
class Where:
    """What the user says of a server."""

    url: str
    prefix: str
    database: str | None
    sentinel: str | None = None
    """``host:port,...`` of sentinels."""
    service: str | None = None
    """What they call the master."""
    digest_key: str | None = field(default=None, repr=False)
    """The ``digest_key`` of the processes there."""


class Server:
    """A server, or a cluster, that answers; made by :func:`connected`.

    Args:
        backend: Its address and options.
        where: What the user says.
    """

    def __init__(self, backend: Backend, where: Where) -> None:
        from ..store.redis_backend import RedisBackend

        self.where = where
        self.digests = Digests(where.prefix, where.digest_key)
        """What stands for values in names as far as the command knows."""
        self.name = masked(where.url)
        self.is_cluster = backend.cluster
        self.backend = RedisBackend(
            backend.url,
            backend=backend,
            codec=_Closed(),
            prefix_of_keys=where.prefix,
            breaker=Breaker(),
            front=BlockingFront(),
        )
        self.transport: Any = self.backend.transport

    def call(self, *command: Any, at: Any = None) -> Any:
        """Send one command and return what the server says. Raises :class:`TransportError`."""
        return self.answer(*command, at=at).value

    def answer(self, *command: Any, at: Any = None) -> Any:
        """Do the same, and tell which run of the server answered."""
        more = {"at": at} if self.is_cluster and at is not None else {}
        return finish(self.transport.call(*command, **more))

    @property
    def nodes(self) -> Sequence[Any]:
        """The masters of a cluster, as :meth:`call` takes them; one of no name for a server alone."""
        if not self.is_cluster:
            return (None,)
        finish(self.transport.probe())
        return tuple(self.transport.masters)

    def info(self, at: Any = None) -> dict[str, str]:
        """Return what INFO says. Raises :class:`TransportError`."""
        text = self.call(b"INFO", at=at).decode("utf-8", "replace")
        pairs = (one.partition(":") for one in text.splitlines() if not one.startswith("#"))
        return {name: value for name, _, value in pairs}

    # -- databases and tables ------------------------------------------------------------------------------------------

    def store(self, database: str) -> Any:
        """Return the store of one database."""
        self.backend.scheme = self.scheme
        return self.backend.open(database, max_bytes=1, lease=LEASE, on_drop=lambda table, entries: None)

    @cached_property
    def scheme(self) -> int:
        """Number of how values appear in the names there; where nobody says it, as this command would have it."""
        from ..store.cluster_layout import ClusterLayout

        layout = (ClusterLayout if self.is_cluster else Layout)(self.where.prefix, "-")
        generation = self.call(b"GET", layout.generation(EVERYTHING)) or b""
        number = number_of(generation.partition(b"|")[0])
        scheme = None if number is None else scheme_of(number)
        return self.digests.scheme if scheme is None else scheme

    def conceal(self) -> Conceal | None:
        """Return what makes digests of values as the processes there do; ``None`` if they show values.

        Raises :class:`CacheError` if their key is another one.
        """
        if not self.scheme:
            return None
        if self.scheme != self.digests.scheme:
            raise CacheError(
                f"the processes under the prefix {self.where.prefix!r} name values by digests under another key: takes "
                "their digest_key in SQLACACHE_DIGEST_KEY (or --digest-key), or no --pks"
            )
        return self.digests.conceal

    def anything(self) -> Any:
        """Return a store for what concerns all databases."""
        return self.store("-")

    def one(self) -> Any:
        """Return the store of the database that is meant. Raises :class:`CacheError` unless it is clear which."""
        if self.where.database is not None:
            return self.store(self.where.database)
        found = self.databases()
        if len(found) > 1:
            raise CacheError(
                f"several databases are cached under the prefix {self.where.prefix!r}: {', '.join(found)}; "
                "say which with --database"
            )
        if not found:
            raise CacheError(
                f"nothing is cached under the prefix {self.where.prefix!r} at {self.name} "
                "(is it the one given to configure()? --prefix, or --database to name the database)"
            )
        return self.store(found[0])

    def databases(self) -> list[str]:
        """Return the names of the databases that have something under the prefix, or whose commits somebody hears."""
        prefix = f"{self.where.prefix}:{PROTOCOL}:"
        found = set()
        if self.is_cluster:
            pattern, name = f"{prefix}{{*}}r:*", r"\{([^:{}]+):[^{}]*\}r:"
        else:
            pattern, name = f"{prefix}*:r:*", r"([^:]+):r:"
            channels = self.call(b"PUBSUB", b"CHANNELS", f"{prefix}*:commits")
            found = {_between(channel, prefix, r"([^:]+):commits") for channel in channels}
        for keys in Scan(self, pattern, LIMIT):
            found |= {_between(key, prefix, name) for key in keys}
        return sorted(unquote(one) for one in found if one is not None)

    def is_known(self, store: Any, table: str) -> bool:
        """Tell whether the cache has something of a table."""
        from ..tags import table_stamp

        keys = (store.layout.registry(table), store.layout.stamp(table_stamp(table), table))
        return any(self.call(b"EXISTS", key) for key in keys)

    def tables(self, store: Any) -> list[str]:
        """Return the names of the tables that the cache has something of."""
        return sorted(
            {
                table
                for keys in Scan(self, pattern_of(self, store, "r"), LIMIT)
                for key in keys
                if (table := split(self, store, key)[1]) is not None
            }
        )


@contextmanager
def connected(where: Where) -> Iterator[Server]:
    """Open a server for the time of a block. Raises :class:`CacheError` for what cannot be one, or does not answer."""
    check_name("--prefix", where.prefix)
    check_digest_key("--digest-key", where.digest_key)
    server = Server(_checked(where), where)
    try:
        server.call(b"PING")
        yield server
    except TransportError as error:
        raise TransportError(f"{server.name}: {error}") from error
    finally:
        finish(server.backend.close())


def _checked(where: Where) -> Backend:
    """Return the backend that a URL means. Raises :class:`ConfigError`."""
    try:
        parts = urlsplit(where.url)
        parts.port  # noqa: B018  # raises for what is no number, which may be a part of the password
        options = dict(parse_qsl(parts.query))
    except ValueError as error:
        raise ConfigError(
            f"the URL {masked(where.url)!r} cannot be read: takes redis://user:password@host:port/database, and "
            "a password with any of '/?#@[]' in it written as %2F %3F %23 %40 %5B %5D"
        ) from error
    if parts.scheme not in _REMOTE:
        got = "mem://, which nobody but its own process can look into" if parts.scheme == "mem" else None
        raise ConfigError(
            f"takes a redis://, rediss:// or unix:// URL (--url, or SQLACACHE_BACKEND), "
            f"got {got or repr(masked(where.url))}"
        )
    place = parts.path.strip("/")
    if parts.scheme != "unix" and (parts.fragment or (place and not place.isdigit())):
        raise ConfigError(
            f"the URL {masked(where.url)!r} cannot be read: after the port comes the number of a database, such as /0 "
            "(in a password, '/?#@' are written as %2F %3F %23 %40)"
        )
    given: dict[str, Any] = {"url": where.url}
    if where.sentinel is not None or where.service is not None:
        given["sentinel"] = {"service": where.service, "nodes": _addresses(where.sentinel)}
    backend = check_backend("--url", given, None)
    return backend if "timeout" in options else replace(backend, timeout=TIMEOUT)


def _addresses(given: str | None) -> list[tuple[str, int]]:
    found = [re.fullmatch(r"\[?([^\s\[\],]+?)\]?:(\d{1,5})", one.strip()) for one in (given or "").split(",")]
    nodes = [(one[1], int(one[2])) for one in found if one is not None]
    if len(nodes) < len(found):
        raise ConfigError(
            f"--sentinel: takes host:port,host:port together with --service, got {masked(str(given))!r}"
        )
    return nodes


class Scan:
    """Batches of the keys that match a pattern, a few hundred at a time.

    Args:
        server: Whose keys.
        pattern: Glob-style.
        limit: Keys of the server that are looked at, at most; there may be any number that do not match.
    """

    def __init__(self, server: Server, pattern: str, limit: int) -> None:
        self._server = server
        self._pattern = pattern
        self._limit = limit
        self.looked_at = 0
        """About how many keys the server has looked at."""
        self.is_partial = False
        """There were more than the limit."""

    def __iter__(self) -> Iterator[list[bytes]]:
        for node in self._server.nodes:
            cursor: Any = 0
            while True:
                if self.looked_at >= self._limit:
                    self.is_partial = True
                    return
                count = min(COUNT, self._limit - self.looked_at)
                cursor, keys = self._server.call(
                    b"SCAN", cursor, b"MATCH", self._pattern, b"COUNT", count, at=node
                )
                self.looked_at += count
                if keys:
                    yield keys
                if not int(cursor):
                    break


def pattern_of(server: Server, store: Any, kind: str) -> str:
    """Return a pattern of the keys of one kind: ``e`` entries, ``s`` stamps, ``r`` registries, ``w`` writers."""
    layout = store.layout
    root = f"{layout.prefix}:{layout.protocol}:"
    return (
        f"{root}{{{layout.database}:*}}{kind}:*" if server.is_cluster else f"{root}{layout.database}:{kind}:*"
    )


def split(server: Server, store: Any, key: bytes) -> tuple[str, str | None]:
    """Return a key's kind, and what follows it; the kind is empty for a key that is none of this database."""
    layout = store.layout
    root = re.escape(f"{layout.prefix}:{layout.protocol}:")
    database = re.escape(layout.database)
    middle = rf"\{{{database}:[^{{}}]*\}}" if server.is_cluster else f"{database}:"
    found = re.fullmatch(rf"{root}{middle}([eswr]):(.*)", key.decode("utf-8", "surrogateescape"), re.DOTALL)
    return ("", None) if found is None else (found[1], found[2])


def _between(key: bytes, prefix: str, name: str) -> str | None:
    found = re.match(re.escape(prefix) + name, key.decode("utf-8", "replace"))
    return found[1] if found else None


class _Closed:
    """Stands for the application's serializer: rows stay closed, whoever asks why they are kept."""

    name = "closed"

    def encode_rows(self, description: Iterable[Sequence[Any]], rows: Sequence[Sequence[Any]]) -> bytes:
        raise SerializationError("the command line stores nothing")

    def decode_rows(self, data: bytes) -> Rows:
        return Rows((), (), False)
