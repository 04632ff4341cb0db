"""``python -m benchmarks``: run parts, print one report; exit 1 if a goal is not met, 2 if a part failed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.support.postgres import Unavailable

from . import __doc__ as summary
from .program import add_common, add_redis, place, progress, rounds
from .report import PARTS, Report, Run, as_json, lines, measured, module
from .work import READS, WRITES


def main(argv: Sequence[str] | None = None) -> int:
    options = _arguments(argv)
    runs: dict[str, Run] = {}
    for name in options.part or PARTS:
        run: Run = module(name).run
        runs[name] = partial(run, only=options.only) if name == "one" and options.only else run
    try:
        with place(options.postgres, options.redis) as where:
            report = measured(where, runs, rounds=options.rounds, quick=options.quick, progress=progress)
    except Unavailable as why:
        print(f"python -m benchmarks: {why}", file=sys.stderr)
        return 2
    print("\n".join(lines(report)))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(report), indent=1) + "\n")
    if options.plots is not None:
        for path in _plots(report, options.plots):
            print(f"  {path}")
    return 0 if options.quick and report.status == 1 else report.status


def _plots(report: Report, folder: Path) -> Sequence[Path]:
    from .plots import draw

    return [
        path for ran in report.ran if ran.part for chart in ran.part.charts for path in draw(chart, folder)
    ]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(summary or "").partition("\n")[0]
    )
    parser.add_argument(
        "--part",
        action="append",
        metavar="NAME",
        choices=PARTS,
        help=f"run this part ({', '.join(PARTS)}); may be given several times (default: all)",
    )
    parser.add_argument(
        "--rounds", type=rounds, metavar="N", help="rounds to measure, in every part (default: each its own)"
    )
    parser.add_argument("--quick", action="store_true", help="do everything once, to see that it works")
    parser.add_argument(
        "--only",
        action="append",
        metavar="WORK",
        choices=[work.name for work in (*READS, *WRITES)],
        help="of the part 'one', measure this work, such as 'get'; may be given several times (default: everything)",
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the figures there, as SVG and PNG")
    add_common(parser)
    add_redis(parser)
    options = parser.parse_args(argv)
    if options.only and options.part and "one" not in options.part:
        parser.error("--only chooses work of the part 'one', which is not among those to run")
    if options.only and not options.part:
        options.part = ["one"]
    if options.plots is not None:
        try:
            options.plots.mkdir(parents=True, exist_ok=True)
            import matplotlib  # noqa: F401
        except (OSError, ImportError) as why:
            parser.error(f"--plots: {why}")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    return options


if __name__ == "__main__":
    sys.exit(main())
