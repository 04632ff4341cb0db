"""Generated programs of several sessions: every read through the cache is what the database says, and is cached.

``HYPOTHESIS_PROFILE=hard`` runs many more programs, new ones every time.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .drawing import strategy
from .programs import MOST_WATCHED, Program, draw_step
from .reads import draw_read
from .world import Figures, World, prepare

HARD = os.environ.get("HYPOTHESIS_PROFILE") == "hard"
EXAMPLES = 3000 if HARD else 40
LEAST_HITS = 0.8
BUDGETS = {
    "dirty_transaction": 0.10,  # reads of sessions that wrote what they read
    "isolation": 0.05,  # SQLite's transactions that began with a read
    "rewritten": 0.01,  # the SELECT that synchronize_session="fetch" makes SQLAlchemy send, and takes back
    "refresh": 0.01,
    "disabled": 0.15,  # the cache is switched off, or a session's own view is asked for past it
    "writer_under_way": 0.02,  # bound anew while connections are out: no shape is registered before they are back
}
"""Share of all decisions that bypasses of each reason may have; those not named may not occur."""

programs = st.builds(
    Program,
    st.lists(strategy(draw_read), min_size=3, max_size=MOST_WATCHED, unique=True).map(tuple),
    st.lists(strategy(draw_step), min_size=15, max_size=40).map(tuple),
)


@pytest.mark.timeout(7200 if HARD else 300)
def test_whatever_sessions_do_reads_are_what_the_database_says_and_most_of_them_hit(
    empty_database: str, loop: asyncio.AbstractEventLoop, show: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "sqlacache")
    loop.run_until_complete(prepare(empty_database))
    figures = Figures()
    world = World(empty_database, figures)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=not HARD,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs)
    def run(program: Program) -> None:
        loop.run_until_complete(world.run(program))

    try:
        run()
    finally:
        loop.run_until_complete(world.dispose())
    total = sum(figures.decisions.values())
    bypassed = {
        name.split(" ", 1)[1]: count / total
        for name, count in figures.decisions.items()
        if name.startswith("bypass")
    }
    show(
        f"machine on {empty_database.split('+')[0]}: {figures.steps} steps, {figures.compared} reads compared, "
        f"{figures.hit_ratio:.1%} of second reads hit, "
        f"bypassed {', '.join(f'{reason} {share:.1%}' for reason, share in sorted(bypassed.items())) or 'none'}"
    )
    assert figures.hit_ratio >= LEAST_HITS
    over = {reason: share for reason, share in bypassed.items() if share > BUDGETS.get(reason, 0)}
    assert not over, f"bypassed more than the budget allows: {over}"
    assert sum(figures.refused.values()) <= figures.steps * 0.2, (
        f"programs prove little when the database refuses their steps: {figures.refused}"
    )
