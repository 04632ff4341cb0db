"""Bytes as the library writes them, and ways to spoil them that get further than random bytes do."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Sequence
from random import Random
from typing import Any
from zlib import crc32

import msgpack
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sqlacache.decisions import Cause
from sqlacache.store.announcing import Announcer
from sqlacache.store.codec import PickleCodec
from sqlacache.store.records import encode_cause, encode_entry, encode_shape
from sqlacache.store.stamps import Entry
from sqlacache.tags import Shape, TableTouch
from tests.store.samples import SAFE, VALUES, column

DEEPER = int(os.environ.get("SQLACACHE_FUZZ", "1"))
"""How many times as many examples as in ``make test``: ``make fuzz`` has 50."""


def examples(count: int) -> settings:
    """Return settings for so many examples; one that fails is printed with the seed that makes it again."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    known = DEEPER == 1  # the same examples every time; `make fuzz` tries others
    return settings(
        max_examples=count * DEEPER,
        deadline=None,
        suppress_health_check=slow,
        derandomize=known,
        print_blob=not known,
    )


NONCE = 0x0123456789ABCDEF
STAMPS = (
    ("*", 1, NONCE),
    ("users#table", 3, NONCE + 1),
    ("users:#key", 1, NONCE + 2),
    ("users:1", 7, NONCE + 3),
)
NAMES = [name for name, _, _ in STAMPS]
UNDER = b"1|6ad2f3b1c4|abcdef0123450001"
CAUSE = Cause("row_update", "users", ("users:1",), ("name",), "UPDATE users", 1.7e9, 7, "host", None)

ROWS: Sequence[bytes] = [
    *(SAFE.encode_rows([column("value")], [(value,)]) for value in VALUES.values()),
    SAFE.encode_rows(
        [column("id", 23), column("name", 25)], [(number, f"name {number}") for number in range(20)]
    ),
    SAFE.encode_rows([column("a")], [([1, [2, {"b": (3, {4})}]],)]),
    SAFE.encode_rows([], [(), ()]),
]
"""Results as the default codec stores them, one of each kind of value among them."""


def entry(rows: bytes, count: int = 1) -> bytes:
    stored = Entry(
        stamps=STAMPS,
        description=(),
        rows=(),
        data=None,
        stored_at=1.7e9,
        expires_at=2e9,
        load_seconds=0.001,
        size=len(rows),
        count=count,
        under=UNDER,
    )
    return encode_entry(stored, rows)


ENTRIES = [entry(rows) for rows in ROWS]
STAMP_RECORDS = [
    b"0123456789abcdef|1|3600000||",
    b"0123456789abcdef|12|3600000|aabbccddeeff0011:1700000000000|" + encode_cause(CAUSE),
    b"0123456789abcdef|12|3600000|aabbccddeeff0011:1700000000000,00ff:1700000000001|",
    b"ffffffffffffffff|999999999999999|9999999999999||" + encode_cause(CAUSE),
]
SHAPES = [
    encode_shape(Shape("users", ("id",), None, keyed=True)),
    encode_shape(Shape("app.users", ("active", "plan"), frozenset({"id", "name"}))),
    encode_shape(Shape("users", (), None)),
]


def _message() -> bytes:
    touched = {"users": TableTouch("users", "row_update", rows=1, stamps=dict.fromkeys(NAMES))}
    return b"7|" + Announcer().message(2, touched, {"users": CAUSE})


MESSAGES = [_message()]


class _Runs:
    def __reduce__(self) -> Any:
        return exec, ("import sys; sys.modules['sqlacache_was_here'] = sys",)


CODE = pickle.dumps(_Runs())
"""Whoever loads it runs it."""
PICKLED = PickleCodec().encode_rows([column("a")], [(1,)])

_BOMBS = (
    b"\x91" * 2000,  # lists in lists
    b"\x81" * 2000,  # maps whose keys are maps
    b"\xdd\xff\xff\xff\xff",  # a list of four thousand million values
    b"\xdf\xff\xff\xff\xff",  # a map of them
    b"\xc6\xff\xff\xff\xff",  # so many bytes
    b"\xc9\x7f\xff\xff\xff\x01",  # so many of an extension
    b"\xcf" + b"\xff" * 8,  # the largest number
    b"\xca\x7f\xc0\x00\x00",  # NaN
    b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",  # infinity
    b"\xc1",  # what MessagePack never uses
    b"\xff" * 40,
    b"[" * 3000,
    b"9" * 5000,
    b"1e999",
    b"NaN",
    b"\\ud800",
    b"|:,|",
    b"\x00",
    b"\xed\xa0\x80",
)


