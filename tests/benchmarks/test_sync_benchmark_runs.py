"""The benchmark of ordinary sessions runs, and reports everybody. What it measures is not tested here."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import sqlalchemy

from benchmarks.parts import Place

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        sqlalchemy.__version__.startswith("1."), reason="psycopg takes SQLAlchemy 2.0 and newer"
    ),
    pytest.mark.skipif(find_spec("dogpile") is None, reason="dogpile.cache is not installed"),
]


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by dogpile.cache
def test_everybody_does_the_same_and_has_a_figure_for_everything(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import sync
    from benchmarks.sync_contenders import DIRECT, DOGPILE, HIT, NO_CACHE, contenders
    from benchmarks.sync_work import READS, WRITES

    short = (
        "get",
        "list of 10",
        "count",
        "selectinload, 100 + 500",
        "commit of 1 row",
        "bulk update of 1,000 rows",
    )
    all_works = (*READS, *WRITES)
    chosen = {
        sync.POSTGRESQL: [work for work in all_works if work.name in short],
        sync.SQLITE: [work for work in READS if work.name in short[:2]],
    }
    assert [work.name for work in chosen[sync.POSTGRESQL]] == list(short)
    monkeypatch.setattr(sync, "WORKS", chosen)
    part = sync.run(place, rounds=None, quick=True, progress=lambda text: None)
    works = part.data["works"]
    assert list(works) == [sync.named(work, database) for database in chosen for work in chosen[database]]
    text = "\n".join(part.lines)
    for database in chosen:
        for work in chosen[database]:
            runs = works[sync.named(work, database)]
            assert set(runs) == {one.name for one in contenders() if one.takes_part(work)}
            assert all(run["seconds"]["median"] > 0 for run in runs.values())
            assert runs[NO_CACHE]["no_cache_over_this"]["median"] == 1
            assert f"  {sync.named(work, database)}\n" in text
    assert {DIRECT, DOGPILE, HIT} <= set(works["get, PostgreSQL"])
    assert f"{DOGPILE}, selectinload, 100 + 500: the recipe's keys" in text
    assert all(len(line) <= 160 for line in part.lines)
    assert {goal.name for goal in part.goals} >= {f"every read faster, {HIT}", f"every read faster, {DIRECT}"}
    assert [chart.name for chart in part.charts] == ["sync-postgresql", "sync-sqlite"]


def test_a_cache_that_asks_the_database_is_not_measured() -> None:
    from benchmarks.contender import Unfair
    from benchmarks.sync_contenders import HIT, Contender
    from benchmarks.work import Work

    contender = Contender(HIT, "asks the database all the same", "memory")
    contender.open("sqlite://", "")

    def ask(sessions: object, options: object, number: int) -> None:
        with contender.engine.connect():
            pass

    with pytest.raises(Unfair, match="took 1 connections to the database"), contender.turn():
        contender.warm(Work("ask", ask, 1, lambda answer: answer, 1))
    contender.close()
