"""Says what is wrong with a history: what many readers and writers of many processes saw, and when.

Every write gives a key a value that nobody else gives it, with a version that the database counts up. A history is
checked afterwards, by times of one clock, so that nothing needs to be known of how the cache works:

- **fresh**: a read that began after a commit had returned sees that version or a newer one;
- **never uncommitted**: what is read was written by a transaction that committed, or whose end nobody knows;
- **never backwards**: a session that has seen a version sees it or a newer one afterwards;
- **own writes**: a session sees what it has committed;
- **available**: reads and commits neither fail nor take longer than they may, but where a fault excuses them;
- **worth it**: of the reads outside of faults, at least so many are hits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal, NamedTuple


class Value(NamedTuple):
    """What is at a key."""

    version: int
    writer: str
    """Who wrote it: no two writes have the same."""


ABSENT = Value(0, "")
"""What is at a key before anybody has written it."""


@dataclass(frozen=True)
class Operation:
    """One read or one write, as the one who asked saw it."""

    session: str
    kind: Literal["read", "write"]
    key: str
    start: float
    """Seconds, on a clock that all processes share."""
    end: float = inf
    value: Value | None = None
    """What was read, or written."""
    outcome: Literal["ok", "failed", "unknown"] = "ok"
    """``failed``: an error; of a write, nothing was committed. ``unknown``: the connection or process was lost."""
    hit: bool = False


@dataclass(frozen=True)
class Limits:
    """What is promised."""

    behind: float = 0.0
    """Seconds that a read may be behind: the bound of the pushed tier."""
    slowest: float = inf
    """Seconds that an operation may take."""
    hits: float = 0.0
    """The least share of hits among reads outside of faults."""
    faults: Sequence[tuple[float, float]] = ()
    """From when to when something was broken: what overlaps may fail or be slow, and need not hit."""
    owing: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """By key, from when to when an invalidation was owed: promised there is only what its own process sees."""


class Fault(NamedTuple):
    """Something that must not be."""

    what: str
    operation: Operation
    because: Operation | None = None

    def __str__(self) -> str:
        behind = "" if self.because is None else f"\n    because of {self.because}"
        return f"{self.what}: {self.operation}{behind}"


def check(history: Iterable[Operation], limits: Limits | None = None) -> list[Fault]:
    """Return everything that is wrong with a history."""
    limits = limits if limits is not None else Limits()
    operations = sorted(history, key=lambda one: one.start)
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_key[operation.key].append(operation)
    found: list[Fault] = []
    for key, those in by_key.items():
        found += _committed(those)
        found += _fresh(those, limits.behind, limits.owing.get(key, ()))
        found += _in_order(those)
    return found + _available(operations, limits) + _worth_it(operations, limits)


def _reads(operations: Iterable[Operation]) -> list[Operation]:
    return [one for one in operations if one.kind == "read" and one.outcome == "ok" and one.value is not None]


def _commits(operations: Iterable[Operation]) -> list[Operation]:
    return [
        one for one in operations if one.kind == "write" and one.outcome == "ok" and one.value is not None
    ]


def _committed(operations: Sequence[Operation]) -> list[Fault]:
    writes = {one.value: one for one in operations if one.kind == "write" and one.value is not None}
    found = []
    for read in _reads(operations):
        if read.value == ABSENT:
            continue
        write = writes.get(read.value)
        if write is None:
            found.append(Fault("a value that nobody wrote", read))
        elif write.outcome == "failed":
            found.append(Fault("a value that was never committed", read, write))
        elif write.start > read.end:
            found.append(Fault("a value before it was written", read, write))
    return found


def _fresh(
    operations: Sequence[Operation], behind: float, owing: Sequence[tuple[float, float]]
) -> list[Fault]:
    """Walk along reads by their start, and along commits by their end, with the newest that had returned by then."""
    commits = sorted(_commits(operations), key=lambda one: one.end)
    newest: Operation | None = None
    at = 0
    found = []
    for read in _reads(operations):
        while at < len(commits) and commits[at].end <= read.start - behind:
            if newest is None or commits[at].value > newest.value:  # type: ignore[operator]  # those have one
                newest = commits[at]
            at += 1
        assert read.value is not None
        if newest is None or newest.value is None or read.value.version >= newest.value.version:
            continue
        if not any(begin <= read.start <= end for begin, end in owing):
            found.append(Fault("stale", read, newest))
    return found


def _in_order(operations: Sequence[Operation]) -> list[Fault]:
    """What each session sees never goes back, from what it has read or committed itself."""
    found = []
    sessions: dict[str, list[Operation]] = defaultdict(list)
    for one in [*_reads(operations), *_commits(operations)]:
        sessions[one.session].append(one)
    for those in sessions.values():
        ended = sorted(those, key=lambda one: one.end)
        last: Operation | None = None
        at = 0
        for one in sorted(those, key=lambda one: one.start):
            while at < len(ended) and ended[at].end <= one.start:
                if last is None or ended[at].value > last.value:  # type: ignore[operator]  # those have one
                    last = ended[at]
                at += 1
            if one.kind == "read" and last is not None and one.value.version < last.value.version:  # type: ignore[union-attr]  # as above
                found.append(Fault("own write not seen" if last.kind == "write" else "backwards", one, last))
    return found


def _available(operations: Sequence[Operation], limits: Limits) -> list[Fault]:
    found = []
    for one in operations:
        if _excused(one, limits):
            continue
        if one.outcome != "ok":
            found.append(Fault("an error that no fault explains", one))
        elif one.end - one.start > limits.slowest:
            found.append(Fault(f"took {one.end - one.start:.3f} s", one))
    return found


def _excused(operation: Operation, limits: Limits) -> bool:
    return any(operation.start <= end and operation.end >= begin for begin, end in limits.faults)


def _worth_it(operations: Sequence[Operation], limits: Limits) -> list[Fault]:
    reads = [one for one in _reads(operations) if not _excused(one, limits)]
    hits = sum(one.hit for one in reads)
    if reads and hits < limits.hits * len(reads):
        return [Fault(f"only {hits} of {len(reads)} reads are hits", reads[-1])]
    return []
