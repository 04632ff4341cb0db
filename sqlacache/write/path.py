"""The way of a write, from a statement on a connection to stamps replaced around its COMMIT.

Statements are noted in the connection's ledger as they run (:meth:`WritePath.before_statement`); at COMMIT the ledger
becomes the stamps to replace, which are marked in flight before and replaced again after (:meth:`WritePath.commit`).

::

    1. The writer marks: every touched stamp is replaced and in flight. Nobody hits on it or fills under it.
    2. The database commits.
    3. The writer settles: the stamps are replaced again and no longer in flight.
    4. commit() returns. A reader that sampled before 1 or between 1 and 3 holds stamps that are gone: what it read
       may be old, and its fill can never hit.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect
from sqlalchemy.schema import Table

from ..errors import TransportError
from ..read.session import driver_connection, driver_in_transaction
from ..tags import ChangeLike
from .coarse import Coarse, Unread
from .dml import Change, DmlPlan, RowChange, analyse, is_ready
from .ending import COMMITTING, has_ended, may_commit, takes_effect_at_once
from .ledger import Inserted, Ledger, Pending, existing_ledger, ledger_of
from .phases import Commit
from .rawsql import classify, temporary_relation
from .readback import ReadBack

if TYPE_CHECKING:
    from ..binding import Binding


class WritePath:
    """Follows the writes of one bound engine."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.host = socket.gethostname()
        self._read_back = ReadBack(binding)
        self._coarse = Coarse(binding)

    # -- statements ----------------------------------------------------------------------------------------------------

    def before_statement(self, connection: Any, ledger: Ledger | None, statement: str, context: Any) -> None:
        """Note what a statement is about to write; ``ledger`` is the connection's, if it has one."""
        compiled = context.compiled
        if compiled is None or context.is_text or context.isddl:
            self._before_text(connection, statement, context)
            return
        plan = analyse(compiled, self.binding.canonical)
        if plan is None or not is_ready(context):
            return
        if ledger is None:
            ledger = ledger_of(connection)
        if ledger.last_context is context:
            return  # a further batch of the same INSERT
        ledger.begin(context)
        coarse = self._coarse.change(plan, context)
        if coarse is None:
            self._note(ledger, *self._written(ledger, plan, context))
            return
        if ledger.changes and ledger.changes[-1] is coarse:
            ledger.fresh = len(ledger.changes)
        else:
            self._note(ledger, (coarse,))
        ledger.coarse = plan

    def _written(self, ledger: Ledger, plan: DmlPlan, context: Any) -> tuple[list[Change], Pending | None]:
        """Return what a statement is about to write, row by row where they are known, and what may be read back."""
        table = getattr(context.compiled.statement, "table", None)
        if isinstance(table, Table):
            self.binding.use(table.metadata.tables.get(table.key, table))  # not the ORM's annotated copy
        translate = context.execution_options.get("schema_translate_map")
        stated = plan.changes(context.compiled_parameters, translate)
        changes = self.binding.follow(stated)
        if "set_config" in plan.functions:
            ledger.session_state = True
        writing = [name for name in plan.functions if self.binding.may_write(name)]
        if writing:
            changes = [Change.of_everything(f"{writing[0]}()")]
        pending = None
        if stated and self.binding.settings.old_values == "read" and not translate and not writing:
            pending = Pending(stated, partial(plan.matched, context.compiled_parameters))
        return changes, pending

    def _before_text(self, connection: Any, statement: str, context: Any) -> None:
        dialect = self.binding.engine.dialect.name
        kind = "write" if context.isddl else classify(statement, dialect)
        commits = may_commit(statement, dialect)
        if kind == "read" and not commits:
            return
        ledger = ledger_of(connection)
        if ledger.ending:
            return  # what the dialect sends to end a transaction in two phases
        ledger.begin(context)
        if kind == "write":
            summary = "DDL" if context.isddl else _verb(statement)
            change = Change.of_everything(summary)
            self._note(ledger, [change])
            hiding = temporary_relation(statement, dialect)
            if hiding is not None and hiding in _bare_names(self.binding.models.tables()):
                ledger.session_state = True  # the name stands for another table on this connection
        elif kind == "state":
            if statement.upper().split()[:2] in (["SET", "LOCAL"], ["SET", "TRANSACTION"]):
                ledger.transaction_state = True
            else:  # RESET ALL keeps the role
                ledger.session_state = statement.upper().split()[:2] != ["DISCARD", "ALL"]
        elif kind == "commit":
            ledger.fresh, ledger.ends = len(ledger.changes), True
        elif kind == "savepoint":
            self.savepoint(connection, _savepoint_name(statement))
        elif kind == "release":
            mark = ledger.release(_savepoint_name(statement))
            if mark is not None and mark.outermost and ledger.changes:  # SQLite commits
                ledger.fresh, ledger.ends = len(ledger.changes), True
        if commits and ledger.changes:
            ledger.may_end = True
            if ledger.fresh is None:
                ledger.fresh = len(ledger.changes)

    def _note(self, ledger: Ledger, changes: Sequence[Change], pending: Pending | None = None) -> None:
        if not changes:
            return
        ledger.fresh, ledger.pending = len(ledger.changes), pending
        ledger.add(changes)
        if self.binding.shares_connection:
            self.binding.dirty.add(ledger)

    def run_statement(self, ledger: Ledger, context: Any, sent: str, execute: Callable[[str], None]) -> None:
        """Run a statement whose writes were noted: read old values first; on an autocommit connection, both phases
        around it. ``execute`` runs it, its text being ``sent`` and what is given.

        This is around the dialect's own call and not in an event, because it may await: SQLAlchemy iterates over an
        event's listeners meanwhile, and a listener added or removed by another task would break the statement.
        """
        connection = context.root_connection
        fresh, pending, coarse = ledger.fresh, ledger.pending, ledger.coarse
        assert fresh is not None  # else there was nothing noted of it
        ledger.forget_statement()
        if coarse is not None and self._coarse.is_read(ledger.changes[-1].table):
            changes, pending = self._written(ledger, coarse, context)
            del ledger.changes[fresh:]
            ledger.add(changes)
        at_once = takes_effect_at_once(connection, self.binding.engine.dialect, context.statement)
        if ledger.ends or ledger.may_end or at_once:
            self._around(ledger, connection.connection, partial(execute, ""), text=True)
        elif pending is None:
            execute("")
        else:
            self._read_back.around(connection, ledger, fresh, pending, context, sent, execute)

    def after_statement(
        self, connection: Any, ledger: Ledger | None, cursor: Any, statement: str, context: Any
    ) -> None:
        """Look at what a statement left behind on its connection."""
        on_sqlite = self.binding.engine.dialect.name == "sqlite"
        if on_sqlite and not ledger and cursor.description is not None and driver_in_transaction(connection):
            ledger_of(connection).read_first = True
        if ledger and context.is_text and classify(statement, self.binding.engine.dialect.name) == "rollback":
            self.forget(ledger)

    def inserted(self, connection: Any, mapper: Any, target: Any) -> None:
        """Complete the rows of an ORM INSERT with keys that the database made, where its result did not tell them."""
        ledger = existing_ledger(connection)
        if ledger is None or not ledger.unkeyed:
            return
        self.complete_insert(ledger)
        if not ledger.unkeyed:
            return
        values = inspect(target).dict
        for table in mapper.tables:
            if table.fullname not in ledger.unkeyed:
                continue
            row: dict[str, Any] = {}
            for column in table.columns:
                prop = mapper._columntoproperty.get(column) if column in mapper._columntoproperty else None
                if prop is not None and prop.key in values:
                    row[column.name] = values[prop.key]
            self._inserted(ledger, table, row)

    def complete_insert(self, ledger: Ledger, running: Any = None) -> None:
        """Complete the rows of the last INSERT with keys that the database made, unless it is running in batches."""
        context, change = ledger.inserting, ledger.keyless
        if context is None or context is running:
            return
        ledger.inserting = ledger.keyless = None
        table = getattr(getattr(context.compiled, "statement", None), "table", None)
        if change is None or not isinstance(table, Table) or table.fullname != change.table:
            return
        keys = list(table.primary_key.columns)
        found = getattr(context, "inserted_primary_key_rows", None) or ()
        rows = change.rows or ()
        count = len(context.compiled_parameters)
        if context.compiled.statement._multi_values or count != len(rows) or count != len(found):
            return
        normalisers = [(column.name, self.binding.canonical.of(column)) for column in keys]
        completed = []
        for row, values in zip(rows, found):
            new = dict(row.new or ())
            for (name, normalise), value in zip(normalisers, values):
                if normalise is None or value is None:
                    return  # nothing is narrowed by it; or nobody asked for what the database made
                try:
                    new[name] = normalise(value)
                except ValueError:
                    return
            completed.append(RowChange(row.old, new))
        ledger.complete(change, tuple(completed))

    def _inserted(self, ledger: Ledger, table: Table, values: Mapping[str, Any]) -> None:
        row: dict[str, str] = {}
        for column in table.columns:
            normalise = self.binding.canonical.of(column)
            if normalise is None or column.name not in values:
                continue
            try:
                row[column.name] = normalise(values[column.name])
            except ValueError:
                continue
        name = table.fullname
        known = Inserted(name, "insert", None, (RowChange(None, row),), "row_insert", f"INSERT {name}")
        ledger.changes.append(self.binding.consequences.itself(known))  # a trigger may set other values

    # -- transactions --------------------------------------------------------------------------------------------------

    def savepoint(self, connection: Any, name: str) -> None:
        outermost = self.binding.engine.dialect.name == "sqlite" and not driver_in_transaction(connection)
        ledger_of(connection).savepoint(name, outermost=outermost)

    def roll_back_to(self, connection: Any, name: str | None) -> None:
        ledger = existing_ledger(connection)
        if ledger is not None:
            ledger.roll_back_to(name)
            if not ledger.changes:
                self.binding.dirty.discard(ledger)

    def release(self, connection: Any, name: str | None, execute: Callable[[], None]) -> None:
        """Release a savepoint; SQLite's outermost one commits when no BEGIN came before it."""
        ledger = existing_ledger(connection)
        mark = ledger.release(name) if ledger is not None else None
        if ledger is None or mark is None or not mark.outermost or not ledger.changes:
            execute()
            return
        commit = self._begin(ledger)
        try:
            execute()
        except BaseException:
            commit.settle()
            raise
        if driver_in_transaction(connection):
            commit.unmark()
        else:
            commit.settle()
            self.forget(ledger)

    def commit(self, pooled: Any, execute: Callable[[], None]) -> None:
        """Carry out a COMMIT with both phases around it. ``pooled`` is what the pool handed out."""
        ledger = ledger_of(pooled)
        if ledger.epoch != self.binding.epoch:
            # Checked out before the engine was bound: nobody saw what it wrote.
            ledger.add([Change.of_everything("a transaction begun before bind()")])
        if not ledger.changes:
            execute()
            self.forget(ledger)
            return
        self._around(ledger, pooled, execute)

    def _around(
        self, ledger: Ledger, pooled: Any, execute: Callable[[], None], *, text: bool = False
    ) -> None:
        """Carry out what commits, or perhaps commits (``text``), with both phases around it.

        When it raised, it counts as committed: nobody can tell. When it was cancelled or the connection broke, it may
        even be carried out later (in the driver's thread, on the server): the stamps stay in flight to the lease's end.
        SQLite can tell: when a reader kept it from committing, the transaction is still open, and may be tried again.
        """
        driver = getattr(pooled, "dbapi_connection", None)
        perhaps = text and not ledger.ends and self.binding.engine.dialect.name in {*COMMITTING, "sqlite"}
        ledger.may_end = False
        commit = self._begin(ledger)
        ended = not perhaps
        try:
            execute()
        except BaseException as error:
            if self._may_come_later(error, driver):
                commit.leave()
            elif self.binding.engine.dialect.name == "sqlite" and driver_in_transaction(driver):
                ended = ledger.ends = False
                commit.unmark()
            else:
                commit.settle()
            raise
        else:
            commit.settle()
            ended = ended or has_ended(driver_connection(driver))
        finally:
            if ended:
                self.forget(ledger)

    def _may_come_later(self, error: BaseException, driver: Any) -> bool:
        dialect: Any = self.binding.engine.dialect
        errors = (getattr(dialect, "loaded_dbapi", None) or dialect.dbapi).Error
        return not isinstance(error, errors) or bool(dialect.is_disconnect(error, driver, None))

    def forget(self, ledger: Ledger) -> None:
        """Forget what the transaction wrote: it has ended."""
        if ledger.changes and self.binding.shares_connection:
            self.binding.dirty.discard(ledger)
        ledger.clear()
        ledger.epoch = self.binding.epoch
        if self.binding.leaving is not None:
            self.binding.leaving.ended(ledger)

    def _begin(self, ledger: Ledger) -> Commit | Unread:
        unread = self._coarse.begin(self, ledger.changes)
        if unread is not None:
            return unread
        commit = Commit(self, ledger.resolved(self.binding.keys))
        if self.binding.debug is not None:
            commit.origins = self.binding.debug.origins(ledger)
        commit.mark()
        return commit

    # -- calls ---------------------------------------------------------------------------------------------------------

    def replace(self, changes: Sequence[ChangeLike]) -> int:
        """Replace at once the stamps of something that already happened; return how many there were."""
        commit = Commit(self, changes)
        if self.binding.debug is not None:
            commit.origins = self.binding.debug.origins_of_call(changes)
        commit.mark(called=True)
        commit.settle(called=True)
        return sum(commit.replaced.values())

    def everything_is_written(self, statement: str) -> Commit:
        """Mark everything as being written; the caller settles it, or the lease ends."""
        commit = Commit(self, [Change.of_everything(statement)])
        try:
            commit.mark(called=True)
        except TransportError:
            if self.binding.settings.on_error == "raise":
                raise
            commit.defer()
        return commit


def _bare_names(tables: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[2].lower() for name in tables}


def _verb(statement: str) -> str:
    """Return the word that a statement begins with; not a comment, which may say anything."""
    word = statement.split(None, 1)[0].upper() if statement.split() else ""
    return word[:20] if word.isalpha() else "SQL"


def _savepoint_name(statement: str) -> str:
    return statement.split()[-1].strip('"`;') if statement.split() else ""
