"""decide(): what a sample means, for every reason there is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlacache.decisions import EVICTION_CAUSES, MISS_REASONS, Cause
from sqlacache.store.stamps import Entry, Sample, StampChange, StampView, decide
from sqlacache.tags import EVERYTHING

NAMES = [EVERYTHING, "users#table", "users:key", "users:1", "users?active"]
KEYS = frozenset({"users:1"})


def cause(kind: Any = "row_update", at: float = 1.0) -> Cause:
    return Cause(kind, "users", ("users:1",), ("plan",), "UPDATE users", at)


def entry(**stamps: Any) -> Entry:
    names = tuple((name, 7, nonce) for nonce, name in enumerate(NAMES))
    return Entry(stamps.pop("stamps", names), (), (), None, 0.0, 10.0, 0.1, 1, 0)


def views(**changed: StampView | None) -> list[StampView | None]:
    """The stamps under which ``entry()`` was filled, but for those named by their place: ``at3=...``."""
    found: list[StampView | None] = [StampView(7, nonce, False, None) for nonce in range(len(NAMES))]
    for place, view in changed.items():
        found[int(place[2:])] = view
    return found


def verdict(sample_entry: Entry | None, stamps: Any, gone: Any = None) -> Any:
    return decide(NAMES, KEYS, Sample(sample_entry, stamps, gone))


def new(kind: Any = "row_update", *, at: float = 1.0, in_flight: bool = False) -> StampView:
    return StampView(8, 99, in_flight, cause(kind, at))


def test_an_entry_whose_stamps_are_current_is_a_hit() -> None:
    found = verdict(entry(), views())
    assert found.entry is not None
    assert (found.reason, found.changed, found.cause) == (None, (), None)


@pytest.mark.parametrize("gone", [None, "expired", "capacity_evicted", "corrupt"])
def test_without_an_entry_the_reason_is_what_the_store_remembers(gone: Any) -> None:
    found = verdict(None, views(), gone)
    assert (found.entry, found.reason, found.fillable) == (None, gone or "absent", True)


def test_without_an_entry_a_writer_in_flight_is_the_reason_and_nothing_may_be_filled() -> None:
    found = verdict(None, views(at3=StampView(8, 9, True, cause())), "expired")
    assert (found.reason, found.fillable) == ("write_in_flight", False)


def test_without_an_entry_a_missing_stamp_may_not_be_filled_under() -> None:
    assert verdict(None, views(at4=None)).fillable is False


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (0, "table_invalidated"),
        (1, "table_invalidated"),
        (2, "condition_invalidated"),
        (3, "row_invalidated"),
        (4, "condition_invalidated"),
    ],
)
def test_a_replaced_stamp_is_the_reason_and_names_its_write(place: int, reason: str) -> None:
    found = verdict(entry(), views(**{f"at{place}": new()}))
    assert (found.entry, found.reason, found.cause, found.fillable) == (None, reason, cause(), True)
    assert found.changed == (StampChange(NAMES[place], 7, 8),)


@pytest.mark.parametrize("kind", ["touched", "explicit", "flush"])
@pytest.mark.parametrize("place", range(5))
def test_a_call_is_manual_whatever_it_replaced(kind: str, place: int) -> None:
    assert verdict(entry(), views(**{f"at{place}": new(kind)})).reason == "manual_invalidated"


def test_of_several_writes_the_last_is_named() -> None:
    found = verdict(entry(), views(at3=new(at=5.0), at4=new("bulk_write", at=9.0)))
    assert (found.cause, found.reason) == (cause("bulk_write", 9.0), "condition_invalidated")
    assert [change.stamp for change in found.changed] == ["users:1", "users?active"]


def test_of_one_write_the_widest_stamp_is_the_reason() -> None:
    assert verdict(entry(), views(at1=new(), at3=new())).reason == "table_invalidated"


def test_a_missing_stamp_is_the_backends_doing() -> None:
    found = verdict(entry(), views(at4=None))
    assert (found.reason, found.fillable, found.cause) == ("backend_evicted", False, None)
    assert found.changed == (StampChange("users?active", 7, None),)


def test_a_stamp_that_was_seeded_anew_is_the_backends_doing() -> None:
    found = verdict(entry(), views(at4=StampView(1, 55, False, None)))
    assert (found.reason, found.fillable) == ("backend_evicted", True)
    assert found.changed == (StampChange("users?active", 7, 1),)


def test_a_write_beside_a_missing_stamp_is_still_named() -> None:
    assert verdict(entry(), views(at3=new(), at4=None)).reason == "row_invalidated"


def test_an_unchanged_stamp_in_flight_serves_nobody() -> None:
    found = verdict(entry(), views(at3=StampView(7, 3, True, None)))
    assert (found.entry, found.reason, found.fillable) == (None, "write_in_flight", False)


def test_a_stamp_that_a_writer_in_flight_replaced_names_it_and_may_not_be_filled_under() -> None:
    found = verdict(entry(), views(at3=new(in_flight=True)))
    assert (found.entry, found.fillable) == (None, False)
    assert found.reason in ("write_in_flight", "row_invalidated")


def test_an_entry_filled_under_other_stamps_is_not_served_and_nobody_guesses_why() -> None:
    found = verdict(entry(stamps=((EVERYTHING, 7, 0),)), views())
    assert (found.entry, found.reason) == (None, "unknown")


def test_versions_are_for_people_and_only_nonces_decide() -> None:
    assert verdict(entry(), views(at3=StampView(8, 3, False, None))).entry is not None
    assert verdict(entry(), views(at3=StampView(7, 4, False, None))).entry is None


stamp = st.none() | st.builds(
    StampView,
    st.integers(1, 9),
    st.integers(0, 6),
    st.booleans(),
    st.none() | st.builds(cause, st.sampled_from(EVICTION_CAUSES), st.floats(0, 9)),
)


@given(st.lists(stamp, min_size=5, max_size=5), st.booleans(), st.sampled_from([None, "expired", "corrupt"]))
def test_whatever_the_sample_the_verdict_is_in_order(stamps: Any, there: bool, gone: Any) -> None:
    found = verdict(entry() if there else None, stamps, gone)
    current = all(
        view is not None and view.nonce == nonce and not view.in_flight for nonce, view in enumerate(stamps)
    )
    assert (found.entry is not None) == (there and current)
    assert (found.reason is None) == (found.entry is not None)
    assert found.reason is None or found.reason in MISS_REASONS
    if found.fillable:
        assert all(view is not None and not view.in_flight for view in stamps)
