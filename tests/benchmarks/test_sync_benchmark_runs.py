"""The benchmark of sync sessions runs, and reports everybody and everything. What it measures is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import sqlalchemy

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        sqlalchemy.__version__.startswith("1."), reason="psycopg takes SQLAlchemy 2.0 and newer"
    ),
    pytest.mark.skipif(find_spec("dogpile") is None, reason="dogpile.cache is not installed"),
]


@pytest.mark.timeout(300)
def test_everybody_reads_the_same_and_has_a_figure_for_everything(postgres_url: str, tmp_path: Path) -> None:
    from benchmarks.sync import DATABASES
    from benchmarks.sync_contenders import NO_CACHE, contenders
    from benchmarks.sync_work import READS

    written = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.sync", "--quick", "--json", str(written)]
    done = subprocess.run(
        [*command, "--postgres", postgres_url], capture_output=True, text=True, cwd=ROOT, timeout=280
    )
    assert done.returncode == 0, done.stderr
    works = json.loads(written.read_text())["works"]
    assert sorted(works) == sorted(f"{work.name}, {database}" for work in READS for database in DATABASES)
    for work, runs in works.items():
        assert work in done.stdout
        assert sorted(runs) == sorted(contender.name for contender in contenders())
        assert all(run["seconds"]["median"] > 0 for run in runs.values())
        assert runs[NO_CACHE]["no_cache_over_this"]["median"] == 1


def test_a_cache_that_asks_the_database_is_not_measured() -> None:
    from benchmarks.contenders import Unfair
    from benchmarks.sync_contenders import HIT, Contender
    from benchmarks.sync_work import Work

    contender = Contender(HIT, "asks the database all the same", "memory")
    contender.open("sqlite://", "")

    def ask(sessions: object, options: object, number: int) -> None:
        with contender.engine.connect():
            pass

    with pytest.raises(Unfair, match="took 1 connections to the database"), contender.turn():
        contender.warm(Work("ask", ask, 1, lambda answer: answer, 1))
    contender.close()
