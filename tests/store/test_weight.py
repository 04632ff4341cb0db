"""What `max_bytes` counts is what entries take of the process: held against tracemalloc, for entries of many kinds."""

from __future__ import annotations

import datetime as dt
import gc
import ipaddress
import secrets
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any
from zlib import compress, decompress

import pytest

from sqlacache.decisions import Cause
from sqlacache.store import weight
from sqlacache.store.codec import Codec, PickleCodec, Rows, SafeCodec
from sqlacache.store.local import LocalTier
from sqlacache.store.memory import MemoryStore
from sqlacache.store.pushed import Generation, PushedTier
from sqlacache.store.records import encode_entry
from sqlacache.store.stamps import Entry
from sqlacache.tags import Shape, TableTouch
from tests.store.encoded import decode_entry

PLENTY = 1 << 40
LEAST, MOST = 0.9, 1.25
"""Of what tracemalloc says."""
USER = Shape("users", ("id",), None, keyed=True)
UTC, ZONE = dt.timezone.utc, dt.timezone(dt.timedelta(hours=2))
NOON = dt.datetime(2026, 1, 1, 12)

Row = Callable[[Random, int], tuple[Any, ...]]


def mixed(random: Random, number: int) -> tuple[Any, ...]:
    """A row as applications have it."""
    return (
        number + 1000,
        f"name {number}",
        f"some{number}@example.com",
        random.choice([None, random.randrange(10**6)]),
        random.random(),
        NOON + dt.timedelta(seconds=number),
        random.choice([None, "note " * random.randrange(10)]),
        number % 2 == 0,
        Decimal(number) / 100,
        number % 7,
    )


def document(random: Random, number: int) -> tuple[Any, ...]:
    return (number, {"tags": ["a", "b", f"{number}"], "on": True}, [number, None, {"deep": [1.5] * 5}])


def rarely_long(random: Random, number: int) -> tuple[Any, ...]:
    return (number, "x" * 40_000 if number % 97 == 41 else None, "short")


def by_turns(random: Random, number: int) -> tuple[Any, ...]:
    return (number, None, None) if number % 2 else (number, "y" * 200, f"{number}" * 40)


def of_a_kind(make: Callable[[Random, int], Any]) -> Row:
    return lambda random, number: (number + 1000, *(make(random, number * 4 + each) for each in range(4)))


KINDS: dict[str, Row] = {
    "mixed": mixed,
    "documents": document,
    "rarely_long": rarely_long,
    "by_turns": by_turns,
    "counts": lambda random, number: (number * 1000,),
    "wide": lambda random, number: tuple(f"{number} {each}" for each in range(40)),
    "integers": of_a_kind(lambda random, number: number * 1000),
    "small_integers": of_a_kind(lambda random, number: number % 9),
    "large_integers": of_a_kind(lambda random, number: number << 80),
    "floats": of_a_kind(lambda random, number: random.random()),
    "texts": of_a_kind(lambda random, number: f"text {number} " * random.randrange(1, 30)),
    "wide_texts": of_a_kind(lambda random, number: "語" * random.randrange(60)),
    "letters": of_a_kind(lambda random, number: "abcdé"[number % 5]),
    "decimals": of_a_kind(lambda random, number: Decimal(number) / 7),
    "times": of_a_kind(lambda random, number: NOON + dt.timedelta(microseconds=number)),
    "utc_times": of_a_kind(lambda random, number: NOON.replace(tzinfo=UTC) + dt.timedelta(seconds=number)),
    "zoned_times": of_a_kind(lambda random, number: NOON.replace(tzinfo=ZONE) + dt.timedelta(seconds=number)),
    "dates": of_a_kind(lambda random, number: dt.date.fromordinal(700_000 + number % 100_000)),
    "durations": of_a_kind(lambda random, number: dt.timedelta(number)),
    "uuids": of_a_kind(lambda random, number: uuid.UUID(int=random.getrandbits(128))),
    "addresses": of_a_kind(lambda random, number: ipaddress.ip_address(number + 10**9)),
    "tuples": of_a_kind(lambda random, number: (f"{number}", number * 1000, (0.5 + number,))),
    "bytes": of_a_kind(lambda random, number: random.randbytes(random.randrange(300))),
    "nulls": of_a_kind(lambda random, number: None if random.random() < 0.8 else f"{number}"),
    "truths": of_a_kind(lambda random, number: number % 3 == 0),
}
LENGTHS = {"single_rows": (1, 60), "lists_of_10": (10, 20), "long_lists": (200, 2)}
"""Rows of an entry, and how many entries."""
WARM = 90
"""Entries that are there before: none of the containers grows while 60 more come."""


