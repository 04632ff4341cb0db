"""Wrapping the dialect's calls: SQLAlchemy has no event after COMMIT, and none in which a statement may be awaited.

``ConnectionEvents.commit`` fires before the driver commits and there is none after it, so the bound engine's own
dialect instance gets ``do_commit`` and its kin replaced by functions that put both phases around the original, after
users' own ``commit`` listeners. The dialect instance belongs to the engine (and to engines made from it by
``execution_options()``), so no other engine is affected. :meth:`DialectHooks.remove` puts everything back. Where
somebody else has replaced ours meanwhile, and calls it, it stays as a plain way to the original.

Statements are met here, too, and not in the engine's events: an engine that has one listener makes every statement
some 25 us dearer, also those that a cache has nothing to do with. What a statement writes is noted in the dialect's
``do_execute`` events and not around its call, because a listener may run the statement itself and so keep it from the
call. Those are asked in the order in which they came: where one is there before ours, we take the engine's events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..events import listen_to, stop_listening_to
from ..forgotten import ROLLS_BACK, unless_collected, without_waiting
from ..read.replay import MARKER
from .dml import Change
from .ledger import existing_ledger, ledger_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

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
    "do_terminate",
)


OURS = "_sqlacache_hooks"
"""Attribute of the functions that replace a dialect's calls."""


