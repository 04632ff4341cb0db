"""A second process that writes a little all the time, so that invalidations of others arrive in the first one.

Started by :mod:`.running` as ``python -m tests.leaks.writer <JSON>``; it ends with its standard input.
"""

from __future__ import annotations

import json
import sys
import threading
from contextlib import suppress
from random import Random

from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from sqlacache import configure_sync
from tests.histories import program

EVERY = 0.05
"""Seconds between writes."""


def main() -> None:
    given = json.loads(sys.argv[1])
    engine = create_engine(given["database"], pool_size=2)
    cache = configure_sync(
        backend={"url": given["redis"], "timeout": 0.3},
        models={"*": {"timeout": given["timeout"]}, program.Hold: None},
        writes_also={"holds": ()},
        prefix="leaks",
        default_timeout=given["timeout"],
        lease=given["lease"],
        max_bytes=400_000,
    )
    cache.bind(engine, database="main")
    print("ready", flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    random, number = Random(f"{given['seed']} writer"), 0
    while not ended.wait(EVERY):
        number += 1
        with (
            suppress(OperationalError),
            Session(engine) as session,
        ):  # a deadlock, with so many at the same rows
            random.choice(program.WRITES)(session, random, f"other {number}")
            session.commit()
        with Session(engine) as session:
            random.choice(program.READS)(session, random)
    cache.disconnect()


if __name__ == "__main__":
    main()
