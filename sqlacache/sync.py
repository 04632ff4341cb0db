"""The cache as applications with ordinary sessions hold it: Flask, Celery, scripts."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, scoped_session

from . import explain, touching
from .config import Settings
from .core import OWED_WAIT, Core
from .decisions import Mode
from .errors import CacheError, ConfigError
from .explain import Explanation
from .front.blocking import BlockingFront, finish
from .health import Health, health

__all__ = ["SyncCacheManager"]


class SyncCacheManager(Core):
    """A cache for :class:`~sqlalchemy.engine.Engine` and :class:`~sqlalchemy.orm.Session`, safe to use from any thread.

    Made by :func:`sqlacache.configure_sync`. Every method means what the one of the same name means in
    :class:`~sqlacache.CacheManager`, and does its work before it returns.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, BlockingFront())
        atexit.register(_at_exit, weakref.ref(self))

    def bind(self, engine: Engine, database: str | None = None) -> None:
        """Cache the sessions of ``engine`` from now on; binding an engine twice changes nothing.

        Bind in each process that is to be cached, or before it forks: what is bound stays bound in the children, which
        open connections of their own.

        Raises:
            ConfigError: As :meth:`.CacheManager.bind`.
        """
        finish(self._bind(_checked(engine, "bind"), database))

    def unbind(self, engine: Engine) -> None:
        """Let go of one engine; see :meth:`.CacheManager.unbind`. Other threads may be using it."""
        finish(self._unbind(_checked(engine, "unbind")))

    def disconnect(self) -> None:
        """Unbind every engine and forget every entry of this process; see :meth:`.CacheManager.disconnect`."""
        finish(self._disconnect())

    @contextmanager
    def bound(self, *engines: Engine, database: str | None = None) -> Iterator[None]:
        """Bind ``engines`` for the length of a block, as a script or a worker does, and disconnect at its end."""
        if not engines:
            raise ConfigError("bound: takes at least one Engine")
        try:
            for engine in engines:
                self.bind(engine, database=database)
            yield
        finally:
            self.disconnect()

    def execute(
        self, session: Session, statement: Any, parameters: Any = None, *, timeout: Any = None
    ) -> Any:
        """Execute a read, cached also where the model's ``ops`` leave its operation out; ``timeout`` in seconds."""
        return session.execute(statement, parameters, execution_options=self.forced(timeout))

    def explain(self, session: Session, statement: Any, parameters: Any = None) -> Explanation:
        """Say what ``session.execute(statement)`` would do and why; loads nothing and changes nothing."""
        return explain.explain(_of(session, "explain"), statement, parameters)

    def explain_get(self, session: Session, model: type, key: Any) -> Explanation:
        """Say what ``session.get(model, key)`` would do and why, if the session does not hold the object already."""
        return explain.explain_get(_of(session, "explain_get"), model, key)

    def explain_key(self, key: str, database: str | None = None) -> Explanation:
        """Say what is stored under an entry's key, and which write voided it; see :meth:`.CacheManager.explain_key`."""
        return finish(self._explain_key(key, database))

    def invalidate(self, model: type, pks: Iterable[Any] | None = None) -> int:
        """Evict what depends on rows of ``model`` with the primary keys ``pks``, or on any row of it."""
        return finish(self._invalidate(model, pks))

    def purge(self, model: type) -> int:
        """Evict what depends on ``model`` and delete its bytes; see :meth:`.CacheManager.purge`."""
        return finish(self._purge(model))

    def invalidate_all(self) -> None:
        """Evict everything of this cache."""
        finish(self._invalidate_all())

    def touched(
        self, table: str, columns: Collection[str] | None = None, pks: Iterable[Any] | None = None
    ) -> int:
        """Tell of a write made elsewhere; see :meth:`.CacheManager.touched`."""
        return finish(touching.touched(self, table, columns, pks))

    def set_mode(self, mode: Mode, *, fleet: bool = False, ttl: Any = None) -> None:
        """Switch the mode, of this process or of all that share the backend; see :meth:`.CacheManager.set_mode`."""
        finish(self._set_mode(mode, fleet, ttl))

    def health(self, *, strict: bool = False) -> Health:
        """Say whether the cache works: ``ok``, ``degraded`` or ``owed``; see :meth:`.CacheManager.health`."""
        return finish(health(self, strict=strict))


def _checked(engine: Any, called: str) -> Engine:
    if not isinstance(engine, Engine):
        hint = "; for an AsyncEngine there is configure()" if isinstance(engine, AsyncEngine) else ""
        raise ConfigError(f"{called}: takes an Engine, got {type(engine).__name__}{hint}")
    if engine.dialect.is_async:
        raise ConfigError(
            f"{called}: takes an Engine with a driver that blocks, got one with {engine.dialect.driver}; "
            "for an AsyncEngine there is configure()"
        )
    return engine


def _of(session: Any, called: str) -> Session:
    if not isinstance(session, (Session, scoped_session)):
        raise CacheError(f"{called}: takes a Session, got {type(session).__name__}")
    return session() if isinstance(session, scoped_session) else session


def _at_exit(reference: weakref.ref[SyncCacheManager]) -> None:
    """Deliver what a process owes that ends without :meth:`~SyncCacheManager.disconnect`."""
    cache = reference()
    if cache is not None:
        for what in finish(cache.recovery.deliver_now(OWED_WAIT)):
            cache.undelivered(what)
