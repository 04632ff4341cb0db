"""Tables for reports: contenders below each other, so that there is room for any number of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .figures import Samples, own_work, ratio, seconds
from .spread import milliseconds, times

NAME, CELL = 20, 10
"""Widths of columns."""
MOST = 13
"""Columns beside each other."""


def overview(samples: Samples, works: Sequence[str], names: Sequence[str], base: str) -> Iterator[str]:
    """Give one line per contender: how many times as fast as ``base`` each work is, medians only."""
    there = [work for work in works if base in samples.get(work, {})]
    for first in range(0, len(there), MOST):
        few = there[first : first + MOST]
        yield from headings(few)
        for name in names:
            cells = [
                f"{ratio(samples, work, base, name).median:.2f}" if samples[work].get(name) else ""
                for work in few
            ]
            if name != base and any(cells):
                yield f"  {name:<{NAME}}" + "".join(f"{cell:>{CELL}}" for cell in cells)


def headings(words: Sequence[str], room: int = CELL) -> Iterator[str]:
    """Give the lines of column headings, broken between words (or anywhere, if need be) to fit their columns."""
    columns = [_broken(text, room - 1) for text in words]
    height = max(len(column) for column in columns)
    for row in range(height):
        cells = [
            column[row - height + len(column)] if row >= height - len(column) else "" for column in columns
        ]
        yield f"  {'':<{NAME}}" + "".join(f"{cell:>{room}}" for cell in cells)


def _broken(text: str, room: int) -> list[str]:
    broken: list[str] = []
    for word in text.split():
        if broken and len(broken[-1]) + 1 + len(word) <= room:
            broken[-1] += f" {word}"
        else:
            broken += [word[start : start + room] for start in range(0, len(word), room)]
    return broken


def detail(
    samples: Samples, work: str, names: Sequence[str], base: str, instant: str, hits: Sequence[str]
) -> Iterator[str]:
    """Give the block of one work: each contender's time and ratio with their quartiles, and a hit's own work."""
    runs = samples[work]
    yield f"  {work}"
    for name in names:
        if not runs.get(name):
            continue
        line = f"    {name:<{NAME}}{milliseconds(seconds(samples, work, name)):>24} ms"
        if name != base and base in runs:
            line += f"{times(ratio(samples, work, base, name)):>26} x"
            if name in hits and instant in runs:
                line += f"   own work {own_work(samples, work, name, instant).median:+.0%}"
        yield line


def table(
    rows: Sequence[str], columns: Sequence[str], cell: Callable[[str, str], str], room: int = 22
) -> Iterator[str]:
    """Give a table of what ``cell(row, column)`` shows."""
    wide = max((len(row) for row in rows), default=0) + 2
    yield f"  {'':<{wide}}" + "".join(f"{column:>{room}}" for column in columns)
    for row in rows:
        yield f"  {row:<{wide}}" + "".join(f"{cell(row, column):>{room}}" for column in columns)
