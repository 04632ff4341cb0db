"""A script ends without ``disconnect()`` while it owes an invalidation to Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "telemetry")])},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


OWING = """
import sys
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlacache import configure_sync
from tests.support.models import Base, Team
from tests.support.redis_server import redis_server

engine = create_engine(sys.argv[1])
Base.metadata.create_all(engine)
with redis_server() as server:
    cache = configure_sync(backend={"url": server.url, "timeout": 0.2}, models={"*": {}}, telemetry=None)
    cache.bind(engine)
    server.kill()
    with Session(engine) as session:
        session.add(Team(id=77, name="late"))
        session.commit()
    assert cache.health().status == "owed"
"""


def test_a_script_that_ends_while_it_owes_says_what_it_could_not_deliver(
    tmp_path: Path, redis_url: str
) -> None:
    told = run(
        f"import sqlacache.sync; sqlacache.sync.OWED_WAIT = 0.3\n{OWING}",
        f"sqlite:///{tmp_path / 'owing.db'}",
    )
    assert "not delivered: " in told
    assert "1 invalidation(s) of teams" in told


def test_a_script_that_ends_while_it_owes_delivers_what_it_can(tmp_path: Path, redis_url: str) -> None:
    told = run(
        OWING
        + """
    import weakref
    from sqlacache import sync
    sync.finish(cache.recovery.stop())  # the thread that would deliver it, too
    server.start()
    assert cache.bindings[0].owed
    sync._at_exit(weakref.ref(cache))
    assert not cache.bindings[0].owed
""",
        f"sqlite:///{tmp_path / 'owing.db'}",
    )
    assert "not delivered" not in told
