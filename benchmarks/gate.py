"""Whether something became slower: ``python -m benchmarks.gate`` (``make bench-gate``), exit 1 if it did.

Runs the parts of :data:`SELECTION`, and compares every goal's ratio with the committed one (``baseline.json``, written
by ``--write``). Ratios are between contenders of one run, so that a machine that is slower as a whole changes little.

A median may be worse than the committed one by :data:`SHIFT`, since another day and another machine shift ratios by
more than the rounds of one run tell, and by the noise of both runs besides: half of the distance between the quartiles
of each. With a dozen rounds, that is about twice the standard error of each median. A goal that was met must not be
missed by more than its noise. Where both runs' noise is above :data:`NOISY`, passing would mean nothing: the gate says
so, and does not pass.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from tests.support.postgres import Unavailable

from .program import add_common, add_redis, place, progress
from .report import Report, as_json, lines, measured, module

BASELINE = Path(__file__).with_name("baseline.json")
SELECTION: Mapping[str, int] = {"one": 12, "apart": 12, "processes": 3, "growth": 6}
"""Parts that the gate runs, and how many rounds of each."""
SHIFT = 0.15
"""By which part of the committed ratio a median may be worse, whatever the noise."""
NOISY = 0.30
"""Noise, as a part of the ratio, above which a goal is not judged, unless it is worse than even that explains."""
Verdict = Literal["ok", "worse", "missed", "noisy", "missing", "new", "other work"]
FAILING = frozenset(("worse", "missed"))


class Unusable(Exception):
    """A file that is to be compared cannot be; the text is for people, in one line."""


@dataclass(frozen=True)
class Found:
    """A goal's ratio, as a report or the baseline has it."""

    median: float
    low: float
    high: float
    bound: float
    at_least: bool
    over: tuple[str, ...]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Found:
        """Read what JSON has; raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        median, low, high, bound = (float(told[name]) for name in ("median", "q1", "q3", "bound"))
        if not (0 < low <= median <= high < float("inf") and bound > 0):
            raise ValueError("a bound, a median and quartiles are numbers above 0, and these in order")
        if not isinstance(told["at_least"], bool):
            raise ValueError("at_least is true or false")
        return cls(median, low, high, bound, told["at_least"], tuple(map(str, told["over"])))

    @property
    def noise(self) -> float:
        """Half of the distance between the quartiles, as a part of the median."""
        return (self.high - self.low) / 2 / self.median

    @property
    def met(self) -> bool:
        return self.median >= self.bound if self.at_least else self.median <= self.bound

    @property
    def short(self) -> float:
        """How far it is from its bound, as a part of that; negative where it is better."""
        return 1 - self.median / self.bound if self.at_least else self.median / self.bound - 1


@dataclass(frozen=True)
class Judged:
    """A goal, then and now."""

    name: str
    verdict: Verdict
    then: Found | None
    now: Found | None
    allowed: float = 0.0
    """By which part it might have been worse."""

    @property
    def worse(self) -> float:
        """By which part the median is worse than it was; negative where it is better."""
        assert self.then is not None and self.now is not None
        change = self.now.median / self.then.median
        return 1 - change if self.then.at_least else change - 1


def judge(then: Mapping[str, Found], now: Mapping[str, Found]) -> list[Judged]:
    """Compare goals by name; those of ``then`` come first."""
    judged = [_one(name, was, now.get(name)) for name, was in then.items()]
    return [*judged, *(Judged(name, "new", None, found) for name, found in now.items() if name not in then)]


def _one(name: str, then: Found, now: Found | None) -> Judged:
    if now is None:
        return Judged(name, "missing", then, None)
    if set(then.over) != set(now.over) or then.at_least != now.at_least:
        return Judged(name, "other work", then, now)
    noise = then.noise + now.noise
    judged = Judged(name, "ok", then, now, SHIFT + noise)
    if judged.worse > judged.allowed:
        return replace(judged, verdict="worse")
    if then.met and not now.met and now.short > now.noise:
        return replace(judged, verdict="missed")
    return replace(judged, verdict="noisy") if noise > NOISY else judged


# -- files -----------------------------------------------------------------------------------------------------


def found_in(report: Any, path: Path) -> dict[str, Found]:
    """Return the goals of a report, as ``--json`` writes it. Raises :class:`Unusable`."""
    try:
        if report["about"]["quick"]:
            raise Unusable(f"{path}: a quick run, whose figures mean nothing")
        failed = [name for name, part in report["parts"].items() if "error" in part]
        if failed:
            raise Unusable(f"{path}: {', '.join(failed)} failed, look at the report")
        found = {
            f"{part}: {name}": Found.of(goal)
            for part, told in report["parts"].items()
            for name, goal in told["goals"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as why:
        raise Unusable(f"{path}: not a report of this program: {type(why).__name__}: {why}") from why
    if not found:
        raise Unusable(f"{path}: has no goals")
    return found


def read_baseline(path: Path) -> tuple[dict[str, Found], Mapping[str, Any]]:
    """Return the committed goals and what they were measured on. Raises :class:`Unusable`."""
    told = _read(path, "; python -m benchmarks.gate --write makes one")
    try:
        found = {str(name): Found.of(goal) for name, goal in told["goals"].items()}
        about = dict(told["about"])
    except (KeyError, TypeError, ValueError, AttributeError) as why:
        raise Unusable(f"{path}: not a baseline of this program: {type(why).__name__}: {why}") from why
    if not found:
        raise Unusable(f"{path}: has no goals")
    return found, about


def _read(path: Path, hint: str = "") -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as why:
        raise Unusable(f"{path}: {why.strerror}{hint}") from why
    except ValueError as why:
        raise Unusable(f"{path}: not JSON: {why}") from why


def baseline_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is committed of a report: ratios, and what they were measured on."""
    kept = ("text", "median", "q1", "q3", "bound", "at_least", "over")
    goals: dict[str, Any] = {}
    for part, told in report["parts"].items():
        for name, goal in told["goals"].items():
            shown = {key: goal[key] for key in kept}
            goals[f"{part}: {name}"] = shown | {key: round(goal[key], 4) for key in ("median", "q1", "q3")}
    return {"about": report["about"], "goals": goals}


