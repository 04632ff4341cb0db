"""What the user says about the backend, checked: ``mem://``, ``redis://`` and their options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from inspect import signature
from ssl import CERT_NONE
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from .errors import ConfigError

Seconds = int | float | timedelta
MEGABYTE = 1 << 20
SCHEMES = ("mem", "redis", "rediss", "unix")
LOCAL = (None, "validated", "pushed")
LONGEST = 1_000_000_000
"""Seconds of any duration, at most: some thirty years, beyond which servers do not count milliseconds."""
BOUND = 1.0
"""Seconds that the pushed tier may be behind, unless said otherwise."""

_MEMORY_KEYS = ("url", "max_bytes")
_REDIS_KEYS = (
    "url",
    "max_bytes",
    "timeout",
    "max_connections",
    "cluster",
    "nodes",
    "sentinel",
    "username",
    "password",
    "bound",
)
_PASSED_ON = ("ssl_", "socket_keepalive", "client_name", "health_check_interval")
"""Beginnings of options that are handed to redis-py as they are."""


def _addresses(text: str) -> list[tuple[str, int]]:
    """Read ``host:port,host:port``."""
    pairs = (one.rpartition(":") for one in text.split(","))
    return [(host.strip("[]"), int(port)) for host, _, port in pairs]


_QUERY: Mapping[str, Callable[[str], Any]] = {
    "timeout": float,
    "bound": float,
    "max_bytes": int,
    "max_connections": int,
    "cluster": {"true": True, "1": True, "false": False, "0": False}.__getitem__,
    "nodes": _addresses,
}
"""What a URL's query may say, too, so that ``SQLACACHE_BACKEND`` can."""
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_URL_KEYS = frozenset({"host", "port", "path", "db", "connection_class"})


@dataclass(frozen=True)
class Backend:
    """A checked backend."""

    url: str = field(repr=False)
    max_bytes: int
    """Room for entries in this process: all of ``mem://``, the local tier with Redis."""
    timeout: float = 0.2
    """Seconds to wait for an answer of the server."""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Arguments of redis-py's connections."""
    cluster: bool = False
    nodes: tuple[tuple[str, int], ...] = ()
    """Nodes of the cluster to begin with, beside the URL's."""
    sentinel: Sentinel | None = None
    local: str | None = None
    bound: float = BOUND
    """Seconds that the pushed tier may be behind the newest commit."""

    @property
    def is_memory(self) -> bool:
        """Whether entries live in this process alone."""
        return self.url == "mem://"


@dataclass(frozen=True)
class Sentinel:
    """Where to ask for the address of the master."""

    service: str
    nodes: tuple[tuple[str, int], ...]
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def check_backend(where: str, given: Any, local: Any) -> Backend:
    """Check ``configure(backend=..., local=...)``. Raises :class:`ConfigError`."""
    options = dict(given) if isinstance(given, Mapping) else {"url": given}
    if "url" not in options:
        got = f"one of {', '.join(map(str, options))}" if options else "an empty one"
        raise ConfigError(f"{where}: a mapping takes a 'url', such as {{'url': 'mem://'}}, got {got}")
    url = options.pop("url")
    if not isinstance(url, str):
        raise ConfigError(
            f"{where}: takes a URL such as 'mem://' or a mapping with one, got {type(url).__name__}"
        )
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES or (scheme == "mem" and url != "mem://"):
        raise ConfigError(
            f"{where}: takes 'mem://', 'redis://host:port/db', 'rediss://...' or 'unix://path', got {masked(url)!r}"
        )
    if not (local is None or (isinstance(local, str) and local in (*LOCAL, "default"))):
        raise ConfigError(f"local: takes {' or '.join(map(repr, LOCAL))}, got {local!r}")
    known = _MEMORY_KEYS if scheme == "mem" else _REDIS_KEYS
    passed_on = {key for key in options if scheme != "mem" and str(key).startswith(_PASSED_ON)}
    unknown = sorted(str(key) for key in options if key not in known and key not in passed_on)
    if unknown:
        raise ConfigError(f"{where}[{unknown[0]!r}]: not known; a backend takes {', '.join(known)}")
    if scheme == "mem":
        if local not in (None, "default"):
            raise ConfigError(f"local: mem:// is all local; takes None with it, got {local!r}")
        return Backend(url, size(f"{where}['max_bytes']", options.get("max_bytes", 256 * MEGABYTE)))
    return _redis(where, url, options, "validated" if local == "default" else local)


