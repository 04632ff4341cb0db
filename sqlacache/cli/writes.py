"""``touched`` and ``invalidate``: writes that no session made, told to every process, with both phases of a commit.

The command knows no models. Which tables there are, which columns their keys have and what is read of them, it takes
from what the applications' reads have registered: what they have not registered, nothing depends on.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from ..canonical import NotCanonical, Private, escaped
from ..decisions import Cause, EvictionCause, Scope
from ..digests import Conceal
from ..errors import CacheError, TransportError
from ..tags import EVERYTHING, Shape, TableTouch, touch
from ..write.dml import Change, RowChange
from .connect import Server
from .show import as_json, line, notice

MOST_SPELLINGS = 32
"""Ways in which one composite key may stand in tags; with more, its table's conditions are evicted as a whole."""

Changed = tuple[list[Change], dict[str, tuple[str, ...]]]
"""What is written, and the columns of the primary keys."""
Changes = Callable[[Sequence[Shape]], Changed]
"""Says so, given the shapes that are registered."""

_ATTEMPTS = 100
"""Times that reads may register something new between looking and marking: more than that is no accident."""


@dataclass(frozen=True)
class Done:
    """What a call replaced."""

    table: str
    scope: Scope
    replaced: int
    """Stamps that were there."""
    tags: tuple[str, ...]
    """Stamps that were to be replaced."""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain data."""
        return {"table": self.table, "scope": self.scope, "replaced": self.replaced, "tags": list(self.tags)}


def replace_rows(
    server: Server,
    store: Any,
    table: str,
    keys: Sequence[str] | None,
    columns: Collection[str] | None,
    cause: EvictionCause,
    command: str,
) -> Done:
    """Replace the stamps of what depends on rows of a table, all if ``keys`` is ``None``.

    Args:
        server: Where the cache is.
        store: The store of its database.
        table: Its full name, such as ``users`` or ``shop.users``.
        keys: Primary keys as the user writes them.
        columns: What was written; ``None``: the whole row, or not known.
        cause: As it will be told.
        command: What to call the statement.

    Raises :class:`CacheError` for a table that the cache has nothing of, and for a key that cannot be one of it.
    """
    if not server.is_known(store, table):
        known = server.tables(store)
        raise CacheError(
            f"the cache has nothing of a table {table!r} in {store.layout.database!r}; it has "
            + (f"something of {', '.join(known)}" if known else "nothing of any table")
        )
    notes: list[str] = []
    conceal = None if keys is None else server.conceal()

    def changes(shapes: Sequence[Shape]) -> Changed:
        key = key_of(shapes)
        rows = None if keys is None else tuple(_rows(table, keys, key, _shown(shapes, key)))
        notes[:] = _notes(table, shapes, keys, key, columns)
        changed = None if columns is None else frozenset(columns)
        return [Change(table, "update", changed, rows, cause, command)], {table: key} if key else {}

    touched, replaced = _carry_out(store, table, changes, conceal)
    tags = tuple(itertools.islice(touched.names(), 100))
    return Done(table, touched.scope, replaced, tags, tuple(notes))


def replace_everything(store: Any, command: str) -> Done:
    """Replace the stamp that every read of the database depends on."""
    change = Change.of_everything(command, "flush")
    touched, replaced = _carry_out(store, EVERYTHING, lambda shapes: ([change], {}))
    return Done(EVERYTHING, touched.scope, replaced, tuple(touched.names()))


def _carry_out(
    store: Any, table: str, changes: Changes, conceal: Conceal | None = None
) -> tuple[TableTouch, int]:
    """Mark and settle, as a commit does: a read under way in between can neither be served nor stored."""
    token, at, host = secrets.token_hex(8), time.time(), socket.gethostname()
    touched: dict[str, TableTouch] = {}
    marked = False
    try:
        for _ in range(_ATTEMPTS):
            revision, shapes = store.shapes([table])[table]
            changed, keys = changes(shapes)
            touched = touch(changed, {table: shapes}, keys, conceal)
            causes = {name: _cause(what, at, host) for name, what in touched.items()}
            marked = True
            replaced = store.mark(token, touched, {table: revision}, causes)
            if replaced is not None:
                store.settle(token, touched, causes)
                return touched[table], sum(replaced.values())
    except BaseException:
        if marked:
            with suppress(TransportError):  # then the marks end with their lease
                store.unmark(token, touched)
        raise
    raise CacheError(f"the reads of {table!r} change all the time: not marked after {_ATTEMPTS} attempts")


def _cause(what: TableTouch, at: float, host: str) -> Cause:
    columns = None if what.columns is None else tuple(sorted(what.columns))
    return Cause(
        what.cause, what.table, tuple(what.keys)[:20], columns, what.statement, at, os.getpid(), host, None
    )


def key_of(shapes: Iterable[Shape]) -> tuple[str, ...]:
    """Return the columns of a table's primary key as reads have registered it; none if they have not, or differ."""
    found = {shape.columns for shape in shapes if shape.keyed}
    return found.pop() if len(found) == 1 else ()


