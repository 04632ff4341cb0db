"""The gate fails when a ratio regresses, and not when rounds merely spread. On reports made up: nothing is timed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

if sqlalchemy.__version__.startswith("1."):
    pytest.skip("the benchmark takes SQLAlchemy 2.0 and newer", allow_module_level=True)

from benchmarks import gate
from benchmarks.spread import ratios

Goal = dict[str, Any]


def goal(median: float, spread: float = 0.02, *, bound: float = 1.5, at_least: bool = True) -> Goal:
    """Return a goal as a report has it, with quartiles ``spread`` (of the median) to each side."""
    return {
        "text": "As fast as that.",
        "median": median,
        "q1": median * (1 - spread),
        "q3": median * (1 + spread),
        "bound": bound,
        "at_least": at_least,
        "met": True,
        "over": [],
    }


def report(**goals: Goal) -> dict[str, Any]:
    about = {"date": "2026-01-01", "quick": False, "machine": "here", "load average before": 0.1}
    return {"about": about, "parts": {"one": {"seconds": 1, "title": "one", "goals": goals, "data": {}}}}


class Gate:
    """The program, with files of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.baseline, self._report, self._capsys = folder / "baseline.json", folder / "report.json", capsys
        self.out = self.err = ""

    def run(self, told: Any, *options: str) -> int:
        self._report.write_text(told if isinstance(told, str) else json.dumps(told))
        arguments = ["--from", str(self._report), "--baseline", str(self.baseline), *options]
        status = gate.main(arguments)
        self.out, self.err = self._capsys.readouterr()
        return status

    def compare(self, then: Goal, now: Goal) -> int:
        """Return the exit status for one goal that was ``then`` and is ``now``."""
        assert self.run(report(hit=then), "--write") == 0
        return self.run(report(hit=now))


@pytest.fixture(name="program")
def _program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Gate:
    return Gate(tmp_path, capsys)


def test_the_same_figures_pass(program: Gate) -> None:
    assert program.compare(goal(2.0), goal(2.0)) == 0
    assert "1 ok" in program.out


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (goal(2.2), goal(1.7)),
        (goal(1.1, bound=1.5, at_least=False), goal(1.4, bound=1.5, at_least=False)),
        (goal(2.0, bound=3.0), goal(1.6, bound=3.0)),
    ],
    ids=["less than at least", "more than at most", "a goal that was never met"],
)
def test_a_ratio_that_regressed_fails_though_its_bound_may_hold(program: Gate, then: Goal, now: Goal) -> None:
    assert program.compare(then, now) == 1
    (line,) = [line for line in program.out.splitlines() if "one: hit" in line]
    assert line.split()[0] == "worse"
    assert f"{then['median']:.2f}" in line and f"{now['median']:.2f}" in line and "19% worse" in line


def test_what_another_day_changes_passes(program: Gate) -> None:
    assert program.compare(goal(2.2), goal(1.95)) == 0
    assert program.compare(goal(1.1, at_least=False), goal(1.2, at_least=False)) == 0


def test_a_ratio_that_became_better_passes(program: Gate) -> None:
    assert program.compare(goal(2.0), goal(9.0)) == 0
    assert program.compare(goal(1.2, at_least=False), goal(0.3, at_least=False)) == 0


def test_what_the_spread_of_both_runs_explains_passes(program: Gate) -> None:
    assert program.compare(goal(2.2, 0.12), goal(1.6, 0.12)) == 0
    assert "39% worse" in program.out


def test_figures_that_spread_too_much_do_not_pass(program: Gate) -> None:
    assert program.compare(goal(2.2, 0.02), goal(2.2, 0.3)) == 2
    assert "noisy       one: hit" in program.out
    assert program.err == "python -m benchmarks.gate: figures spread too much, use an idle machine\n"


def test_no_spread_hides_what_it_does_not_explain(program: Gate) -> None:
    assert program.compare(goal(4.0, 0.2), goal(1.6, 0.2)) == 1
    assert "55% worse" in program.out


def test_figures_that_spread_too_much_are_said_when_they_are_written(program: Gate) -> None:
    assert program.run(report(hit=goal(2.0, 0.4), other=goal(2.0)), "--write") == 0
    assert "spreads too much to be compared with: one: hit 2.00 (1.20-2.80)" in program.out
    assert "one: other" not in program.out


def test_a_goal_that_was_met_and_is_missed_by_more_than_its_spread_fails(program: Gate) -> None:
    assert program.compare(goal(1.6, 0.02), goal(1.4, 0.02)) == 1
    (line,) = [line for line in program.out.splitlines() if "one: hit" in line]
    assert line.split()[0] == "missed" and "at least 1.5, as was demanded and met" in line


def test_a_goal_that_is_missed_by_no_more_than_its_spread_passes(program: Gate) -> None:
    assert program.compare(goal(1.55, 0.02), goal(1.48, 0.02)) == 0


