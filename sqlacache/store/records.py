"""The byte forms of what a shared store holds: stamps, their causes, shapes and entries.

Everything here is read back by other processes, of which some may be older or newer, and from a server that others can
write to: bytes that do not fit are a missing stamp or a corrupt entry, never an exception into a query and never code.

A stamp is ``nonce|version|ttl|tokens|cause`` (see ``lua/common.lua``). An entry is::

    magic "sqle" | CRC-32 of the header | length of the header | header | rows as the codec encoded them

The header is a MessagePack list; the rows have the codec's own envelope and checksum. What a reader does not know at
the end of the list it leaves alone: so a trace came to be there, of entries that were stored under one.
"""

from __future__ import annotations

import json
import re
import time
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple, get_args
from zlib import crc32

import msgpack

from ..decisions import Cause, EvictionCause
from ..errors import SerializationError
from ..tags import Shape
from .codec import Rows
from .stamps import Entry
from .values import ROOM

PROTOCOL = 1
"""Number of this format and of the rules that go with it; it is part of every key and of the generation."""
MAX_CAUSE = 1000
"""Bytes of a cause within a stamp, at most; the keys of the rows written are left out beyond it."""

KNOWN = 2_000
"""Stamps that stay parsed: some 1 MB of them."""
MAX_KNOWN = 2 * MAX_CAUSE
"""Bytes of a stamp that stays parsed, at most."""
MAX_HEADER = 1 << 20
"""Bytes of an entry's header, at most; more are none of ours."""

_STAMP = re.compile(rb"([0-9a-fA-F]{16})\|(\d{1,15})\|\d{1,13}\|([^|]*)\|(.*)", re.DOTALL)
"""As ``parse`` in ``lua/common.lua`` has it: what one takes for a stamp, the other must."""

_NEVER = 1e11
"""Seconds since the epoch: no clock shows it, and no calendar that we print by goes on much longer."""
_FAR = 2 * 86400
"""Seconds: no lease lasts a day, and no clock is a day off."""
_ENTRY = Struct(">4sII")
_STAMP_TYPES = (str, int, int)
"""Of the name, version and nonce of each stamp that an entry was filled under."""
_TRACE = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""A W3C ``traceparent``."""
_MAGIC = b"sqle"
NOT_DECODED = Rows((), (), True)
"""Stands for rows that nobody is to have: they stay encoded."""
_CAUSES = frozenset(get_args(EvictionCause))


class Header(NamedTuple):
    """What an entry says before its rows; the fields of :class:`~sqlacache.store.stamps.Entry`."""

    under: Any
    stamps: tuple[tuple[str, int, int], ...]
    stored_at: float
    expires_at: float
    load_seconds: float
    rows: int
    trace: str | None
    end: int
    """Where its rows begin."""


class RemoteStamp:
    """A stamp as the server has it; its cause is decoded only if somebody asks."""

    __slots__ = ("_cause", "in_flight", "nonce", "until", "version")

    def __init__(self, nonce: int, version: int, until: int | None, cause: bytes) -> None:
        self.nonce = nonce
        self.version = version
        self.in_flight = until is not None
        self.until = until
        """When the last of its marks ends, in milliseconds since the epoch; ``None`` without marks."""
        self._cause = cause

    @property
    def cause(self) -> Cause | None:
        """What last replaced the stamp; ``None`` for one just seeded."""
        return decode_cause(self._cause)


def decode_stamp(data: bytes | None) -> RemoteStamp | None:
    """Return a stamp; ``None`` for one that is not there or that is not of this format."""
    if data is None:
        return None
    stamp = _known(data) if len(data) <= MAX_KNOWN else _parse(data)
    if stamp is not None and stamp.until is not None and stamp.until > (time.time() + _FAR) * 1000:
        return None  # a mark that nothing will ever end is none of ours
    return stamp


def _parse(data: bytes) -> RemoteStamp | None:
    """Return a stamp as its bytes say."""
    found = _STAMP.match(data)
    if found is None:
        return None
    nonce, version, tokens, cause = found.groups()
    try:
        marks = [int(token.rpartition(b":")[2]) for token in tokens.split(b",")] if tokens else ()
        return RemoteStamp(int(nonce, 16), int(version), max(marks, default=None), cause)
    except ValueError:
        return None


_known = lru_cache(maxsize=KNOWN)(_parse)
"""As :func:`_parse`: the same bytes come with every lookup until the stamp is replaced."""


def encode_cause(cause: Cause) -> bytes:
    """Return a cause as JSON of at most :data:`MAX_CAUSE` bytes (keys, then columns and text are cut)."""
    keys, columns, statement = list(cause.keys), cause.columns, cause.statement[:200]
    while True:
        data = json.dumps(
            [
                cause.cause,
                cause.table,
                keys,
                columns,
                statement,
                cause.at,
                cause.pid,
                cause.host,
                cause.traceparent,
            ],
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode("utf-8", "surrogatepass")
        if len(data) <= MAX_CAUSE or not (keys or columns or statement):
            return data
        if keys:
            keys = keys[: len(keys) // 2]
        elif columns:
            columns = None
        else:
            statement = ""


def decode_cause(data: bytes) -> Cause | None:
    """Return a cause; ``None`` if there is none, or none that can be read."""
    if not data:
        return None
    try:
        cause, table, keys, columns, statement, at, pid, host, traceparent = json.loads(
            data.decode("utf-8", "surrogatepass")
        )
        if cause not in _CAUSES or not 0 <= float(at) < _NEVER:
            return None
        return Cause(
            cause,
            str(table),
            tuple(map(str, keys)),
            None if columns is None else tuple(map(str, columns)),
            str(statement),
            float(at),
            int(pid),
            str(host),
            None if traceparent is None else str(traceparent),
        )
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


def encode_shape(shape: Shape) -> bytes:
    """Return a shape's byte form, the same in every process."""
    footprint = None if shape.footprint is None else sorted(shape.footprint)
    keyed = list(shape.shown) or shape.keyed
    data: bytes = msgpack.packb([shape.table, list(shape.columns), footprint, keyed], buf_size=ROOM)
    return data


