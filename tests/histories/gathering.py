"""Makes of what a run left what :mod:`.checker` takes, and says what was seen.

The promise is that no read which starts after ``commit()`` has returned sees an older value. What is allowed beyond
that, and by which sentence:

- *An invalidation that is owed* (DESIGN, section 1, sentence 2; CAVEATS, "A commit of which Redis was not told"): of a
  write that its process says it could not tell Redis of, **other** processes may see what was until that process says
  that nothing is owed any more. "If the process ends first, what it owed is lost, and entries are stale until their
  timeout": then until it was dead and the timeout has passed.
- *A COMMIT longer than the lease* (the same sentence; CAVEATS): "what is read before it lands may be kept until it
  settles; if the process dies before that, until its timeout".
- *A COMMIT that has not returned* is not spoken of in that sentence. Who has seen its value sees it from then on all
  the same, since it is in flight, but where Redis loses that it is: then from when it has returned.
- *Two faults at once* (CAVEATS): a writer is killed between its phases, and Redis loses what says that it was under
  way: until its timeout. So it is only for a write that was under way when its process was killed, and only if Redis
  lost something within the lease.
- *The pushed tier* (sentence 2) "within its bound": one second, for writes of other processes.

A read that a killed process did not finish is not known of, and a write that it did not finish may have landed.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from tests.histories.checker import ABSENT, Fault, Limits, Operation, Value, check
from tests.histories.running import Plan, Ran

BOUND = 1.0
"""Seconds that the pushed tier may be behind."""
MARGIN = 2.0
"""Seconds that entries may outlive their timeout: how long a load may take that began before a commit landed."""
AFTER = 2.0
"""Seconds after a fault in which things may still be slow: probes come a second apart."""
Line = dict[str, Any]


@dataclass
class Report:
    """What a run was, and what is wrong with it."""

    plan: Plan
    operations: Counter[str] = field(default_factory=Counter)
    """By kind and outcome; a read of several rows is one."""
    faults: Counter[str] = field(default_factory=Counter)
    hits: int = 0
    calm_reads: int = 0
    """Reads outside of faults, of which :attr:`hits` were hits."""
    owed: int = 0
    """Commits of which Redis could not be told."""
    wrong: list[Fault] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)
    """What grew or was too little, though nothing wrong was read."""
    growth: list[str] = field(default_factory=list)
    """What was watched, at the beginning and at the end."""
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def stale(self) -> list[Fault]:
        """What was read and must not have been."""
        return [one for one in self.wrong if one.because is not None or one.what.startswith("a value")]

    def __str__(self) -> str:
        asked, failed = sum(self.operations.values()), self.operations["read failed"]
        failed += self.operations["write failed"]
        hits = f"{self.hits / self.calm_reads:.1%}" if self.calm_reads else "none"
        lines = [
            f"seed {self.plan.seed}, {self.plan.clients} clients, local={self.plan.local}: {asked:,} operations "
            f"({', '.join(f'{count:,} {what}' for what, count in sorted(self.operations.items()))})",
            f"faults: {sum(self.faults.values())} "
            f"({', '.join(f'{count} {what}' for what, count in sorted(self.faults.items()))})",
            f"commits owed to Redis: {self.owed}",
            f"stale reads: {len(self.stale)}; hits outside of faults: {hits} of {self.calm_reads:,} reads; "
            f"availability: {1 - failed / max(asked, 1):.4%}",
            *self.growth,
            *(f"UNMET: {what}" for what in self.unmet),
            *(f"error: {count} x {what}" for what, count in self.errors.most_common(10)),
            *(f"WRONG: {one}" for one in self.wrong[:20]),
        ]
        return "\n".join(lines)


def gather(ran: Ran, *, slowest: float, hits: float) -> Report:
    """Check a history, with the slowest operation allowed and the least share of hits outside of faults."""
    report = Report(ran.plan, faults=Counter(one.what for one in ran.broken))
    logs = {path.stem: _lines(path) for path in ran.logs}
    writes = [one for name, lines in logs.items() for one in _writes(name, lines, ran, report)]
    history = [*writes, *(one for lines in logs.values() for one in _reads(lines, writes, report))]
    limits = Limits(
        behind=BOUND if ran.plan.local == "pushed" else 0.0,
        slowest=slowest,
        faults=[(one.begin, one.end + AFTER) for one in ran.broken if one.fails],
        harmless=[(one.begin, one.end + AFTER) for one in ran.broken if not one.fails],
    )
    report.wrong = check(history, limits)
    _count_hits(logs, limits, report)
    if report.hits < hits * report.calm_reads:
        report.unmet.append(f"only {report.hits} of {report.calm_reads} reads outside of faults are hits")
    _watch(ran, logs, report)
    return report


def _lines(path: Path) -> list[Line]:
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # the last, of a process that was killed
            break
    return found


# -- writes ------------------------------------------------------------------------------------------------------------


def _writes(name: str, lines: list[Line], ran: Ran, report: Report) -> list[Operation]:
    ends = {line["id"]: line for line in lines if line["what"] == "end"}
    owed = _owed(lines, ran.killed.get(name), ran.plan.timeout)
    found = []
    for line in lines:
        if line["what"] == "failed":
            report.operations[f"{line['kind']} failed"] += 1
            report.errors[line["why"][:200]] += 1
            found.append(Operation(line["s"], line["kind"], "", line["start"], line["at"], outcome="failed"))
        if line["what"] != "begin":
            continue
        end = ends.get(line["id"])
        outcome = "unknown" if end is None else end["outcome"]
        at = inf if end is None else end["at"]
        report.operations[f"write {outcome}"] += 1
        if line["id"] in owed:
            report.owed += 1
        until = max(owed.get(line["id"], 0.0), _out_of_flight(line["at"], at, ran, ran.killed.get(name)))
        for key, version in line["keys"]:
            value = Value(version, line["id"])
            found.append(Operation(line["s"], "write", key, line["at"], at, value, outcome, owed=until))
    return found


def _owed(lines: list[Line], killed: float | None, timeout: float) -> dict[str, float]:
    """Return by write until when others may see what was: until all is delivered, or the dead are timed out."""
    until = {line["id"]: inf for line in lines if line["what"] == "held"}
    waiting: set[str] = set()
    for line in lines:
        if line["what"] == "owing":
            waiting.add(line["id"])
        if line["what"] in ("owing", "owed") and line["count"] == 0:
            until.update((one, line["at"]) for one in waiting)
            waiting.clear()
    if killed is None:
        return until
    lost = killed + timeout + MARGIN
    return {one: lost if at == inf else at for one, at in until.items()}


def _out_of_flight(start: float, end: float, ran: Ran, killed: float | None) -> float:
    """Return until when a write may be missed because its lease ended, or Redis lost that it was under way."""
    if end == inf and killed is None:
        return 0.0
    until = end if killed is None or end < inf else killed
    lost_by = end if end < inf else until + ran.plan.lease
    lost = any(one.of_redis and one.end >= start and one.begin <= lost_by for one in ran.broken)
    if not lost and until - start <= ran.plan.lease:
        return 0.0
    return until if end < inf else until + ran.plan.timeout + MARGIN


# -- reads -------------------------------------------------------------------------------------------------------------


def _reads(lines: list[Line], writes: Iterable[Operation], report: Report) -> list[Operation]:
    by_version: dict[tuple[str, int], Value] = {}
    order = {"rolled back": 0, "unknown": 1, "ok": 2}
    for write in sorted((one for one in writes if one.value is not None), key=lambda one: order[one.outcome]):
        assert write.value is not None
        by_version[write.key, write.value.version] = write.value
    found = []
    for line in lines:
        if line["what"] == "read":
            report.operations["witness read ok" if line.get("witness") else "read ok"] += 1
            for key, version, writer in line["seen"]:
                value = Value(version, writer or "")
                if writer is None:
                    value = by_version.get((key, version), Value(version, "?")) if version else ABSENT
                found.append(
                    Operation(line["s"], "read", key, line["start"], line["end"], value, hit=line["hit"])
                )
    return found


def _count_hits(logs: dict[str, list[Line]], limits: Limits, report: Report) -> None:
    windows = [*limits.faults, *limits.harmless]
    for lines in logs.values():
        for line in lines:
            if (
                line["what"] == "read"
                and not line.get("witness")
                and not any(line["start"] <= end and line["end"] >= begin for begin, end in windows)
            ):
                report.calm_reads += 1
                report.hits += line["hit"]


# -- what must not grow ------------------------------------------------------------------------------------------------

ALLOWED = {
    "memory": (0.15, 16.0),
    "tasks": (0.2, 5.0),
    "threads": (0.2, 5.0),
    "files": (0.2, 5.0),
    "keys": (0.2, 200.0),
    "connections": (0.2, 5.0),
}
"""What the last third may have on average beyond the first: a share of it, and that much in any case."""
WARMED = 0.2
"""Share of the run after which the first third begins: caches fill first."""
LEAST = 60.0
"""Seconds of a run from which on growth is judged."""


def _watch(ran: Ran, logs: dict[str, list[Line]], report: Report) -> None:
    """Compare the last third of a run with the first, of each process that lived all the time."""
    if ran.end - ran.begin < LEAST:
        return
    series: dict[str, list[tuple[float, float]]] = {
        "keys of Redis": [(at, count) for at, count in ran.keys],
        "connections of the database": [(at, count) for at, count in ran.connections],
    }
    for name, lines in logs.items():
        if name.endswith(".0") and name not in ran.killed:
            samples = [line for line in lines if line["what"] == "sample"]
            for what in ("memory", "tasks", "threads", "files"):
                series[f"{what} of {name}"] = [(line["at"], line[what]) for line in samples]
    begin = ran.begin + WARMED * (ran.end - ran.begin)
    third = (ran.end - begin) / 3
    for what, samples in series.items():
        share, least = ALLOWED[what.split()[0]]
        parts = defaultdict(list)
        for at, count in samples:
            if at >= begin:
                parts[min(int((at - begin) / third), 2)].append(count)
        if not parts[0] or not parts[2]:
            continue
        first, last = (sum(parts[part]) / len(parts[part]) for part in (0, 2))
        told = f"{what}: {first:.1f} in the first third, {last:.1f} in the last"
        report.growth.append(told)
        if last > first * (1 + share) + least:
            report.unmet.append(told)