@pytest.fixture(scope="module", autouse=True)
def little_to_collect() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Squeezed(SafeCodec):
    """A serializer of one's own, whose bytes tell nothing of what is in them."""

    name = "squeezed"

    def encode_rows(self, description: Any, rows: Any) -> bytes:
        return compress(super().encode_rows(description, rows))

    def decode_rows(self, data: bytes) -> Rows:
        return super().decode_rows(decompress(data))


class Filled:
    """A store in memory, and what fills it with entries as a binding makes them."""

    def __init__(self, max_bytes: int = PLENTY, codec: Codec | None = None) -> None:
        self.held: Any = MemoryStore(max_bytes=max_bytes, lease=30)
        self.codec = codec or SafeCodec()

    def put(self, number: int, rows: list[tuple[Any, ...]]) -> None:
        names = ["*", "users#table", USER.name, f"users:{number}"]
        sample, _ = self.held.sample(names, ["users"], [USER], 60)
        stamps = tuple((name, one.version, one.nonce) for name, one in zip(names, sample.stamps) if one)
        self.held.fill(self.key(number), self.entry(stamps, rows))

    def entry(self, stamps: Any, rows: list[tuple[Any, ...]], **more: Any) -> Entry:
        description = tuple((f"users_column_{each}", None) for each in range(len(rows[0])))
        data = self.codec.encode_rows(description, rows)
        found, now = self.codec.decode_rows(data), time.time()
        kept, raw = ((), data) if found.mutable else (found.rows, None)
        return Entry(stamps, found.description, kept, raw, now, now + 60, 0.01, len(data), len(rows), **more)

    def key(self, number: int) -> str:
        return f"users:get:{number:064x}"

    def fill(self, row: Row, length: int, entries: int, first: int = 0) -> None:
        random = Random(first)
        for number in range(first, first + entries):
            self.put(number, [row(random, number * length + each) for each in range(length)])


class Tier(Filled):
    """A local tier, filled with what a server has: every entry as bytes, under a generation that came with it."""

    def __init__(
        self, max_bytes: int = PLENTY, codec: Codec | None = None, kind: Any = LocalTier, **more: Any
    ) -> None:
        super().__init__(codec=codec)
        self.held = kind(max_bytes, **more)

    def put(self, number: int, rows: list[tuple[Any, ...]]) -> None:
        names = ["*", "users#table", USER.name, f"users:{number}"]
        stamps = tuple((name, 1000 + number, secrets.randbits(63)) for name in names)
        filled = self.entry(stamps, rows, under=b"1|" + b"r" * 40)
        data = filled.data or self.codec.encode_rows(filled.description, filled.rows)
        came = decode_entry(encode_entry(filled, data))
        assert came.data is not None
        found = self.codec.decode_rows(came.data)
        entry = replace(
            came,
            description=found.description,
            rows=() if found.mutable else found.rows,
            data=came.data if found.mutable else None,
            under=Generation(b"1|" + b"r" * 40, getattr(self.held, "arrived", 0)),
        )
        self.held.put(self.key(number), entry)


@contextmanager
def traced() -> Iterator[list[int]]:
    """Fill a list with the bytes that the block has made and left."""
    grown: list[int] = []
    gc.collect()  # the interpreter's own lists of free objects, too
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield grown
        gc.collect()
        grown.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()


def compared(filled: Filled, row: Row, length: int, entries: int) -> float:
    """Return what is counted, of what tracemalloc has seen."""
    filled.fill(row, 1, WARM, first=10_000)  # what is made once, and containers of some size
    before = filled.held.bytes
    with traced() as grown:
        filled.fill(row, length, entries)
    counted: float = filled.held.bytes - before
    assert len(filled.held) == WARM + entries
    return counted / grown[0]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_counted_is_what_entries_take(kind: str, length: str) -> None:
    for store in (Filled, Tier) if length == "single_rows" else (Filled,):
        found = compared(store(), KINDS[kind], *LENGTHS[length])
        assert LEAST < found < MOST


@pytest.mark.parametrize("codec", [PickleCodec(), Squeezed()], ids=["pickle", "squeezed"])
@pytest.mark.parametrize("kind", ["mixed", "texts", "uuids"])
def test_whatever_the_serializer_what_is_counted_is_what_entries_take(kind: str, codec: Codec) -> None:
    for length in LENGTHS.values():
        assert LEAST < compared(Tier(codec=codec), KINDS[kind], *length) < MOST


