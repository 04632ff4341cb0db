"""The checker of histories finds what is planted, and nothing in a history that a right cache may leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from tests.histories.checker import ABSENT, Limits, Operation, Value, check


def history(seed: int, sessions: int = 4, operations: int = 200) -> list[Operation]:
    """Make what sessions see of a register that is right: each operation takes effect somewhere in its own time."""
    random = Random(seed)
    free = [0.0] * sessions
    asked = []
    for number in range(operations):
        session = random.randrange(sessions)
        start = free[session] + random.random()
        free[session] = end = start + random.random()
        asked.append((random.uniform(start, end), number, f"s{session}", random.choice("ab"), start, end))
    now = {"a": ABSENT, "b": ABSENT}
    done = []
    for _, number, session, key, start, end in sorted(asked):
        if random.random() < 0.3:
            outcome = random.choice(("ok", "ok", "ok", "failed"))
            value = Value(now[key].version + 1, f"w{number}")
            if outcome == "ok":
                now[key] = value
            done.append(Operation(session, "write", key, start, end, value, outcome))  # type: ignore[arg-type]  # of these
        else:
            done.append(Operation(session, "read", key, start, end, now[key], hit=random.random() < 0.8))
    return done


def faults(of: Sequence[Operation], limits: Limits | None = None) -> set[str]:
    return {fault.what for fault in check(of, limits) if not fault.what.startswith("an error")}


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_wrong_with_what_a_right_register_shows(seed: int) -> None:
    assert faults(history(seed)) == set()


W1 = Operation("w", "write", "a", 1, 2, Value(1, "w1"))
W2 = Operation("w", "write", "a", 3, 4, Value(2, "w2"))
OLD = Operation("r", "read", "a", 5, 6, Value(1, "w1"))


def test_a_stale_read_is_found_from_the_moment_that_commit_returned() -> None:
    assert faults([W1, W2, OLD]) == {"stale"}
    assert faults([W1, W2, replace(OLD, start=4)]) == {"stale"}
    assert faults([W1, W2, replace(OLD, start=3.9)]) == set(), "it began while the commit was under way"


def test_a_read_may_be_behind_by_the_bound_and_no_more() -> None:
    assert faults([W1, W2, OLD], Limits(behind=1.5)) == set()
    assert faults([W1, W2, OLD], Limits(behind=0.5)) == {"stale"}


def test_other_processes_may_see_what_was_while_an_invalidation_is_owed_and_its_own_may_not() -> None:
    owed = replace(W2, owed=5.5)
    assert faults([W1, owed, OLD]) == set()
    assert faults([W1, replace(W2, owed=4.5), OLD]) == {"stale"}
    assert faults([W1, owed, replace(OLD, value=ABSENT)]) == {"stale"}, "the one before is not owed"
    assert faults([W1, replace(owed, session="r/1"), replace(OLD, session="r/2")]) == {"stale"}
    seen = Operation("r", "read", "a", 4.1, 4.2, Value(2, "w2"))
    assert faults([W1, owed, seen, OLD]) == set(), "from another entry that is not told yet"
    assert faults([W1, owed, seen, replace(OLD, start=5.6)]) == {"stale", "backwards"}


def test_a_commit_of_unknown_end_may_be_seen_or_not_but_is_not_forgotten_again() -> None:
    unknown = replace(W2, outcome="unknown", end=float("inf"))
    new = Operation("r", "read", "a", 7, 8, Value(2, "w2"))
    assert faults([W1, unknown, OLD]) == set()
    assert faults([W1, unknown, new]) == set()
    assert faults([W1, unknown, new, replace(OLD, start=9, end=10)]) == {"backwards"}


def test_what_was_rolled_back_or_never_written_is_found() -> None:
    assert faults([W1, replace(W2, outcome="failed"), replace(OLD, value=Value(2, "w2"))]) == {
        "a value that was never committed"
    }
    rolled_back = replace(W2, outcome="rolled back")
    assert check([W1, rolled_back, OLD]) == []
    assert faults([W1, rolled_back, replace(OLD, value=Value(2, "w2"))]) == {
        "a value that was never committed"
    }
    assert faults([W1, replace(OLD, value=Value(1, "w9"))]) == {"a value that nobody wrote"}
    assert faults([W1, Operation("r", "read", "a", 0, 0.5, Value(1, "w1"))]) == {
        "a value before it was written"
    }


def test_a_session_sees_what_it_has_seen_and_written() -> None:
    seen = Operation("r", "read", "a", 3.1, 3.2, Value(2, "w2"))
    assert faults([W1, W2, seen, replace(OLD, start=3.3, end=3.4)]) == {"backwards"}
    assert faults([W1, W2, seen, replace(OLD, start=3.3, end=3.4, session="q")]) == set(), (
        "another has not seen it"
    )
    own = replace(W2, session="r")
    assert faults([W1, own, OLD], Limits(behind=9)) == {"stale", "own write not seen"}


def test_errors_slowness_and_too_few_hits_are_found_outside_of_faults() -> None:
    failed = replace(OLD, outcome="failed", value=None)
    assert [one.what for one in check([failed])] == ["an error that no fault explains"]
    assert check([failed], Limits(faults=[(5.5, 9)])) == []
    assert check([failed], Limits(harmless=[(5.5, 9)])), "the cache's trouble is no excuse"
    slow = Operation("r", "read", "a", 0, 3, ABSENT)
    assert faults([slow], Limits(slowest=2.5)) == {"took 3.000 s"}
    assert check([slow], Limits(slowest=2.5, faults=[(2, 2.1)])) == []
    assert check([slow], Limits(slowest=2.5, harmless=[(2, 2.1)])) == []
    assert faults([slow, replace(slow, hit=True)], Limits(hits=0.6)) == {"only 1 of 2 reads are hits"}
    assert check([slow, replace(slow, hit=True)], Limits(hits=0.5)) == []


@pytest.mark.parametrize("seed", range(20))
def test_one_read_made_old_in_a_long_history_is_found(seed: int) -> None:
    random, done = Random(seed), history(seed)
    commits = [one for one in done if one.kind == "write" and one.outcome == "ok" and one.value is not None]
    late = [
        (at, read, write)
        for at, read in enumerate(done)
        for write in commits
        if read.kind == "read"
        and write.key == read.key
        and write.end <= read.start
        and write.value.version > 1  # type: ignore[union-attr]  # it has one
    ]
    at, read, write = random.choice(late)
    assert write.value is not None
    older = next(
        one.value for one in commits if one.key == read.key and one.value.version == write.value.version - 1
    )  # type: ignore[union-attr]  # as above
    done[at] = replace(read, value=older)
    assert "stale" in faults(done)
