"""One report of several parts: a part that fails costs only itself, and bad options get one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

if sqlalchemy.__version__.startswith("1."):
    pytest.skip("the benchmark takes SQLAlchemy 2.0 and newer", allow_module_level=True)

from benchmarks import __main__ as program
from benchmarks.parts import Chart, Goal, Part, Place
from benchmarks.report import PARTS, Report, Run, as_json, lines, measured, module
from benchmarks.spread import Spread

from .conftest import whole

PLACE = Place("postgresql://nowhere", "redis://nowhere")


def part(name: str, *medians: float) -> Run:
    """Return what makes a part whose goals, of at least 2, were found to be ``medians``."""
    goals = [
        Goal(f"goal {number}", "Twice as fast.", Spread(median, median, median), 2.0, True)
        for number, median in enumerate(medians)
    ]

    def run(place: Place, *, rounds: int | None, quick: bool, progress: Callable[[str], None]) -> Part:
        progress("round 1")
        return Part(name, f"title of {name}", [f"  figures of {name}, {rounds} rounds"], {"n": 1}, goals)

    return run


def broken(*args: Any, **kwargs: Any) -> Part:
    raise RuntimeError("the contender vanished")


def ran(**runs: Run) -> Report:
    return measured(PLACE, runs, rounds=3, quick=False, progress=lambda text: None)


def test_a_part_that_fails_loses_nothing_of_the_others() -> None:
    report = ran(first=part("first", 3.0), second=broken, third=part("third", 1.0))
    printed = "\n".join(lines(report))
    assert "figures of first, 3 rounds" in printed and "figures of third" in printed
    assert "FAILED  second: RuntimeError: the contender vanished" in printed
    told = as_json(report)
    assert "the contender vanished" in told["parts"]["second"]["error"]
    assert told["parts"]["third"]["goals"]["goal 0"]["met"] is False
    assert report.status == 2


def test_the_exit_status_tells_whether_every_goal_is_met() -> None:
    assert ran(one=part("one", 2.0, 5.0)).status == 0
    assert ran(one=part("one", 2.0), other=part("other", 1.9)).status == 1


def test_goals_are_judged_in_the_report() -> None:
    printed = "\n".join(lines(ran(one=part("one", 2.0, 1.9))))
    assert "PASS  one: goal 0: 2.00 (2.00-2.00), at least 2." in printed
    assert "FAIL  one: goal 1: 1.90 (1.90-1.90), at least 2." in printed


def test_the_report_is_json() -> None:
    assert json.loads(json.dumps(as_json(ran(one=part("one", 2.0)))))["parts"]["one"]["data"] == {"n": 1}


def test_every_registered_part_is_a_module_that_can_measure() -> None:
    pytest.importorskip("dogpile.cache", reason="the part 'sync' compares with it")
    for name in PARTS:
        found = module(name)
        assert found.TITLE and callable(found.run)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--part", "two"], "argument --part: invalid choice: 'two'"),
        (["--only", "golf"], "argument --only: invalid choice: 'golf'"),
        (["--rounds", "0"], "argument --rounds: takes a number above 0, got '0'"),
        (["--rounds", "many"], "argument --rounds: takes a number above 0, got 'many'"),
        (["--part", "growth", "--only", "get"], "--only chooses work of the part 'one'"),
        (["--json", "nowhere/at/all.json"], "--json: there is no folder nowhere/at"),
        (["--plots", __file__], "--plots: "),
    ],
    ids=["part", "work", "no rounds", "not a number", "work of no part", "no folder", "a file for a folder"],
)
def test_a_bad_option_gets_one_clear_line(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(arguments)
    assert ended.value.code == 2
    assert why in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--postgres", "nonsense"], "--postgres: Could not parse SQLAlchemy URL"),
        (["--postgres", "postgresql+asyncpg://nobody@127.0.0.1:9/none"], "--postgres: "),
        (["--redis", "redis://127.0.0.1:9"], "--redis: Error"),
        (["--redis", "nonsense"], "--redis: Redis URL must specify one of the following schemes"),
    ],
    ids=["no URL of PostgreSQL", "no PostgreSQL", "no Redis", "no URL of Redis"],
)
def test_a_server_that_does_not_answer_gets_one_clear_line(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--redis", "redis://127.0.0.1:9", *arguments]
    assert program.main(given if arguments[0] == "--postgres" else arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"python -m benchmarks: {why}")


@whole
@pytest.mark.parametrize("kind", ["bars", "lines"])
def test_a_chart_is_drawn_as_svg_and_png(kind: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.plots import draw

    places: list[Any] = ["get", "list"] if kind == "bars" else [1, 100]
    series = {name: [(place, Spread(2.0, 0.5, 3.0)) for place in places] for name in ("hit", "redis")}
    chart = Chart(
        "drawn", "The title", kind, "x", "times", series, log_x=kind == "lines", log_y=True, base=1.0
    )
    svg, png = draw(chart, tmp_path)
    assert svg.name == "drawn.svg" and "<svg" in svg.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")
