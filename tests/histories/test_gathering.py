"""What a history is excused is what its own log says is owed, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.histories.gathering import MARGIN, Report, gather
from tests.histories.nemesis import Broken
from tests.histories.running import Plan, Ran

PLAN = Plan(timeout=3.0, lease=6.0)


class Logs:
    """Logs of two clients: ``w`` writes versions 1 and 2 of a row, ``r`` reads version 1 at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: dict[str, list[dict[str, Any]]] = {"c0.0": [], "c1.0": []}
        self.killed: dict[str, float] = {}
        self.broken: list[Broken] = []
        self.say("c0.0", "begin", 0.5, id="w1", s="c0.0/0", keys=[["item:1", 1]])
        self.say("c0.0", "end", 1.0, id="w1", outcome="ok")
        self.say("c0.0", "begin", 1.5, id="w2", s="c0.0/0", keys=[["item:1", 2]])

    def say(self, client: str, what: str, at: float, **more: Any) -> None:
        self._lines[client].append({"what": what, "at": at, **more})

    def returned(self) -> Logs:
        self.say("c0.0", "end", 2.0, id="w2", outcome="ok")
        return self

    def owing(self, count: int = 1) -> Logs:
        self.say("c0.0", "held", 1.6, id="w2")
        self.say("c0.0", "owing", 1.9, id="w2", count=count)
        return self

    def read(self, at: float, version: int = 1, client: str = "c1.0") -> Logs:
        seen = [["item:1", version, f"w{version}"]]
        self.say(client, "read", at, s=f"{client}/1", start=at, end=at + 0.1, hit=True, seen=seen)
        return self

    def found(self) -> set[str]:
        paths = []
        for client, lines in self._lines.items():
            paths.append(self._folder / f"{client}.jsonl")
            paths[-1].write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"what": "rea')
        ran = Ran(PLAN, paths, self.killed, self.broken, 0.0, 10.0)
        report: Report = gather(ran, slowest=60, hits=0)
        return {one.what for one in report.stale}


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def test_what_is_owed_to_nobody_must_be_seen(logs: Logs) -> None:
    assert logs.returned().read(2.1).found() == {"stale"}


def test_what_is_owed_may_be_missed_until_it_is_delivered(logs: Logs) -> None:
    logs.owing().returned().say("c0.0", "owed", 3.0, count=0)
    assert logs.read(2.9).found() == set()
    assert logs.read(3.1).found() == {"stale"}


def test_what_was_delivered_before_it_was_told_of_is_not_owed(logs: Logs) -> None:
    assert logs.owing(count=0).returned().read(2.1).found() == {"stale"}


def test_a_process_that_owes_sees_what_it_has_written(logs: Logs) -> None:
    assert logs.owing().returned().read(2.5, client="c0.0").found() == {"stale"}


def test_what_a_killed_process_owed_may_be_missed_for_as_long_as_entries_live(logs: Logs) -> None:
    logs.owing().returned().killed["c0.0"] = 4.0
    assert logs.read(4.0 + PLAN.timeout).found() == set()
    assert logs.read(4.1 + PLAN.timeout + MARGIN).found() == {"stale"}


def test_a_commit_of_a_killed_process_that_somebody_has_seen_is_not_forgotten(logs: Logs) -> None:
    logs.killed["c0.0"] = 1.7
    assert logs.read(2.0, version=2).read(2.5).found() == {"backwards"}


def test_it_may_be_where_redis_has_lost_that_it_was_under_way(logs: Logs) -> None:
    logs.killed["c0.0"] = 1.7
    logs.broken.append(Broken("redis full", 3.0, 3.5, of_redis=True))
    assert logs.read(2.0, version=2).read(2.5).found() == set()
    assert logs.read(4.0 + PLAN.timeout + MARGIN).found() == {"backwards"}