@pytest.mark.parametrize("store", [Filled, Tier], ids=["store", "tier"])
def test_the_process_grows_by_no_more_than_the_room_whatever_is_put_in(store: Any) -> None:
    room = 200_000
    filled = store(max_bytes=room)
    with traced() as grown:
        for number in range(10):
            first = number * 100
            filled.fill(mixed, 1, 30, first)
            filled.fill(document, 10, 3, first + 40)
            filled.fill(rarely_long, 100, 1, first + 50)
            filled.fill(
                mixed, 300 if number % 5 == 0 else 150, 1, first + 60
            )  # of which the first have no room
            assert filled.held.bytes <= room + 2000, "what a read seeds that then stores nothing"
    assert 0.7 * room < grown[0] < 1.15 * room
    assert 10 < len(filled.held) < 150


def test_commits_of_others_take_no_more_of_a_pushed_tier_than_a_quarter_of_its_room() -> None:
    room = 100_000
    filled = Tier(max_bytes=room, kind=PushedTier, bound=60)
    filled.fill(mixed, 1, WARM, first=10_000)
    with traced() as grown:
        for number in range(5000):
            filled.held.touch([f"users:{number}", "users#table"])
            if number % 50 == 0:
                filled.fill(mixed, 1, 1, number)
            assert filled.held.bytes <= room
            assert filled.held._noted < room / 3
    assert grown[0] < 1.15 * room
    counted = sum(weight.text(name) for name in filled.held._last)
    assert counted < filled.held._noted < 3 * counted
    filled.held.suspend()
    before = filled.held.bytes
    filled.held.clear()
    assert before > filled.held.bytes == 0


def test_what_writes_leave_on_stamps_is_counted() -> None:
    filled = Filled()
    filled.fill(mixed, 1, 100)
    before = filled.held.bytes
    with traced() as grown:
        for number in range(100):
            name = f"users:{number}"
            touched = {"users": TableTouch("users", "row_update", stamps={name: None})}
            causes = {"users": cause(number)}
            revisions = {"users": filled.held.shapes(["users"])["users"][0]}
            filled.held.mark(f"{number}", touched, revisions, causes)
            filled.held.settle(f"{number}", touched, causes)
    assert 0.6 < (filled.held.bytes - before) / grown[0] < MOST


def cause(number: int) -> Cause:
    keys, columns = (f"users:{number}",), ("name", "plan")
    return Cause(
        "row_update", "users", keys, columns, "UPDATE users", 1e9 + number, 1, "host", f"00-{number:049x}-01"
    )


def test_an_entry_larger_than_all_room_displaces_no_other() -> None:
    for store in (Filled, Tier):
        filled = store(max_bytes=60_000)
        filled.fill(mixed, 1, 10)
        filled.put(99, [mixed(Random(1), number) for number in range(200)])
        assert len(filled.held) == 10


def test_what_is_told_of_two_entries_with_one_description_is_less_than_twice() -> None:
    for store in (Filled, Tier):
        filled = store()
        sizes = []
        for number in range(2):
            filled.put(number, [tuple(range(1000, 1040))])
            sizes.append(filled.held.bytes - sum(sizes))
        assert sizes[1] < sizes[0] - 40 * 60, "each column is a tuple of 56 bytes and more, and a name"
        filled.fill(mixed, 1, 20)
        for name in list(filled.held._entries):
            filled.held.purge(["users"]) if store is Filled else filled.held.drop([name])
        assert filled.held.bytes == (
            sum(stamp.weight for stamp in filled.held._stamps.values()) if store is Filled else 0
        )


def test_what_was_learned_of_an_entry_is_counted_and_goes_with_it() -> None:
    for store in (Filled, Tier):
        filled = store()
        filled.fill(mixed, 1, 1)
        held, key = filled.held, filled.key(0)
        (entry,) = held._entries.values()
        before = held.bytes
        values = (*entry.rows[0], "made of it " * 20)
        held.learn(key, entry, (object(), (Filled, (1,)), values))
        assert 200 < held.bytes - before < 700
        held.learn(key, entry, (object(), (Filled, (1,)), None))
        assert 0 < held.bytes - before < 200
        held.learn(key, replace(entry), (object(), (Filled, (1,)), values))
        assert entry.learned[2] is None, "another entry is there by now"
        held.max_bytes = held.bytes + 100
        held.learn(key, entry, (object(), (Filled, (1,)), values))
        assert held.bytes <= held.max_bytes or len(held) == 1