# -- telling ---------------------------------------------------------------------------------------------------


def table(judged: Sequence[Judged]) -> Iterator[str]:
    """Give a line per goal: what it was, is, and might have been."""
    wide = max(len(one.name) for one in judged)
    yield f"  {'':<12}{'goal':<{wide}}{'then':>20}{'now':>20}  now may be"
    for one in judged:
        then, now = (_shown(found) for found in (one.then, one.now))
        yield f"  {one.verdict:<12}{one.name:<{wide}}{then:>20}{now:>20}  {_allowed(one)}".rstrip()


def _shown(found: Found | None) -> str:
    return "" if found is None else f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})"


def _allowed(one: Judged) -> str:
    if one.then is None or one.now is None:
        return ""
    if one.verdict == "other work":
        return "not compared: it was found over other work"
    sign, word = (-1, "at least") if one.then.at_least else (1, "at most")
    limit = f"{word} {max(0.0, one.then.median * (1 + sign * one.allowed)):.2f} ({one.allowed:.0%} worse)"
    if one.verdict == "noisy":
        limit += ", which says nothing"
    if one.verdict == "missed":
        limit += f", and {word} {one.now.bound:g}, as was demanded and met, but for its own spread"
    return limit


def main(argv: Sequence[str] | None = None) -> int:
    options = _arguments(argv)
    try:
        report = _report(options)
        now = found_in(report, options.report or Path("this run"))
        if options.write:
            options.baseline.write_text(json.dumps(baseline_of(report), indent=1) + "\n")
            print(f"{options.baseline}: {len(now)} goals")
            for name, found in now.items():
                if found.noise > NOISY / 2:
                    print(f"  spreads too much to be compared with: {name} {_shown(found)}")
            return 0
        then, about = read_baseline(options.baseline)
    except (Unusable, Unavailable) as why:
        print(f"python -m benchmarks.gate: {why}", file=sys.stderr)
        return 2
    judged = judge({name: was for name, was in then.items() if _part(name) in report["parts"]}, now)
    left_out = sorted({_part(name) for name in then} - set(report["parts"]))
    print(f"\nCompared with {options.baseline.name} of {about.get('date')}")
    for name in sorted({*about, *report["about"]} - {"date"}):
        if about.get(name) != report["about"].get(name) and not name.startswith("load average"):
            print(f"  {name}: {about.get(name)} then, {report['about'].get(name)} now")
    print("\n".join(table(judged)))
    if left_out:
        print(f"  not run: {', '.join(left_out)}")
    counts = Counter(one.verdict for one in judged)
    print(", ".join(f"{counts[verdict]} {verdict}" for verdict in get_args(Verdict) if counts[verdict]))
    if counts.keys() & FAILING:
        return 1
    if counts["noisy"]:
        print("python -m benchmarks.gate: figures spread too much, use an idle machine", file=sys.stderr)
        return 2
    if not counts["ok"]:
        print("python -m benchmarks.gate: nothing to compare", file=sys.stderr)
        return 2
    return 0


def _part(goal: str) -> str:
    return goal.partition(":")[0]


def _report(options: argparse.Namespace) -> dict[str, Any]:
    if options.report is not None:
        read: dict[str, Any] = _read(options.report)
        return read
    if not options.write:
        read_baseline(options.baseline)  # before minutes of measuring
    with place(options.postgres, options.redis) as where:
        report: Report = measured(
            where,
            {name: module(name).run for name in SELECTION},
            rounds=SELECTION,
            quick=False,
            progress=progress,
        )
    print("\n".join(lines(report)))
    told = as_json(report)
    if options.json is not None:
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    return told


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--from",
        dest="report",
        type=Path,
        metavar="FILE",
        help="a report that python -m benchmarks --json made, instead of measuring now",
    )
    parser.add_argument(
        "--baseline", type=Path, default=BASELINE, metavar="FILE", help="compare with these figures"
    )
    parser.add_argument("--write", action="store_true", help="make them the ones to compare with from now on")
    add_common(parser)
    add_redis(parser)
    options = parser.parse_args(argv)
    if options.report is not None and options.json is not None:
        parser.error("--json writes what is measured, and --from measures nothing")
    return options


if __name__ == "__main__":
    sys.exit(main())
