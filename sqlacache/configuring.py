"""What ``configure()`` and ``configure_sync()`` take: one list of arguments for both fronts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from sqlalchemy.orm import Session

from .backend import Seconds
from .config import Settings, settings
from .manager import CacheManager
from .observers import Observer
from .store.codec import Codec
from .sync import SyncCacheManager

HISTORY = 1000
"""Decisions remembered unless said otherwise."""


def _configured(
    backend: str | Mapping[str, Any] = "mem://",
    models: Mapping[Any, Any] | None = None,
    prefix: str = "sqlacache",
    default_timeout: Seconds = 3600,
    serializer: str | Codec = "sqlalchemy",
    *,
    name: str | None = None,
    mode: str = "on",
    vary: Callable[[Session], Any] | None = None,
    jitter: float = 0.0,
    telemetry: Any = True,
    observers: Iterable[Observer] = (),
    functions: Collection[str] = (),
    depends_on: Mapping[str, Collection[str]] | None = None,
    writes_also: Mapping[str, Collection[str]] | None = None,
    isolation: str = "strict",
    old_values: str = "read",
    max_entry_bytes: int = 1 << 20,
    max_bytes: int | None = None,
    lease: Seconds = 30,
    local: str | None = "default",
    on_error: str = "bypass",
    history: int | None = None,
    verify: float = 0.0,
    debug: bool = False,
    expose_values: bool = False,
    digest_key: str | None = None,
) -> Settings:
    checked = settings(
        backend=backend,
        models=models,
        prefix=prefix,
        default_timeout=default_timeout,
        serializer=serializer,
        name=name,
        mode=mode,
        vary=vary,
        jitter=jitter,
        functions=functions,
        depends_on=depends_on,
        writes_also=writes_also,
        isolation=isolation,
        old_values=old_values,
        max_entry_bytes=max_entry_bytes,
        max_bytes=max_bytes,
        lease=lease,
        local=local,
        on_error=on_error,
        observers=observers,
        history=history,
        verify=verify,
        debug=debug,
        expose_values=expose_values,
        digest_key=digest_key,
    )
    checked.observers = (*_telemetry(telemetry, checked.mode), *checked.observers)
    if history is None and (checked.observers or debug):  # somebody is told of every decision anyway
        checked.history = HISTORY
    return checked


def _telemetry(telemetry: Any, mode: Any) -> Iterable[Observer]:
    if telemetry is None or telemetry is False:
        return ()
    from sqlacache_telemetry import observers

    return observers(telemetry, mode=mode)


_ARGUMENTS = """