def _redis(where: str, url: str, options: dict[str, Any], local: str | None) -> Backend:
    try:
        from redis.asyncio.connection import parse_url
    except ImportError as error:
        raise ConfigError(
            f"{where}: {masked(url)!r} needs the extra: pip install 'sqlacache[redis]' ({error})"
        ) from error
    shown = masked(url)  # as a whole: an unescaped password may have a query's `?` in it
    address, _, query = url.partition("?")
    try:
        if "@" in query and "@" not in address:
            raise ValueError("a password that was not escaped")
        url = _of_query(where, url, options)
        of_url = parse_url(url)
        understood = not urlsplit(url).fragment and (
            url.startswith("unix:") or re.fullmatch(r"/?\d*", urlsplit(url).path)
        )
    except ConfigError:
        raise
    except ValueError:  # whose text may quote a part of the password
        understood = None
    if not understood:
        raise ConfigError(
            f"{where}: {shown!r} cannot be read; takes redis://user:password@host:port/db with what is special "
            "in a URL escaped, as urllib.parse.quote(password, safe='') does"
        )
    unknown = sorted(
        key
        for key in of_url
        if key not in _URL_KEYS and not key.startswith((*_PASSED_ON, "username", "password"))
    )
    if unknown:
        takes = ", ".join((*_QUERY, "db", *_PASSED_ON))
        raise ConfigError(f"{where}: {unknown[0]!r} in the query of {shown!r} is not known; takes {takes}")
    room = size(f"{where}['max_bytes']", options.pop("max_bytes", 64 * MEGABYTE))
    timeout = seconds(f"{where}['timeout']", options.pop("timeout", 0.2))
    if "max_connections" in options:
        size(f"{where}['max_connections']", options["max_connections"], "connections")
    cluster = options.pop("cluster", False)
    if not isinstance(cluster, bool):
        raise ConfigError(f"{where}['cluster']: takes True or False, got {cluster!r}")
    if cluster and (of_url.get("path") or of_url.get("db")):
        what = "a database other than 0" if of_url.get("db") else "a unix socket"
        raise ConfigError(f"{where}: a cluster has many servers and database 0 alone, got {what}")
    nodes = options.pop("nodes", ())
    if nodes and not cluster:
        raise ConfigError(f"{where}['nodes']: they are those of a cluster; takes 'cluster': True with it")
    if not _are_nodes(nodes):
        raise ConfigError(f"{where}['nodes']: takes [(host, port), ...], got {masked(repr(nodes))}")
    encrypted = urlsplit(url).scheme == "rediss"
    options.update(
        _of_tls(where, {**of_url, **options}, encrypted=encrypted, otherwise="a URL with rediss://")
    )
    sentinel = options.pop("sentinel", None)
    if sentinel is not None:
        sentinel = _sentinel(f"{where}['sentinel']", sentinel)
        if cluster:
            raise ConfigError(f"{where}: takes 'cluster' or 'sentinel', got both")
    bound = seconds(f"{where}['bound']", options.pop("bound", BOUND))
    if cluster and local == "pushed":
        raise ConfigError(
            "local: 'pushed' needs one server that announces in order; a cluster takes 'validated' or None"
        )
    return Backend(url, room, timeout, options, cluster, _pairs(nodes), sentinel, local, bound)


def _of_query(where: str, url: str, options: dict[str, Any]) -> str:
    """Move what a URL's query says of our own options to ``options``; return the URL without it."""
    parts = urlsplit(url)
    left = []
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in _QUERY:
            left.append((key, value))
        elif key in options:
            raise ConfigError(f"{where}[{key!r}]: takes one, got another in the query of {masked(url)!r}")
        else:
            try:
                options[key] = _QUERY[key](value)
            except (ValueError, KeyError) as error:
                raise ConfigError(
                    f"{where}: {key}={masked(value)!r} in the query of {masked(url)!r} cannot be read"
                ) from error
    address, _, _ = url.partition("?")
    return f"{address}?{urlencode(left)}" if left else address


