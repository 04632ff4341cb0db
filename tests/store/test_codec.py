"""Stored results: their shapes, a golden payload, and bytes that mean harm."""

from __future__ import annotations

import datetime as dt
import ipaddress
import pickle
import struct
import subprocess
import sys
import tracemalloc
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import pytest
from asyncpg import BitString, Box, Circle, Line, LineSegment, Path, Point, Polygon, Range
from asyncpg.pgproto.pgproto import UUID as AsyncpgUUID
from hypothesis import given
from hypothesis import strategies as st

from sqlacache.errors import ConfigError, SerializationError
from sqlacache.store.codec import PickleCodec, Rows, SafeCodec, get_codec
from tests.store.samples import (
    ONE_COLUMN,
    SAFE,
    UTC,
    Colour,
    Size,
    column,
    same,
    sealed,
)

# ---- results


def test_many_rows_come_back_as_tuples_in_order() -> None:
    description = (column("id", 23), column("name", 25), column("price", 1700))
    rows = [(number, f"name {number}", Decimal(number) / 8) for number in range(1000)]
    stored = SAFE.decode_rows(SAFE.encode_rows(description, rows))
    assert stored == Rows(description, tuple(rows), False)
    assert all(type(row) is tuple for row in stored.rows)


@pytest.mark.parametrize(
    ("description", "rows"),
    [((), []), ((), [(), (), ()]), ((column("a"), column("b")), []), (ONE_COLUMN, [(None,)])],
    ids=["nothing", "rows without columns", "columns without rows", "one null"],
)
@pytest.mark.parametrize("codec", [SafeCodec(), PickleCodec()], ids=["safe", "pickle"])
def test_results_without_rows_or_columns_come_back(codec: Any, description: Any, rows: Any) -> None:
    assert codec.decode_rows(codec.encode_rows(description, rows)) == Rows(description, tuple(rows), False)


def test_a_description_comes_back_exactly_as_tuples() -> None:
    description = [["a", 23, None, 8, -1, True, 1], ("b", None), ("a", "int8", 0, 2**70, None, False, None)]
    stored = SAFE.decode_rows(SAFE.encode_rows(description, [(1, 2, 3)]))
    assert same(stored.description, tuple(map(tuple, description)))


@pytest.mark.parametrize(
    "code", [bytes, pytest.param(object(), id="object()"), 1.0, b"x", Size.ONE], ids=repr
)
def test_a_type_code_that_would_not_come_back_exactly_is_refused(code: Any) -> None:
    with pytest.raises(SerializationError, match="description"):
        SAFE.encode_rows([column("a", code)], [(1,)])


@pytest.mark.parametrize("rows", [[(1,)], [(1, 2, 3), (4,)], [(1, 2), ()]], ids=repr)
def test_rows_that_do_not_fit_the_description_are_refused(rows: Sequence[Any]) -> None:
    with pytest.raises(SerializationError, match="number of values"):
        SAFE.encode_rows([column("a"), column("b")], rows)


@pytest.mark.parametrize(
    "value", [[], {}, set(), bytearray(), (1, [2]), frozenset({1}), (1, 2), Range(1, 2), "a"], ids=repr
)
def test_rows_know_whether_they_hold_something_that_can_be_changed(value: Any) -> None:
    stored = SAFE.decode_rows(SAFE.encode_rows(ONE_COLUMN, [(1,), (value,)]))
    assert stored.mutable is (not isinstance(value, (frozenset, Range, str)) and value != (1, 2))


def test_two_decodes_do_not_share_a_list() -> None:
    data = SAFE.encode_rows(ONE_COLUMN, [([1, 2],)])
    SAFE.decode_rows(data).rows[0][0].append(3)
    assert SAFE.decode_rows(data).rows == (([1, 2],),)


def test_encoding_changes_nothing_in_the_rows() -> None:
    row = ([bytearray(b"a"), (1, 2)], {"a": {1}})
    SAFE.encode_rows([column("a"), column("b")], [row])
    assert row == ([bytearray(b"a"), (1, 2)], {"a": {1}})


# ---- the format

