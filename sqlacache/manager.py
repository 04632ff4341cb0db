"""The cache as asynchronous applications hold it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session

from . import explain, touching
from .config import Settings
from .core import Core
from .decisions import Mode
from .errors import CacheError, ConfigError
from .explain import Explanation
from .front.asynchronous import AsyncFront
from .health import Health, health

__all__ = ["CacheManager"]


class CacheManager(Core):
    """A cache: bind it to engines, and sessions on them are cached. Made by :func:`sqlacache.configure`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, AsyncFront())

    async def bind(self, engine: AsyncEngine, database: str | None = None) -> None:
        """Cache the sessions of ``engine`` from now on; binding an engine twice changes nothing.

        Args:
            engine: The engine; those made from it by ``execution_options()`` are bound with it.
            database: Name of the database in keys and records; by default the one in the engine's URL. Two databases
                need two names.

        Raises:
            ConfigError: A model cannot be imported or is not mapped; the engine belongs to another cache; the name is
                taken by another database.
        """
        await self._bind(_sync_engine(engine, "bind"), database)

    async def unbind(self, engine: AsyncEngine | Engine) -> None:
        """Let go of one engine, such as that of a tenant or a test, before or after it is disposed of.

        From here on nothing that is read on it is served or stored, and nothing of ours listens to it. Transactions
        under way, which have a connection by now, are followed to their end: what they write is invalidated when they
        commit, and until the last of them has ended, the engine is listened to for their sake. What this process has
        stored goes with the last engine of its database; what is owed to the backend stays owed.

        Args:
            engine: The engine, one made from it by ``execution_options()``, or its ``sync_engine``. Unbinding one that
                is not bound changes nothing.

        Raises:
            ConfigError: Not such an engine; or it is bound to another cache.
        """
        await self._unbind(engine if _is_sync_face(engine) else _sync_engine(engine, "unbind"))

    async def disconnect(self) -> None:
        """Unbind every engine and forget every entry of this process; nothing of ours listens anywhere afterwards.

        Invalidations that are owed to the backend are waited for, a few seconds at most; an error in the log says what
        could not be delivered. Transactions under way are not followed, as :meth:`unbind` does: let them end first.
        """
        await self._disconnect()

    def lifespan(
        self, *engines: AsyncEngine, database: str | None = None
    ) -> Callable[[Any], AbstractAsyncContextManager[None]]:
        """Return a lifespan for FastAPI or Starlette that binds ``engines`` at start and disconnects at the end."""

        if not engines:
            raise ConfigError("lifespan: takes at least one AsyncEngine")

        @asynccontextmanager
        async def run(app: Any) -> AsyncIterator[None]:
            try:
                for engine in engines:
                    await self.bind(engine, database=database)
                yield
            finally:
                await self.disconnect()

        return run

    async def execute(
        self, session: AsyncSession, statement: Any, parameters: Any = None, *, timeout: Any = None
    ) -> Any:
        """Execute a read, cached also where the model's ``ops`` leave its operation out; ``timeout`` in seconds."""
        return await session.execute(statement, parameters, execution_options=self.forced(timeout))

    async def explain(self, session: AsyncSession, statement: Any, parameters: Any = None) -> Explanation:
        """Say what ``session.execute(statement)`` would do and why; loads nothing and changes nothing."""
        return await _of(session, "explain").run_sync(explain.explain, statement, parameters)

    async def explain_get(self, session: AsyncSession, model: type, key: Any) -> Explanation:
        """Say what ``session.get(model, key)`` would do and why, if the session does not hold the object already."""
        return await _of(session, "explain_get").run_sync(explain.explain_get, model, key)

    async def explain_key(self, key: str, database: str | None = None) -> Explanation:
        """Say what is stored under an entry's key, whether it would be a hit now, and which write voided it.

        Args:
            key: As decisions, spans (``sqlacache.key``) and explanations name it.
            database: Which of the databases that are bound; by default the first that knows the key.

        Raises:
            CacheError: No such database; no key of an entry; or nothing is stored and nothing known of it.
            TransportError: The backend does not answer.
        """
        return await self._explain_key(key, database)

    async def invalidate(self, model: type, pks: Iterable[Any] | None = None) -> int:
        """Evict what depends on rows of ``model`` with the primary keys ``pks``, or on any row of it.

        Composite keys are tuples in the order of the model's primary key. Lists and counts that could hold such rows
        go, too. Returns how many stamps were replaced.
        """
        return await self._invalidate(model, pks)

    async def purge(self, model: type) -> int:
        """Evict what depends on ``model`` and delete its bytes, which otherwise stay until they expire.

        It looks at every entry of the cache: for personal data that must go, not for every day. Returns how many
        entries were deleted. Raises :class:`TransportError` when the backend does not answer.
        """
        return await self._purge(model)

    async def invalidate_all(self) -> None:
        """Evict everything of this cache."""
        await self._invalidate_all()

    async def touched(
        self, table: str, columns: Collection[str] | None = None, pks: Iterable[Any] | None = None
    ) -> int:
        """Tell of a write made elsewhere (a migration, psql, COPY): rows of ``table``, all if ``pks`` is ``None``.

        ``columns`` are the columns written; ``None`` when rows came or went, or when it is not known. Returns how many
        stamps were replaced. Raises :class:`CacheError` for a table or column that no model knows.
        """
        return await touching.touched(self, table, columns, pks)

    async def set_mode(self, mode: Mode, *, fleet: bool = False, ttl: Any = None) -> None:
        """Switch the mode. What was cached before ``off`` is not served after it.

        Args:
            mode: ``on``, ``shadow``, ``write_only`` or ``off``.
            fleet: Switch every process that shares the backend and the prefix, with their next lookup. They go on
                invalidating also when ``off``, so that nothing is stale when they are switched on again; ``on`` leaves
                each with its own mode.
            ttl: Seconds after which the fleet is switched back by itself; ``None``: it stays.

        Raises:
            CacheError: Another mode, or a backend that processes do not share.
            TransportError: The backend could not be told.
        """
        await self._set_mode(mode, fleet, ttl)

    async def health(self, *, strict: bool = False) -> Health:
        """Say whether the cache works: ``ok``, ``degraded`` or ``owed``, with reasons.

        ``ready`` stays true whatever the state, so that a cache never takes a service out of rotation; with ``strict``
        it is true only when everything is well.
        """
        return await health(self, strict=strict)


def _of(session: Any, called: str) -> AsyncSession:
    if isinstance(session, async_scoped_session):
        session = session()
    if not isinstance(session, AsyncSession):
        raise CacheError(f"{called}: takes an AsyncSession, got {type(session).__name__}")
    return session


def _is_sync_face(engine: Any) -> bool:
    return isinstance(engine, Engine) and engine.dialect.is_async


def _sync_engine(engine: Any, called: str) -> Engine:
    if not isinstance(engine, AsyncEngine):
        hint = "; for an Engine there is configure_sync()" if isinstance(engine, Engine) else ""
        raise ConfigError(f"{called}: takes an AsyncEngine, got {type(engine).__name__}{hint}")
    return engine.sync_engine
