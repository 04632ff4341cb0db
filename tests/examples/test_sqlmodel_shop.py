"""SQLModel behind FastAPI: ``session.exec`` of async and of ordinary sessions is cached like any other read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("sqlmodel", reason="SQLModel, which takes SQLAlchemy 2.0 and newer, is not here")

from tests.examples.serving import answer, client, figure, process


@pytest.mark.parametrize("factory", ["create_app", "create_sync_app"])
def test_what_sqlmodel_reads_is_cached_and_evicted_by_its_commits(tmp_path: Path, factory: str) -> None:
    settings = {"HEROES": str(tmp_path / "heroes.sqlite")}
    arguments = ["--factory", f"examples.sqlmodel_shop:{factory}", "--port", "0", "--no-access-log"]
    with (
        process(tmp_path, "uvicorn", arguments, settings, r"running on (http://\S+)") as shop,
        client(shop.address) as http,
    ):
        for number in range(1, 9):
            added = answer(http.post("/heroes", json={"name": f"hero {number}", "age": 10 * number}))
            assert added["id"] == number
        assert answer(http.get("/older/40")) == 4
        before = answer(http.get("/heroes/1"))
        told = http.get("/metrics/").text
        sent = figure(told, "sqlacache_misses_total")
        for _ in range(3):
            assert answer(http.get("/heroes/1")) == before
            assert answer(http.get("/older/40")) == 4
        told = http.get("/metrics/").text
        assert figure(told, "sqlacache_misses_total") == sent
        assert figure(told, "sqlacache_hits_total", table="hero", op="get") >= 3
        assert figure(told, "sqlacache_hits_total", table="hero", op="count") == 3

        assert answer(http.patch("/heroes/1", json={"age": 99}))["age"] == 99
        assert answer(http.get("/heroes/1")) == {**before, "age": 99}
        assert answer(http.get("/older/40")) == 5

        alone = answer(http.get("/teams/1"))
        assert (alone["name"], alone["heroes"]) == ("Reserves", [])
        joined = answer(http.post("/heroes", json={"name": "joins", "team_id": 1}))
        assert answer(http.get("/teams/1")) == {**alone, "heroes": [joined]}
        hits = figure(http.get("/metrics/").text, "sqlacache_hits_total", op="fetch")
        assert answer(http.get("/teams/1")) == {**alone, "heroes": [joined]}
        assert (
            figure(http.get("/metrics/").text, "sqlacache_hits_total") >= hits + 2
        )  # the team, and its heroes

        assert http.get("/teams/2").status_code == 404
        assert http.get("/heroes/77").status_code == 404

        def write_and_read(hero: int) -> None:
            for age in range(50, 60):
                assert answer(http.patch(f"/heroes/{hero}", json={"age": age}))["age"] == age
                assert answer(http.get(f"/heroes/{hero}"))["age"] == age

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write_and_read, range(2, 6)))
        told = http.get("/metrics/").text
        assert figure(told, "sqlacache_evictions_total", table="hero", cause="row_update") > 40
        assert "Traceback" not in shop.log()