GOLDEN_DESCRIPTION = (
    ("id", 23, None, None, None, None, None),
    ("a", 25, None, 8, -1, True, None),
    ("b", None),
)
GOLDEN_ROWS = (
    (1, "text £", None),
    (-(2**63), True, False),
    (2**70, -0.5, b"\x00\xff"),
    (
        Decimal("-1.50"),
        dt.datetime(2024, 2, 29, 1, 2, 3, 4),
        dt.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC),
    ),
    (
        dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        dt.date(2024, 2, 29),
        dt.time(1, 2, 3),
    ),
    (
        dt.datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        dt.time(1, 2, tzinfo=UTC),
        dt.timedelta(-1, 2, 3),
    ),
    (uuid.UUID(int=1), AsyncpgUUID(uuid.UUID(int=2).bytes), bytearray(b"a")),
    ([1, [2]], {"a": 1, 2: "b"}, (1, ("c",))),
    ({1}, frozenset({2}), ipaddress.IPv6Interface("2001:db8::1/64")),
    (Range(1, 5), BitString("101"), Point(1, 2)),
    (Box((3, 4), (1, 2)), Line(1, 2, 3), LineSegment((1, 2), (3, 4))),
    (Path((1, 2), (3, 4), is_closed=True), Polygon((0, 0), (1, 1)), Circle(Point(1, 2), 3)),
)
GOLDEN_VERSION_1 = (
    "73716c6301730106d865d894c4189397a2696417c0c0c0c0c097a16119c008ffc3c092a162c00c03dc002401a77465787420"
    "c2a3c0d38000000000000000c3c2c70900400000000000000000cbbfe0000000000000c40200ffc705012d312e3530c71a02"
    "323032342d30322d32395430313a30323a30332e303030303034d7ff00003e8065dfd78bc7260393b3323032342d30312d30"
    "315430303a30303a30300091c70c070000000000000e1000000000d604000b4681d70530313a30323a3033c7240393b33230"
    "32342d30312d30315430303a30303a303000ad4575726f70652f4265726c696ec71b0693a830313a30323a30300091c70c07"
    "000000000000000000000000c70c07ffffffff0000000200000003d80800000000000000000000000000000001d809000000"
    "00000000000000000000000002d410619201910282a1610102a162d7129201c7031291a163d5139101d5149102c70f110532"
    "3030313a6462383a3a312f3634c70620950105c3c2c2c7052192c401a003c7132292cb3ff0000000000000cb400000000000"
    "0000c72d2392c7132292cb4008000000000000cb4010000000000000c7132292cb3ff0000000000000cb4000000000000000"
    "d62493010203c72d2592c7132292cb3ff0000000000000cb4000000000000000c7132292cb4008000000000000cb40100000"
    "00000000c72e2693c3c7132292cb3ff0000000000000cb4000000000000000c7132292cb4008000000000000cb4010000000"
    "000000c72d2792c7132292cb0000000000000000cb0000000000000000c7132292cb3ff0000000000000cb3ff00000000000"
    "00c7182892c7132292cb3ff0000000000000cb400000000000000003"
)


GOLDEN_IN_A_ZONE_BEFORE = "c7240393b3323032342d30312d30315430303a30303a303000ad4575726f70652f4265726c696e"
GOLDEN_IN_A_ZONE = "c7210a323032342d30312d30315430303a30303a3030204575726f70652f4265726c696e"


def test_the_golden_payload_of_version_1_decodes_for_ever() -> None:
    stored = SAFE.decode_rows(bytes.fromhex(GOLDEN_VERSION_1))
    assert same(stored, Rows(GOLDEN_DESCRIPTION, GOLDEN_ROWS, True))


def test_the_golden_payload_is_what_is_written_now() -> None:
    """But for datetimes in a zone with a name, which have a shorter form since: what was written before is read."""
    before, now = (bytes.fromhex(hexed) for hexed in (GOLDEN_IN_A_ZONE_BEFORE, GOLDEN_IN_A_ZONE))
    golden = bytes.fromhex(GOLDEN_VERSION_1)
    assert golden.count(before) == 1
    written = SAFE.encode_rows(GOLDEN_DESCRIPTION, GOLDEN_ROWS)
    assert written[11:] == golden[11:].replace(before, now)  # after the header with its checksum
    assert same(SAFE.decode_rows(written), SAFE.decode_rows(golden))


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_format_version_is_refused_by_number(version: int) -> None:
    body = SAFE.encode_rows(ONE_COLUMN, [(1,)])[11:]
    assert SAFE.decode_rows(sealed(body)).rows == ((1,),)
    with pytest.raises(SerializationError, match=f"format version {version};"):
        SAFE.decode_rows(sealed(body, version=version))


def test_the_safe_codec_never_unpickles_and_the_pickle_codec_never_takes_safe_bytes() -> None:
    safe, pickled = (codec.encode_rows(ONE_COLUMN, [(1,)]) for codec in (SAFE, PickleCodec()))
    with pytest.raises(SerializationError, match="kind 'p'"):
        SAFE.decode_rows(pickled)
    with pytest.raises(SerializationError, match="kind 's'"):
        PickleCodec().decode_rows(safe)


