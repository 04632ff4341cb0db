"""Values that must come back exactly, and what exactly means."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import math
import struct
import uuid
from decimal import Decimal
from typing import Any
from zlib import crc32
from zoneinfo import ZoneInfo

from asyncpg import BitString, Box, Circle, Line, LineSegment, Path, Point, Polygon, Range
from asyncpg.pgproto.pgproto import UUID as AsyncpgUUID

from sqlacache.store.codec import SafeCodec

UTC = dt.timezone.utc
SAFE = SafeCodec()
ONE_COLUMN = (("value", None, None, None, None, None, None),)


def column(name: str, code: Any = None) -> tuple[Any, ...]:
    return (name, code, None, None, None, None, None)


def round_trip(value: Any) -> Any:
    return SAFE.decode_rows(SAFE.encode_rows(ONE_COLUMN, [(value,)])).rows[0][0]


def sealed(body: bytes, version: int = 1, kind: bytes = b"s", flags: int = 0) -> bytes:
    """An envelope with a checksum that fits, whatever is in it."""
    header = b"sqlc" + bytes([version]) + kind + bytes([flags])
    return header + struct.pack(">I", crc32(body, crc32(header))) + body


def same(left: Any, right: Any) -> bool:
    """Whether two values have the same types and the same content all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack(">d", left) == struct.pack(">d", right)
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, (set, frozenset)):
        return len(left) == len(right) and all(any(same(a, b) for b in right) for a in left)
    if isinstance(left, (dt.datetime, dt.time)):
        return (left.replace(tzinfo=None), left.fold) == (right.replace(tzinfo=None), right.fold) and (
            repr(left.tzinfo) == repr(right.tzinfo)
        )
    if isinstance(left, Range):
        parts = ("lower", "upper", "lower_inc", "upper_inc", "isempty")
        return all(same(getattr(left, part), getattr(right, part)) for part in parts)
    return bool(left == right)


class Colour(str, enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


VALUES = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "negative": -1,
    "64 bits": 2**64 - 1,
    "past 64 bits": 2**64,
    "lowest of 64 bits": -(2**63),
    "below 64 bits": -(2**63) - 1,
    "huge int": -(3**5000),
    "float": 0.1,
    "whole float": 1.0,
    "negative zero": -0.0,
    "nan": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "text": "naïve £ 😀 \x00",
    "empty text": "",
    "bytes": bytes(range(256)),
    "bytearray": bytearray(b"abc"),
    "decimal": Decimal("-12.3400"),
    "decimal of a float's digits": Decimal.from_float(0.1),
    "decimal exponent": Decimal("1E+30"),
    "decimal negative zero": Decimal("-0.00"),
    "decimal nan": Decimal("NaN"),
    "decimal signalling nan": Decimal("-sNaN12"),
    "decimal infinity": Decimal("-Infinity"),
    "datetime": dt.datetime(2024, 2, 29, 12, 30, 1, 2),
    "first datetime": dt.datetime.min,
    "last datetime": dt.datetime.max,
    "folded datetime": dt.datetime(2024, 10, 27, 2, 30, fold=1),
    "datetime in utc": dt.datetime(2024, 2, 29, 12, 30, 1, 999999, tzinfo=UTC),
    "datetime in utc before 1970": dt.datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
    "first datetime in utc": dt.datetime.min.replace(tzinfo=UTC),
    "last datetime in utc": dt.datetime.max.replace(tzinfo=UTC),
    "folded datetime in utc": dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=UTC),
    "datetime with offset": dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-5, seconds=7))),
    "datetime with named offset": dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
    "datetime in utc by name": dt.datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=ZoneInfo("Etc/UTC")),
    "datetime in a gap": dt.datetime(2024, 3, 31, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    "datetime in a zone": dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    "date": dt.date(2024, 2, 29),
    "first date": dt.date.min,
    "last date": dt.date.max,
    "time": dt.time(23, 59, 59, 999999),
    "time with offset": dt.time(1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    "folded time": dt.time(2, 30, fold=1),
    "timedelta": dt.timedelta(days=-3, seconds=5, microseconds=7),
    "largest timedelta": dt.timedelta.max,
    "smallest timedelta": dt.timedelta.min,
    "uuid": uuid.UUID("12345678-1234-5678-9234-567812345678"),
    "asyncpg uuid": AsyncpgUUID("12345678-1234-5678-9234-567812345678"),
    "list": [1, "a", None, [2.5, [b"x"]], Decimal("1.10")],
    "list with a bytearray": [bytearray(b"a"), b"a"],
    "dict": {"b": 1, "a": [None, {"c": dt.date(2024, 1, 1)}]},
    "dict with other keys": {1: "int", "1": "str", b"1": "bytes", (1, "x"): "tuple", None: "none"},
    "tuple": (1, ("a", [2]), ()),
    "set": {1, "a", (2, 3)},
    "frozenset": frozenset({1, 2, None}),
    "ipv4 address": ipaddress.IPv4Address("10.0.0.1"),
    "ipv6 address with scope": ipaddress.IPv6Address("fe80::1%eth0"),
    "ipv4 network": ipaddress.IPv4Network("10.0.0.0/8"),
    "ipv6 network": ipaddress.IPv6Network("2001:db8::/32"),
    "ipv4 interface": ipaddress.IPv4Interface("10.0.0.1/8"),
    "ipv6 interface": ipaddress.IPv6Interface("2001:db8::1/64"),
    "range": Range(1, 10, lower_inc=True, upper_inc=False),
    "range of dates": Range(dt.date(2024, 1, 1), None, lower_inc=False),
    "range of decimals": Range(Decimal("1.0"), Decimal("2.00"), upper_inc=True),
    "empty range": Range(empty=True),
    "list of ranges": [Range(1, 2), Range(5, None)],
    "bit string": BitString("1010 1"),
    "empty bit string": BitString(),
    "point": Point(1.5, -0.0),
    "box": Box((3, 4), (1, 2)),
    "line": Line(1, 2, 3),
    "line segment": LineSegment((1, 2), (3, 4)),
    "open path": Path((1, 2), (3, 4), is_closed=False),
    "closed path": Path((1, 2), (3, 4), is_closed=True),
    "polygon": Polygon((0, 0), (1, 0), (1, 1)),
    "circle": Circle(Point(1, 2), 3),
}
