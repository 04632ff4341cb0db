"""A short form of ``make leaks`` with leaks planted in it: each of them is found, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support.programs import ROOT, missing
from tests.support.redis_server import binaries

pytestmark = pytest.mark.integration

PLANTED = {
    "decisions": "objects sqlacache.decisions.Decision",
    "tasks": "tasks",
    "transactions": "connections of PostgreSQL",
}
"""What grows by each leak."""
ALONG = {"files"}
"""A connection is a file, too."""


def test_what_leaks_is_found_and_nothing_else_grows(postgres_url: str) -> None:
    if not binaries():
        missing("no redis-server here")
    # A process of its own: tests that ran before have left their objects in this one.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.leaks", "--postgres", postgres_url, "--plant", ",".join(PLANTED)),
            *("--operations", "1000", "--samples", "14", "--seed", "1"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "telemetry")])},
        capture_output=True,
        text=True,
        timeout=110,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    growing = set(re.findall(r"^GROWS: (.*): [\d.,]+ in the first", done.stdout, re.MULTILINE))
    assert growing - ALONG == set(PLANTED.values()), told
