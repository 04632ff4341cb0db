"""A session that wrote and was never closed kept its database connection for good.

::

    1. A session writes, and whoever had it forgets it, its transaction open.
    2. The garbage collector finds the session and its connection; the pool takes the latter back as it always does.

The connection's ledger held the execution context of the last write, and that the connection. The pool has the ledger,
so that the garbage collector never found anything: with enough of these, nobody got a connection any more.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from sqlacache import configure_sync
from tests.support.models import Base, User

pytestmark = pytest.mark.filterwarnings("ignore:.*garbage collector is trying to clean up")


def flush(session: Session) -> None:
    session.add(User(id=1, name="Ann", email="ann@example.org"))
    session.flush()


def execute(session: Session) -> None:
    """The keys of the rows are asked for later: its context has to be there as long as its connection."""
    session.execute(insert(User).values(name="Ann", email="ann@example.org"))


@pytest.mark.parametrize("write", [flush, execute])
def test_the_pool_takes_the_connection_of_a_forgotten_session_back(
    write: Callable[[Session], None], tmp_path: Path
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/forgotten.db", poolclass=QueuePool)
    pool: Any = engine.pool
    Base.metadata.create_all(engine)
    cache = configure_sync(models={User: {}})
    with cache.bound(engine):
        session = Session(engine)
        write(session)
        assert pool.checkedout() == 1
        del session
        gc.collect()
        assert pool.checkedout() == 0
    engine.dispose()
