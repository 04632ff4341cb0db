"""SQLAlchemy's asynchronous API over ordinary engines: each call is made in a thread, as in a WSGI application.

Tests are coroutines of ``AsyncSession`` and ``AsyncConnection``. Over an engine made by :func:`thread_engine`, what
they call is done by the ordinary ``Session`` or ``Connection`` underneath, in a thread of that session's or
connection's own: tasks that run side by side are threads that do.

SQLAlchemy's private surface: ``greenlet_spawn``, by which the modules of ``sqlalchemy.ext.asyncio`` call what blocks,
is replaced in them, and so is ``_ensure_sync_result``, which asks cursors for what only asynchronous ones have;
``AsyncEngine`` is kept from refusing engines whose driver does not await. The same in SQLAlchemy 1.4, 2.0 and 2.1, and
the sync front's whole test run depends on it. Engines with asynchronous drivers are called as ever.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from types import BuiltinFunctionType
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Engine, Transaction
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import engine as engine_module
from sqlalchemy.ext.asyncio import result as result_module
from sqlalchemy.ext.asyncio import session as session_module
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import QueuePool

ORDINARY = os.environ.get("SQLACACHE_TEST_FRONT") == "sync"
"""Whether what belongs to no engine that is known is called in a thread."""

_spawn_greenlet = engine_module.greenlet_spawn
_ensure_result = engine_module._ensure_sync_result
_threads: WeakKeyDictionary[Any, Executor] = WeakKeyDictionary()
_any_thread = ThreadPoolExecutor(100, "anybody")


def thread_engine(url: Any, **options: Any) -> AsyncEngine:
    """An ordinary engine behind the face of an ``AsyncEngine``; takes what ``create_engine`` takes."""
    for module in (engine_module, result_module, session_module):
        module.greenlet_spawn = _spawn  # type: ignore[attr-defined,assignment]  # see the docstring of this module
    for module in (engine_module, session_module):
        module._ensure_sync_result = _ensure_sync_result  # type: ignore[attr-defined]  # as above
    AsyncEngine.__init__ = _unchecked  # type: ignore[method-assign]  # as above
    globals()["__name__"] = (
        "sqlalchemy.ext.asyncio.threads"  # who looks for the caller of SQLAlchemy looks past it
    )
    options.setdefault("poolclass", QueuePool)
    options.setdefault("future", True)  # 1.4: the face is that of such connections
    return AsyncEngine(create_engine(url, **options))


def thread_of(owner: Any) -> Executor:
    """The thread of a session or a connection."""
    executor = _threads.get(owner)
    if executor is None:
        executor = _threads[owner] = ThreadPoolExecutor(1, f"{type(owner).__name__}-{id(owner):x}")
    return executor


async def in_thread(function: Callable[..., Any], *arguments: Any, thread: Executor = _any_thread) -> Any:
    """Call a function in a thread. A thread cannot be cancelled: whoever is, waits for its end nevertheless."""
    call = partial(contextvars.copy_context().run, function, *arguments)
    future = asyncio.get_running_loop().run_in_executor(thread, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def _unchecked(self: AsyncEngine, sync_engine: Engine) -> None:
    self.sync_engine = self._assign_proxied(sync_engine)
    if "_proxied" in getattr(AsyncEngine, "__slots__", ()):  # 1.4, where it is no property
        self._proxied = sync_engine  # type: ignore[misc]  # as above


async def _spawn(function: Any, *arguments: Any, _require_await: bool = False, **named: Any) -> Any:
    owner = _owner(function, arguments)
    if _awaits(owner):
        return await _spawn_greenlet(function, *arguments, _require_await=_require_await, **named)
    thread = thread_of(owner) if isinstance(owner, (Session, Connection)) else _any_thread
    return await in_thread(partial(function, *arguments, **named), thread=thread)


async def _ensure_sync_result(result: Any, calling_method: Any) -> Any:
    return await _ensure_result(result, calling_method) if _awaits(_context_of(result)) else result


def _owner(function: Any, arguments: tuple[Any, ...]) -> Any:
    """The session, connection, engine or cursor that a call is about."""
    bound = None if isinstance(function, BuiltinFunctionType) else getattr(function, "__self__", None)
    for one in (*arguments[:1], bound):
        if isinstance(one, (Session, Connection, Engine)):
            return one
        if isinstance(one, SessionTransaction):
            return one.session
        if isinstance(one, Transaction):
            return one.connection
    return _context_of(bound)


def _context_of(result: Any) -> Any:
    real = getattr(result, "_real_result", None)
    result = real if real is not None else result
    return getattr(getattr(result, "raw", result), "context", None)


def _awaits(owner: Any) -> bool:
    if isinstance(owner, Session):
        owner = owner.bind  # one that routes by itself has none
    dialect = getattr(owner, "dialect", None)
    return not ORDINARY if dialect is None else bool(dialect.is_async)
