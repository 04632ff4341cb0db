"""The benchmark program runs, and reports everybody and everything. What it measures is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from .conftest import WHOLE, whole

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        sqlalchemy.__version__.startswith("1."),
        reason="the benchmark gives execution options to AsyncSession.get(), which 1.4 does not take",
    ),
]

ROOT = Path(__file__).resolve().parents[2]
WORKS = ("get", "list of 1,000", "commit of 1 row")
PARTS = ("one", "memory", "growth") if WHOLE else ("one",)
DRAWS = WHOLE and find_spec("matplotlib") is not None


@pytest.fixture(scope="module")
def program(place: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """Run some parts in their smallest form; give what was printed, what was written, and where the charts are."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(folder / "report.json")]
    command += ["--postgres", place.postgres, "--redis", place.redis]
    if DRAWS:
        command += ["--plots", str(folder / "plots")]
    for part in PARTS:
        command += ["--part", part]
    for work in WORKS:
        command += ["--only", work]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=290)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return done.stdout, json.loads((folder / "report.json").read_text()), folder / "plots"


@pytest.mark.timeout(300)
def test_every_contender_has_a_figure_for_everything_it_takes_part_in(
    program: tuple[str, dict[str, Any], Path],
) -> None:
    from benchmarks.contenders import NO_CACHE, contenders
    from benchmarks.work import READS, WRITES

    data = program[1]["parts"]["one"]["data"]
    works = {work.name: work for work in (*READS, *WRITES)}
    assert list(data["works"]) == list(WORKS)
    for name, runs in data["works"].items():
        absent = data["left_out"].get(name, {})
        assert set(runs) == {
            one.name for one in contenders() if one.takes_part(works[name]) and one.name not in absent
        }
        for run in runs.values():
            assert len(run["samples"]) == 1 and run["seconds"]["median"] > 0
        assert runs[NO_CACHE]["no_cache_over_this"]["median"] == 1


def test_every_goal_whose_work_was_measured_is_judged(program: tuple[str, dict[str, Any], Path]) -> None:
    from benchmarks.goals import DEMANDS

    told = program[1]["parts"]["one"]
    there = {(work, name) for work, runs in told["data"]["works"].items() for name in runs}
    judged = [one.name for one in DEMANDS if _judged(one, there)]
    assert list(told["goals"]) == judged and "own work" in judged
    for name, goal in told["goals"].items():
        assert goal["met"] == (
            goal["median"] >= goal["bound"] if goal["at_least"] else goal["median"] <= goal["bound"]
        )
        assert f"one: {name}: {goal['median']:.2f}" in program[0]


def _judged(demand: Any, there: set[tuple[str, str]]) -> bool:
    return any((work, demand.slow) in there and (work, demand.fast) in there for work in demand.works)


def test_the_report_names_every_part_contender_and_work(program: tuple[str, dict[str, Any], Path]) -> None:
    from benchmarks.contenders import contenders

    printed, told, _ = program
    assert list(told["parts"]) == list(PARTS)
    for part in PARTS:
        assert f"== {part}: {told['parts'][part]['title']}" in printed
    for name in (*(one.name for one in contenders()), *WORKS):
        assert name in printed


@whole
def test_a_commit_takes_two_round_trips_to_redis(program: tuple[str, dict[str, Any], Path]) -> None:
    assert program[1]["parts"]["growth"]["goals"]["round trips of a commit"]["median"] == 2


@whole
def test_every_kind_of_entry_has_a_weight_everywhere(program: tuple[str, dict[str, Any], Path]) -> None:
    told = program[1]["parts"]["memory"]["data"]["bytes_per_entry"]
    for what in ("get", "list of 10"):
        assert 0.7 < told["mem://"][what]["counted per allocated"] < 1.4
        assert told["redis"][what]["entry"] > told["redis"][what]["value"] > 100
    assert told["mem://"]["list of 10"]["allocated"] > 2 * told["mem://"]["get"]["allocated"]
    assert told["redis"]["list of 10"]["value"] > 2 * told["redis"]["get"]["value"]


@whole
@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_every_part_draws_its_charts(program: tuple[str, dict[str, Any], Path]) -> None:
    drawn = {path.name for path in program[2].iterdir()}
    for chart in ("one-reads", "one-writes", "memory", "growth-entries-hits", "growth-rows-rows"):
        assert {f"{chart}.svg", f"{chart}.png"} <= drawn
    assert all(path.stat().st_size > 1000 for path in program[2].iterdir())
