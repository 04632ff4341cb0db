"""Values come back with their types and content; parameters have bytes that tell them apart."""

from __future__ import annotations

import datetime as dt
import enum
import pickle
import uuid
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from asyncpg.pgproto.pgproto import UUID as AsyncpgUUID
from hypothesis import given
from hypothesis import strategies as st

from sqlacache.errors import SerializationError
from sqlacache.store.codec import Rows, encode_values
from tests.store.samples import (
    ONE_COLUMN,
    SAFE,
    UTC,
    VALUES,
    Colour,
    Size,
    Text,
    column,
    round_trip,
    same,
)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_comes_back_with_its_type_and_content(value: Any) -> None:
    assert same(round_trip(value), value)


def test_the_utc_of_the_standard_library_comes_back_as_itself() -> None:
    assert round_trip(dt.datetime(2024, 1, 1, tzinfo=UTC)).tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Size.ONE,
        Text("a"),
        OrderedDict(a=1),
        [Size.ONE],
        {"key": Text("a")},
        pytest.param((memoryview(bytearray(b"a")),), id="tuple of a memoryview"),
        pytest.param([memoryview(bytearray(b"a"))], id="list of a memoryview"),
        pytest.param(memoryview(b"abcd").cast("I"), id="memoryview"),
        "\ud800",
        ["\ud800"],
        pytest.param(object(), id="object"),
        1j,
        dt.datetime(2024, 1, 1, tzinfo=ZoneInfo.no_cache("Europe/Berlin")),
        type("Naive", (dt.datetime,), {})(2024, 1, 1),
        Rows((), (), False),
    ],
    ids=lambda value: f"{type(value).__name__} {str(value)!a:.30}",
)
def test_a_value_that_would_not_come_back_exactly_is_refused(value: Any) -> None:
    with pytest.raises(SerializationError):
        SAFE.encode_rows(ONE_COLUMN, [(value,)])
    if "Size" not in repr(value) and "Colour" not in repr(value):  # parameters may be enums
        with pytest.raises(SerializationError):
            encode_values([value])


def test_a_class_that_only_has_the_name_of_a_known_one_is_refused() -> None:
    impostor = type("Range", (), {"__module__": "asyncpg.types"})
    with pytest.raises(SerializationError, match=r"asyncpg\.types\.Range"):
        SAFE.encode_rows(ONE_COLUMN, [(impostor(),)])


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SerializationError, match="deep"):
        SAFE.encode_rows(ONE_COLUMN, [(loop,)])


@pytest.mark.parametrize(
    "kind", [list, tuple, lambda members: {"key": members[0]}], ids=["list", "tuple", "dict"]
)
def test_what_may_be_nested_comes_back_and_what_is_deeper_is_refused(kind: Any) -> None:
    value: Any = VALUES["datetime in a zone"]
    allowed = 0
    for _ in range(40):
        value = kind([value])
        try:
            data = SAFE.encode_rows(ONE_COLUMN, [(value,)])
        except SerializationError:
            break
        assert same(SAFE.decode_rows(data).rows, ((value,),))
        allowed += 1
    assert allowed == 16


# ---- generated values

zones = st.sampled_from([None, UTC, dt.timezone(dt.timedelta(minutes=-90)), ZoneInfo("America/New_York")])
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3),
    st.floats(),
    st.sampled_from([0.0, 1.0, -1.0, 2.0]),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.binary(max_size=8).map(bytearray),
    st.decimals(),
    st.sampled_from([Decimal(1), Decimal("1.0"), Decimal("1E0")]),
    st.datetimes(timezones=zones),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.ip_addresses(),
)
keys = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=3), st.dates())
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.frozensets(keys, max_size=3),
        st.sets(keys, max_size=3),
    ),
    max_leaves=6,
)


@given(st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[values] * width), max_size=4)))
def test_generated_rows_come_back_with_their_types_and_content(rows: list[tuple[Any, ...]]) -> None:
    description = tuple(column(f"c{index}") for index in range(len(rows[0]) if rows else 2))
    stored = SAFE.decode_rows(SAFE.encode_rows(description, rows))
    assert same(stored.rows, tuple(rows))


named = st.sampled_from([ZoneInfo("America/New_York"), ZoneInfo("Europe/Berlin"), ZoneInfo("Etc/UTC")])
instants = st.datetimes(timezones=st.just(UTC))
near_a_change = st.datetimes(dt.datetime(2024, 10, 26), dt.datetime(2024, 11, 4)) | st.datetimes(
    dt.datetime(2024, 3, 9), dt.datetime(2024, 4, 1)
)


@given(named, st.lists(st.none() | instants | near_a_change, min_size=1, max_size=6), st.booleans())
def test_columns_in_a_zone_come_back_whether_or_not_they_were_instants(
    zone: ZoneInfo, drawn: list[dt.datetime | None], fold: bool
) -> None:
    """A naive one is a local time, which there may never have been."""
    column_in_zone: list[dt.datetime | None] = []
    for one in drawn:
        if one is not None and one.tzinfo is UTC:
            with suppress(OverflowError):
                one = one.astimezone(zone)
        column_in_zone.append(None if one is None else one.replace(tzinfo=zone, fold=int(fold) or one.fold))
    rows = [(number, one, str(number)) for number, one in enumerate(column_in_zone)]
    stored = SAFE.decode_rows(SAFE.encode_rows([column("a"), column("b"), column("c")], rows))
    assert same(stored.rows, tuple(rows))


