"""What the read path asks of a session: its connection, its load options, its pending changes.

SQLAlchemy's private surface of this concern, each use tested on 1.4, 2.0 and 2.1 (``tests/read/test_session.py``):
``Session._transaction`` and ``SessionTransaction._connections`` (does the session hold a connection already? asking
publicly would check one out), ``Session._autoflush`` (flush as a query would), ``Session._is_clean``, and the load
options that ``ORMExecuteState`` carries, with ``sa_top_level_orm_context`` where a load is nested under another one.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.orm import Session
from sqlalchemy.util import concurrency

from .replay import MARKER, Capture, Replay, is_replay

STRICT_LEVELS = frozenset({"REPEATABLE READ", "SERIALIZABLE", "SNAPSHOT"})

_takes_bind: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def takes_bind(session: Session) -> bool:
    """Tell whether the session's ``get_bind()`` takes what it is given when a listener invokes a statement.

    That is ``bind`` and ``_sa_skip_events``. SQLAlchemy documents subclasses whose ``get_bind(self, mapper=None,
    clause=None)`` takes neither.
    """
    get_bind = session.get_bind
    function = getattr(get_bind, "__func__", get_bind)
    if function is Session.get_bind:
        return True
    known = _takes_bind.get(function)
    if known is None:
        parameters = inspect.signature(get_bind).parameters
        anything = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        known = _takes_bind[function] = anything or {"bind", "_sa_skip_events"} <= parameters.keys()
    return known


def held_connection(session: Session, dialect: Dialect) -> Connection | None:
    """Return the connection of ``dialect``'s engine that the session's transaction holds, if any; checks out none."""
    transaction: Any = getattr(session, "_transaction", None)
    while transaction is not None:
        for bind, held in transaction._connections.items():
            if bind.dialect is dialect and not is_replay(bind) and not is_replay(held[0].engine):
                connection: Connection = held[0]
                return connection
        transaction = transaction._parent
    bound = session.bind
    if isinstance(bound, Connection) and bound.dialect is dialect and not bound.closed:
        return bound  # it may be in a transaction that the session has not joined yet
    return None


def flush_as_a_query_would(session: Any, load_options: Any) -> bool:
    """Flush pending changes if the query about to run would do so; tell whether there were any."""
    if getattr(load_options, "_autoflush", True) and not session._is_clean():
        session._autoflush()
        return True
    return False


def refreshes(load_options: Any) -> bool:
    """Tell whether the load overwrites what the session already has: ``refresh()`` or ``populate_existing``."""
    if load_options is None:
        return False
    if getattr(load_options, "_populate_existing", False):
        return True
    if getattr(load_options, "_refresh_state", None) is None:
        return False
    return bool(getattr(load_options, "_is_user_refresh", True))


def own_load_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the execution options that keep a load nested under another one from taking over its load options.

    By the time that a listener sees the options of a nested load, those of the outer statement are among them. Invoked
    with these, it would not autoflush because the outer statement was not to.
    """
    load = options.get("_sa_orm_load_options")
    if load is None or "sa_top_level_orm_context" not in options:
        return {}
    return {name: getattr(load, f"_{name}") for name in ("autoflush", "populate_existing") if name in options}


def marked(state: Any, marker: Capture | Replay | None) -> dict[str, Any]:
    """Return the execution options to invoke a statement with."""
    return {MARKER: marker, **own_load_options(state.execution_options)}


def real_bind(inherited: Replay | None, state: Any) -> dict[str, Any]:
    """Give a statement nested under a hit the bind that its parent's caller gave, if any."""
    if inherited is not None:
        return {"bind": inherited.bind}
    if is_replay(state.bind_arguments.get("bind")):
        return {"bind": None}
    return {}


def invoke_plainly(state: Any, inherited: Replay | None) -> Any:
    """Run a statement as it would run without the cache, also if it is nested under a hit."""
    return state.invoke_statement(
        execution_options=marked(state, None), bind_arguments=real_bind(inherited, state)
    )


def in_greenlet() -> bool:
    """Tell whether awaiting from here is possible, as an asynchronous driver would need."""
    ask = getattr(concurrency, "in_greenlet", None)
    if ask is not None:
        return bool(ask())
    from greenlet import getcurrent  # 1.4

    return type(getcurrent()).__name__ == "_AsyncIoGreenlet"


def bind_options(bind: Engine | Connection, held: Connection | None) -> Mapping[str, Any]:
    """Return the execution options that a real query would start from."""
    return (held if held is not None else bind).get_execution_options()


def isolation_level(dialect: Any, options: Mapping[str, Any]) -> str:
    """Return the isolation level of a connection with these options, in SQLAlchemy's spelling, without asking it."""
    level = options.get("isolation_level") or getattr(dialect, "_on_connect_isolation_level", None)
    return str(level or getattr(dialect, "default_isolation_level", None) or "").upper().replace("_", " ")


def driver_connection(connection: Any) -> Any:
    """Return the driver's own connection under a SQLAlchemy connection (or under what its pool hands out)."""
    pooled = getattr(connection, "connection", connection)
    raw = getattr(pooled, "dbapi_connection", None) or getattr(pooled, "connection", pooled)
    return getattr(raw, "driver_connection", None) or getattr(raw, "_connection", raw)


def driver_in_transaction(connection: Any) -> bool:
    """Ask SQLite's driver whether a transaction is open; ``False`` where the driver cannot tell."""
    return bool(getattr(driver_connection(connection), "in_transaction", False))
