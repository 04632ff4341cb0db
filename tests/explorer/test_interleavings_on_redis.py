"""The same over the scripts on a real server, with what only a server can lose, and the tier that asks nobody."""

from __future__ import annotations

import pytest

from tests.explorer.redis_stories import LONG, SCRIPTS, STORIES, TIERS, changed, made
from tests.explorer.scheduler import explore, follow
from tests.explorer.server import Server

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", [name for name in STORIES if name not in LONG])
def test_in_every_order_reads_are_current_and_may_hit_again(name: str, server: Server) -> None:
    report = explore(lambda: STORIES[name](server, False))
    assert report.found is None, f"{name}:\n{report}"
    assert report.complete and report.states > 30, report


@pytest.mark.parametrize("what", SCRIPTS)
def test_a_script_that_leaves_out_a_rule_is_found_out(what: str, server: Server) -> None:
    begin, script, text, instead = SCRIPTS[what]
    with changed(server, script, text, instead):
        report = explore(lambda: begin(server, False), most=2000)
    assert report.found is not None, report


def test_what_was_sampled_before_an_announcement_is_not_kept_after_it(server: Server) -> None:
    begin, kind = TIERS["what was sampled before an announcement is kept"]
    report = explore(lambda: begin(server, False, tier=made(kind)), most=2000)
    assert report.found is not None and "stale" in report.found.what, report


def test_a_pong_proves_what_came_before_its_ping(server: Server) -> None:
    """Found by the long form of the story, in 800 states; here are the steps that it came to."""
    begin, kind = TIERS["a PONG proves what came before it arrived"]
    steps = ["W1 asks for the registry", "W1 marks", "W1 commits", "W1 settles"]
    steps += ["more than the bound passes", "a PONG arrives at A"]
    wrong = follow(lambda: begin(server, False, tier=made(kind)), steps)
    assert wrong is not None and wrong[0] == steps and "stale" in wrong[1], wrong
    assert follow(lambda: begin(server, False), steps) is None
