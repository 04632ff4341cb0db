"""Bytes that are not ours, or not any more: a miss that is counted, never another exception, and never code."""

from __future__ import annotations

import pickle
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sqlacache.errors import SerializationError
from sqlacache.store.announcing import Announcement, decode
from sqlacache.store.codec import Rows
from sqlacache.store.records import decode_cause, decode_shape, decode_stamp
from sqlacache.store.redis import _holds
from sqlacache.store.redis_commit import _registry
from sqlacache.store.stamps import Entry, Sample, decide
from sqlacache.store.subscription import Subscription
from sqlacache.tags import Shape, table_stamp
from tests.fuzz.payloads import (
    CODE,
    ENTRIES,
    MESSAGES,
    NAMES,
    PICKLED,
    ROWS,
    SHAPES,
    STAMP_RECORDS,
    entry,
    examples,
    forged_headers,
    forged_rows,
    resealed_rows,
    spoilt,
)
from tests.store.encoded import decode_entry
from tests.store.samples import SAFE, sealed

RUNS_CODE = ("pickle.find_class", "exec", "compile", "os.", "subprocess.", "socket.", "shutil.", "ctypes.")

_ran: list[str] | None = None


def _audit(event: str, arguments: Any) -> None:
    if _ran is None or not event.startswith(RUNS_CODE):
        return
    if event == "exec" and getattr(arguments[0], "co_filename", "").endswith(".py"):
        return  # a module of the standard library that is imported when it is first needed
    if event == "os.listdir" and sys._getframe(1).f_code.co_filename.startswith("<frozen importlib"):
        return  # where that module is looked for
    _ran.append(event)


sys.addaudithook(_audit)


@contextmanager
def running_nothing() -> Iterator[None]:
    """Fail if anything is compiled, run, looked up by a pickle, or asked of the system in this block."""
    global _ran
    _ran = []
    try:
        yield
        assert not _ran, _ran
    finally:
        _ran = None


def refused(decoder: Callable[[bytes], Any], data: bytes, kind: type) -> Any:
    """Return what ``data`` decodes to, which is a ``kind``; ``None`` if it is refused as it should be."""
    with running_nothing():
        try:
            found = decoder(data)
        except SerializationError as error:
            text = str(error)
            found = None
    if found is None:
        assert len(text) < 400, "an error that is as long as its bytes"
        return None
    assert type(found) is kind
    return found


@examples(300)
@given(st.one_of(spoilt(ROWS), resealed_rows(), forged_rows()))
@example(CODE)
@example(sealed(CODE))
@example(sealed(CODE, kind=b"p"))
@example(PICKLED)
def test_rows(data: bytes) -> None:
    found = refused(SAFE.decode_rows, data, Rows)
    if found is not None:
        assert type(found.rows) is tuple and all(type(row) is tuple for row in found.rows)
        assert all(len(row) == len(found.description) for row in found.rows)
        assert len(found.rows) <= max(100_000, len(data))
    assert "sqlacache_was_here" not in sys.modules


STAMPS = [
    decode_stamp(b"%016x|%d|3600000||" % (0x0123456789ABCDEF + n, v)) for n, v in enumerate((1, 3, 1, 7))
]


@examples(300)
@given(st.one_of(spoilt(ENTRIES), forged_headers()), st.lists(st.sampled_from([0, 1, 2, 3]), max_size=2))
@example(CODE, [])
@example(entry(CODE), [])
@example(entry(PICKLED), [])
def test_entries(data: bytes, replaced: list[int]) -> None:
    """Decoded as a lookup decodes them, down to what the lookup means."""
    found = refused(decode_entry, data, Entry)
    if found is None:
        return
    stamps: list[Any] = list(STAMPS)
    for place in replaced:
        stamps[place] = decode_stamp(b"%016x|9|3600000||" % place) if place else None
    with running_nothing():
        if _holds(found, stamps):
            refused(SAFE.decode_rows, found.data, Rows)
        for seen in (stamps, stamps[:2], [None] * 4):
            verdict = decide(
                NAMES[: len(seen)], frozenset({"users:1"}), Sample(found, seen, under=found.under)
            )
            assert verdict.entry is None or _holds(found, seen)
            repr(verdict)
        assert 0 <= found.stored_at + found.expires_at + found.load_seconds + found.count < 1e12


