"""Row replay: raw rows captured on a miss and fed back through SQLAlchemy's own loading on a hit.

What is cached is what the driver returned, before SQLAlchemy's result processors, so that a hit goes through the same
loading as a real query: types, identity map, polymorphism, eager loads and expiry behave the same by construction.

Everything this concern needs of SQLAlchemy's private surface is in this module:

====================================================  ================================================================
what                                                  why
====================================================  ================================================================
``SessionTransaction._connections``, ``_parent``      lend the replay connection to the session's transaction, so that
                                                      no SAVEPOINT, ``after_begin``, commit or prepare reaches it
``Session._transaction``, ``_autobegin[_t]``          the transaction a real query would have begun
``Engine._compiled_cache``, ``_connection_cls``       one compile serves both engines; results of the same class
``Connection(engine, connection)``                    a connection without a pool
``Connection._execution_options``                     options of the real bind without their side effects
``ExecutionContext.cursor_fetch_strategy``            hand captured rows back to the statement that fetched them
``FullyBufferedCursorFetchStrategy``                  the same
``ExecutionContext._expanded_parameters``             which parameters an IN's list of values became
====================================================  ================================================================

Each has a test on SQLAlchemy 1.4, 2.0 and 2.1 (``tests/read/test_replay.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.engine import cursor as sa_cursor
from sqlalchemy.pool import NullPool

MARKER = "_sqlacache_read"
"""Execution option that carries a :class:`Capture`, a :class:`Replay` or ``None`` to the cursor."""


class Rewritten(Exception):
    """Replay was asked for another statement or other parameters than the entry's: a later listener rewrote it."""


class Expected:
    """The statement and parameters that rows belong to."""

    __slots__ = ("compiled", "parameters")

    def __init__(self, compiled: Any, parameters: Mapping[str, Any]) -> None:
        self.compiled = compiled
        self.parameters = parameters

    def matches(self, context: Any) -> bool:
        """Tell whether an execution context is about to run (or ran) exactly this."""
        compiled = context.compiled
        if compiled is None:
            return False
        if compiled is not self.compiled and compiled.string != self.compiled.string:
            return False
        if context.dialect != self.compiled.dialect:
            return False  # get_bind() answered with another engine than when it was asked before
        given: Mapping[str, Any] = (context.compiled_parameters or [{}])[0]
        expanded: Mapping[str, Sequence[str]] = getattr(context, "_expanded_parameters", None) or {}
        for name, value in self.parameters.items():
            if name in given:
                if not _same(given[name], value):
                    return False
            elif name not in expanded or not _same_list(given, expanded[name], value):
                return False
        return True


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and bool(one == other))


def _same_list(given: Mapping[str, Any], names: Sequence[str], values: Any) -> bool:
    """Compare the expanded parameters of an IN with its list of values (or of tuples of values)."""
    flat: list[Any] = list(values)
    if len(flat) != len(names):  # an IN of tuples has a parameter for each of their values
        flat = [
            part for value in values for part in (value if isinstance(value, (tuple, list)) else (value,))
        ]
    return len(flat) == len(names) and all(_same(given.get(name), value) for name, value in zip(names, flat))


class Capture(Expected):
    """Takes a miss's rows as they come from the driver."""

    __slots__ = ("clean", "description", "mismatched", "rows")

    def __init__(self, compiled: Any, parameters: Mapping[str, Any]) -> None:
        super().__init__(compiled, parameters)
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self.rows: tuple[tuple[Any, ...], ...] | None = None
        self.clean = True
        """The DBAPI connection had no uncommitted writes when the rows were read."""
        self.mismatched = False

    def take(self, context: Any, cursor: Any, executed: str) -> None:
        """Take the rows of a statement that just ran, and hand them back to SQLAlchemy."""
        if self.rows is not None:
            return
        if not self.matches(context) or _without_comments(executed) != _without_comments(context.statement):
            self.mismatched = True
            return
        if cursor.description is None or context.cursor_fetch_strategy is not sa_cursor._DEFAULT_FETCH:
            self.mismatched = True
            return
        rows = [tuple(row) for row in cursor.fetchall()]
        self.description = tuple(tuple(column) for column in cursor.description)
        self.rows = tuple(rows)
        context.cursor_fetch_strategy = sa_cursor.FullyBufferedCursorFetchStrategy(
            cursor, initial_buffer=rows
        )


class Replay(Expected):
    """Hands stored rows to SQLAlchemy in place of a driver's."""

    __slots__ = ("bind", "description", "rows", "served")

    def __init__(
        self,
        compiled: Any,
        parameters: Mapping[str, Any],
        description: Sequence[Sequence[Any]],
        rows: Sequence[Sequence[Any]],
        bind: Any,
    ) -> None:
        super().__init__(compiled, parameters)
        self.description = description
        self.rows = rows
        self.bind = bind
        """The ``bind`` that the caller gave in ``bind_arguments``, for loads nested under this one."""
        self.served = False


def _without_comments(statement: str) -> str:
    """Strip a comment that instrumentation puts before or after a statement (sqlcommenter)."""
    if "/*" not in statement:
        return statement
    stripped = statement.strip()
    if stripped.startswith("/*") and "*/" in stripped:
        stripped = stripped[stripped.index("*/") + 2 :].strip()
    if stripped.endswith("*/"):
        stripped = stripped[: stripped.rindex("/*")].rstrip()
    return stripped.rstrip(";").strip()


class _Quiet:
    """What psycopg2's dialect looks at after each statement: notices of the server, to be logged."""

    notices = ()


