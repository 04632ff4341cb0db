"""The benchmark of what telemetry adds runs, and reports and judges everybody. What it measures is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy

from benchmarks import overhead

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        sqlalchemy.__version__.startswith("1."),
        reason="the benchmark gives execution options to AsyncSession.get(), which 1.4 does not take",
    ),
]


def test_every_contender_has_figures_and_those_with_a_bound_are_judged(
    postgres_url: str, tmp_path: Path
) -> None:
    written = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.overhead", "--rounds", "1", "--times", "3"]
    command += ["--json", str(written), "--postgres", postgres_url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.stderr == ""
    told = json.loads(written.read_text())["seconds"]
    contenders = overhead.contenders()
    assert list(told) == [one.name for one in contenders]
    for one in contenders:
        assert len(told[one.name]["samples"]) == 1 and told[one.name]["median"] > 0
        (line,) = [
            line
            for line in done.stdout.splitlines()
            if line.startswith(f"  {one.name:<20}") and "µs" not in line
        ][1:]
        assert ("PASS" in line or "FAIL" in line) == (one.most is not None)
    assert done.returncode == ("FAIL" in done.stdout)


def test_more_than_is_allowed_fails_and_less_does_not() -> None:
    samples = {one.name: [1.0, 1.0] for one in overhead.contenders()}
    assert all(overhead.judge(samples).values())
    assert overhead.judge({**samples, overhead.NO_SDK: [1.06, 1.06]}) == {
        overhead.NO_SDK: False,
        overhead.DROPPED: True,
        overhead.ROOT_DROPPED: True,
    }
    assert not overhead.judge({**samples, overhead.ROOT_DROPPED: [1.11, 1.2]})[overhead.ROOT_DROPPED]
