"""The byte form of rows (what is stored) and of statement parameters (what keys are made of).

Stored rows are an envelope around a body::

    magic "sqlc" | format version | kind of body | flags | CRC-32 of all the rest | body

:class:`SafeCodec` has a MessagePack body: the cursor description, the number of rows and columns, and one flat list of
all values, so that None, bool, int, float, str and bytes take no Python code per value; then, if there are any, which
columns are stored as something else (:mod:`.columns`). Other types are MessagePack extensions from the closed list
below. What comes back has the same type and the same value; what cannot (a subclass, an ``asyncpg.Record``, a
``memoryview`` that can be written to, text with lone surrogates) raises :class:`~sqlacache.errors.SerializationError`,
as do bytes that are not of this format. Stored bytes never choose what is imported or called.

**What SQLAlchemy uses of a cursor's description** (read in 1.4.54, 2.0.58, 2.1.9): entry 0, the name, where columns are
matched by name (``CursorResultMetaData._merge_cursor_description``), and entry 1, the type code, which is handed to
every type's result processor and is the key of a cache of them, so that it must hash and be equal to itself. aiosqlite
gives ``(name, None, ...)``, asyncpg ``(name, type OID, None, ...)``, psycopg fills the sizes in. All entries are kept
exactly as long as they are None, bool, int or str; a driver with other type codes is not served by ``SafeCodec``.
Records become plain tuples; SQLAlchemy only indexes them.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from struct import Struct
from typing import Any, NamedTuple, Protocol
from zlib import crc32

from ..errors import ConfigError, SerializationError
from .columns import put_back, take_out
from .values import DIRECT, Walker, pack, unpack

MAGIC = b"sqlc"
VERSION = 1
"""Format version of the envelope and of the safe body; bytes of another version do not decode."""
MAX_EMPTY_ROWS = 100_000
"""How many rows a result without columns may have: their number is all that bounds them."""

_HEADER = Struct(">4sBBBI")
_CHECKED = 7  # bytes of the header before the checksum
_KIND_SAFE, _KIND_PICKLE = ord("s"), ord("p")
_FLAG_MUTABLE = 1
_DESCRIBED = frozenset({type(None), bool, int, str})
_CANONICAL = Walker(canonical=True)


class Rows(NamedTuple):
    """A stored result: what the driver returned."""

    description: tuple[tuple[Any, ...], ...]
    rows: tuple[tuple[Any, ...], ...]
    mutable: bool
    """Some value is, or holds, a list, dict, set, bytearray or the like: two hits must not share these rows."""


class Codec(Protocol):
    """Turns rows into bytes and back. An object of one's own may be given to ``configure(serializer=...)``."""

    name: str

    def encode_rows(self, description: Iterable[Sequence[Any]], rows: Sequence[Sequence[Any]]) -> bytes:
        """Return the bytes to store; raise ``SerializationError`` if some value has no byte form."""

    def decode_rows(self, data: bytes) -> Rows:
        """Return what was encoded; raise ``SerializationError``, and nothing else, for any other bytes."""


class SafeCodec:
    """The default: exact types from a closed list, no pickle; whoever can write the backend cannot run code."""

    name: str = "sqlalchemy"

    def encode_rows(self, description: Iterable[Sequence[Any]], rows: Sequence[Sequence[Any]]) -> bytes:
        """Return the bytes to store; raise ``SerializationError`` if some value has no exact byte form."""
        try:
            columns = [list(column) for column in description]
            _check_description(columns)
            if not {len(columns)}.issuperset(map(len, rows)):
                raise SerializationError("a row has another number of values than the cursor description")
            if not columns and len(rows) > MAX_EMPTY_ROWS:
                raise SerializationError(f"more than {MAX_EMPTY_ROWS} rows without columns")
            values, walker = list(chain.from_iterable(rows)), Walker()
            if not DIRECT.issuperset(map(type, values)):
                values = walker.members(values, 0)
            others = take_out(values, len(columns))
            body = pack([pack(columns), len(rows), len(columns), values, *([others] if others else ())])
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(f"rows without a byte form: {error}") from error
        return _seal(_KIND_SAFE, walker.mutable, body)

    def decode_rows(self, data: bytes) -> Rows:
        """Return what was encoded; raise ``SerializationError`` for any other bytes."""
        try:
            body, mutable = _open(_KIND_SAFE, data)
            described, height, width, values, *others = unpack(body)
            description = (_describe if len(described) <= 4096 else _read_description)(described)
            if len(description) != width or type(values) is not list or len(values) != height * width:
                raise SerializationError("the number of values does not fit")
            if others:
                put_back(values, width, *others)
            if width:
                rows = tuple(zip(*[iter(values)] * width))
            elif 0 <= height <= MAX_EMPTY_ROWS:
                rows = ((),) * height
            else:
                raise SerializationError("more rows without columns than any encoder writes")
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(f"bytes that are not stored rows: {error!r:.200}") from error
        return Rows(description, rows, mutable)


