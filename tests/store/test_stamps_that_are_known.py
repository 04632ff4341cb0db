"""Stamps stay parsed from one lookup to the next; what is said of them is said anew each time."""

from __future__ import annotations

import time

import pytest

from sqlacache.store import records
from sqlacache.store.records import KNOWN, MAX_KNOWN, decode_stamp


def _stamp(nonce: int, *, until: int | None = None, cause: bytes = b"") -> bytes:
    marks = b"" if until is None else b"token:%d" % until
    return b"%016x|7|3600000|%s|%s" % (nonce, marks, cause)


def test_the_same_bytes_are_the_same_stamp() -> None:
    assert decode_stamp(_stamp(1)) is decode_stamp(_stamp(1))


def test_other_bytes_are_another_stamp_however_many_have_been_seen() -> None:
    for nonce in range(2 * KNOWN):
        found = decode_stamp(_stamp(nonce))
        assert found is not None and found.nonce == nonce


@pytest.mark.parametrize("until", [None, 0, 10**12], ids=["no mark", "a mark of no time", "a mark"])
def test_it_is_in_flight_as_long_as_it_is_marked(until: int | None) -> None:
    for _ in range(2):
        found = decode_stamp(_stamp(2, until=until))
        assert found is not None and found.in_flight is (until is not None)


def test_a_mark_that_was_believable_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _stamp(3, until=int(time.time() * 1000) + 60_000)
    assert decode_stamp(data) is not None
    monkeypatch.setattr(records, "_FAR", 0)
    assert decode_stamp(data) is None


def test_what_is_larger_than_any_of_ours_is_read_and_not_kept() -> None:
    data = _stamp(4, cause=b"x" * MAX_KNOWN)
    found, again = decode_stamp(data), decode_stamp(data)
    assert found is not None and again is not None
    assert found is not again
    assert found.nonce == again.nonce == 4
