"""The byte form of single values: a closed list of types, each with its exact round trip.

None, bool, int of 64 bits, float, str and bytes are MessagePack's own and take no Python code. Everything else is a
MessagePack extension whose code below is part of the stored format. *Leaves* hold no other values and are written by
the packer's hook; *containers* are walked beforehand, because MessagePack would flatten some of what they may hold (a
bytearray to bytes). A type is matched exactly, never by ``isinstance``: a subclass has no byte form unless it is
listed. Types of drivers are listed by name and looked up when one is met, among what is loaded: nothing is imported.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import sys
import uuid
from collections.abc import Callable, Iterable
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import chain
from struct import Struct
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgpack
from msgpack import ExtType, Timestamp

from ..errors import SerializationError

MAX_DEPTH = 16
"""How deep lists, dicts, tuples and sets may nest in one value."""
ROOM = 4096
"""Bytes that the packer begins with; it takes more when it needs more. By default it takes 256 KiB from the heap for
every value, however small; where such pieces come and go, the heap is left in fragments (docs/evidence.md, "Leaks")."""

_BIGINT, _DECIMAL, _DATETIME, _DATETIME_ZONED, _DATE, _TIME, _TIME_ZONED, _TIMEDELTA, _UUID, _UUID_ASYNCPG = (
    range(10)
)
_DATETIME_NAMED = 10
_BYTEARRAY, _IP, _TUPLE, _SET, _FROZENSET, _MEMORYVIEW = range(16, 22)
_FOREIGN_FIRST = 32
_KEY_DICT, _KEY_SET, _KEY_ENUM = range(64, 67)  # only ever in keys

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_ORDINAL, _DURATION = Struct(">I"), Struct(">iII")
_ZONE_KEY = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
_IP_CLASSES = (
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
)


def pack(value: Any) -> bytes:
    """Return the bytes of a value made of direct types and of what a :class:`Walker` returned."""
    packed: bytes = msgpack.packb(value, default=_leaf, strict_types=True, buf_size=ROOM)
    return packed


def unpack(data: bytes | memoryview, depth: int = 0) -> Any:
    """Return the value packed in ``data``, itself ``depth`` extensions deep; raises all kinds of errors."""
    return msgpack.unpackb(data, ext_hook=_HOOKS[depth], timestamp=3, strict_map_key=False)


_ASYNCPG_UUID = ("asyncpg.pgproto.pgproto", "UUID")


@lru_cache(maxsize=64)
def _foreign_class(where: tuple[str, str]) -> Any:
    """Return a driver's class. Where its driver is not loaded, nobody here stored such values or is to read them."""
    module = sys.modules.get(where[0])
    if module is None:
        raise SerializationError(f"{where[0]} is not loaded")
    return getattr(module, where[1])