class PickleCodec:
    """The explicit opt-in for values that have no safe form: **whoever can write the backend can run code here**.

    The envelope and its checksum find damage and other formats, not forgeries.
    """

    name: str = "pickle"

    def encode_rows(self, description: Iterable[Sequence[Any]], rows: Sequence[Sequence[Any]]) -> bytes:
        """Return the bytes to store; raise ``SerializationError`` if some value cannot be pickled."""
        try:
            content = (tuple(map(tuple, description)), tuple(map(tuple, rows)))
            body = pickle.dumps(content, protocol=5)
        except Exception as error:
            raise SerializationError(f"rows that cannot be pickled: {error}") from error
        return _seal(_KIND_PICKLE, not DIRECT.issuperset(map(type, chain.from_iterable(content[1]))), body)

    def decode_rows(self, data: bytes) -> Rows:
        """Return what was encoded, running what the pickle asks for; raise ``SerializationError`` for other bytes."""
        try:
            body, mutable = _open(_KIND_PICKLE, data)
            description, rows = pickle.loads(body)
            if type(description) is not tuple or type(rows) is not tuple:
                raise SerializationError("a pickle of something else")
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(f"bytes that are not pickled rows: {error!r:.200}") from error
        return Rows(description, rows, mutable)


_CODEC_NAMES = ("name", "encode_rows", "decode_rows")


def get_codec(serializer: str | Codec) -> Codec:
    """Return the codec of that name, or the object itself if it is a codec; raise ``ConfigError`` for anything else."""
    if serializer == "sqlalchemy":
        return SafeCodec()
    if serializer == "pickle":
        return PickleCodec()
    if not isinstance(serializer, (str, type)) and all(hasattr(serializer, name) for name in _CODEC_NAMES):
        return serializer
    got = repr(serializer) if isinstance(serializer, str) else f"a {type(serializer).__qualname__}"
    raise ConfigError(
        f"serializer: got {got}; takes 'sqlalchemy' (the default), 'pickle',"
        f" or an object with {', '.join(_CODEC_NAMES)}"
    )


def encode_values(values: Iterable[Any]) -> bytes:
    """Return the same bytes for two sequences of statement parameters only if types and values are the same.

    ``1``, ``True``, ``1.0``, ``'1'``, ``b'1'`` and ``Decimal('1')`` all differ. The order of a dict or set does not
    matter. Members of an ``Enum`` that is also a str or int are told apart from plain values and by class. Raises
    ``SerializationError`` for a type that it does not know.
    """
    try:
        return pack([value if type(value) in DIRECT else _CANONICAL.convert(value, 0) for value in values])
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(f"parameters without a byte form: {error}") from error


# ---- the envelope


def _seal(kind: int, mutable: bool, body: bytes) -> bytes:
    flags = _FLAG_MUTABLE if mutable else 0
    checksum = crc32(body, crc32(_HEADER.pack(MAGIC, VERSION, kind, flags, 0)[:_CHECKED]))
    return _HEADER.pack(MAGIC, VERSION, kind, flags, checksum) + body


def _open(kind: int, data: bytes) -> tuple[memoryview, bool]:
    view = memoryview(data)
    magic, version, stored, flags, checksum = _HEADER.unpack_from(view)
    if magic != MAGIC:
        raise SerializationError("these bytes were not written by sqlacache")
    if version != VERSION:
        raise SerializationError(f"format version {version}; this release reads {VERSION}")
    if stored != kind:
        raise SerializationError(f"bytes of serializer kind {chr(stored)!r}, not {chr(kind)!r}")
    body = view[_HEADER.size :]
    if crc32(body, crc32(view[:_CHECKED])) != checksum:
        raise SerializationError("damaged: the checksum does not fit")
    return body, bool(flags & _FLAG_MUTABLE)


def _check_description(columns: Sequence[Sequence[Any]]) -> None:
    if not _DESCRIBED.issuperset(map(type, chain.from_iterable(columns))):
        raise SerializationError("a cursor description holds more than None, bool, int and str")
    if not all(len(column) > 1 and type(column[0]) is str for column in columns):
        raise SerializationError("a cursor description without a name and a type code")


def _read_description(data: bytes) -> tuple[tuple[Any, ...], ...]:
    description = tuple(map(tuple, unpack(data)))
    _check_description(description)
    return description


_describe = lru_cache(maxsize=512)(_read_description)
