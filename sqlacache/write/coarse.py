"""Writes of tables of which nothing is cached: noted as of the whole table, without a look at which rows they write.

A table may always come to be read: by ``cache.execute()``, or by another process whose cache knows the model. So:

::

    1. A statement writes a table that no model configures, and of which the store has no shape. The ledger notes the
       table. (The store has one: which rows are written is noted, as of any other table.)
    2. Before COMMIT the store still has none. The table is marked as being written, and no shape of it is registered
       until it is settled: whatever is read meanwhile is not stored.
       Or a shape came since 1. It and what else is there is replaced, as wide as 1 was.
    3. A shape comes between the look at the registry and the mark. The mark is refused, and 2 begins anew.

What is noted of a statement is therefore decided by what is cheap, and what is touched by the registry at COMMIT.

A transaction that writes nothing else, on a store that knows by itself that nobody has ever read these tables, is only
counted as a writer under way (:class:`Unread`): nothing is replaced, so that nobody is told of an invalidation.

::

    1. Nobody has read the table. The writer is under way, and its COMMIT takes longer than the lease.
    2. A reader registers a shape, reads what was before COMMIT, and stores it.
    3. COMMIT lands. The writer ends, finds that a shape has come, and goes through both phases after all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy.schema import Table

from .dml import Change, DmlPlan
from .phases import Commit, writer_token

if TYPE_CHECKING:
    from ..binding import Binding
    from .path import WritePath


class Whole(Change):
    """A write of a table that no model configures."""

    __slots__ = ()


class Unread:
    """Both phases of a commit of tables that nobody has ever read."""

    def __init__(self, path: WritePath, token: str, changes: Sequence[Change], tables: set[str]) -> None:
        self._path = path
        self._token = token
        self._changes = changes
        self._tables = tables

    def settle(self) -> None:
        """End; where a shape has come meanwhile, what is stored under it goes."""
        if not self._path.binding.store.end_unread(self._token, self._tables):
            Commit(self._path, list(self._changes)).settle()

    def unmark(self) -> None:
        """End: nothing was committed."""
        self._path.binding.store.end_unread(self._token, self._tables)

    def leave(self) -> None:
        """Stay under way until the lease ends: whether and when the database commits is not known."""


class Coarse:
    """Says which statements on one bound engine are noted as writes of a whole table."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding

    def change(self, plan: DmlPlan, context: Any) -> Change | None:
        """Return what is noted of a statement on a table that no model configures; ``None``: its rows are to be noted.

        It is the same for all executions, and worked out once.
        """
        known = plan.coarse
        if known is None or known[0] != self.binding.epoch:
            known = plan.coarse = (self.binding.epoch, self._worked_out(plan, context))
        return None if context.execution_options.get("schema_translate_map") else known[1]

    def begin(self, path: WritePath, changes: Sequence[Change]) -> Unread | None:
        """Begin to commit ``changes``, if they are all of tables that nobody has ever read."""
        for change in changes:
            if type(change) is not Whole:
                return None
        token, tables = writer_token(), {change.table for change in changes}
        if not changes or not self.binding.store.begin_unread(token, tables):
            return None
        return Unread(path, token, changes, tables)

    def is_read(self, table: str) -> bool:
        """Tell whether the store has a shape of ``table``: then which rows are written matters after all."""
        return bool(self.binding.store.shapes((table,))[table][1])

    def _worked_out(self, plan: DmlPlan, context: Any) -> Change | None:
        binding = self.binding
        noted = plan.whole()
        table = getattr(context.compiled.statement, "table", None)
        if noted is None or not isinstance(table, Table) or table.fullname != noted.table:
            return None
        table = table.metadata.tables.get(table.key, table)  # not the ORM's annotated copy
        if not binding.models.mappers(table) or binding.settings.policy((table,)).ops:
            return None  # a table that no class is mapped to is cached with those that it is joined with
        followed = binding.follow([noted])
        if not binding.consequences.is_plain(noted.table) or [change.table for change in followed] != [
            noted.table
        ]:
            return None  # something else is written in consequence, or depends on it
        binding.use(table)
        return Whole(
            noted.table,
            noted.op,
            followed[0].columns,
            None,
            followed[0].cause,
            followed[0].statement,
            after=followed[0].after,
            overwrites=followed[0].overwrites,
        )
