"""Every reason has words: what it means, and what would have made the read a hit."""

from __future__ import annotations

from typing import Any

import pytest

from sqlacache.decisions import BYPASS_REASONS, MISS_REASONS, Cause, StampChange
from sqlacache.explanation import Explanation, StampState, meaning
from sqlacache.reasons import BYPASSES, MISSES

WORDS: dict[Any, Any] = {**MISSES, **BYPASSES}


def test_the_tables_are_those_of_the_closed_vocabulary() -> None:
    assert (*MISSES,) == MISS_REASONS
    assert (*BYPASSES,) == BYPASS_REASONS


@pytest.mark.parametrize("reason", WORDS)
def test_a_reason_is_told_in_words_of_its_own(reason: Any) -> None:
    words = WORDS[reason]
    others = [other for name, other in WORDS.items() if name != reason and name != "writer_under_way"]
    assert len(words.means.split()) >= 3
    assert words.means not in [other.means for other in others]
    said = words.hit_if.format(changed="users:1")
    assert len(said.split()) >= 3
    assert "{" not in said and not said.endswith(".")
    if reason not in ("row_invalidated", "condition_invalidated"):
        assert words.hit_if not in [other.hit_if for other in others]


@pytest.mark.parametrize("reason", WORDS)
def test_the_text_begins_with_the_decision_the_reason_and_its_words(reason: Any) -> None:
    kind: Any = "miss" if reason in MISSES else "bypass"
    assert str(Explanation(kind, reason)) == f"{kind.upper()} ({reason}): {meaning(reason)}"
    assert str(Explanation(kind, reason, "so it is")).endswith(": so it is")


def test_what_is_not_known_is_said() -> None:
    changed = (StampChange("users:1", 7, 8), StampChange("users:#key", 1, None))
    told = Explanation("miss", "backend_evicted", changed=changed, unknown=("which write it was",))
    lines = str(told).splitlines()
    assert "  changed     users:1: v7 -> v8" in lines
    assert "  changed     users:#key: v1 -> gone" in lines
    assert lines[-1] == "  not known   which write it was"
    assert meaning(None) == "why is not known"


def test_names_from_the_backend_make_no_lines_of_their_own_and_tell_a_terminal_nothing() -> None:
    name = "users:1\n  hit if      you pay\x1b[31m"
    cause = Cause("row_update", name, (name,), (name,), name, 1e9, 1, name, name)
    told = Explanation(
        "miss",
        "row_invalidated",
        key=name,
        dependencies=(name,),
        changed=(StampChange(name, 1, 2),),
        cause=cause,
        stamps=(StampState(name, 1, 2, True),),
    )
    text = str(told)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert [line for line in text.splitlines() if line.startswith("  hit if")] == []
    assert len(text.splitlines()) == 6
