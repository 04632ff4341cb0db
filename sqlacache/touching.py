"""Invalidations by call: rows of a table that were written elsewhere, or that somebody wants gone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from .binding import Binding
from .errors import CacheError
from .write.dml import Change, RowChange

if TYPE_CHECKING:
    from .core import Core


async def touched(
    manager: Core, table: str, columns: Collection[str] | None, pks: Iterable[Any] | None
) -> int:
    """Carry out :meth:`.CacheManager.touched`."""
    manager.check_bound("touched")
    named = manager.models.named(table)
    if columns is not None and not isinstance(columns, str):
        fitting = [one for one in named if set(columns) <= {column.name for column in one.columns}]
        named = fitting or named  # several metadata may have a table of this name
    known = named[0] if named else None
    if known is None and table not in manager.settings.depends_on:
        raise CacheError(f"touched: takes the name of a table of a mapped class, got {table!r}")
    if columns is not None and known is not None:
        if isinstance(columns, str):
            raise CacheError(f"touched: columns takes a collection of names, got {columns!r}")
        unknown = sorted(set(columns) - {column.name for column in known.columns})
        if unknown:
            raise CacheError(f"touched: {table} has no column {unknown[0]!r}")
    return await touch(
        manager,
        table,
        keys_of(pks),
        None if columns is None else frozenset(columns),
        "touched",
        known,
    )


async def touch(
    manager: Core,
    name: str,
    keys: list[Any] | None,
    columns: frozenset[str] | None,
    cause: Any,
    table: Any,
) -> int:
    """Replace the stamps of rows of a table, all if ``keys`` is ``None``; return how many there were."""
    total = 0
    if keys == []:
        return 0
    for binding in manager.unique_stores():
        rows = None
        if table is not None:
            binding.suppose(table)
        if keys is not None and table is not None:
            rows = tuple(_row_of(binding, table, key) for key in keys)
        change = Change(name, "update", columns, rows, cause, "")
        total += await manager.front.call(binding.writes.replace, binding.follow([change]))
    return total


def keys_of(pks: Any) -> list[Any] | None:
    """Return primary keys as a list. Raises :class:`CacheError` for what is no collection of them."""
    if pks is None:
        return None
    if isinstance(pks, (str, bytes)) or not isinstance(pks, Iterable):
        raise CacheError(f"pks takes a collection of primary keys, got {type(pks).__name__}")
    return list(pks)


def _row_of(binding: Binding, table: Any, key: Any) -> RowChange:
    columns = list(table.primary_key.columns)
    values = key if isinstance(key, (tuple, list)) else (key,)
    if len(values) != len(columns):
        raise CacheError(f"{table.fullname}: a primary key has {len(columns)} value(s), got {len(values)}")
    row: dict[str, str] = {}
    for column, value in zip(columns, values):
        normalise = binding.canonical.of(column)
        if normalise is not None:
            try:
                row[column.name] = normalise(value)
            except ValueError as error:
                raise CacheError(f"{table.fullname}: {column.name} has no such value: {error}") from error
    return RowChange(row, row)