def _dump_zone(zone: dt.tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is dt.timezone:
        return list(zone.__getinitargs__())  # type: ignore[attr-defined]  # of pickle's protocol, not in typeshed
    if type(zone) is ZoneInfo:
        return name_of(zone)
    raise SerializationError(f"no safe byte form for the time zone {zone!r}")


@lru_cache(maxsize=256)
def name_of(zone: ZoneInfo) -> str:
    """Return the name of a zone; raise :class:`~sqlacache.errors.SerializationError` where that gives another one."""
    if _ZONE_KEY.fullmatch(zone.key or "") and ZoneInfo(zone.key) is zone:
        return zone.key
    raise SerializationError(f"no safe byte form for the time zone {zone!r}")


def _load_zone(stored: Any) -> dt.tzinfo | None:
    if stored is None:
        return None
    return dt.timezone(*stored) if type(stored) is list else zone_named(stored)


@lru_cache(maxsize=256)
def zone_named(name: str) -> ZoneInfo:
    """Return a zone of the system; raises all kinds of errors for what is none."""
    if not _ZONE_KEY.fullmatch(name):  # which would be the path of a file
        raise SerializationError("not the name of a time zone")
    return ZoneInfo(name)


def _dump_datetime(value: dt.datetime) -> Any:
    zone = value.tzinfo
    if value.fold or (zone is not None and zone is not dt.timezone.utc):
        local, name = value.replace(tzinfo=None).isoformat(), _dump_zone(zone)
        if type(name) is str and not value.fold:
            return ExtType(_DATETIME_NAMED, f"{local} {name}".encode())
        return ExtType(_DATETIME_ZONED, pack([local, value.fold, name]))
    if zone is None:
        return ExtType(_DATETIME, value.isoformat().encode())
    since = value - _EPOCH
    return Timestamp(since.days * 86400 + since.seconds, since.microseconds * 1000)  # decoded in C


def _load_datetime_named(data: bytes) -> dt.datetime:
    local, _, name = data.decode().partition(" ")
    return dt.datetime.fromisoformat(local).replace(tzinfo=zone_named(name))


def _load_datetime_zoned(members: list[Any]) -> dt.datetime:
    local, fold, zone = members
    return dt.datetime.fromisoformat(local).replace(fold=fold, tzinfo=_load_zone(zone))


def _dump_time(value: dt.time) -> Any:
    if value.tzinfo is None and not value.fold:
        return ExtType(_TIME, value.isoformat().encode())
    local = value.replace(tzinfo=None).isoformat()
    return ExtType(_TIME_ZONED, pack([local, value.fold, _dump_zone(value.tzinfo)]))


def _load_time_zoned(members: list[Any]) -> dt.time:
    local, fold, zone = members
    return dt.time.fromisoformat(local).replace(fold=fold, tzinfo=_load_zone(zone))


def _load_uuid(data: bytes) -> uuid.UUID:
    """Set what ``UUID(bytes=data)`` sets, in half the time: its checks are for what people write."""
    if len(data) != 16:
        raise ValueError("not a UUID")
    made = object.__new__(uuid.UUID)
    object.__setattr__(made, "int", int.from_bytes(data, "big"))
    object.__setattr__(made, "is_safe", uuid.SafeUUID.unknown)
    return made


def _load_first_asyncpg_uuid(data: bytes) -> Any:
    kind = _LEAF_LOADERS[_UUID_ASYNCPG] = _foreign_class(_ASYNCPG_UUID)
    return kind(data)


_VIEW_FORMATS = ("B", "c")


def _dump_view(view: memoryview) -> Any:
    """psycopg2 returns bytea so: bytes that nobody can write to, in one dimension."""
    if view.format not in _VIEW_FORMATS or view.ndim != 1 or not view.readonly:
        raise SerializationError(f"no safe byte form for a memoryview of format {view.format!r}")
    return ExtType(_MEMORYVIEW, view.format.encode() + view.tobytes())


def _load_view(data: bytes) -> Any:
    view = memoryview(data[1:])
    return view if data[:1] == b"B" else view.cast("c")


def _dump_ip(value: Any) -> Any:
    return ExtType(_IP, bytes([_IP_CLASSES.index(type(value))]) + str(value).encode())


_LEAVES: dict[type, Callable[[Any], Any]] = {
    int: lambda v: ExtType(_BIGINT, v.to_bytes(v.bit_length() // 8 + 1, "big", signed=True)),  # past 64 bits
    Decimal: lambda v: ExtType(_DECIMAL, str(v).encode()),
    dt.datetime: _dump_datetime,
    dt.date: lambda v: ExtType(_DATE, _ORDINAL.pack(v.toordinal())),
    dt.time: _dump_time,
    dt.timedelta: lambda v: ExtType(_TIMEDELTA, _DURATION.pack(v.days, v.seconds, v.microseconds)),
    uuid.UUID: lambda v: ExtType(_UUID, v.bytes),
    **dict.fromkeys(_IP_CLASSES, _dump_ip),
}
"""How the packer's hook writes values that hold no others."""

_LEAF_LOADERS: dict[int, Callable[[bytes], Any]] = {
    _BIGINT: lambda data: int.from_bytes(data, "big", signed=True),
    _DATETIME_NAMED: _load_datetime_named,
    _DATE: lambda data: dt.date.fromordinal(*_ORDINAL.unpack(data)),
    _TIME: lambda data: dt.time.fromisoformat(data.decode()),
    _TIMEDELTA: lambda data: dt.timedelta(*_DURATION.unpack(data)),
    _UUID: _load_uuid,
    _UUID_ASYNCPG: _load_first_asyncpg_uuid,
    _BYTEARRAY: bytearray,
    _MEMORYVIEW: _load_view,
    _IP: lambda data: _IP_CLASSES[data[0]](data[1:].decode()),
}
_MEMBERS_LOADERS: dict[int, Callable[[Any], Any]] = {
    _TUPLE: tuple,
    _SET: set,
    _FROZENSET: frozenset,
    _DATETIME_ZONED: _load_datetime_zoned,
    _TIME_ZONED: _load_time_zoned,
}


class _Foreign(NamedTuple):
    """A driver's own type: where it is, what it is made of, and how it is made again."""

    module: str
    name: str
    members: Callable[[Any], Iterable[Any]]
    make: Callable[[Any, list[Any]], Any]
    mutable: bool = False


def _range_of_psycopg2(name: str) -> _Foreign:
    return _Foreign(
        "psycopg2._range",
        name,
        lambda v: (v.lower, v.upper, v.lower_inc, v.upper_inc, v.isempty),
        lambda cls, m: cls(m[0], m[1], ("[" if m[2] else "(") + ("]" if m[3] else ")"), m[4]),
    )


_GEOMETRY = "asyncpg.pgproto.types"
_FOREIGN = (  # the position is part of the format: only ever add at the end
    _Foreign(
        "asyncpg.types",
        "Range",
        lambda v: (v.lower, v.upper, v.lower_inc, v.upper_inc, v.isempty),
        lambda cls, m: cls(m[0], m[1], lower_inc=m[2], upper_inc=m[3], empty=m[4]),
    ),
    _Foreign(_GEOMETRY, "BitString", lambda v: (v.bytes, len(v)), lambda cls, m: cls.frombytes(*m)),
    _Foreign(_GEOMETRY, "Point", tuple, lambda cls, m: cls(*m)),
    _Foreign(_GEOMETRY, "Box", tuple, lambda cls, m: cls(*m)),
    _Foreign(_GEOMETRY, "Line", tuple, lambda cls, m: cls(*m)),
    _Foreign(_GEOMETRY, "LineSegment", tuple, lambda cls, m: cls(*m)),
    _Foreign(_GEOMETRY, "Path", lambda v: (v.is_closed, *v), lambda cls, m: cls(*m[1:], is_closed=m[0])),
    _Foreign(_GEOMETRY, "Polygon", tuple, lambda cls, m: cls(*m)),
    _Foreign(_GEOMETRY, "Circle", tuple, lambda cls, m: cls(*m)),
    _Foreign(
        "psycopg.types.range",
        "Range",
        lambda v: (v.lower, v.upper, v.bounds or "()", v.isempty),
        lambda cls, m: cls(*m),
    ),
    _Foreign("psycopg.types.multirange", "Multirange", tuple, lambda cls, m: cls(m), mutable=True),
    _range_of_psycopg2("NumericRange"),
    _range_of_psycopg2("DateRange"),
    _range_of_psycopg2("DateTimeRange"),
    _range_of_psycopg2("DateTimeTZRange"),
)
_FOREIGN_CODES = {(entry.module, entry.name): _FOREIGN_FIRST + index for index, entry in enumerate(_FOREIGN)}

DIRECT: set[type] = {type(None), bool, int, float, str, bytes, *_LEAVES}
"""Types that the packer takes as they are or hands to :func:`_leaf`; immutable, all of them."""


def _leaf(value: Any) -> Any:
    dump = _LEAVES.get(type(value))
    if dump is None:
        raise _unsupported(type(value))
    return dump(value)


def _unsupported(kind: type) -> SerializationError:
    return SerializationError(f"no safe byte form for {kind.__module__}.{kind.__qualname__}")


class Walker:
    """Makes containers packable; ``canonical`` for keys, where order must not matter and nothing is read back."""

    __slots__ = ("canonical", "mutable")

    def __init__(self, canonical: bool = False) -> None:
        self.canonical = canonical
        self.mutable = False

    def members(self, values: Iterable[Any], depth: int) -> list[Any]:
        if depth > MAX_DEPTH:
            raise SerializationError(f"values nested more than {MAX_DEPTH} deep")
        return [value if type(value) in DIRECT else self.convert(value, depth) for value in values]

    def convert(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in DIRECT:
            return value
        if kind is list or kind is dict or kind is set or kind is bytearray or kind is memoryview:
            self.mutable = True  # a memoryview can be released
        if kind is list:
            return self.members(value, depth + 1)
        if kind is tuple:
            return ExtType(_TUPLE, pack(self.members(value, depth + 1)))
        if kind is dict:
            keys, items = self.members(value, depth + 1), self.members(value.values(), depth + 1)
            if self.canonical:
                pairs = sorted(zip(map(pack, keys), map(pack, items)))
                return ExtType(_KEY_DICT, pack(list(chain.from_iterable(pairs))))
            return dict(zip(keys, items))
        if kind is bytearray:
            return ExtType(_BYTEARRAY, bytes(value))
        if kind is memoryview:
            return _dump_view(value)
        if kind is set or kind is frozenset:
            members = self.members(value, depth + 1)
            if self.canonical:
                return ExtType(_KEY_SET, pack([kind is set, *sorted(map(pack, members))]))
            return ExtType(_SET if kind is set else _FROZENSET, pack(members))
        if self.canonical and isinstance(value, Enum) and isinstance(value, (str, int)):
            plain = str.__str__(value) if isinstance(value, str) else int.__index__(value)
            return ExtType(_KEY_ENUM, pack([kind.__module__, kind.__qualname__, value.name, plain]))
        return self._foreign(value, kind, depth)

    def _foreign(self, value: Any, kind: type, depth: int) -> Any:
        where = (kind.__module__, kind.__qualname__)
        if where == _ASYNCPG_UUID and _foreign_class(where) is kind:
            _LEAVES[kind] = lambda v: ExtType(_UUID_ASYNCPG, v.bytes)
            DIRECT.add(kind)
            return value
        code = _FOREIGN_CODES.get(where)
        if code is None or _foreign_class(where) is not kind:
            raise _unsupported(kind)
        entry = _FOREIGN[code - _FOREIGN_FIRST]
        self.mutable = self.mutable or entry.mutable
        return ExtType(code, pack(self.members(entry.members(value), depth + 1)))


def _hook_at(depth: int) -> Callable[[int, bytes], Any]:
    """Return the unpacker's hook for extensions found ``depth`` extensions deep."""
    parse_datetime = dt.datetime.fromisoformat

    def hook(code: int, data: bytes) -> Any:
        if code == _DATETIME:
            return parse_datetime(data.decode())
        if code == _DECIMAL:
            return Decimal(data.decode())
        load = _LEAF_LOADERS.get(code)
        if load is not None:
            return load(data)
        if depth > MAX_DEPTH:  # each level takes some 10 KB of the C stack
            raise SerializationError("nested too deep")
        if code in _MEMBERS_LOADERS:
            return _MEMBERS_LOADERS[code](unpack(data, depth + 1))
        if not 0 <= code - _FOREIGN_FIRST < len(_FOREIGN):
            raise SerializationError(f"unknown extension {code}")
        entry = _FOREIGN[code - _FOREIGN_FIRST]
        return entry.make(_foreign_class((entry.module, entry.name)), unpack(data, depth + 1))

    return hook


_HOOKS = tuple(map(_hook_at, range(MAX_DEPTH + 2)))