Args:
    backend: ``mem://``, ``redis://``, ``rediss://`` or ``unix://``, or a mapping of a ``url`` and options:
        ``max_bytes``; for Redis also ``timeout`` (seconds to wait for an answer), ``max_connections``, ``cluster``,
        ``nodes`` (of the cluster, to begin with), ``sentinel``, ``username``, ``password``, ``bound`` (of the pushed
        tier) and what begins with ``ssl_``. The environment variable ``SQLACACHE_BACKEND`` overrides it.
    models: What is cached: mapped classes (or dotted paths to them, or ``"*"`` for every mapped class without an
        entry of its own or of a base) to ``{"ops": ..., "timeout": ..., "exclude": ...}``, or to ``None`` for never.
        ``ops`` is ``"all"`` or any of ``get``, ``fetch``, ``count``, ``exists``; with ``()`` only
        :meth:`CacheManager.execute` caches. ``exclude`` names columns of which nothing is stored: a read that uses one
        is left to the database.
    prefix: Under which everything is stored.
    default_timeout: Seconds that an entry lives where its model says nothing else.
    serializer: ``"sqlalchemy"``, the safe row codec; ``"pickle"`` for exotic types, if whoever can write to the
        backend may also run code here; or an object with ``name``, ``encode_rows`` and ``decode_rows``.
    name: Name of the cache in records and metrics; by default the prefix.
    mode: ``on``; ``shadow`` (everything is read from the database, and what the cache would have said is compared
        with it: to try it out); ``write_only`` (invalidates, never serves); ``off``. The environment variable
        ``SQLACACHE_MODE`` overrides it.
    vary: Function of a (synchronous) session whose value becomes part of every key: tenant, role.
    jitter: Fraction by which timeouts are shortened at random, so that entries do not expire together.
    telemetry: ``True`` for spans and metrics as ``sqlacache_telemetry`` makes them by default, options for it, or
        ``None`` for none.
    observers: Told of every decision; see :class:`Observer`.
    functions: SQL functions that are pure beside those known to be.
    depends_on: For views: the tables that each reads from.
    writes_also: For triggers: the tables that a write to a table writes, too.
    isolation: ``strict`` (transactions at REPEATABLE READ or above are not served) or ``relaxed``.
    old_values: ``read``: where a cached read is narrowed by a column, an UPDATE or DELETE by primary key first
        reads what that column was, under the lock that it takes anyway; ``widen``: it touches all such reads
        instead.
    max_entry_bytes: A result whose encoded form is larger than this is not stored.
    max_bytes: Memory that entries may take of this process, for each database: 256 MiB for ``mem://``, 64 MiB for
        the local tier unless given.
    lease: Seconds longer than the longest COMMIT; a writer that did not come back by then is taken for dead.
    local: With Redis, ``"validated"`` (the default) keeps decoded rows in this process and asks Redis only whether
        they still hold; ``"pushed"`` does not ask while Redis announces every commit, and may be behind by
        ``backend={"bound": seconds}`` (1); ``None`` keeps none.
    on_error: When Redis cannot be told of a commit: ``"bypass"`` commits, owes the invalidation and reads the
        tables from the database until it is delivered; ``"raise"`` refuses the commit.
    history: How many decisions this process remembers, for :meth:`CacheManager.explain_key`; 1,000 unless given, or
        none where neither telemetry nor an observer is told of decisions; 0 for none.
    verify: Fraction of hits that are loaded from the database all the same, and compared: 0.001 is one in a thousand.
        A difference that no write explains is logged as an error and counted as ``mismatch``.
    debug: Add to decisions, to the causes of this process's writes, and to explanations of both, the line of the
        application that asked (``file:line in function``), and the statement's parameters, of which values stay hidden
        unless ``expose_values`` is set. It walks the stack at every read and every write: some 5 microseconds each.
        Calls that are tasks of their own (``gather(session.get(...))``) have no line.
    expose_values: Show values as they are in the names of stamps, and so in Redis, spans, logs and explanations.
        Without it, a keyed digest stands for each but the integers and UUIDs of a primary key. All processes under a
        prefix take the same.
    digest_key: Key of those digests, a secret of 16 characters or more, the same in all processes under a prefix;
        without one, it is derived from the prefix, which others may guess. The environment variable
        ``SQLACACHE_DIGEST_KEY`` overrides it.

Raises:
    ConfigError: Names the offending argument, what it got and what it takes.
"""

P = ParamSpec("P")
M = TypeVar("M", CacheManager, SyncCacheManager)


def _making(manager: type[M], configured: Callable[P, Settings], name: str, summary: str) -> Callable[P, M]:
    """Return a function that makes a cache of what ``configured`` takes; two fronts, one list of arguments."""

    taken = signature(configured)

    def make(*args: P.args, **kwargs: P.kwargs) -> M:
        try:
            taken.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        return manager(configured(*args, **kwargs))

    make.__name__ = make.__qualname__ = name
    make.__doc__ = summary + _ARGUMENTS
    make.__signature__ = taken.replace(return_annotation=manager)  # type: ignore[attr-defined]  # for help()
    return make


configure = _making(
    CacheManager,
    _configured,
    "configure",
    "Configure a cache. It does nothing until :meth:`CacheManager.bind` gives it an engine.",
)
configure_sync = _making(
    SyncCacheManager,
    _configured,
    "configure_sync",
    """Configure a cache for ordinary engines and sessions, without ``await``: Flask, Celery, scripts.

It shares Redis with caches that :func:`configure` makes: each evicts what the other one's commits change, and serves
what the other one stored where both use the same driver's rows. It does nothing until :meth:`SyncCacheManager.bind`
gives it an engine.""",
)
