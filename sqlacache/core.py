"""What a cache is, whichever way it waits: :mod:`.manager` and :mod:`.sync` are how users hold it.

Methods that may do I/O are coroutines here, for the front (:mod:`.front.port`) to carry out.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import WeakSet, WeakValueDictionary, ref

from cashews import Cache
from sqlalchemy import inspect
from sqlalchemy.engine import Engine

from . import events, touching
from .backend import masked
from .binding import Binding
from .capacity import Capacity
from .config import Policy, Settings
from .databases import database_name, is_in_memory, is_one_of_several_workers, root_of, same_database
from .decisions import FLEET_MODES, MODES, Eviction, Mode
from .errors import CacheError, ConfigError, TransportError
from .evictions import EvictionHook
from .explain import Explanation, explain_key
from .forks import renew
from .front.port import Front
from .history import History
from .listening import add_observer, listen
from .logs import CALL_UNBOUND, MEMORY_UNSHARED, UNDELIVERED, log
from .models import Models, is_mapped
from .observers import Observer, Observers
from .recovery import Recovery
from .store.opening import set_up
from .testing.recorder import Recorder, record
from .write.dml import Change
from .write.owed import Owed

OWED_WAIT = 5.0
"""Seconds that ``disconnect()`` waits for invalidations that are owed."""


class Core:
    """A cache of one process.

    Args:
        settings: What was configured, checked.
        front: How it waits.
    """

    def __init__(self, settings: Settings, front: Front) -> None:
        self.settings = settings
        self.front = front
        self.history = History(settings.history) if settings.history else None
        """What this process decided lately, if it is to remember."""
        self.observers = Observers(
            settings.observers if self.history is None else (*settings.observers, self.history)
        )
        self.capacity = Capacity(self)
        self.models = Models()
        self.cashews = Cache()
        """The cashews cache that owns the backend; ``disable()`` and ``enable()`` on it work as cashews documents."""
        self.backend = set_up(self.cashews, settings, front)
        self.recovery = Recovery(self)
        if self.backend.breaker is not None:
            self.backend.breaker.on_open = self.recovery.start
            self.backend.breaker.on_failure = partial(self.observers.backend_failed, settings.name)
        self._mode: Mode = settings.mode
        self._bindings: list[ref[Binding]] = []
        self._leaving: WeakSet[Binding] = WeakSet()
        """Of engines that were unbound while their transactions were under way."""
        self.owing: set[Owed] = set()
        """What is owed to the backend, one per database."""
        self._owed: WeakValueDictionary[str, Owed] = WeakValueDictionary()
        self._bypassed: ContextVar[bool] = ContextVar(f"sqlacache_bypassed_{settings.name}", default=False)
        self.forked()
        renew(self, last=True)

    def forked(self) -> None:
        self._lock = threading.Lock()
        if self.bindings and self.settings.backend.is_memory:
            log(
                MEMORY_UNSHARED,
                "%s: mem:// belongs to one process, and this one was forked from one that is bound: "
                "they do not hear of each other's writes",
                self.settings.name,
                cache=self.settings.name,
                why="fork",
            )
        if self.bindings and self.front.is_blocking:
            self.backend.forked()

    def __repr__(self) -> str:
        databases = ", ".join(binding.database for binding in self.bindings) or "nothing"
        return f"<{type(self).__name__} {self.settings.name!r} mode={self._mode} bound to {databases}>"

    # -- binding -------------------------------------------------------------------------------------------------------

    @property
    def bindings(self) -> list[Binding]:
        """One per engine that is bound; it belongs to the engine, and goes when nobody has that any more."""
        return [binding for one in self._bindings if (binding := one()) is not None]

    def hold(self, binding: Binding) -> None:
        """Count a binding in, as long as its engine is there."""
        self._bindings = [*(one for one in self._bindings if one() is not None), ref(binding)]

    def owed_of(self, database: str) -> Owed:
        """Return what is owed for a database, of which several engines may be bound."""
        owed = self._owed.get(database)
        if owed is None:
            owed = self._owed[database] = Owed(self, database)
        return owed

    def tell_owed(self) -> None:
        """Tell observers how much is owed."""
        self.observers.owed(self.name, sum(len(owed) for owed in list(self.owing)))

    async def _bind(self, engine: Any, database: str | None) -> None:
        root = root_of(engine)
        name = database or database_name(root.url)
        async with self._alone():
            bound = events.binding_of(root.dialect)
            if bound is not None:
                if bound.manager is not self:
                    raise ConfigError(
                        f"bind: the engine is bound to the cache {bound.settings.name!r} already; unbind it there first"
                    )
                if database is not None and bound.database != database:
                    raise ConfigError(
                        f"bind: the engine is bound as database={bound.database!r} already, got {database!r}"
                    )
                return
            if database is None and not self.settings.backend.is_memory and is_in_memory(root.url):
                raise ConfigError(
                    "bind: an SQLite database in memory belongs to this process, and other processes that share the "
                    "backend may have one of the same name; give it a name of its own with database=..."
                )
            for other in self.bindings:
                if other.database == name and not same_database(other.engine.url, root.url):
                    raise ConfigError(
                        f"bind: the name {name!r} belongs to {masked(str(other.engine.url))}; give "
                        f"{masked(str(root.url))} another one with database=..."
                    )
            await self._tidy()
            self.models.refresh()
            self.settings.resolve(self.models.mappers, is_mapped, self.models.all)
            await self.cashews.init()
            await self._reach_backend()
            binding = Binding(self, root, name)
            await self.front.call(_read_catalog, root, binding)
            await self.front.call(binding.attach)
            events.add(binding)
            self.hold(binding)
            listen(self, binding)
        self.observers.bound(self.settings.name, sorted(self._configured_tables()))
        self.tell_owed()
        self.capacity.tell()
        if self.settings.backend.is_memory and is_one_of_several_workers():
            log(
                MEMORY_UNSHARED,
                "%s: mem:// belongs to this process alone, which looks like one of several workers: "
                "they do not hear of each other's writes",
                self.settings.name,
                cache=self.settings.name,
                why="workers",
            )

    async def _reach_backend(self) -> None:
        """Find out whether the backend answers; without it, binding succeeds and reads go to the database."""
        if self.backend.transport is None:
            return
        try:
            await self.backend.transport.call(b"PING")
        except TransportError as error:
            if self.settings.on_error == "raise":
                raise
            self.backend.breaker.open(error)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Bind and disconnect one at a time, also from several loops and threads."""
        while not self._lock.acquire(blocking=False):  # whoever holds it may run in another loop
            await self.front.sleep(0.005)
        try:
            yield
        finally:
            self._lock.release()

    def _configured_tables(self) -> set[str]:
        wanted: set[str] = set()
        for name in self.models.tables():
            for table in self.models.named(name):
                policy: Policy = self.settings.policy([table])
                if policy.ops and self.models.mappers(table):
                    wanted.add(name)
        return wanted

    async def _unbind(self, engine: Any) -> None:
        root = root_of(engine)
        async with self._alone():
            binding = events.binding_of(root.dialect)
            if binding is None:
                return
            if binding.manager is not self:
                raise ConfigError(
                    f"unbind: {masked(str(root.url))} is bound to the cache {binding.settings.name!r}, "
                    f"not to {self.name!r}"
                )
            events.discard(binding)
            self._leaving.add(binding)
            binding.leave()
            self._bindings = [one for one in self._bindings if one() is not binding]
            await self._tidy()
        self.capacity.tell()

    async def _tidy(self) -> None:
        """Forget what was kept for engines that are no longer bound, or no longer there."""
        events.tidy()
        self._bindings = [one for one in self._bindings if one() is not None]
        for binding in list(self._leaving):
            if binding.has_left:
                self._leaving.discard(binding)
        awaited = {owed.database for owed in list(self.owing)}
        awaited.update(binding.database for binding in list(self._leaving))
        await self.backend.keep({binding.database for binding in self.bindings}, awaited)

    async def _disconnect(self) -> None:
        async with self._alone():
            for what in await self.recovery.drain(OWED_WAIT):
                self.undelivered(what)
            self.owing.clear()
            self._owed = WeakValueDictionary()
            for binding in [*self.bindings, *self._leaving]:
                events.discard(binding)
                await self.front.call(binding.detach)
            self._bindings.clear()
            self._leaving.clear()
            events.tidy()
            await self.cashews.close()
        self.capacity.tell()

    def undelivered(self, owed: str) -> None:
        """Log what ``disconnect()`` could not deliver."""
        log(UNDELIVERED, "%s: not delivered: %s", self.name, owed, cache=self.name, owed=owed)

    # -- reading -------------------------------------------------------------------------------------------------------

    def forced(self, timeout: Any) -> dict[str, Any]:
        """Return the execution options of a read that is cached whatever ``ops`` say."""
        options: dict[str, Any] = {"sqlacache_force": True}
        if timeout is not None:
            options["sqlacache_timeout"] = self.settings.seconds(timeout, 0.0)
        return options

    @contextmanager
    def bypassed(self) -> Iterator[None]:
        """Let reads of this task go past the cache inside the block; its writes invalidate as ever."""
        token = self._bypassed.set(True)
        try:
            yield
        finally:
            self._bypassed.reset(token)

    def is_bypassed(self) -> bool:
        """Tell whether this task is inside :meth:`bypassed`, or disabled the backend through cashews."""
        return self._bypassed.get() or self.backend.is_disable()

    @contextmanager
    def record(self) -> Iterator[Recorder]:
        """Record what is decided inside the block, in any task or thread: :class:`sqlacache.testing.Recorder`."""
        with record(self) as seen:
            yield seen

    async def _explain_key(self, key: str, database: str | None) -> Explanation:
        stores = [one for one in self.unique_stores() if database in (None, one.database)]
        if not stores:
            known = ", ".join(one.database for one in self.bindings) or "none"
            raise CacheError(f"explain_key: takes a database that is bound ({known}), got {database!r}")
        for binding in stores:
            found: Explanation | None = await self.front.call(explain_key, binding, key, self.history)
            if found is not None:
                return found
        where = "it" if self.history is not None else "what was"
        raise CacheError(
            f"explain_key: nothing is stored as {key!r}, and this process remembers nothing of {where}"
        )

    # -- invalidating --------------------------------------------------------------------------------------------------

    def check_bound(self, called: str) -> None:
        """Warn of a call that can reach nobody."""
        if not self.bindings:
            log(
                CALL_UNBOUND,
                "%s: %s: the cache is bound to no engine, so that nothing was done",
                self.name,
                called,
                cache=self.name,
                call=called,
            )

    async def _invalidate(self, model: type, pks: Iterable[Any] | None = None) -> int:
        if not is_mapped(model):
            raise CacheError(f"invalidate: takes a mapped class, got {model!r}")
        self.check_bound("invalidate")
        keys = touching.keys_of(pks)
        total = 0
        mapper: Any = inspect(model)
        for table in mapper.tables:
            total += await touching.touch(self, table.fullname, keys, None, "explicit", table)
        return total

    async def _purge(self, model: type) -> int:
        await self._invalidate(model)
        mapper: Any = inspect(model)
        tables = [table.fullname for table in mapper.tables]
        deleted = 0
        for binding in self.unique_stores():
            deleted += await self.front.call(binding.store.purge, tables)
        self.capacity.tell()
        return deleted

    async def _invalidate_all(self) -> None:
        self.check_bound("invalidate_all")
        for binding in self.unique_stores():
            await self.front.call(binding.writes.replace, [Change.of_everything("invalidate_all", "flush")])
            binding.store.delete_everything()
        self.capacity.tell()

    def unique_stores(self) -> list[Binding]:
        """Return one binding for each store: two engines of one database share theirs."""
        return list({id(binding.store): binding for binding in self.bindings}.values())

    # -- mode and observers --------------------------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """``on``; ``shadow`` (compares, never serves); ``write_only`` (invalidates, no more); ``off`` (neither)."""
        return self._mode

    async def _set_mode(self, mode: Mode, fleet: bool, ttl: Any) -> None:
        if mode not in MODES:
            raise CacheError(f"set_mode: takes one of {', '.join(MODES)}, got {mode!r}")
        if fleet:
            await self._switch_fleet(mode, ttl)
            return
        if ttl is not None:
            raise CacheError(f"set_mode: ttl goes with fleet=True, got ttl={ttl!r} without it")
        if self._mode == "off" and mode != "off":
            # Writes went unseen meanwhile: everything stored before is void. Fence first, then serve.
            await self._invalidate_all()
        self._mode = mode

    async def _switch_fleet(self, mode: Mode, ttl: Any) -> None:
        if self.settings.backend.is_memory:
            raise CacheError(
                "set_mode: fleet=True takes a backend that processes share; mem:// belongs to this one"
            )
        if mode not in FLEET_MODES:
            raise CacheError(f"set_mode: fleet=True takes one of {', '.join(FLEET_MODES)}, got {mode!r}")
        seconds = None if ttl is None else self.settings.seconds(ttl, 0.0)
        if not self.bindings:
            raise CacheError("set_mode: fleet=True takes a cache that is bound to an engine")
        for binding in self.unique_stores():
            await binding.store.switch(mode, seconds)

    @property
    def name(self) -> str:
        """Name of the cache in records and metrics."""
        return self.settings.name

    def add_observer(self, observer: Observer) -> None:
        """Tell ``observer`` of decisions from now on.

        Raises :class:`CacheError` when it wants to hear of other processes, nobody else does, the cache is bound, and
        no event loop runs to listen in.
        """
        add_observer(self, observer)

    def remove_observer(self, observer: Observer) -> None:
        """Tell ``observer`` no more."""
        self.observers.remove(observer)

    def on_evict(self, hook: Callable[[Eviction], Any]) -> Callable[[], None]:
        """Call ``hook`` for every table that a commit or a call touched, in this process or another one.

        It is called inside ``commit()`` for those of this process (and once more if Redis could be told only later),
        and from the event loop when the announcement of another one arrives: keep it short. An error that it raises is
        counted and logged like an observer's, and harms nobody. Announcements are not kept for those who are not
        connected: rely on them for speed, never for correctness.

        Args:
            hook: Takes an :class:`Eviction`; an ordinary function, not a coroutine function.

        Returns:
            A function that removes the hook.

        Raises:
            CacheError: Not such a function; or the cache is bound to Redis, nobody listens to other processes yet, and
                no event loop runs to listen in.
        """
        observer = EvictionHook(hook)
        add_observer(self, observer)
        return partial(self.observers.remove, observer)


def _read_catalog(engine: Engine, binding: Binding) -> None:
    with engine.connect() as connection:
        binding.read_catalog(connection)
