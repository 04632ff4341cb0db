"""What grows is found, and what fills up, goes up and down, or is a little more at the end is not."""

from __future__ import annotations

from random import Random

import pytest

from tests.leaks.judge import RULES, judge

OPERATIONS = 1_000_000
SAMPLES = 60
STEADY = {
    "memory": 200.0,
    "used": 150.0,
    "blocks": 800_000.0,
    "tasks": 3.0,
    "threads": 8.0,
    "files": 30.0,
    "connections": 12.0,
    "keys": 900.0,
    "undying": 4.0,
    "bytes": 5e6,
    "objects": 400.0,
    "held": 400.0,
    "metrics": 900.0,
}
"""What there may be of each kind in a program that leaks nothing."""
LEAKED = {
    "memory": 100.0,
    "used": 30.0,
    "blocks": 1e6,
    "tasks": 100.0,
    "threads": 100.0,
    "files": 100.0,
    "connections": 25.0,
    "keys": 5e3,
    "undying": 1e3,
    "bytes": 1e7,
    "objects": 1e3,
    "held": 1e3,
    "metrics": 5e3,
}
"""What one that leaks has more in the end: of 1,000 operations, one to five leave something behind, or of 10,000."""


def series(kind: str, leaked: float, random: Random) -> list[tuple[float, float]]:
    return [
        (done, STEADY[kind] * random.uniform(0.95, 1.05) + leaked * done / OPERATIONS)
        for done in (OPERATIONS * number // SAMPLES for number in range(1, SAMPLES + 1))
    ]


def test_every_kind_has_a_program_that_leaks_and_one_that_does_not() -> None:
    assert RULES.keys() == STEADY.keys() == LEAKED.keys()


@pytest.mark.parametrize("kind", RULES)
def test_what_is_steady_does_not_grow_and_what_leaks_a_little_at_a_time_does(kind: str) -> None:
    random = Random(kind)
    assert not judge({kind: series(kind, 0.0, random)}, OPERATIONS)[0].grows
    assert judge({kind: series(kind, LEAKED[kind], random)}, OPERATIONS)[0].grows


def test_what_is_full_when_the_warm_up_ends_does_not_grow() -> None:
    filling = [(done, min(done / OPERATIONS, 0.25) * 40_000.0) for done, _ in series("held", 0.0, Random(1))]
    assert not judge({"held entries": filling}, OPERATIONS)[0].grows
    assert judge({"held entries": [(done, done / 100) for done, _ in filling]}, OPERATIONS)[0].grows


def test_a_few_samples_that_are_far_off_decide_nothing() -> None:
    peaks = series("objects", 0.0, Random(1))
    for at in (45, 50, 55):
        peaks[at] = (peaks[at][0], 1e6)
    assert not judge({"objects of a kind": peaks}, OPERATIONS)[0].grows
    troughs = series("objects", LEAKED["objects"], Random(1))
    for at in (45, 50, 55):
        troughs[at] = (troughs[at][0], 0.0)
    assert judge({"objects of a kind": troughs}, OPERATIONS)[0].grows


def test_too_few_samples_and_kinds_without_a_rule_are_no_all_clear() -> None:
    with pytest.raises(ValueError, match="too few"):
        judge({"tasks": series("tasks", 0.0, Random(1))[:-20]}, OPERATIONS)
    with pytest.raises(KeyError):
        judge({"wishes": series("tasks", 0.0, Random(1))}, OPERATIONS)
