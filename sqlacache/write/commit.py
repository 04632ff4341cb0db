"""Wrapping the dialect's calls: SQLAlchemy has no event after COMMIT, and none in which a statement may be awaited.

``ConnectionEvents.commit`` fires before the driver commits and there is none after it, so the bound engine's own
dialect instance gets ``do_commit`` and its kin replaced by functions that put both phases around the original, after
users' own ``commit`` listeners. The dialect instance belongs to the engine (and to engines made from it by
``execution_options()``), so no other engine is affected. :meth:`DialectHooks.remove` puts everything back.

Statements are met here, too, and not in the engine's events: an engine that has one listener makes every statement
some 25 us dearer, also those that a cache has nothing to do with. What a statement writes is noted in the dialect's
``do_execute`` events and not around its call, because a listener may run the statement itself and so keep it from the
call. Those are asked in the order in which they came: where one is there before ours, we take the engine's events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from ..read.replay import MARKER
from .dml import Change
from .ledger import existing_ledger, ledger_of

if TYPE_CHECKING:
    from ..binding import Binding

HOOKED = (
    "do_execute",
    "do_executemany",
    "do_execute_no_params",
    "do_commit",
    "do_rollback",
    "do_savepoint",
    "do_release_savepoint",
    "do_rollback_to_savepoint",
    "do_commit_twophase",
    "do_rollback_twophase",
)


class DialectHooks:
    """The replaced calls of one dialect instance."""

    def __init__(self, binding: Binding) -> None:
        self._engine = binding.engine
        self._dialect = binding.engine.dialect
        self._on_sqlite = self._dialect.name == "sqlite"
        self._binding = binding
        self._path = binding.writes
        self._before: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}
        self._had_events = False
        self._listeners: Sequence[tuple[str, Callable[..., None]]] = (
            ("do_execute", self._before_execute),
            ("do_executemany", self._before_execute),
            ("do_execute_no_params", self._before_execute_no_params),
        )

    def install(self) -> None:
        """Replace the calls."""
        for name in HOOKED:
            original = getattr(self._dialect, name)
            self._before[name] = self._dialect.__dict__.get(name)
            ours = getattr(self, name.replace("do_", "_", 1))(original)
            self._ours[name] = ours
            setattr(self._dialect, name, ours)
        self._had_events = "_has_events" in self._dialect.__dict__
        if any(getattr(self._dialect.dispatch, name) for name, _ in self._listeners):
            self._listeners = (("before_cursor_execute", self._before_cursor_execute),)
        for name, listener in self._listeners:
            event.listen(self._engine, name, listener)

    def remove(self) -> None:
        """Put the original calls back, unless somebody else replaced ours in the meantime."""
        for name, listener in self._listeners:
            event.remove(self._engine, name, listener)
        dispatch = self._dialect.dispatch
        if not self._had_events and not any(getattr(dispatch, name) for name in dispatch._event_names):
            self._dialect.__dict__.pop("_has_events", None)  # what listening switched on
        for name, ours in self._ours.items():
            if self._dialect.__dict__.get(name) is not ours:
                continue
            if self._before[name] is None:
                delattr(self._dialect, name)
            else:
                setattr(self._dialect, name, self._before[name])

    # -- statements ----------------------------------------------------------------------------------------------------

    def _before_cursor_execute(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        self._before_execute_no_params(cursor, statement, context)

    def _before_execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        self._before_execute_no_params(cursor, statement, context)

    def _before_execute_no_params(self, cursor: Any, statement: str, context: Any) -> None:
        if context is None:
            return
        connection = context.root_connection
        ledger = existing_ledger(connection)
        if ledger is not None and ledger.inserting is not None:
            self._path.complete_insert(ledger, context)
        self._path.before_statement(connection, ledger, statement, context)
        if self._binding.debug is not None:
            self._binding.debug.note(connection, context)

    def _run(self, context: Any, cursor: Any, statement: str, execute: Callable[[], None]) -> None:
        connection = context.root_connection
        ledger = existing_ledger(connection)
        if ledger is None or ledger.fresh is None or ledger.last_context is not context:
            execute()  # nothing written, or noted of another statement, which a listener ran by itself
        else:
            self._path.run_statement(ledger, context, execute)
        if ledger or self._on_sqlite or MARKER in context.execution_options:
            self._binding.executed(connection, ledger, cursor, statement, context)
            if ledger is not None and ledger.keyless is not None and ledger.last_context is context:
                ledger.inserting = context

    def _complete_insert(self, connection: Any) -> None:
        ledger = existing_ledger(connection)
        if ledger is not None and ledger.inserting is not None:
            self._path.complete_insert(ledger)

    def _forget_insert(self, connection: Any) -> None:
        ledger = existing_ledger(connection)
        if ledger is not None:
            ledger.inserting = None

    def _execute(self, original: Any) -> Any:
        def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            if context is None:
                original(cursor, statement, parameters)
            else:
                self._run(
                    context, cursor, statement, lambda: original(cursor, statement, parameters, context)
                )

        return do_execute

    _executemany = _execute

    def _execute_no_params(self, original: Any) -> Any:
        def do_execute_no_params(cursor: Any, statement: str, context: Any = None) -> None:
            if context is None:
                original(cursor, statement)
            else:
                self._run(context, cursor, statement, lambda: original(cursor, statement, context))

        return do_execute_no_params

    # -- transactions --------------------------------------------------------------------------------------------------

    def _commit(self, original: Any) -> Any:
        def do_commit(pooled: Any) -> None:
            self._complete_insert(pooled)
            self._path.commit(pooled, lambda: original(pooled))

        return do_commit

    def _rollback(self, original: Any) -> Any:
        def do_rollback(pooled: Any) -> None:
            ledger = existing_ledger(pooled)
            if ledger is not None:
                ledger.inserting = None
            original(pooled)
            if ledger is not None:
                self._path.forget(ledger)

        return do_rollback

    def _savepoint(self, original: Any) -> Any:
        def do_savepoint(connection: Any, name: str) -> None:
            # Not the engine's `savepoint` event: it fires before SQLAlchemy has made up the name.
            self._complete_insert(connection)
            self._path.savepoint(connection, name)
            original(connection, name)

        return do_savepoint

    def _release_savepoint(self, original: Any) -> Any:
        def do_release_savepoint(connection: Any, name: str) -> None:
            self._complete_insert(connection)
            self._path.release(connection, name, lambda: original(connection, name))

        return do_release_savepoint

    def _rollback_to_savepoint(self, original: Any) -> Any:
        def do_rollback_to_savepoint(connection: Any, name: str) -> None:
            self._forget_insert(connection)
            original(connection, name)
            self._path.roll_back_to(connection, name)

        return do_rollback_to_savepoint

    def _commit_twophase(self, original: Any) -> Any:
        def do_commit_twophase(
            connection: Any, xid: Any, is_prepared: bool = True, recover: bool = False
        ) -> None:
            if recover:
                # Prepared elsewhere or long ago: nobody here knows what it wrote.
                ledger_of(connection).add([Change.of_everything("COMMIT PREPARED")])
            self._complete_insert(connection)
            run = partial(original, connection, xid, is_prepared=is_prepared, recover=recover)
            self._path.commit(connection, partial(_unnoted, connection, run))

        return do_commit_twophase

    def _rollback_twophase(self, original: Any) -> Any:
        def do_rollback_twophase(
            connection: Any, xid: Any, is_prepared: bool = True, recover: bool = False
        ) -> None:
            self._forget_insert(connection)
            run = partial(original, connection, xid, is_prepared=is_prepared, recover=recover)
            _unnoted(connection, run)
            self._path.forget(ledger_of(connection))

        return do_rollback_twophase


def _unnoted(connection: Any, end: Callable[[], None]) -> None:
    """End a transaction in two phases; the statements that some dialects send for it are no writes of anybody's."""
    ledger = ledger_of(connection)
    ledger.ending = True
    try:
        end()
    finally:
        ledger.ending = False
