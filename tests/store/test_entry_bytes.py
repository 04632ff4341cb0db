"""The bytes of an entry: golden ones, a trace in them, and what a later release may add."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgpack
import pytest

from sqlacache.errors import SerializationError
from sqlacache.store.records import _ENTRY, decode_header, encode_entry
from sqlacache.store.stamps import Entry
from tests.store.encoded import decode_entry

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ROWS = b"the rows"
UNTRACED = bytes.fromhex(
    "73716c65906e14020000003796c40467656e319293a12a01ccff93a775736572733a3107cdabcdcb41954fc400000000"
    "cb41954fd300000000cb3f847ae147ae147b0274686520726f7773"
)
"""As the first release had them."""


def entry(**more: Any) -> Entry:
    stamps = (("*", 1, 255), ("users:1", 7, 0xABCD))
    told = {"stored_at": 89387264.0, "expires_at": 89388224.0, "load_seconds": 0.01, "size": 8, "count": 2}
    return Entry(stamps, (), (), None, **{**told, "under": b"gen1", "encoded": ROWS, **more})


def forged(*said: Any) -> bytes:
    header = msgpack.packb(list(said))
    return bytes(_ENTRY.pack(b"sqle", crc32(header), len(header)) + header + ROWS)


def test_an_entry_that_was_not_traced_has_the_bytes_that_it_always_had() -> None:
    assert encode_entry(entry(), ROWS).hex() == UNTRACED.hex()
    found = decode_entry(UNTRACED)
    assert (found.stamps, found.count, found.under, found.data) == (entry().stamps, 2, b"gen1", ROWS)
    assert found.trace is None


def test_the_trace_of_the_read_that_stored_it_comes_back() -> None:
    data = encode_entry(entry(trace=TRACE), ROWS)
    found = decode_entry(data)
    assert (found.trace, found.data) == (TRACE, ROWS)
    assert found.stamps == decode_entry(UNTRACED).stamps
    assert len(data) == len(UNTRACED) + 57, "what a trace costs in Redis"


def test_what_a_later_release_may_add_is_left_alone() -> None:
    found = decode_header(forged(b"gen1", entry().stamps, 1.0, 2.0, 0.1, 2, TRACE, {"more": 1}))
    assert (found.rows, found.trace) == (2, TRACE)


@pytest.mark.parametrize(
    "trace",
    [7, b"00", "", "trace", TRACE.upper(), TRACE + "\n", f"{TRACE}\x1b[31m", [TRACE]],
    ids=["number", "bytes", "empty", "word", "capitals", "newline", "escape", "list"],
)
def test_what_is_no_trace_is_none(trace: Any) -> None:
    assert decode_header(forged(b"gen1", entry().stamps, 1.0, 2.0, 0.1, 2, trace)).trace is None


def test_less_than_an_entry_is_not_one() -> None:
    with pytest.raises(SerializationError, match="not an entry"):
        decode_header(forged(b"gen1", entry().stamps, 1.0, 2.0, 0.1))
