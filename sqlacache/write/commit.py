"""Wrapping the dialect's calls: SQLAlchemy has no event after COMMIT, and none in which a statement may be awaited.

``ConnectionEvents.commit`` fires before the driver commits and there is none after it, so the bound engine's own
dialect instance gets ``do_commit`` and its kin replaced by functions that put both phases around the original, after
users' own ``commit`` listeners. The dialect instance belongs to the engine (and to engines made from it by
``execution_options()``), so no other engine is affected. :meth:`DialectHooks.remove` puts everything back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..tags import EVERYTHING
from .dml import Change
from .ledger import ledger_of

if TYPE_CHECKING:
    from .path import WritePath

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

    def __init__(self, dialect: Any, path: WritePath) -> None:
        self._dialect = dialect
        self._path = path
        self._before: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}

    def install(self) -> None:
        """Replace the calls."""
        for name in HOOKED:
            original = getattr(self._dialect, name)
            self._before[name] = self._dialect.__dict__.get(name)
            ours = getattr(self, name.replace("do_", "_", 1))(original)
            self._ours[name] = ours
            setattr(self._dialect, name, ours)

    def remove(self) -> None:
        """Put the original calls back, unless somebody else replaced ours in the meantime."""
        for name, ours in self._ours.items():
            if self._dialect.__dict__.get(name) is not ours:
                continue
            if self._before[name] is None:
                delattr(self._dialect, name)
            else:
                setattr(self._dialect, name, self._before[name])

    def _execute(self, original: Any) -> Any:
        def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            if context is None:
                original(cursor, statement, parameters)
            else:
                self._path.run_statement(context, lambda: original(cursor, statement, parameters, context))

        return do_execute

    _executemany = _execute

    def _execute_no_params(self, original: Any) -> Any:
        def do_execute_no_params(cursor: Any, statement: str, context: Any = None) -> None:
            if context is None:
                original(cursor, statement)
            else:
                self._path.run_statement(context, lambda: original(cursor, statement, context))

        return do_execute_no_params

    def _commit(self, original: Any) -> Any:
        def do_commit(pooled: Any) -> None:
            self._path.commit(pooled, lambda: original(pooled))

        return do_commit

    def _rollback(self, original: Any) -> Any:
        def do_rollback(pooled: Any) -> None:
            self._path.roll_back(pooled, lambda: original(pooled))

        return do_rollback

    def _savepoint(self, original: Any) -> Any:
        def do_savepoint(connection: Any, name: str) -> None:
            # Not the engine's `savepoint` event: it fires before SQLAlchemy has made up the name.
            self._path.savepoint(connection, name)
            original(connection, name)

        return do_savepoint

    def _release_savepoint(self, original: Any) -> Any:
        def do_release_savepoint(connection: Any, name: str) -> None:
            self._path.release(connection, name, lambda: original(connection, name))

        return do_release_savepoint

    def _rollback_to_savepoint(self, original: Any) -> Any:
        def do_rollback_to_savepoint(connection: Any, name: str) -> None:
            original(connection, name)
            self._path.roll_back_to(connection, name)

        return do_rollback_to_savepoint

    def _commit_twophase(self, original: Any) -> Any:
        def do_commit_twophase(
            connection: Any, xid: Any, is_prepared: bool = True, recover: bool = False
        ) -> None:
            if recover:
                # Prepared elsewhere or long ago: nobody here knows what it wrote.
                ledger_of(connection).add(
                    [Change(EVERYTHING, "update", None, None, "raw_write", "COMMIT PREPARED")]
                )
            self._path.commit(
                connection, lambda: original(connection, xid, is_prepared=is_prepared, recover=recover)
            )

        return do_commit_twophase

    def _rollback_twophase(self, original: Any) -> Any:
        def do_rollback_twophase(
            connection: Any, xid: Any, is_prepared: bool = True, recover: bool = False
        ) -> None:
            self._path.roll_back(
                connection, lambda: original(connection, xid, is_prepared=is_prepared, recover=recover)
            )

        return do_rollback_twophase
