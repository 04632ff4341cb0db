"""A million operations, and what grows: ``make leaks``.

usage: python -m tests.leaks [--operations N] [--seconds N] [--seed S] [--local mem|validated|pushed|none]
       [--front async|sync] [--samples N] [--no-faults] [--trace] [--plant LEAK,LEAK] [--postgres URL] [--json FILE]

With ``--trace``, the allocations are told that were made between the middle and the end and are still there; that takes
several times as long. ``--json`` writes every sample to a file. ``--plant`` plants leaks of ``tests/leaks/planted.py``,
and succeeds when something grows.
``SQLACACHE_LEAKS_PROGRESS=1`` prints a line for every sample.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import ExitStack
from math import inf
from pathlib import Path

from tests.leaks.planted import KINDS
from tests.leaks.running import Plan, run
from tests.support.postgres import postgres_server
from tests.support.redis_server import redis_server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.leaks", description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=inf, help="begin nothing more after that")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--local", choices=("mem", "validated", "pushed", "none"), default="validated")
    parser.add_argument("--front", choices=("async", "sync"), default="async")
    parser.add_argument("--samples", type=int, default=120)
    parser.add_argument("--no-faults", action="store_true", help="let nothing break")
    parser.add_argument("--trace", action="store_true", help="tell who allocated what grows")
    parser.add_argument("--plant", default="", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--postgres", help="a server's URL; by default one is started")
    parser.add_argument("--json", type=Path, help="write every sample to that file")
    asked = parser.parse_args()
    plan = Plan(
        operations=asked.operations,
        seconds=asked.seconds,
        seed=asked.seed,
        local=asked.local,
        front=asked.front,
        samples=asked.samples,
        faults=not asked.no_faults,
        trace=asked.trace,
        plant=tuple(filter(None, asked.plant.split(","))),
    )
    print(f"seed {plan.seed}: --seed {plan.seed} repeats what is done, not when", flush=True)
    with ExitStack() as stack:
        server = asked.postgres or stack.enter_context(postgres_server())
        report = run(plan, server, stack.enter_context(redis_server()))
    if asked.json:
        series = {name: list(found) for name, found in sorted(report.series.items())}
        asked.json.write_text(json.dumps({"operations": report.at, **series}))
    print(report)
    return int(bool(report.growing) != bool(plan.plant))


if __name__ == "__main__":
    raise SystemExit(main())
