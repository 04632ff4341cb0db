"""The listeners on SQLAlchemy's own classes, shared by every cache of the process and there only while one is bound.

``bind()`` is given an engine, not a session class, so sessions are met where all of them pass: ``do_orm_execute`` of
``Session``. The statement's bind then says whose it is.

SQLAlchemy's private surface of this concern, tested on 1.4, 2.0 and 2.1
(``tests/issues/test_sessions_that_choose_their_bind.py``): ``_sa_skip_events`` among the bind arguments of a statement
that is invoked anew, and ``ShardedSession.__shards`` (``__binds`` in 1.4).
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Mapper, Session

from .read.replay import MARKER, Replay, is_replay

if TYPE_CHECKING:
    from .binding import Binding

_bindings: dict[Dialect, Binding] = {}
_lock = threading.Lock()

unanswered: Counter[str] = Counter()
"""Statements whose session could not tell its bind, by the kind of error; SQLAlchemy asks again, and may raise it."""


def binding_of(dialect: Dialect) -> Binding | None:
    """Return the binding of the engine with this dialect instance, if it is bound."""
    return _bindings.get(dialect)


def add(binding: Binding) -> None:
    """Let ``binding`` see sessions and flushes of its engine."""
    with _lock:
        if not _bindings:
            event.listen(Session, "do_orm_execute", _do_orm_execute)
            event.listen(Mapper, "after_insert", _after_insert)
        _bindings[binding.engine.dialect] = binding


def discard(binding: Binding) -> None:
    """Take ``binding`` out; with the last one the listeners go."""
    with _lock:
        if _bindings.pop(binding.engine.dialect, None) is not None and not _bindings:
            event.remove(Session, "do_orm_execute", _do_orm_execute)
            event.remove(Mapper, "after_insert", _after_insert)


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
    binding = _bindings.get(bind.dialect)
    if binding is None or not binding.is_read(state):
        return None
    return binding.reads.read(state, bind, inherited)


def _leave_to_shards(state: Any, session: Any) -> None:
    """Bypass: one statement may be sent to several databases, and only the session's own listener knows to which."""
    held = vars(session)
    shards = held.get("_ShardedSession__shards") or held.get("_ShardedSession__binds", {})  # 2.x, 1.4
    for bind in shards.values():
        binding = _bindings.get(bind.dialect)
        if binding is not None and binding.is_read(state):
            binding.reads.leave("rewritten", "a sharded session asks several databases")


def _after_insert(mapper: Any, connection: Any, target: Any) -> None:
    binding = _bindings.get(connection.dialect)
    if binding is not None:
        binding.writes.inserted(connection, mapper, target)
