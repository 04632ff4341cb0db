"""The benchmark program runs, and reports everybody and everything. What it measures is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from benchmarks.contenders import NO_CACHE, contenders
from benchmarks.figures import REQUIREMENTS
from benchmarks.work import READS, WRITES

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        sqlalchemy.__version__.startswith("1."),
        reason="the benchmark gives execution options to AsyncSession.get(), which 1.4 does not take",
    ),
]


@pytest.fixture(scope="module")
def program(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Run the program in its smallest form; give what it printed and what it wrote."""
    written = tmp_path_factory.mktemp("benchmarks") / "report.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(written)]
    command += ["--postgres", postgres_url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(written.read_text())


def test_every_contender_has_a_figure_for_everything_it_takes_part_in(
    program: tuple[str, dict[str, Any]],
) -> None:
    works = program[1]["works"]
    assert list(works) == [work.name for work in (*READS, *WRITES)]
    for work in (*READS, *WRITES):
        takes_part = [one.name for one in contenders() if one.writes or work in READS]
        assert list(works[work.name]) == takes_part
        for name in takes_part:
            assert len(works[work.name][name]["samples"]) == 1
            assert works[work.name][name]["seconds"]["median"] > 0
            assert works[work.name][name]["no_cache_over_this"]["median"] > 0
        assert works[work.name][NO_CACHE]["no_cache_over_this"]["median"] == 1


def test_every_requirement_is_judged(program: tuple[str, dict[str, Any]]) -> None:
    judged = program[1]["requirements"]
    assert [one["text"] for one in judged] == [requirement.text for requirement in REQUIREMENTS]
    assert all(isinstance(one["met"], bool) and one["ratio"]["median"] > 0 for one in judged)


def test_the_report_names_every_contender_work_and_requirement(program: tuple[str, dict[str, Any]]) -> None:
    printed = program[0]
    for name in (one.name for one in contenders()):
        assert name in printed
    for work in (*READS, *WRITES):
        assert work.name in printed
    for requirement in REQUIREMENTS:
        assert requirement.text in printed
