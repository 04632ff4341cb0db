"""Situations: a read, a write that must evict it, and a control that the write must leave alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from .databases import Database
from .reading import UNCACHED, Read, Reader

Write = Callable[[Database], Awaitable[Any]]

BY_KEY = frozenset({"row_invalidated"})
BY_CONDITION = frozenset({"condition_invalidated", "table_invalidated"})
BY_WRITE = BY_KEY | BY_CONDITION


@dataclass(frozen=True)
class Situation:
    """Data of one test: after ``write`` the ``read`` is loaded anew for one of ``reasons``; ``control`` still hits."""

    name: str
    read: Read
    write: Write
    control: Read
    reasons: frozenset[str] = BY_WRITE
    changes: bool = True
    """The write changes what the read returns: it nearly always should, or a stale answer would go unnoticed."""
    raw: bool = False
    """The write is SQL that only ``sqlacache[rawsql]`` understands: without it the control may be loaded anew."""


async def check(situation: Situation, reader: Reader) -> None:
    """Run one situation: both reads miss and hit, the write happens, the read is loaded anew, the control hits."""
    await reader.warm(situation.control, situation.read)
    before = await reader.hit(situation.read)
    await situation.write(reader.database)
    after = await reader.miss(situation.read, situation.reasons)
    if situation.changes:
        assert after.value != before.value, (
            "the write did not change what is read: the situation proves nothing"
        )
    if situation.raw and not understands_raw_sql():
        await reader.current(situation.control)
    else:
        await reader.hit(situation.control)
    await reader.hit(situation.read)


async def check_untouched(reads: Sequence[Read], write: Write, reader: Reader) -> None:
    """Run a write that comes to nothing: what was cached is still served."""
    await reader.warm(*reads)
    await write(reader.database)
    for read in reads:
        await reader.hit(read)


def situations(cases: Sequence[Situation]) -> pytest.MarkDecorator:
    """Parametrise a test over situations, named by them."""
    return pytest.mark.parametrize("situation", cases, ids=[case.name for case in cases])


def understands_raw_sql() -> bool:
    """Whether the parser that ``sqlacache[rawsql]`` needs is installed."""
    import importlib.util

    return importlib.util.find_spec("sqlglot") is not None


def causes(decisions: Iterable[Any]) -> set[str]:
    """The causes named by the misses among ``decisions``."""
    return {decision.cause.cause for decision in decisions if decision.cause is not None}


__all__ = [
    "BY_CONDITION",
    "BY_KEY",
    "BY_WRITE",
    "UNCACHED",
    "Situation",
    "Write",
    "causes",
    "check",
    "check_untouched",
    "situations",
    "understands_raw_sql",
]