class DialectHooks:
    """The replaced calls of one dialect instance."""

    def __init__(self, binding: Binding) -> None:
        self._dialect = binding.engine.dialect
        self._on_sqlite = self._dialect.name == "sqlite"
        self._binding: Callable[[], Binding | None] = ref(binding)
        """The engine has it. A dialect may be there longer: compiled statements have it, which mappers keep."""
        self._is_removed = False
        self._before: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}
        self._had_events = False
        self._listeners: Sequence[tuple[str, Callable[..., None]]] = (
            ("do_execute", self._before_execute),
            ("do_executemany", self._before_execute),
            ("do_execute_no_params", self._before_execute_no_params),
        )

    def install(self, engine: Engine) -> None:
        """Replace the calls."""
        for name in HOOKED:
            original = getattr(self._dialect, name)
            self._before[name] = self._dialect.__dict__.get(name)
            ours = getattr(self, name.replace("do_", "_", 1))(original)
            if ours is original:
                continue
            setattr(ours, OURS, self)
            self._ours[name] = ours
            setattr(self._dialect, name, ours)
        below = getattr(self._before["do_commit"], OURS, None)  # of a binding that is leaving
        self._had_events = below._had_events if below else "_has_events" in self._dialect.__dict__
        if any(getattr(self._dialect.dispatch, name) for name, _ in self._listeners):
            self._listeners = (("before_cursor_execute", self._before_cursor_execute),)
        for name, listener in self._listeners:
            listen_to(self._target(engine, name), name, listener)

    def _target(self, engine: Engine | None, name: str) -> Any:
        return engine if name == "before_cursor_execute" else self._dialect

    def remove(self, engine: Engine | None) -> None:
        """Put the original calls back, unless somebody else replaced ours in the meantime.

        ``None``: the engine is gone.
        """
        for name, listener in self._listeners:
            target = self._target(engine, name)
            if target is not None:
                stop_listening_to(target, name, listener)
        dispatch = self._dialect.dispatch
        if not self._had_events and not any(getattr(dispatch, name) for name in dispatch._event_names):
            self._dialect.__dict__.pop("_has_events", None)  # what listening switched on
        for name, ours in self._ours.items():
            if self._dialect.__dict__.get(name) is not ours:
                continue
            before = self._before_ours(name)
            if before is None:
                delattr(self._dialect, name)
            else:
                setattr(self._dialect, name, before)
        self._is_removed = True

    def _before_ours(self, name: str) -> Any:
        """Return what a call was before any of ours that is removed by now."""
        before = self._before[name]
        below = getattr(before, OURS, None)
        return below._before_ours(name) if below is not None and below._is_removed else before

    def _following(self, connection: Any) -> Binding | None:
        """Return the binding that is to see what is done on a connection, unless its engine was unbound."""
        binding = self._binding()
        if binding is None or self._is_removed:
            return None
        if binding.leaving is None or binding.leaving.follows(existing_ledger(connection)):
            return binding
        return None

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
        binding = self._following(connection)
        if binding is None:
            return
        ledger = existing_ledger(connection)
        if ledger is not None and ledger.inserting is not None:
            binding.writes.complete_insert(ledger, context)
        binding.writes.before_statement(connection, ledger, statement, context)
        if binding.debug is not None:
            binding.debug.note(connection, context)

    def _run(self, context: Any, cursor: Any, statement: str, execute: Callable[[str], None]) -> None:
        connection = context.root_connection
        binding = self._following(connection)
        if binding is None:
            return execute("")
        ledger = existing_ledger(connection)
        if ledger is None or ledger.fresh is None or ledger.last_context is not context:
            execute("")  # nothing written, or noted of another statement, which a listener ran by itself
        else:
            binding.writes.run_statement(ledger, context, statement, execute)
        if ledger or self._on_sqlite or MARKER in context.execution_options:
            binding.executed(connection, ledger, cursor, statement, context)
            if ledger is not None and ledger.keyless is not None and ledger.last_context is context:
                ledger.inserting = context
        return None

    def _execute(self, original: Any) -> Any:
        def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            if context is None:
                original(cursor, statement, parameters)
            else:
                self._run(
                    context,
                    cursor,
                    statement,
                    lambda more: original(cursor, statement + more, parameters, context),
                )

        return do_execute

    _executemany = _execute

    def _execute_no_params(self, original: Any) -> Any:
        def do_execute_no_params(cursor: Any, statement: str, context: Any = None) -> None:
            if context is None:
                original(cursor, statement)
            else:
                self._run(
                    context, cursor, statement, lambda more: original(cursor, statement + more, context)
                )

        return do_execute_no_params

    # -- transactions --------------------------------------------------------------------------------------------------

    def _commit(self, original: Any) -> Any:
        def do_commit(pooled: Any) -> Any:
            binding = self._following(pooled)
            if binding is None:
                return original(pooled)
            _complete_insert(binding, pooled)
            return binding.writes.commit(pooled, lambda: original(pooled))

        return do_commit

    def _rollback(self, original: Any) -> Any:
        if ROLLS_BACK and self._dialect.is_async:
            original = unless_collected(original)

        def do_rollback(pooled: Any) -> None:
            binding = self._following(pooled)
            ledger = existing_ledger(pooled) if binding is not None else None
            if ledger is not None:
                ledger.inserting = None
            original(pooled)
            if binding is not None and ledger is not None:
                binding.writes.forget(ledger)

        return do_rollback

    def _terminate(self, original: Any) -> Any:
        return without_waiting(original) if self._dialect.is_async else original

    def _savepoint(self, original: Any) -> Any:
        def do_savepoint(connection: Any, name: str) -> None:
            # Not the engine's `savepoint` event: it fires before SQLAlchemy has made up the name.
            binding = self._following(connection)
            if binding is not None:
                _complete_insert(binding, connection)
                binding.writes.savepoint(connection, name)
            original(connection, name)

        return do_savepoint

    def _release_savepoint(self, original: Any) -> Any:
        def do_release_savepoint(connection: Any, name: str) -> Any:
            binding = self._following(connection)
            if binding is None:
                return original(connection, name)
            _complete_insert(binding, connection)
            return binding.writes.release(connection, name, lambda: original(connection, name))

        return do_release_savepoint

    def _rollback_to_savepoint(self, original: Any) -> Any:
        def do_rollback_to_savepoint(connection: Any, name: str) -> None:
            binding = self._following(connection)
            if binding is not None:
                _forget_insert(connection)
            original(connection, name)
            if binding is not None:
                binding.writes.roll_back_to(connection, name)

        return do_rollback_to_savepoint

    def _commit_twophase(self, original: Any) -> Any:
        def do_commit_twophase(
            connection: Any, xid: Any, is_prepared: bool = True, recover: bool = False
        ) -> Any:
            binding = self._following(connection)
            run = partial(original, connection, xid, is_prepared=is_prepared, recover=recover)
            if binding is None:
                return run()
            if recover:
                # Prepared elsewhere or long ago: nobody here knows what it wrote.
                ledger_of(connection).add([Change.of_everything("COMMIT PREPARED")])
            _complete_insert(binding, connection)
            return binding.writes.commit(connection, partial(_unnoted, connection, run))

        return do_commit_twophase

    def _rollback_twophase(self, original: Any) -> Any:
        def do_rollback_twophase(
            connection: Any, xid: Any, is_prepared: bool = True, recover: bool = False
        ) -> Any:
            binding = self._following(connection)
            run = partial(original, connection, xid, is_prepared=is_prepared, recover=recover)
            if binding is None:
                return run()
            _forget_insert(connection)
            _unnoted(connection, run)
            return binding.writes.forget(ledger_of(connection))

        return do_rollback_twophase


def _complete_insert(binding: Binding, connection: Any) -> None:
    ledger = existing_ledger(connection)
    if ledger is not None and ledger.inserting is not None:
        binding.writes.complete_insert(ledger)


def _forget_insert(connection: Any) -> None:
    ledger = existing_ledger(connection)
    if ledger is not None:
        ledger.inserting = None


def _unnoted(connection: Any, end: Callable[[], None]) -> None:
    """End a transaction in two phases; the statements that some dialects send for it are no writes of anybody's."""
    ledger = ledger_of(connection)
    ledger.ending = True
    try:
        end()
    finally:
        ledger.ending = False