def spoilt_by(random: Random, good: Sequence[bytes]) -> bytes:
    """Return one of ``good`` with a few bits flipped, parts cut, doubled or moved, or others put in."""
    data = random.choice(good)
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, max(0, len(data) - 1))
        to = min(len(data), at + random.randint(0, 12))
        way = random.randint(0, 8)
        if way == 0 and data:
            data = data[:at] + bytes([data[at] ^ (1 << random.randint(0, 7))]) + data[at + 1 :]
        elif way == 1:
            data = data[:at]
        elif way == 2:
            data = data[:at] + data[to:]
        elif way == 3:
            data = data[:to] + data[at:]
        elif way == 4:
            other = random.choice(good)
            data = data[:at] + other[random.randint(0, len(other)) :]
        elif way == 5:
            data = data[:at] + random.choice(_BOMBS) + data[to:]
        elif way == 6:
            data = data[:at] + struct.pack(">I", random.randint(0, 2**32 - 1)) + data[at + 4 :]
        elif way == 7:
            data = data[:at] + bytes([random.randint(0, 255)]) + data[at + 1 :]
        else:
            data = data[:at] + bytes(random.randint(0, 255) for _ in range(random.randint(0, 8))) + data[to:]
    return data


def spoilt(good: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Draw what :func:`spoilt_by` makes of ``good``."""
    return st.builds(spoilt_by, st.randoms(use_true_random=False), st.just(good))


_THINGS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=6),
        st.binary(max_size=6),
        st.sampled_from(NAMES),
        st.just(NONCE),
        st.just(UNDER),
        st.builds(
            msgpack.ExtType,
            st.integers(0, 60),
            st.one_of(
                st.binary(max_size=12),
                st.sampled_from([msgpack.packb([1, 2]), msgpack.packb(["a", 0, "UTC"])]),
            ),
        ),
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 3), inner, max_size=3)
    ),
    max_leaves=6,
)
"""What MessagePack can say."""


@st.composite
def forged_headers(draw: st.DrawFn) -> bytes:
    """Draw an entry whose checksum fits and whose header says what no header says: a member or two are others."""
    header: list[object] = [UNDER, [list(stamp) for stamp in STAMPS], 1.7e9, 2e9, 0.001, 1]
    for _ in range(draw(st.integers(1, 2))):
        where = draw(st.integers(0, len(header)))
        header[where : where + 1] = [draw(_THINGS)]
    if draw(st.booleans()) and isinstance(header[1], list):
        header[1] = [list(stamp) for stamp in STAMPS]
        header[1][draw(st.integers(0, 3))][draw(st.integers(0, 2))] = draw(_THINGS)
    said = msgpack.packb(header)
    return b"".join(
        (struct.pack(">4sII", b"sqle", crc32(said), len(said)), said, draw(st.sampled_from(ROWS)))
    )


@st.composite
def resealed_rows(draw: st.DrawFn) -> bytes:
    """Draw spoilt rows whose checksum fits: what a forger would write, or a bug."""
    body = draw(spoilt([rows[11:] for rows in ROWS]))
    head = b"sqlc\x01s" + bytes([draw(st.integers(0, 1))])
    return head + struct.pack(">I", crc32(body, crc32(head))) + body


@st.composite
def forged_rows(draw: st.DrawFn) -> bytes:
    """Draw rows whose envelope fits and whose body is of other things."""
    description = draw(
        st.sampled_from([msgpack.packb([["a", None]]), msgpack.packb([]), msgpack.packb([["a"]]), b""])
    )
    body = msgpack.packb(
        [
            draw(st.one_of(st.just(description), _THINGS)),
            draw(st.one_of(st.integers(0, 2), _THINGS)),
            draw(st.one_of(st.integers(0, 2), _THINGS)),
            draw(st.one_of(st.lists(_THINGS, max_size=2), _THINGS)),
        ]
    )
    head = b"sqlc\x01s\x00"
    return head + struct.pack(">I", crc32(body, crc32(head))) + body
