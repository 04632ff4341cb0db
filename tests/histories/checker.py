"""Says what is wrong with a history: what many readers and writers of many processes saw, and when.

Every write gives a key a value that nobody else gives it, with a version that the database counts up. A history is
checked afterwards, by times of one clock, so that nothing needs to be known of how the cache works:

- **fresh**: a read that began after a commit had returned sees that version or a newer one; other processes may be
  behind by the bound of the pushed tier, or as long as the writer owes the invalidation;
- **never uncommitted**: what is read was written by a transaction that committed, or whose end nobody knows;
- **never backwards**: a session that has seen a version sees it or a newer one afterwards;
- **own writes**: a session sees what it has committed;
- **available**: reads and commits neither fail nor take longer than they may, but where a fault excuses them, and one
  of the cache's excuses no failure;
- **worth it**: of the reads outside of faults, at least so many are hits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
    """Who asked, after a ``/`` that ends the name of the process; without one, a process of its own."""
    kind: Literal["read", "write"]
    key: str
    start: float
    """Seconds, on a clock that all processes share."""
    end: float = inf
    value: Value | None = None
    """What was read, or written."""
    outcome: Literal["ok", "rolled back", "failed", "unknown"] = "ok"
    """``rolled back``: as was asked for. ``failed``: an error; of a write, nothing was committed. ``unknown``: the
    connection or process was lost."""
    hit: bool = False
    owed: float = 0.0
    """Of a write: until when other processes may see what was, because they could not be told."""

    @property
    def process(self) -> str:
        """The process of the session."""
        return self.session.partition("/")[0]


@dataclass(frozen=True)
class Limits:
    """What is promised."""

    behind: float = 0.0
    """Seconds that a read may be behind the writes of other processes: the bound of the pushed tier."""
    slowest: float = inf
    """Seconds that an operation may take."""
    hits: float = 0.0
    """The least share of hits among reads outside of faults."""
    faults: Sequence[tuple[float, float]] = ()
    """From when to when something was broken: what overlaps may fail or be slow, and need not hit."""
    harmless: Sequence[tuple[float, float]] = ()
    """From when to when something was broken that is promised to cost speed only: nothing may fail."""


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
    for those in by_key.values():
        found += _committed(those)
        found += _fresh(those, limits.behind)
        found += _in_order(those, limits.behind)
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
        elif write.outcome in ("failed", "rolled back"):
            found.append(Fault("a value that was never committed", read, write))
        elif write.start > read.end:
            found.append(Fault("a value before it was written", read, write))
    return found


class _Newest:
    """The newest of what binds by a time that only grows."""

    def __init__(self, binding: Iterable[tuple[float, Operation]]) -> None:
        self._binding = sorted(binding, key=lambda one: one[0])
        self._at = 0
        self._newest: Operation | None = None

    def by(self, time: float) -> Operation | None:
        while self._at < len(self._binding) and self._binding[self._at][0] <= time:
            one = self._binding[self._at][1]
            self._newest = _newer(self._newest, one)
            self._at += 1
        return self._newest


def _version(one: Operation | None) -> int:
    return -1 if one is None or one.value is None else one.value.version


def _newer(one: Operation | None, other: Operation | None) -> Operation | None:
    return other if _version(other) > _version(one) else one


def _fresh(operations: Sequence[Operation], behind: float) -> list[Fault]:
    """Compare each read with the newest commit that bound it: of its own process, as soon as it had returned."""
    of_all = _Newest((max(one.end + behind, one.owed), one) for one in _commits(operations))
    by_process: dict[str, list[tuple[float, Operation]]] = defaultdict(list)
    for one in _commits(operations):
        by_process[one.process].append((one.end, one))
    own = {process: _Newest(commits) for process, commits in by_process.items()}
    found = []
    for read in _reads(operations):
        newest = of_all.by(read.start)
        if read.process in own:
            newest = _newer(newest, own[read.process].by(read.start))
        if _version(newest) > _version(read):
            found.append(Fault("stale", read, newest))
    return found


def _in_order(operations: Sequence[Operation], behind: float) -> list[Fault]:
    """What each session sees never goes back, from what it has read or committed itself."""
    writes = {one.value: one for one in operations if one.kind == "write" and one.value is not None}
    sessions: dict[str, list[Operation]] = defaultdict(list)
    for one in [*_reads(operations), *_commits(operations)]:
        sessions[one.session].append(one)

    def binds(one: Operation) -> float:
        write = writes.get(one.value)  # type: ignore[arg-type]  # those have one
        if write is None or write.process == one.process:
            return one.end
        return max(one.end + behind, write.owed)

    found = []
    for those in sessions.values():
        seen = _Newest((binds(one), one) for one in those)
        for one in sorted(those, key=lambda one: one.start):
            last = seen.by(one.start)
            if one.kind == "read" and last is not None and _version(one) < _version(last):
                found.append(Fault("own write not seen" if last.kind == "write" else "backwards", one, last))
    return found


def _available(operations: Sequence[Operation], limits: Limits) -> list[Fault]:
    found = []
    for one in operations:
        if one.outcome in ("failed", "unknown"):
            if not _overlaps(one, limits.faults):
                found.append(Fault("an error that no fault explains", one))
        elif one.end - one.start > limits.slowest and not _excused(one, limits):
            found.append(Fault(f"took {one.end - one.start:.3f} s", one))
    return found


def _excused(operation: Operation, limits: Limits) -> bool:
    return _overlaps(operation, limits.faults) or _overlaps(operation, limits.harmless)


def _overlaps(operation: Operation, windows: Sequence[tuple[float, float]]) -> bool:
    return any(operation.start <= end and operation.end >= begin for begin, end in windows)


def _worth_it(operations: Sequence[Operation], limits: Limits) -> list[Fault]:
    reads = [one for one in _reads(operations) if not _excused(one, limits)]
    hits = sum(one.hit for one in reads)
    if reads and hits < limits.hits * len(reads):
        return [Fault(f"only {hits} of {len(reads)} reads are hits", reads[-1])]
    return []
