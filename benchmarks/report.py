"""Runs parts, and makes one report of them: text for people, JSON for machines. A part that fails costs only itself."""

from __future__ import annotations

import importlib
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, cast

from .parts import Goal, Module, Part, Place
from .program import about
from .spread import times

PARTS = ("one", "apart", "fresh", "telemetry", "sync", "load", "processes", "latency", "memory", "growth")
"""Parts in the order of the report; a module of this package, of the same name, measures each."""
PACKAGES = ("sqlalchemy", "asyncpg", "redis", "prometheus-client", "opentelemetry-api")
WIDTH = 110


def module(name: str) -> Module:
    """Import the module of a part."""
    found = importlib.import_module(f".{name}", __package__)
    if name != found.NAME:
        raise RuntimeError(f"{found.__name__} says that it measures {found.NAME!r}, not {name!r}")
    return cast(Module, found)


@dataclass(frozen=True)
class Ran:
    """A part that was run."""

    name: str
    seconds: float
    """How long it took."""
    part: Part | None
    error: str = ""
    """The end of it, where there is no part."""


@dataclass(frozen=True)
class Report:
    """What was measured, and where."""

    about: Mapping[str, Any]
    ran: Sequence[Ran]

    @property
    def goals(self) -> Iterator[tuple[str, Goal]]:
        """The goals of all parts, with what each is called among all."""
        for ran in self.ran:
            for goal in ran.part.goals if ran.part else ():
                yield f"{ran.name}: {goal.name}", goal

    @property
    def status(self) -> int:
        """Exit status: 2 if a part failed, 1 if a goal is not met."""
        if any(ran.part is None for ran in self.ran):
            return 2
        return 0 if all(goal.met for _, goal in self.goals) else 1


Run = Callable[..., Part]


def measured(
    place: Place,
    runs: Mapping[str, Run],
    *,
    rounds: Mapping[str, int] | int | None,
    quick: bool,
    progress: Callable[[str], None],
) -> Report:
    """Run parts one after the other.

    Args:
        place: Where.
        runs: By name of the part, in order: what takes ``place``, ``rounds=``, ``quick=`` and ``progress=``.
        rounds: How many, for all or by part; ``None`` leaves it to each.
        quick: Everything once, to see that it works.
        progress: Shows what is being done.
    """
    told = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        **about(PACKAGES),
        "load average before": round(os.getloadavg()[0], 2),
        "quick": quick,
    }
    ran = []
    for name, run in runs.items():
        began = time.monotonic()
        part, error = None, ""
        number = rounds.get(name) if isinstance(rounds, Mapping) else rounds

        def tell(text: str, name: str = name) -> None:
            progress(f"{name}: {text}" if text else "")

        tell("begins")
        try:
            part = run(place, rounds=number, quick=quick, progress=tell)
        except Exception:  # whatever it is: told in the report and by the exit status, and the others go on
            error = traceback.format_exc()
        ran.append(Ran(name, time.monotonic() - began, part, error))
    progress("")
    return Report({**told, "load average after": round(os.getloadavg()[0], 2)}, ran)


def lines(report: Report) -> Iterator[str]:
    """Give the report in text, line by line."""
    yield "About"
    for name, value in report.about.items():
        yield f"  {name}: {value}"
    for ran in report.ran:
        title = ran.part.title if ran.part else "failed"
        yield from ("", f"{f'== {ran.name}: {title} ({ran.seconds:.0f} s) ':=<{WIDTH}}")
        if ran.part is None:
            yield from (f"  {line}" for line in ran.error.rstrip().splitlines())
        else:
            yield from ran.part.lines
    goals = list(report.goals)
    if goals:
        yield from ("", f"{'== Goals ':=<{WIDTH}}")
        for name, goal in goals:
            bound = f"{'at least' if goal.at_least else 'at most'} {goal.bound:g}"
            yield f"  {'PASS' if goal.met else 'FAIL'}  {name}: {times(goal.found)}, {bound}. {goal.text}"
    for ran in report.ran:
        if ran.part is None:
            yield f"  FAILED  {ran.name}: {ran.error.rstrip().splitlines()[-1]}"
    if report.about.get("quick"):
        yield from ("", "A quick run shows that the benchmark works; its figures mean nothing.")


def as_json(report: Report) -> dict[str, Any]:
    """Return everything, for ``--json``. Times are seconds, sizes bytes."""
    parts: dict[str, Any] = {}
    for ran in report.ran:
        told: dict[str, Any] = {"seconds": round(ran.seconds, 1)}
        parts[ran.name] = told
        if ran.part is None:
            told["error"] = ran.error
            continue
        told["title"] = ran.part.title
        told["goals"] = {goal.name: goal_as_json(goal) for goal in ran.part.goals}
        told["data"] = ran.part.data
    return {"about": dict(report.about), "parts": parts}


def goal_as_json(goal: Goal) -> dict[str, Any]:
    """Return a goal as the report and the gate's baseline have it."""
    return {
        "text": goal.text,
        **goal.found.as_dict(),
        "bound": goal.bound,
        "at_least": goal.at_least,
        "met": goal.met,
        "over": list(goal.over),
    }