def test_a_column_in_a_zone_is_stored_as_instants() -> None:
    zone = ZoneInfo("Europe/Berlin")
    twice = dt.datetime(2024, 10, 27, 2, 30, tzinfo=zone)
    data = [SAFE.encode_rows(ONE_COLUMN, [(one,)]) for one in (twice, twice.replace(fold=1))]
    assert all(b"2024-10-27" not in one and b"Europe/Berlin" in one for one in data)
    assert [SAFE.decode_rows(one).rows[0][0].utcoffset() for one in data] == [
        dt.timedelta(hours=2),
        dt.timedelta(hours=1),
    ]
    never = dt.datetime(2024, 3, 31, 2, 30, tzinfo=zone)
    assert b"2024-03-31" in SAFE.encode_rows(ONE_COLUMN, [(twice,), (never,)])


def test_columns_of_decimals_and_naive_datetimes_are_stored_as_text() -> None:
    number, moment = Decimal("1.50"), dt.datetime(2024, 5, 6, 7, 8, 9, 10)
    rows = ((number, moment), (number, None))
    data = SAFE.encode_rows([column("a"), column("b")], rows)
    assert data.count(b"\xa41.50") == 2 and data.count(b"\xba2024-05-06T07:08:09.000010") == 1
    assert same(SAFE.decode_rows(data).rows, rows)


@given(st.lists(st.tuples(st.none() | st.decimals(), st.none() | st.datetimes()), min_size=1, max_size=6))
def test_such_columns_come_back(rows: list[tuple[Any, ...]]) -> None:
    assert same(SAFE.decode_rows(SAFE.encode_rows([column("a"), column("b")], rows)).rows, tuple(rows))


@pytest.mark.parametrize("first", [Decimal("1.5"), dt.datetime(2024, 1, 1)], ids=["decimal", "datetime"])
@pytest.mark.parametrize(
    "among", [1, "1.5", True, 1.5, dt.date(2024, 1, 1), b"x", dt.datetime(2024, 1, 1, tzinfo=UTC)], ids=repr
)
def test_a_column_of_several_types_comes_back(first: Any, among: Any) -> None:
    rows = ((first,), (among,), (None,))
    assert same(SAFE.decode_rows(SAFE.encode_rows(ONE_COLUMN, rows)).rows, rows)


def test_a_uuid_is_one_in_every_respect() -> None:
    value = uuid.UUID("00000000-0000-0000-0000-0000000000ff")
    found = round_trip(value)
    assert (found, hash(found), repr(found), found.is_safe, found.bytes) == (
        *(value, hash(value), repr(value), value.is_safe, value.bytes),
    )
    assert pickle.loads(pickle.dumps(found)) == value


# ---- parameters


def test_parameters_that_python_calls_equal_have_different_bytes() -> None:
    lookalikes: list[Any] = [
        1, True, 1.0, "1", b"1", bytearray(b"1"), Decimal(1), Decimal("1.0"), [1], (1,), {1}, frozenset({1}), {1: 1},
        Size.ONE, [True], (True,), {True: 1}, {1: True}, None, "", b"", [], (), {}, set(), frozenset(), 0, False, 0.0,
        -0.0, Decimal(0), dt.date(2024, 1, 1), dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, tzinfo=UTC),
        dt.datetime(2024, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))), dt.datetime(2024, 1, 1, fold=1),
        "red", Colour.RED, ["red"], [Colour.RED], uuid.UUID(int=1),
        AsyncpgUUID(uuid.UUID(int=1).bytes), 2**64, -(2**64),
    ]  # fmt: skip
    encoded = {encode_values([value]) for value in lookalikes}
    assert len(encoded) == len(lookalikes)


def test_parameters_are_not_run_together() -> None:
    sequences: list[Iterable[Any]] = [
        (),
        ("",),
        ("ab",),
        ("a", "b"),
        ("a", "b", None),
        (["a", "b"],),
        (("a", "b"),),
    ]
    assert len({encode_values(sequence) for sequence in sequences}) == len(sequences)


def test_the_order_of_a_mapping_or_set_makes_no_difference() -> None:
    assert encode_values([{"a": {"x": 1, "y": 2}, "b": 2}]) == encode_values(
        [{"b": 2, "a": {"y": 2, "x": 1}}]
    )
    # 0 and 8 fall into one slot of a small set, so that the order of insertion shows
    assert list({0, 8}) != list({8, 0})
    assert encode_values([{0, 8}]) == encode_values([{8, 0}])


def test_parameters_have_the_same_bytes_in_every_process() -> None:
    assert encode_values([1, 10, True, "a"]).hex() == "94010ac3a161"


def test_enums_are_told_apart_by_class() -> None:
    other = enum.Enum("Colour", {"RED": "red"}, type=str, module="elsewhere")
    assert encode_values([Colour.RED]) != encode_values([other.RED])
    assert encode_values([Colour.RED]) == encode_values([Colour("red")])


def test_an_enum_that_is_no_text_or_number_is_refused() -> None:
    with pytest.raises(SerializationError, match="Plain"):
        encode_values([enum.Enum("Plain", {"A": 1}).A])


@given(values, values)
def test_parameters_have_equal_bytes_only_if_they_are_the_same(left: Any, right: Any) -> None:
    if same(left, right):
        assert encode_values([left]) == encode_values([right])
    elif not isinstance(left, (dict, list, tuple)):
        assert encode_values([left]) != encode_values([right])