# ---- bytes that mean harm

SAMPLE = SAFE.encode_rows(GOLDEN_DESCRIPTION, GOLDEN_ROWS)


@pytest.mark.parametrize("codec", [SafeCodec(), PickleCodec()], ids=["safe", "pickle"])
def test_every_truncation_is_refused(codec: Any) -> None:
    data = codec.encode_rows(ONE_COLUMN, [("text",), (1.5,)])
    for length in range(len(data)):
        with pytest.raises(SerializationError):
            codec.decode_rows(data[:length])


@given(st.integers(0, len(SAMPLE) * 8 - 1))
def test_every_flipped_bit_is_noticed(position: int) -> None:
    data = bytearray(SAMPLE)
    data[position // 8] ^= 1 << position % 8
    with pytest.raises(SerializationError):
        SAFE.decode_rows(bytes(data))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    for codec in (SAFE, PickleCodec()):
        with pytest.raises(SerializationError):
            codec.decode_rows(data)


def refused_or_rows(data: bytes) -> None:
    try:
        stored = SAFE.decode_rows(data)
    except SerializationError:
        return
    assert all(type(row) is tuple and len(row) == len(stored.description) for row in stored.rows)


@given(st.binary(max_size=300))
def test_random_bytes_in_a_forged_envelope_are_refused_or_rows(body: bytes) -> None:
    refused_or_rows(sealed(body))


@given(st.lists(st.tuples(st.integers(11, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=5))
def test_forged_changes_of_a_body_are_refused_or_rows(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SAMPLE)
    for position, byte in changes:
        data[position] = byte
    refused_or_rows(sealed(bytes(data[11:])))


@given(st.integers(-1, 127), st.binary(max_size=40))
def test_forged_extensions_are_refused_or_rows(code: int, payload: bytes) -> None:
    packed = msgpack.Packer()
    extension = packed.pack_ext_type(code, payload)
    refused_or_rows(sealed(msgpack.packb([described("a"), 1, 1, 0])[:-1] + b"\x91" + extension))


def described(*names: str) -> bytes:
    packed: bytes = msgpack.packb([column(name) for name in names])
    return packed


def nested_extensions(code: int, depth: int) -> bytes:
    value = b"\x90"
    for _ in range(depth):
        value = b"\xc9" + struct.pack(">Ib", len(value), code) + value
        if code == 18:
            value = b"\x91" + value
    return value


HARMFUL = {
    "not bytes": None,
    "text": "sqlc",
    "empty": b"",
    "a header alone": SAMPLE[:11],
    "deep lists": sealed(b"\x91" * 100_000),
    "deep maps": sealed(b"\x81\xa1a" * 100_000),
    "deep extensions": sealed(nested_extensions(18, 5_000)),
    "deep zones": sealed(nested_extensions(3, 5_000)),
    "lists that claim to be huge": sealed(b"\xdd\xff\xff\xff\xff" * 20_000),
    "lists that claim what there are bytes for": sealed((b"\xdd" + struct.pack(">I", 90_000)) * 20_000),
    "maps that claim what there are bytes for": sealed((b"\xdf" + struct.pack(">I", 40_000)) * 20_000),
    "text that claims to be huge": sealed(b"\xdb\xff\xff\xff\xff"),
    "bytes that claim to be huge": sealed(b"\xc6\xff\xff\xff\xff"),
    "rows that claim to be many": sealed(msgpack.packb([described("a"), 2**60, 1, [1]])),
    "rows without columns that claim to be many": sealed(msgpack.packb([b"\x90", 2**40, 0, []])),
    "rows below zero": sealed(msgpack.packb([described("a"), -1, -1, [1]])),
    "a description that is a number": sealed(msgpack.packb([7, 1, 1, [1]])),
    "a description of lists": sealed(msgpack.packb([msgpack.packb([[["a"]]]), 1, 1, [1]])),
    "a column without a name": sealed(msgpack.packb([msgpack.packb([[]]), 1, 1, [1]])),
    "a column named by a number": sealed(msgpack.packb([msgpack.packb([[7, None]]), 1, 1, [1]])),
    "values that are a map": sealed(msgpack.packb([described("a"), 1, 1, {"a": 1}])),
    "a list as a key": sealed(b"\x94" + msgpack.packb(described("a")) + b"\x01\x01\x91\x81\x91\x01\x01"),
    "a zone outside": sealed(
        msgpack.packb(
            [
                described("a"),
                1,
                1,
                [msgpack.ExtType(3, msgpack.packb(["2024-01-01T00:00:00", 0, "../../etc/passwd"]))],
            ]
        )
    ),
    "a named zone outside": sealed(
        msgpack.packb([described("a"), 1, 1, [msgpack.ExtType(10, b"2024-01-01T00:00:00 ../../etc/passwd")]])
    ),
    "a named zone without a name": sealed(
        msgpack.packb([described("a"), 1, 1, [msgpack.ExtType(10, b"2024-01-01T00:00:00")]])
    ),
    "a named zone that is not text": sealed(
        msgpack.packb([described("a"), 1, 1, [msgpack.ExtType(10, b"2024-01-01T00:00:00 \xff")]])
    ),
    "a zone of a column outside": sealed(
        msgpack.packb([described("a"), 1, 1, [None], [[0, "UTC"], [1, "UTC"]]])
    ),
    "a zone of a column before the first": sealed(
        msgpack.packb([described("a"), 1, 1, [None], [[-1, "UTC"]]])
    ),
    "a column with many zones": sealed(msgpack.packb([described("a"), 1, 1, [None], [[0, "UTC"]] * 100_000])),
    "a column with a zone outside": sealed(
        msgpack.packb([described("a"), 1, 1, [None], [[0, "../../etc/passwd"]]])
    ),
    "a zone of what is no datetime": sealed(msgpack.packb([described("a"), 1, 1, [1], [[0, "UTC"]]])),
    "a column of decimals that are none": sealed(msgpack.packb([described("a"), 1, 1, ["one"], [[0, 0]]])),
    "a column of datetimes that are none": sealed(msgpack.packb([described("a"), 1, 1, ["now"], [[0, 1]]])),
    "a column of a kind that there is not": sealed(msgpack.packb([described("a"), 1, 1, [None], [[0, 2]]])),
    "zones that are a number": sealed(msgpack.packb([described("a"), 1, 1, [1], 7])),
    "zones and more": sealed(msgpack.packb([described("a"), 1, 1, [1], [], []])),
    "too much": sealed(msgpack.packb([described("a"), 1, 1, [1]]) + b"\x00"),
}


@pytest.mark.parametrize("data", HARMFUL.values(), ids=HARMFUL)
def test_harmful_bytes_are_refused_with_little_memory(data: Any) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SerializationError):
            SAFE.decode_rows(data)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * 2**20
    assert kept < 2**20


def test_stored_bytes_do_not_import_and_a_missing_driver_is_an_error() -> None:
    data = SAFE.encode_rows(ONE_COLUMN, [(Range(1, 2),)])
    program = f"""
import sys
from sqlacache.errors import SerializationError
from sqlacache.store.codec import SafeCodec
assert "asyncpg" not in sys.modules
sys.modules["asyncpg"] = None
try:
    SafeCodec().decode_rows(bytes.fromhex({data.hex()!r}))
except SerializationError as error:
    print(error)
"""
    path = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{program}"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "asyncpg" in done.stdout, done.stderr


# ---- choosing


def test_a_serializer_is_chosen_by_name_or_given() -> None:
    class Own:
        name = "own"

        def encode_rows(self, description: Any, rows: Any) -> bytes:
            return b""

        def decode_rows(self, data: bytes) -> Rows:
            return Rows((), (), False)

    own = Own()
    assert (get_codec("sqlalchemy").name, get_codec("pickle").name) == ("sqlalchemy", "pickle")
    assert get_codec(own) is own


@pytest.mark.parametrize(
    "serializer", ["json", "", None, 7, SafeCodec, object()], ids=lambda got: f"{got!r:.20}"
)
def test_another_serializer_is_a_configuration_error(serializer: Any) -> None:
    with pytest.raises(ConfigError, match=r"serializer: got .*takes 'sqlalchemy' .*'pickle'") as caught:
        get_codec(serializer)
    assert (repr(serializer) if isinstance(serializer, str) else type(serializer).__name__) in str(
        caught.value
    )


def test_pickle_keeps_what_the_safe_form_cannot_and_says_that_it_may_be_mutable() -> None:
    codec = PickleCodec()
    stored = codec.decode_rows(codec.encode_rows(ONE_COLUMN, [(Colour.RED,), (1,)]))
    assert stored == Rows(ONE_COLUMN, ((Colour.RED,), (1,)), True)
    assert codec.decode_rows(codec.encode_rows(ONE_COLUMN, [(1,)])).mutable is False


def test_pickle_refuses_what_cannot_be_pickled_and_pickles_of_something_else() -> None:
    with pytest.raises(SerializationError):
        PickleCodec().encode_rows(ONE_COLUMN, [(lambda: None,)])
    with pytest.raises(SerializationError):
        PickleCodec().decode_rows(sealed(pickle.dumps({"a": 1}), kind=b"p"))