def test_rounds_of_the_same_program_pass_and_of_a_slower_one_fail(program: Gate) -> None:
    generator = random.Random(1)

    def measured(hit: float, noise: float) -> Goal:
        slow = [generator.gauss(1.0, noise) for _ in range(12)]
        fast = [generator.gauss(hit, noise * hit) for _ in range(12)]
        return {**goal(1.0), **ratios(slow, fast).as_dict()}

    same = [program.compare(measured(0.45, 0.06), measured(0.45, 0.06)) for _ in range(40)]
    slower = [program.compare(measured(0.45, 0.03), measured(0.65, 0.03)) for _ in range(40)]
    assert sum(same) == 0
    assert sum(slower) == 40


def test_goals_that_are_missing_or_new_are_said(program: Gate) -> None:
    assert program.run(report(kept=goal(2.0), gone=goal(2.0)), "--write") == 0
    assert program.run(report(kept=goal(2.0), other=goal(2.0))) == 0
    assert [line.split()[:3] for line in program.out.splitlines() if " one: " in line] == [
        ["ok", "one:", "kept"],
        ["missing", "one:", "gone"],
        ["new", "one:", "other"],
    ]


def test_a_worst_of_other_work_is_not_compared(program: Gate) -> None:
    assert program.run(report(hit={**goal(2.0), "over": ["get", "list"]}, kept=goal(2.0)), "--write") == 0
    assert program.run(report(hit={**goal(1.0), "over": ["get"]}, kept=goal(2.0))) == 0
    assert "other work  one: hit" in program.out


def test_parts_that_were_not_run_are_said(program: Gate) -> None:
    told = report(hit=goal(2.0))
    told["parts"]["load"] = {"seconds": 1, "title": "load", "goals": {"g": goal(2.0)}, "data": {}}
    assert program.run(told, "--write") == 0
    assert program.run(report(hit=goal(2.0))) == 0
    assert "not run: load" in program.out


def test_nothing_to_compare_is_no_success(program: Gate) -> None:
    assert program.run(report(gone=goal(2.0)), "--write") == 0
    assert program.run(report(other=goal(2.0))) == 2
    assert "nothing to compare" in program.err


def test_the_baseline_tells_what_it_was_measured_on_and_only_ratios(program: Gate) -> None:
    program.run(report(hit=goal(2.0)), "--write")
    told = json.loads(program.baseline.read_text())
    assert told["about"]["machine"] == "here"
    assert set(told["goals"]["one: hit"]) == {"text", "median", "q1", "q3", "bound", "at_least", "over"}


def test_another_machine_is_said(program: Gate) -> None:
    program.run(report(hit=goal(2.0)), "--write")
    there = report(hit=goal(2.0))
    there["about"]["machine"] = "there"
    assert program.run(there) == 0
    assert "machine: here then, there now" in program.out
    assert "load average" not in program.out


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (None, "No such file or directory; python -m benchmarks.gate --write makes one"),
        ("{", "not JSON: "),
        ("[1, 2]", "not a baseline of this program: TypeError"),
        ('{"goals": {}}', "not a baseline of this program: KeyError: 'about'"),
        ('{"goals": {}, "about": {}}', "has no goals"),
        ('{"goals": {"g": {"median": "fast"}}, "about": {}}', "not a baseline of this program: ValueError"),
        (
            json.dumps({"goals": {"g": goal(float("nan"))}, "about": {}}),
            "numbers above 0, and these in order",
        ),
    ],
    ids=["absent", "half a file", "a list", "no machine", "no goals", "a word", "not a number"],
)
def test_a_baseline_that_cannot_be_used_gets_one_clear_line(
    program: Gate, written: str | None, why: str
) -> None:
    if written is not None:
        program.baseline.write_text(written)
    assert program.run(report(hit=goal(2.0))) == 2
    (line,) = program.err.splitlines()
    assert line.startswith(f"python -m benchmarks.gate: {program.baseline}: ") and why in line


def test_a_report_that_cannot_be_used_gets_one_clear_line(program: Gate) -> None:
    program.run(report(hit=goal(2.0)), "--write")
    quick, failed = report(hit=goal(2.0)), report(hit=goal(2.0))
    quick["about"]["quick"] = True
    failed["parts"]["growth"] = {"seconds": 1, "error": "RuntimeError: gone"}
    for told, why in (
        (quick, "a quick run, whose figures mean nothing"),
        (failed, "growth failed, look at the report"),
        ({"parts": {}}, "not a report of this program: KeyError"),
        ("", "not JSON: "),
    ):
        assert program.run(told) == 2
        (line,) = program.err.splitlines()
        assert why in line


def test_a_report_that_cannot_be_used_is_not_written_down(program: Gate) -> None:
    assert program.run({"parts": {}}, "--write") == 2
    assert not program.baseline.exists()


@pytest.mark.skipif(not gate.BASELINE.exists(), reason="no figures are committed yet")
def test_the_committed_baseline_can_be_read_and_is_of_parts_that_there_are() -> None:
    from benchmarks.report import PARTS

    found, about = gate.read_baseline(gate.BASELINE)
    assert {name.partition(":")[0] for name in found} <= set(PARTS)
    assert about["machine"] and about["date"]
