"""Columns of datetimes in a named time zone, stored as instants: psycopg returns every ``timestamptz`` so.

One by one, such a datetime costs more than all else of its row: MessagePack leaves it to Python, and there the zone has
to be looked up and set. An instant in UTC is MessagePack's own; a column of them is moved to its zone afterwards.

Only where every value comes back the same, fold included, which is so wherever it was an instant once. A local time
that there never was (in the hour that summer time skips) has none, and a column with one is stored value by value.
"""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

from ..errors import SerializationError
from .values import name_of, zone_named


def take_out(values: list[Any], width: int) -> list[list[Any]]:
    """Replace such columns of ``values``, rows of ``width`` one after the other, by instants.

    Returns the index and the zone's name of each. Raises :class:`~sqlacache.errors.SerializationError` for a zone that
    has no name, or one that gives another zone.
    """
    found = []
    for index in range(width):
        column = values[index::width]
        first = next((value for value in column if value is not None), None)
        zone = first.tzinfo if type(first) is dt.datetime else None
        if type(zone) is not ZoneInfo:
            continue
        instants = _instants(column, zone)
        if instants is not None:
            values[index::width] = instants
            found.append([index, name_of(zone)])
    return found


def _instants(column: list[Any], zone: ZoneInfo) -> list[dt.datetime | None] | None:
    instants: list[dt.datetime | None] = []
    for value in column:
        if value is None:
            instants.append(None)
            continue
        if type(value) is not dt.datetime or value.tzinfo is not zone:
            return None
        try:
            instant = value.astimezone(dt.timezone.utc)
            again = instant.astimezone(zone)
        except OverflowError:  # at either end of the calendar
            return None
        if again.fold != value.fold or again.replace(tzinfo=None) != value.replace(tzinfo=None):
            return None
        instants.append(instant)
    return instants


def put_back(values: list[Any], width: int, zones: list[list[Any]]) -> None:
    """Undo :func:`take_out`. Raises all kinds of errors for what it has not written."""
    before = -1
    for index, name in zones:
        if not before < index < width:  # each column once, however many they claim to be
            raise SerializationError("a time zone of a column that there is not")
        before, zone = index, zone_named(name)
        values[index::width] = [
            value if value is None else value.astimezone(zone) for value in values[index::width]
        ]
