"""``python -m benchmarks``: measure, print the report, exit 1 if a requirement is not met."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence

from tests.support.redis_server import redis_server

from . import __doc__ as summary
from .figures import report, required
from .measure import measure
from .program import about, add_common, progress, server
from .text import lines
from .work import READS, WRITES

QUICK_ROUNDS, ROUNDS = 1, 25
PACKAGES = ("sqlalchemy", "asyncpg", "redis", "prometheus-client", "opentelemetry-api")


def main(argv: Sequence[str] | None = None) -> int:
    options = _arguments(argv)
    works = [work for work in (*READS, *WRITES) if options.only is None or work.name in options.only]
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    with server(options.postgres) as url, redis_server() as redis:
        before = os.getloadavg()[0]
        samples = asyncio.run(
            measure(url, rounds, quick=options.quick, progress=progress, redis_url=redis.url, works=works)
        )
    progress("")
    told = {**about(PACKAGES), "rounds": rounds, "load average before": round(before, 2)}
    print("\n".join(lines(samples, told)))
    if options.json is not None:
        options.json.write_text(json.dumps(report(samples, told), indent=1) + "\n")
    if options.quick:
        print("\nA quick run shows that the benchmark works; its figures mean nothing.")
        return 0
    return 0 if all(requirement.judge(samples)[0] for requirement in required(samples)) else 1


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(summary or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, metavar="N", help=f"rounds to measure (default: {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="do everything once, to see that it works")
    parser.add_argument(
        "--only",
        action="append",
        metavar="WORK",
        choices=[work.name for work in (*READS, *WRITES)],
        help="measure this work, such as 'get'; may be given several times (default: everything)",
    )
    add_common(parser)
    options = parser.parse_args(argv)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds takes a number above 0")
    return options


if __name__ == "__main__":
    sys.exit(main())
