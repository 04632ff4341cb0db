"""What a flush's UPDATE or DELETE tells of the row that it writes: asked for with RETURNING, at no further round trip.

A column that an UPDATE does not set has the same value before and after it, where the database adds nothing of its own
to a statement (:meth:`.consequences.Consequences.is_plain`); a DELETE returns the row as it was. So there is nothing
to be read before such a statement::

    1. A flush is about to set the status of order 7. A list by user_id is cached: whose order it is must be known.
    2. Another transaction moves order 7 to user 2, and commits.
    3. The UPDATE waits for the row's lock, finds the row as 2 left it, and returns user 2. What we loaded does not
       matter.
    4. Until our transaction ends nobody else changes the row.

If 3 fails, or finds no row, what was noted before stays: every tag of the shape.

Only for the unit of work, which sets what has changed. Of a Core statement the row is read beforehand, which shows
columns that are set to what they are, too (:func:`.oldvalues.without_idle`). And only on asyncpg, row by row:
the cursor there is SQLAlchemy's own, so that what we asked for can be taken off again before SQLAlchemy looks at it.
Private in it is ``_description``, on 2.1; ``description`` is an attribute before that (tests/exactness).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy.schema import Column, Table

from ..canonical import Canonical
from ..tags import Shape
from .dml import Change
from .oldvalues import merged, unknown

DRIVER = "asyncpg"
OF_A_FLUSH = "compiled_cache"
"""Execution option that the unit of work gives to its statements."""


class Returned:
    """What a statement is to return."""

    def __init__(self, change: Change, columns: list[Column[Any]], canonical: Canonical, text: str) -> None:
        self._change, self._columns, self._canonical = change, columns, canonical
        self.text = text
        """What the statement ends with."""

    def completed(self, context: Any) -> Change | None:
        """Take what came back off the cursor, and return the change with it; ``None`` if no row was written."""
        cursor = context.cursor
        found, description = cursor.fetchall(), cursor.description
        if hasattr(cursor, "_description"):
            cursor._description = None
        else:
            cursor.description = None
        if len(found) != 1:
            return None
        read: dict[str, str] = {}
        for column, value, (_, kind, *_) in zip(self._columns, found[0], description):
            normalise = self._canonical.of(column)
            process = column.type.dialect_impl(context.dialect).result_processor(context.dialect, kind)
            if normalise is None:
                continue
            try:
                read[column.name] = normalise(value if process is None else process(value))
            except ValueError:
                continue
        change = self._change
        assert change.rows is not None  # else nothing was asked for
        return replace(change, rows=(merged(change.rows[0], read, change.columns),))


def returned(
    context: Any,
    sent: str,
    changes: list[Change],
    table: Table | None,
    shapes: Iterable[Shape],
    canonical: Canonical,
) -> Returned | None:
    """Return what to ask a statement for that is about to be sent; ``None`` where its row is to be read beforehand.

    Args:
        context: Its execution context.
        sent: Its text, as listeners left it.
        changes: What was noted of it; the first is its own, the others follow from that.
        table: Where the first is.
        shapes: The registered ones of that table.
        canonical: Knows the columns of the database.
    """
    change = changes[0]
    if (
        context.dialect.driver != DRIVER
        or OF_A_FLUSH not in context.execution_options
        or context.executemany
        or sent != context.statement
        or "returning" in sent.lower()
        or "--" in sent
    ):
        return None
    if table is None or change.op == "insert" or change.rows is None or len(change.rows) != 1:
        return None
    if any(other.rows is not None for other in changes[1:]):
        return None
    missing = unknown(change, table, shapes)
    if not missing or not missing.isdisjoint(change.columns or ()):
        return None
    columns = [column for column in table.columns if column.name in missing]
    if len(columns) != len(missing) or not all(column.name.isidentifier() for column in columns):
        return None
    quote = context.dialect.identifier_preparer.quote
    return Returned(
        change, columns, canonical, " RETURNING " + ", ".join(quote(column.name) for column in columns)
    )