class ReplayCursor:
    """A DBAPI cursor over stored rows."""

    rowcount = -1
    lastrowid = None
    arraysize = 1
    connection = _Quiet

    def __init__(self) -> None:
        self.description: Any = None
        self._rows: Sequence[Any] = ()
        self._at = 0

    def answer(self, replay: Replay) -> None:
        self.description, self._rows, self._at = replay.description, replay.rows, 0

    def close(self) -> None:
        self._rows = ()

    async def _async_soft_close(self) -> None:
        """Asked for by SQLAlchemy 2.x on asynchronous dialects."""

    def setinputsizes(self, *sizes: Any) -> None: ...

    def fetchall(self) -> list[Any]:
        rows = list(self._rows[self._at :]) if self._at else list(self._rows)
        self._at = len(self._rows)
        return rows

    def fetchone(self) -> Any:
        if self._at >= len(self._rows):
            return None
        self._at += 1
        return self._rows[self._at - 1]

    def fetchmany(self, size: int | None = None) -> list[Any]:
        start = self._at
        self._at = min(len(self._rows), start + (size or 1))
        return list(self._rows[start : self._at])


class _ReplayFairy:
    """Stands where a pooled connection would: has no connection, and nothing to give back."""

    is_valid = True

    def __init__(self) -> None:
        self.info: dict[Any, Any] = {}
        self.record_info: dict[Any, Any] = {}
        self.dbapi_connection = self.driver_connection = self

    def cursor(self, *args: Any, **kw: Any) -> ReplayCursor:
        return ReplayCursor()

    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def close(self) -> None: ...
    def detach(self) -> None: ...
    def invalidate(self, *args: Any, **kw: Any) -> None: ...


class _NoTransaction:
    """The session's view of the lent connection's transaction: nothing to end."""

    is_active = False
    is_valid = False

    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def close(self) -> None: ...
    def prepare(self) -> None: ...


class _ReplayDialectMixin:
    """A copy of the real dialect whose cursor calls answer from a :class:`Replay` and whose events are silent.

    It equals the real dialect, so that both find each other's compiled statements in the shared cache.
    """

    _has_events = False
    _sqlacache_real: Dialect

    def __hash__(self) -> int:
        return hash(self._sqlacache_real)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._sqlacache_real

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        replay = context.execution_options.get(MARKER)
        if not isinstance(replay, Replay) or replay.served or not replay.matches(context):
            raise Rewritten(statement)
        replay.served = True
        cursor.answer(replay)

    def do_execute_no_params(self, cursor: Any, statement: str, context: Any = None) -> None:
        self.do_execute(cursor, statement, (), context)

    def do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        raise Rewritten(statement)

    def do_set_input_sizes(self, *args: Any) -> None: ...
    def do_begin(self, *args: Any) -> None: ...
    def do_commit(self, *args: Any) -> None: ...
    def do_rollback(self, *args: Any) -> None: ...
    def do_close(self, *args: Any) -> None: ...
    def do_savepoint(self, *args: Any) -> None: ...
    def do_rollback_to_savepoint(self, *args: Any) -> None: ...
    def do_release_savepoint(self, *args: Any) -> None: ...


class _ReplayEngineMixin:
    """No listener on ``Engine``, no logging and no echo ever sees a replay."""

    _has_events = False

    def _should_log_info(self) -> bool:
        return False

    def _should_log_debug(self) -> bool:
        return False


def _no_connection() -> Any:
    raise RuntimeError("the replay engine has no database connection")


def replay_engine(real: Engine) -> Engine:
    """Make the engine that answers from stored rows, over a silent copy of ``real``'s dialect.

    Make it after ``real`` has connected once: connecting initialises the dialect that is copied here.
    """
    dialect = real.dialect
    kind = type(dialect)
    copied: Any = object.__new__(type(f"Replay{kind.__name__}", (_ReplayDialectMixin, kind), {}))
    overridden = {name for name in vars(_ReplayDialectMixin) if not name.startswith("__")}
    copied.__dict__.update(
        (name, value)
        for name, value in dialect.__dict__.items()
        if name != "dispatch" and name not in overridden and not name.startswith("do_")
    )
    copied._sqlacache_real = dialect
    engine_kind = type("ReplayEngine", (_ReplayEngineMixin, type(real)), {})
    engine: Any = engine_kind(NullPool(_no_connection), copied, real.url)
    engine._compiled_cache = real._compiled_cache
    made: Engine = engine
    return made


def is_replay(bind: Any) -> bool:
    """Tell whether ``bind`` is a replay engine (a load nested under a hit inherits its parent's)."""
    return isinstance(bind, _ReplayEngineMixin)


def lend(session: Any, replay: Any, options: Mapping[str, Any]) -> None:
    """Make ``replay`` usable by the session without the session's transaction ever acting on it.

    ``options`` are the execution options of the bind that a real query would use.
    """
    transaction: Any = session._transaction
    if transaction is None:
        begin = getattr(session, "_autobegin_t", None) or session._autobegin
        begin()
        transaction = session._transaction
    if transaction is None:  # 1.4 with autocommit=True: no transaction, hence nothing to lend to
        raise Rewritten("the session has no transaction")
    held = transaction._connections.get(replay)
    if held is None:
        root = transaction
        while root._parent is not None:
            root = root._parent
        held = root._connections.get(replay)
        if held is None:
            connection = replay._connection_cls(replay, _ReplayFairy(), _has_events=False)
            held = (connection, _NoTransaction(), False, False)
        while transaction is not None:
            transaction._connections.setdefault(replay, held)
            transaction = transaction._parent
    held[0]._execution_options = options