@examples(300)
@given(spoilt(STAMP_RECORDS))
def test_stamps(data: bytes) -> None:
    with running_nothing():
        found = decode_stamp(data)
        if found is not None:
            assert 0 <= found.nonce < 2**64 and 0 <= found.version < 10**15
            repr(found.cause)


@examples(150)
@given(spoilt([STAMP_RECORDS[1].rpartition(b"|")[2]]))
def test_causes(data: bytes) -> None:
    with running_nothing():
        cause = decode_cause(data)
    if cause is not None:
        assert all(type(key) is str for key in cause.keys) and 0 <= cause.at < 1e11 and type(cause.pid) is int


@examples(150)
@given(st.lists(spoilt(SHAPES), max_size=3), st.one_of(st.none(), st.binary(max_size=16)))
def test_registries(shapes: list[bytes], revision: bytes | None) -> None:
    flat: list[bytes] = [] if revision is None else [b"", revision]
    for number, shape in enumerate(shapes):
        flat += [b"shape %d" % number, shape]
        found = refused(decode_shape, shape, Shape)
        if found is not None:
            assert type(found.name) is str and table_stamp(found.table)
            found.meets(frozenset({"id"}))
            found.tag(["1"] * len(found.columns))
    refused(_registry, flat, tuple)  # type: ignore[arg-type]  # it takes fields and values in turn


@examples(200)
@given(spoilt(MESSAGES))
def test_messages(data: bytes) -> None:
    found = refused(decode, data, Announcement)
    if found is not None:
        assert found.sequence + 1 > found.sequence and found.at == found.at + 0
        assert all(type(name) is str for touched in found.touched for name in touched.names or ())


class _Heard:
    """What a process was told of one channel."""

    def __init__(self) -> None:
        self.announcements: list[Announcement] = []
        self.losses = 0

    def announced(self, announcement: Announcement) -> None:
        self.announcements.append(announcement)

    def lost(self, why: str) -> None:
        assert len(why) < 400
        self.losses += 1

    def proved(self, sent_at: float) -> None:
        raise AssertionError("nobody asked")


NUMBERS = st.sampled_from(
    [b"0", b"1", b"2", b"3", b"-1", b"99999999999999999999", b"9" * 5000, b"", b"x", b"1.5"]
)


@examples(60)
@given(
    st.lists(
        spoilt(MESSAGES) | NUMBERS.map(lambda number: number + b"|" + MESSAGES[0].partition(b"|")[2]),
        max_size=5,
    )
)
def test_what_arrives_on_the_channel(messages: list[bytes]) -> None:
    """Unless a message can be read and has the number after that of the one before, whoever listens lost track."""
    heard = _Heard()
    subscription = Subscription(None, beat=1)  # type: ignore[arg-type]  # it connects to nothing
    subscription.add("commits", heard, resets=("generation",))
    last: int | None = None
    for data in messages:
        announced, losses = len(heard.announcements), heard.losses
        with running_nothing():
            subscription._take({"type": "message", "channel": b"commits", "data": data})
        if len(heard.announcements) == announced:
            assert heard.losses == losses + 1
            continue
        number = heard.announcements[-1].sequence
        assert (heard.losses > losses) == (last is not None and number not in (0, last + 1))
        last = number
    subscription._take({"type": "message", "channel": b"generation", "data": b"\xff" * 9})
    assert heard.losses


@pytest.mark.parametrize(
    "decoder", [SAFE.decode_rows, decode_entry, decode_shape, decode], ids=lambda one: one.__name__
)
def test_a_bomb_takes_neither_memory_nor_time(decoder: Callable[[bytes], Any]) -> None:
    bombs = [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff" * 10,
        b"\x91" * 500_000,
        b"[" * 500_000,
        b"\xc7\x10\x05" * 1000,
        b"9" * 500_000,
    ]
    tracemalloc.start()
    try:
        for bomb in bombs:
            for data in (bomb, sealed(bomb), entry(sealed(bomb)), b"1|" + bomb):
                with suppress(SerializationError):
                    decoder(data)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_what_the_hook_watches_for_is_noticed() -> None:
    with pytest.raises(AssertionError, match="find_class"), running_nothing():
        pickle.loads(CODE)
    assert sys.modules.pop("sqlacache_was_here")