def _notes(
    table: str,
    shapes: Sequence[Shape],
    keys: Sequence[str] | None,
    key: tuple[str, ...],
    columns: Collection[str] | None,
) -> list[str]:
    notes = []
    if keys is not None and not key:
        notes.append(
            f"no cached read of {table} is narrowed by its primary key: everything that reads it is evicted"
        )
    if columns is not None:
        whole = any(shape.footprint is None for shape in shapes)
        named = {name for shape in shapes for name in (*shape.columns, *(shape.footprint or ()))}
        for name in sorted(set(columns) - named):
            then = (
                "; only what uses all of its columns is evicted" if whole else "; nothing is evicted for it"
            )
            notes.append(f"no cached read names the column {name!r} of {table} (is it spelt so?){then}")
    return notes


def _shown(shapes: Iterable[Shape], key: tuple[str, ...]) -> tuple[bool | None, ...]:
    """Return which columns of a key are integers or UUIDs, as reads have registered it; ``None``: not known."""
    found = {shape.shown for shape in shapes if shape.keyed}
    known = found.pop() if len(found) == 1 else ()
    return known if len(known) == len(key) else (None,) * len(key)


def _rows(
    table: str, keys: Sequence[str], key: tuple[str, ...], shown: tuple[bool | None, ...]
) -> Iterable[RowChange]:
    for given in keys:
        if not key:
            yield RowChange({}, {})
            continue
        ways = [
            spellings(value, alone=len(key) == 1, shown=is_shown)
            for value, is_shown in zip(_values(table, given, key), shown)
        ]
        rows = list(itertools.islice(itertools.product(*ways), MOST_SPELLINGS + 1))
        if len(rows) > MOST_SPELLINGS:
            rows = [()]
        for values in rows:
            row = dict(zip(key, values))
            yield RowChange(row, row)


def _values(table: str, given: str, key: tuple[str, ...]) -> list[str]:
    """Return the values of a key in the order of its columns."""
    if len(key) == 1:
        return [unquote(given.removeprefix(f"{key[0]}="))]
    named = dict(part.partition("=")[::2] for part in given.split(":"))
    if set(named) != set(key) or given.count(":") != len(key) - 1:
        raise CacheError(
            f"--pks: {table} has a primary key of {len(key)} columns: takes "
            f"{':'.join(f'{column}=...' for column in key)}, got {given.count(':') + 1} part(s)"
        )
    return [unquote(named[column]) for column in key]


def spellings(value: str, *, alone: bool = True, shown: bool | None = None) -> list[str]:
    """Return the canonical texts that a value of a key may have, whatever the type of its column: one is right.

    A tag that nothing depends on has no stamp, so that naming it does nothing.

    Args:
        value: As the database shows it: ``42``, ``north``, ``2024-02-29``, ``a2c5...`` with or without dashes.
        alone: It is all of the key, and so no boolean.
        shown: Its column is one of integers or UUIDs, whose values tags show; ``None``: not known.
    """
    texts = dict.fromkeys((value, value.rstrip(" "), value.lower(), value.lower().rstrip(" ")))
    exact: list[str] = []
    if re.fullmatch(r"\s*[+-]?\d{1,40}\s*", value, re.ASCII):
        exact.append(str(int(value)))
        if not alone and int(value) in (0, 1):
            texts["true" if int(value) else "false"] = None
    with suppress(ValueError):
        exact.append(str(uuid.UUID(value)))
    found: dict[str, None] = {}
    for text in (*texts, *exact):
        try:
            found[escaped(text)] = None
        except NotCanonical as error:
            raise CacheError(f"--pks: {error}, which no database has as a value") from error
    return [*(exact if shown is not False else ()), *(map(Private, found) if not (shown and exact) else ())]


def listed(given: str | None, where: str) -> list[str] | None:
    """Read ``a,b,c``. Raises :class:`CacheError` for an empty one."""
    if given is None:
        return None
    found = [one.strip() for one in given.split(",")]
    if not all(found):
        raise CacheError(f"{where}: takes values with ',' between them, got {given!r}")
    return found


def nothing(table: str) -> Done:
    """Return what is done to a table that the cache has nothing of."""
    return Done(table, "rows", 0, ())


def told(done: Done, *, json: bool) -> None:
    """Print what was done."""
    for note in done.notes:
        notice(note)
    if json:
        as_json(done.to_dict())
        return
    what = "everything" if done.table == EVERYTHING else done.table
    tags = ", ".join(done.tags[:10]) + (f" and {len(done.tags) - 10} more" if len(done.tags) > 10 else "")
    stamps = "1 stamp" if done.replaced == 1 else f"{done.replaced} stamps"
    line(f"{what}: {stamps} replaced ({done.scope})" + (f": {tags}" if tags else ""))
