"""A long history with everything that may break: ``make soak``.

usage: python -m tests.histories [--seconds N] [--seed S] [--clients N] [--local validated|pushed|none] [--pace N]
       [--no-faults] [--only FAULT,FAULT] [--broken silent|late|trusting] [--keep FOLDER]

``--only`` names methods of ``tests/histories/nemesis.py``. ``--broken`` lets the clients do something wrong, and
succeeds when that is found.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.histories.gathering import gather
from tests.histories.running import Plan, run
from tests.support.postgres import postgres_server
from tests.support.redis_server import redis_server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.histories", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--local", choices=("validated", "pushed", "none"), default="validated")
    parser.add_argument("--pace", type=float, default=3.0, help="seconds between faults, on average")
    parser.add_argument("--no-faults", action="store_true", help="let nothing break")
    parser.add_argument("--only", default="", help="faults to be tried, and no other")
    parser.add_argument("--broken", choices=("silent", "late", "trusting"), help="what clients do wrong")
    parser.add_argument("--keep", type=Path, help="a folder for the logs")
    asked = parser.parse_args()
    plan = Plan(
        seconds=asked.seconds,
        seed=asked.seed,
        clients=asked.clients,
        local=None if asked.local == "none" else asked.local,
        faults=not asked.no_faults,
        pace=asked.pace,
        rest=0.05,
        only=tuple(filter(None, asked.only.split(","))),
        broken=asked.broken,
    )
    print(f"seed {plan.seed}: --seed {plan.seed} repeats what is done, not when", flush=True)
    with postgres_server() as server, redis_server() as redis, tempfile.TemporaryDirectory() as folder:
        kept = asked.keep or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        report = gather(run(plan, server, redis, kept), slowest=20.0, hits=0.1)
    print(report)
    if plan.broken:
        return 0 if report.stale else 1
    return 1 if report.wrong or report.unmet else 0


if __name__ == "__main__":
    raise SystemExit(main())
