"""Bytes at an entry's key whose checksum fits, and whose stamps are not those of the read that finds them.

1. An entry has the stamps of its read in another order, or a stamp more: nothing that this version writes, but what
   another one, or anybody with access to the server, may. All of them are current.
2. The store looked whether each stamp is the one at its place, found that not to be so, and left the rows undecoded.
3. The decision looked at them by name, found every one of them current, and called it a hit.
4. The rows were handed out without a description; damaged ones raised an exception into the query.

And where the name of a stamp was no text, comparing it raised TypeError into the query, and out of ``purge()``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgpack
import pytest

from sqlacache.errors import SerializationError
from sqlacache.store.records import decode_header
from sqlacache.store.stamps import Entry, Sample, StampView, decide
from tests.store.encoded import decode_entry
from tests.store.samples import SAFE, column

NAMES = ["*", "users#table", "users:1"]
NOW = [StampView(1, nonce, False, None) for nonce in (5, 6, 7)]
FILLED = [["*", 1, 5], ["users#table", 1, 6], ["users:1", 1, 7]]
ROWS = SAFE.encode_rows([column("id")], [(1,)])


def entry(stamps: Any, rows: bytes = ROWS, times: Any = (1.7e9, 2e9, 0.01, 1)) -> bytes:
    header = msgpack.packb([b"generation", stamps, *times])
    return struct.pack(">4sII", b"sqle", crc32(header), len(header)) + header + rows


def verdict_on(found: Entry) -> Any:
    return decide(NAMES, frozenset(), Sample(found, NOW, under=b"generation"))


def test_an_entry_of_this_read_is_a_hit() -> None:
    assert verdict_on(decode_entry(entry(FILLED))).entry is not None


@pytest.mark.parametrize(
    "stamps",
    [FILLED[::-1], [*FILLED, ["orders#table", 1, 8]], [*FILLED, FILLED[0]], FILLED[:2], []],
    ids=["another order", "one more", "one twice", "one less", "none"],
)
def test_an_entry_with_other_stamps_is_a_miss_that_may_be_filled(stamps: Any) -> None:
    verdict = verdict_on(decode_entry(entry(stamps)))
    assert (verdict.entry, verdict.reason, verdict.fillable) == (None, "unknown", True)


@pytest.mark.parametrize(
    "data",
    [
        entry([[{"a": 1}, 1, 5], *FILLED[1:]]),
        entry([[["*"], 1, 5], *FILLED[1:]]),
        entry([["*", "1", 5], *FILLED[1:]]),
        entry([["*", 1, None], *FILLED[1:]]),
        entry(FILLED, times=(float("nan"), 2e9, 0.01, 1)),
        entry(FILLED, times=(1.7e9, float("inf"), 0.01, 1)),
        entry(FILLED, times=(1.7e9, 2e9, -1.0, 1)),
    ],
    ids=["a map", "a list", "a version in words", "no nonce", "no time", "for ever", "less than no time"],
)
@pytest.mark.parametrize("decoder", [decode_entry, decode_header], ids=lambda one: str(one.__name__))
def test_a_header_that_says_what_no_header_says_is_corrupt(
    decoder: Callable[[bytes], Any], data: bytes
) -> None:
    with pytest.raises(SerializationError, match="not an entry"):
        decoder(data)