def _sentinel(where: str, given: Any) -> Sentinel:
    takes = "takes {'service': name, 'nodes': [(host, port), ...]}"
    if not isinstance(given, Mapping) or not {"service", "nodes"} <= set(given):
        got = f"one of {', '.join(map(repr, given))}" if isinstance(given, Mapping) else type(given).__name__
        raise ConfigError(f"{where}: {takes}, got {got}")
    nodes, service = given["nodes"], given["service"]
    if not _are_nodes(nodes) or not nodes or not isinstance(service, str):
        raise ConfigError(f"{where}: {takes}, got {masked(repr(nodes))} for {masked(repr(service))}")
    options = {key: value for key, value in given.items() if key not in ("service", "nodes")}
    known = ("ssl", "ssl_", "username", "password")
    unknown = sorted(str(key) for key in options if not str(key).startswith(known))
    if unknown:
        raise ConfigError(
            f"{where}[{unknown[0]!r}]: not known; {takes}, 'username', 'password' and, for TLS, 'ssl' and 'ssl_...'"
        )
    encrypted = options.pop("ssl", any(key.startswith("ssl_") for key in options))
    if not isinstance(encrypted, bool):
        raise ConfigError(f"{where}['ssl']: takes True or False, got {encrypted!r}")
    options.update(_of_tls(where, options, encrypted=encrypted, otherwise="'ssl': True"))
    return Sentinel(given["service"], _pairs(nodes), {**options, "ssl": True} if encrypted else options)


def _are_nodes(given: Any) -> bool:
    return isinstance(given, Sequence) and all(
        isinstance(node, Sequence)
        and len(node) == 2
        and isinstance(node[0], str)
        and isinstance(node[1], int)
        for node in given
    )


def _pairs(nodes: Any) -> tuple[tuple[str, int], ...]:
    return tuple((host, port) for host, port in nodes)


def _of_tls(where: str, options: Mapping[str, Any], *, encrypted: bool, otherwise: str) -> dict[str, Any]:
    """Check what is said of TLS: later, every connection would fail for it. Return what is to be added.

    Raises :class:`ConfigError`.
    """
    from redis import RedisError
    from redis.asyncio.connection import SSLConnection

    given = {key: value for key, value in options.items() if key.startswith("ssl_")}
    known = [name for name in signature(SSLConnection).parameters if name.startswith("ssl_")]
    for name, value in given.items():
        if not encrypted:
            raise ConfigError(f"{where}[{name!r}]: there is no TLS; takes {otherwise} with it")
        if name not in known:
            raise ConfigError(f"{where}[{name!r}]: not known; of TLS, takes {', '.join(known)}")
        if name in _FILES and value is not None:
            try:
                with open(value, "rb"):
                    pass
            except (OSError, TypeError) as error:
                raise ConfigError(f"{where}[{name!r}]: {error}") from error
    if given:
        try:
            SSLConnection(**given).ssl_context.get()
        except (RedisError, OSError, TypeError, ValueError) as error:
            said = ", ".join(map(repr, given))
            raise ConfigError(f"{where}: what {said} say cannot be used for TLS: {error}") from error
    is_checked = encrypted and given.get("ssl_cert_reqs", "required") not in ("none", CERT_NONE)
    # Before redis-py 6, the name in a certificate is not looked at unless asked for.
    return {"ssl_check_hostname": True} if is_checked and "ssl_check_hostname" not in given else {}


_SECRET = re.compile(r"pass|pwd|secret|token|credential|api_?key|access_?key|odbc_connect", re.I)
"""Names of what a URL's query may say that is nobody's business."""


def masked(url: str) -> str:
    """Return ``url`` with its password masked, for messages; also one that was not escaped, and those of a query.

    Rather more than less: a text that is none, or in which a URL is quoted, loses what may be a password.
    """
    begin = "://" if "://" in url else "^"
    url = re.sub(rf"({begin}[^:@]*:).*@", r"\1***@", url, flags=re.S)
    return re.sub(r"([?&;])([^=&;]*)=([^&#;\s'\"]*)", _masked_option, url)


def _masked_option(found: re.Match[str]) -> str:
    between, name, value = found.groups()
    return f"{between}{name}={'***' if _SECRET.search(unquote(name)) else value}"


def seconds(where: str, given: Any) -> float:
    """Check a duration. Raises :class:`ConfigError`."""
    value = given.total_seconds() if isinstance(given, timedelta) else given
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LONGEST:
        raise ConfigError(
            f"{where}: takes seconds above 0 and at most {LONGEST:,} (int, float or timedelta), got {given!r:.100}"
        )
    return float(value)


def size(where: str, given: Any, unit: str = "bytes") -> int:
    """Check a number of ``unit``. Raises :class:`ConfigError`."""
    if isinstance(given, bool) or not isinstance(given, int) or given <= 0:
        raise ConfigError(f"{where}: takes a number of {unit} above 0, got {given!r}")
    return given
