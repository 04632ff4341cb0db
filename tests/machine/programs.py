"""Programs: what to watch, and the steps of several sessions that are open at the same time."""

from __future__ import annotations

from typing import Any, NamedTuple

from .drawing import Choices, weighted
from .reads import MIX as READ_MIX
from .reads import Read, draw_read
from .writes import MIX as WRITE_MIX
from .writes import Write, draw_write

SLOTS = (0, 1, 2)
"""Sessions that are open at the same time; the last one expires its objects at commit."""


class Step(NamedTuple):
    """One step: what is done, by which session, and with what."""

    kind: str
    slot: int = 0
    what: Any = None

    def __str__(self) -> str:
        detail = "" if self.what is None else f" {self.what}"
        return f"session {self.slot}: {self.kind}{detail}"


class Program(NamedTuple):
    """Reads that are compared after every step, and the steps."""

    watched: tuple[Read, ...]
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [f"watching {read}" for read in self.watched]
        steps = [step for step in self.steps if step.kind != "nothing"]
        lines += [f"{number}. {step}" for number, step in enumerate(steps, 1)]
        return "\n".join(lines)


STEPS = weighted(
    nothing=1, write=26, commit=14, read=8, savepoint=8, peek=3, rollback=3, begin_nested=3, release=2,
    rollback_nested=2, close=1, race_select=3, race_before_commit=1, race_after_commit=1, autocommit=1, connection=1,
    invalidate=1, mode=1, rebind=1,
)  # fmt: skip
MOST_WATCHED = 6


def draw_step(choose: Choices, kinds: tuple[str, ...] = STEPS, writes: tuple[str, ...] = WRITE_MIX) -> Step:
    """One step."""
    kind = choose.of(kinds)
    if kind == "nothing":  # what hypothesis shrinks a step to that it cannot leave out
        return Step(kind)
    slot = choose.of((0, 1, 0, 1, 2))
    what: Any = None
    if kind in ("write", "autocommit", "connection"):
        what = draw_write(choose, writes)
    elif kind == "savepoint":
        what = (draw_write(choose, writes), draw_write(choose, writes), choose.of(("rollback", "release")))
    elif kind in ("read", "peek"):
        what = choose.of(range(MOST_WATCHED))
    elif kind == "race_select":
        what = draw_read(choose)
    elif kind == "mode":
        what = choose.of(("write_only", "off"))
    elif kind == "invalidate":
        what = choose.of(("all", "User", "Order"))
    return Step(kind, slot, what)


def draw_program(choose: Choices, steps: int, watched: int, reads: tuple[str, ...] = READ_MIX) -> Program:
    """A program of fixed size."""
    return Program(
        tuple(dict.fromkeys(draw_read(choose, reads) for _ in range(watched))),
        tuple(draw_step(choose) for _ in range(steps)),
    )


__all__ = ["SLOTS", "STEPS", "Program", "Read", "Step", "Write", "draw_program", "draw_step"]
