"""Columns of values that MessagePack leaves to Python: stored as what it has, and made of that a column at a time.

One by one, such a value costs more than all else of its row: the unpacker calls Python for each. A column of decimals
or of naive datetimes is stored as text. One of datetimes in a named time zone (psycopg returns every ``timestamptz``
so) is stored as instants in UTC, which MessagePack has, and moved to its zone afterwards.

Only where every value of the column is None or comes back the same, fold included. A local time that there never was
(in the hour that summer time skips) is no instant, and a column with one is stored value by value.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from operator import methodcaller
from typing import Any
from zoneinfo import ZoneInfo

from ..errors import SerializationError
from .values import name_of, zone_named

_DECIMAL, _NAIVE = 0, 1
"""What a column is, as it is stored; a text is the name of its time zone."""


def take_out(values: list[Any], width: int) -> list[list[Any]]:
    """Replace such columns of ``values``, rows of ``width`` one after the other, by what is stored for them.

    Returns the index of each and what it is. Raises :class:`~sqlacache.errors.SerializationError` for a zone that has
    no name, or one that gives another zone.
    """
    found: list[list[Any]] = []
    for index in range(width):
        column = values[index::width]
        what = _kind_of(next((value for value in column if value is not None), None))
        if what is None:
            continue
        store = _STORED.get(what) or partial(_instant, zone=zone_named(what))
        stored = [None if value is None else store(value) for value in column]
        if stored.count(None) == column.count(None):
            values[index::width] = stored
            found.append([index, what])
    return found


def _kind_of(first: Any) -> Any:
    if type(first) is Decimal:
        return _DECIMAL
    if type(first) is dt.datetime:
        if first.tzinfo is None:
            return _NAIVE
        if type(first.tzinfo) is ZoneInfo:
            return name_of(first.tzinfo)
    return None


def _decimal(value: Any) -> str | None:
    return str(value) if type(value) is Decimal else None


def _naive(value: Any) -> str | None:
    if type(value) is not dt.datetime or value.tzinfo is not None or value.fold:
        return None
    return value.isoformat()


def _instant(value: Any, zone: ZoneInfo) -> dt.datetime | None:
    if type(value) is not dt.datetime or value.tzinfo is not zone:
        return None
    try:
        instant = value.astimezone(dt.timezone.utc)
        again = instant.astimezone(zone)
    except OverflowError:  # at either end of the calendar
        return None
    # Of two in the same zone, the local times are compared, and neither fold nor offset.
    return instant if again == value and again.fold == value.fold else None


_STORED: Mapping[Any, Callable[[Any], Any]] = {_DECIMAL: _decimal, _NAIVE: _naive}
_MADE: Mapping[Any, Callable[[Any], Any]] = {_DECIMAL: Decimal, _NAIVE: dt.datetime.fromisoformat}


def put_back(values: list[Any], width: int, columns: list[list[Any]]) -> None:
    """Undo :func:`take_out`. Raises all kinds of errors for what it has not written."""
    before = -1
    for index, what in columns:
        if not before < index < width:  # each column once, however many they claim to be
            raise SerializationError("a column that there is not")
        before, make = index, _MADE.get(what) or methodcaller("astimezone", zone_named(what))
        values[index::width] = [None if value is None else make(value) for value in values[index::width]]