def decode_shape(data: bytes) -> Shape:
    """Return a shape; raise :class:`SerializationError` for anything else."""
    try:
        table, columns, footprint, keyed = msgpack.unpackb(data)
        return Shape(
            str(table),
            tuple(map(str, columns)),
            None if footprint is None else frozenset(map(str, footprint)),
            bool(keyed),
            tuple(map(bool, keyed)) if isinstance(keyed, list) else (),
        )
    except Exception as error:  # msgpack raises what it likes for bytes that are not its own
        raise SerializationError(f"bytes that are not a shape: {error!r:.200}") from error


def encode_entry(entry: Entry, rows: bytes) -> bytes:
    """Return an entry's byte form around its encoded rows."""
    said: list[Any] = [entry.under, entry.stamps, entry.stored_at, entry.expires_at]
    said += [entry.load_seconds, entry.count]
    if entry.trace is not None:
        said.append(entry.trace)
    header: bytes = msgpack.packb(said, buf_size=ROOM)
    return b"".join((_ENTRY.pack(_MAGIC, crc32(header), len(header)), header, rows))


def decode_header(data: bytes) -> Header:
    """Return the header of an entry, of which at least the beginning is given.

    Raises :class:`SerializationError` for other bytes, and ``EOFError`` when more of them are needed.
    """
    try:
        magic, checksum, length = _ENTRY.unpack_from(data)
        if magic != _MAGIC or length > MAX_HEADER:
            raise SerializationError("bytes that are not an entry")
        end = _ENTRY.size + length
        header = data[_ENTRY.size : end]
        if len(header) < length:
            raise EOFError(end)
        if crc32(header) != checksum:
            raise SerializationError("damaged: the checksum does not fit")
        said = msgpack.unpackb(header, use_list=False)
        under, stamps, stored_at, expires_at, load_seconds, count = said[:6]
        if (
            type(stamps) is not tuple
            or any(type(stamp) is not tuple or tuple(map(type, stamp)) != _STAMP_TYPES for stamp in stamps)
            or not all(
                type(number) in (int, float) and 0 <= number < _NEVER
                for number in (stored_at, expires_at, load_seconds, count)
            )
        ):
            raise SerializationError("bytes that are not an entry")
        trace = said[6] if len(said) > 6 else None
        if trace is not None and (type(trace) is not str or _TRACE.fullmatch(trace) is None):
            trace = None
        return Header(under, stamps, stored_at, expires_at, load_seconds, count, trace, end)
    except (SerializationError, EOFError):
        raise
    except Exception as error:  # struct and msgpack raise what they like for bytes that are not theirs
        raise SerializationError(f"bytes that are not an entry: {error!r:.200}") from error


def split_entry(data: bytes) -> tuple[Header, bytes]:
    """Return an entry's header and its encoded rows; raise :class:`SerializationError` for other bytes."""
    try:
        header = decode_header(data)
    except EOFError as error:
        raise SerializationError("an entry that was cut") from error
    return header, data[header.end :]


def entry_of(header: Header, under: Any, encoded: bytes, rows: Rows) -> Entry:
    """Return an entry; it keeps its rows encoded if they are not to be shared."""
    return Entry(
        stamps=header.stamps,
        description=rows.description,
        rows=() if rows.mutable else rows.rows,
        data=encoded if rows.mutable else None,
        stored_at=header.stored_at,
        expires_at=header.expires_at,
        load_seconds=header.load_seconds,
        size=len(encoded),
        count=header.rows,
        under=under,
        trace=header.trace,
    )
