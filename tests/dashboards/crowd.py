"""``python -m tests.dashboards.crowd PORT FILE``: more tables than labels, and less memory than rows.

It serves ``/metrics``, waits for the file, and then reads until it is ended, with an observer that raises.
"""

from __future__ import annotations

import sys
import time
from itertools import chain, cycle, product
from pathlib import Path
from typing import Any

from prometheus_client import start_http_server
from sqlalchemy import Column, Integer, String, create_engine
from sqlalchemy.orm import Session, declarative_base
from sqlalchemy.pool import StaticPool

from sqlacache import Observer, configure_sync
from sqlacache_telemetry import names

TABLES = names.MAX_TABLES + 20
ROWS = 5

Base = declarative_base()
CROWD = [
    type(
        f"Stall{number}",
        (Base,),
        {
            "__tablename__": f"stall_{number}",
            "id": Column(Integer, primary_key=True),
            "goods": Column(String(400)),
        },
    )
    for number in range(TABLES)
]


class Grumbler(Observer):
    """An observer with a defect."""

    def decided(self, decision: Any, scope: Any) -> None:
        raise RuntimeError("no")


def main(port: int, gate: Path) -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        for model in CROWD:
            rows = [{"id": row, "goods": "x" * 300} for row in range(ROWS)]
            connection.execute(model.__table__.insert(), rows)
    cache = configure_sync(
        backend={"url": "mem://", "max_bytes": 16 * 1024},
        models={"*": {"timeout": 3600}},
        prefix="crowd",
        observers=[Grumbler()],
    )
    cache.bind(engine)
    start_http_server(port, "127.0.0.1")
    print("serving", flush=True)
    while not gate.exists():
        time.sleep(0.05)
    late = CROWD[names.MAX_TABLES :]
    for model, row in chain(((model, 0) for model in CROWD), cycle(product(late, range(ROWS)))):
        with Session(engine) as session:
            assert session.get(model, row) is not None
        time.sleep(0.004)  # some hundred reads per second


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
