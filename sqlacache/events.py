"""The listeners on SQLAlchemy's own classes, shared by every cache of the process and there only while one is bound.

``bind()`` is given an engine, not a session class, so sessions are met where all of them pass: ``do_orm_execute`` of
``Session``. The statement's bind then says whose it is.

SQLAlchemy's private surface of this concern, tested on 1.4, 2.0 and 2.1
(``tests/issues/test_sessions_that_choose_their_bind.py``): ``_sa_skip_events`` among the bind arguments of a statement
that is invoked anew, ``ShardedSession.__shards`` (``__binds`` in 1.4), and ``listeners`` of the collections in
``dispatch`` (``tests/core/test_unbind.py``).
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy import event
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Mapper, Session

from .read.replay import MARKER, Replay, is_replay
from .read.session import invoke_plainly

if TYPE_CHECKING:
    from .binding import Binding
    from .write.commit import DialectHooks

_bindings: dict[int, ref[Binding]] = {}
"""By ``id()`` of the engine's dialect. A binding belongs to its engine, has its dialect, and goes when it goes."""
_hooks: dict[int, ref[DialectHooks]] = {}
"""What replaces the calls of these dialects, which may be there longer."""
_lock = threading.Lock()
_listening = False

unanswered: Counter[str] = Counter()
"""Statements whose session could not tell its bind, by the kind of error; SQLAlchemy asks again, and may raise it."""


def listen_to(target: Any, name: str, listener: Callable[..., None]) -> None:
    """Listen to an event of an engine, its pool or its dialect, also while threads use it."""
    _copy_listeners(target, name)
    event.listen(target, name, listener)


def stop_listening_to(target: Any, name: str, listener: Callable[..., None]) -> None:
    """Take back :func:`listen_to`, also from within the event."""
    _copy_listeners(target, name)
    event.remove(target, name, listener)


def _copy_listeners(target: Any, name: str) -> None:
    """Let whoever is iterating over the listeners of an event go on with those that were there.

    SQLAlchemy iterates over the very collection that it adds to and removes from: a statement of another thread would
    fail with ``deque mutated during iteration``.
    """
    for holder in (target, *(getattr(target, part) for part in ("pool", "dialect") if hasattr(target, part))):
        found: Any = getattr(holder.dispatch, name, None)
        if isinstance(getattr(found, "listeners", None), deque):
            found.listeners = found.listeners.copy()


def binding_of(dialect: Dialect) -> Binding | None:
    """Return the binding of the engine with this dialect instance, if it is bound."""
    found = _bindings.get(id(dialect))
    return found() if found is not None else None


def add(binding: Binding) -> None:
    """Let ``binding`` see sessions and flushes of its engine, as long as that is there."""
    global _listening
    with _lock:
        if not _listening:
            event.listen(Session, "do_orm_execute", _do_orm_execute)
            event.listen(Mapper, "after_insert", _after_insert)
            _listening = True
        _bindings[id(binding.engine.dialect)] = ref(binding)
        _hooks[id(binding.engine.dialect)] = ref(binding.hooks)


def discard(binding: Binding) -> None:
    """Take ``binding`` out; with the last one the listeners go."""
    if binding_of(binding.engine.dialect) is binding:
        del _bindings[id(binding.engine.dialect)], _hooks[id(binding.engine.dialect)]
    tidy()


def tidy() -> None:
    """Forget engines that are gone; with the last one the listeners go."""
    global _listening
    with _lock:
        for key, found in list(_bindings.items()):
            if found() is None:
                del _bindings[key]
                hooks = _hooks.pop(key)()
                if hooks is not None:
                    hooks.remove(None)
        if _listening and not _bindings:
            event.remove(Session, "do_orm_execute", _do_orm_execute)
            event.remove(Mapper, "after_insert", _after_insert)
            _listening = False


def _do_orm_execute(state: Any) -> Any:
    if state.is_insert or state.is_update or state.is_delete:
        return None
    session = state.session
    if isinstance(session, ShardedSession):
        return _leave_to_shards(state, session)
    arguments = state.bind_arguments
    if "_sa_skip_events" in arguments:
        arguments = {name: value for name, value in arguments.items() if name != "_sa_skip_events"}
    inherited: Replay | None = None
    bind = arguments.get("bind")
    if bind is not None and is_replay(bind):
        # A load nested under a hit inherits its parent's bind and options: give it those of the parent's caller.
        marker = state.execution_options.get(MARKER)
        inherited = marker if isinstance(marker, Replay) else None
        arguments = dict(arguments)
        arguments["bind"] = inherited.bind if inherited is not None else None
        if arguments["bind"] is None:
            del arguments["bind"]
    try:
        bind = session.get_bind(**arguments)
    except Exception as error:
        unanswered[type(error).__name__] += 1
        return None
    binding = binding_of(bind.dialect)
    if binding is None and inherited is not None:  # the engine was unbound since
        return invoke_plainly(state, inherited)
    if binding is None or not binding.is_read(state):
        return None
    return binding.reads.read(state, bind, inherited)


def _leave_to_shards(state: Any, session: Any) -> None:
    """Bypass: one statement may be sent to several databases, and only the session's own listener knows to which."""
    held = vars(session)
    shards = held.get("_ShardedSession__shards") or held.get("_ShardedSession__binds", {})  # 2.x, 1.4
    for bind in shards.values():
        binding = binding_of(bind.dialect)
        if binding is not None and binding.is_read(state):
            binding.reads.leave("rewritten", "a sharded session asks several databases")


def _after_insert(mapper: Any, connection: Any, target: Any) -> None:
    binding = binding_of(connection.dialect)
    if binding is not None:
        binding.writes.inserted(connection, mapper, target)
