"""What telemetry adds to a hit: ``python -m benchmarks.overhead``, exit 1 if it is more than is allowed.

Every contender does the same: ``session.get()`` of a row that is cached in memory (``mem://``), the cheapest hit there
is, so that what telemetry adds weighs most. They take turns, some milliseconds each, in one process; compared is what
belongs to one round. Time is the process's own (CPU): nothing is waited for, and others' turns on the machine do not
count; of the parts of a turn, the fastest one does. With ``--instructions``, each contender also runs under valgrind,
which counts the instructions of its hits: no figure of a clock, and the same on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sqlacache_telemetry import Telemetry

from .contenders import EVERYTHING, Contender
from .figures import Spread, spread
from .measure import fresh_database
from .models import create_and_fill
from .program import add_common, server
from .work import READS

ROUNDS, PARTS, TIMES = 100, 6, 25
COUNTED = 400
"""Hits whose instructions are counted."""
GET = next(work for work in READS if work.name == "get")

OFF = "off"
NO_SDK = "no SDK"
DROPPED = "request not sampled"
ROOT_DROPPED = "not sampled"
RARE = "hardly sampled"
SAMPLED = "sampled"


@dataclass
class Observed(Contender):
    """A hit in memory, with some telemetry."""

    sampler: Sampler | None = None
    """Of an SDK; ``None``: there is none, or no telemetry."""
    in_request: bool = False
    """Whether all is done inside a span of the application's own."""
    most: float | None = None
    """How much more than without telemetry it may take."""
    provider: TracerProvider | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.models, self.expects = EVERYTHING, "hit"
        if self.sampler is not None:
            self.provider = TracerProvider(sampler=self.sampler, shutdown_on_exit=False)
        if self.telemetry:
            self.telemetry = Telemetry(tracer_provider=self.provider, registry=CollectorRegistry())

    def request(self) -> AbstractContextManager[Any]:
        """Return what hits are done in."""
        if self.provider is None or not self.in_request:
            return nullcontext()
        return self.provider.get_tracer("the application").start_as_current_span("request")


def contenders() -> Sequence[Observed]:
    """Make them all; the first is what the others are compared with."""
    return (
        Observed(OFF, "telemetry=None"),
        Observed(
            NO_SDK, "telemetry as it is by default, no OpenTelemetry SDK set up", telemetry=True, most=0.05
        ),
        Observed(
            DROPPED,
            "an SDK, in a request whose span is not sampled",
            telemetry=True,
            sampler=ParentBased(ALWAYS_OFF),
            in_request=True,
            most=0.10,
        ),
        Observed(
            ROOT_DROPPED,
            "an SDK that does not sample, and no request: every hit would be a root",
            telemetry=True,
            sampler=ParentBased(ALWAYS_OFF),
            most=0.10,
        ),
        Observed(
            RARE,
            "an SDK that samples next to nothing, and no request: it is asked for every hit",
            telemetry=True,
            sampler=ParentBased(TraceIdRatioBased(1e-5)),
        ),
        Observed(
            SAMPLED,
            "an SDK that samples, in a request whose span is; nothing is exported",
            telemetry=True,
            sampler=ParentBased(ALWAYS_ON),
            in_request=True,
        ),
    )


Samples = dict[str, list[float]]
"""Seconds per hit, or instructions: by contender, one figure per round."""


async def run(server_url: str, options: argparse.Namespace) -> dict[str, Samples]:
    """Measure in a database of its own on the server."""
    async with fresh_database(server_url) as url:
        administrator = create_async_engine(url, poolclass=NullPool)
        async with administrator.begin() as connection:
            await connection.run_sync(create_and_fill, 100)
        await administrator.dispose()
        found = {"seconds": await measure(url, options.rounds, options.times)}
        if options.instructions:
            found["instructions"] = count_instructions(url.render_as_string(hide_password=False))
        return found


async def measure(url: Any, rounds: int, times: int) -> Samples:
    """Let everybody take turns, in each of ``rounds`` rounds after a first that is not counted.

    A turn has some parts of ``times`` hits; the fastest counts, since what else the machine does only adds.
    """
    runners = contenders()
    for runner in runners:
        runner.open(url, "")
    samples: Samples = {runner.name: [] for runner in runners}
    for number in range(rounds + 1):
        first = number % len(runners)
        for runner in (*runners[first:], *runners[:first]):
            async with runner.turn():
                await runner.warm(GET)
                gc.collect()
                with runner.request():
                    seconds = min([await _seconds(runner, times) for _ in range(PARTS)])
            if number:
                samples[runner.name].append(seconds / times)
    for runner in runners:
        await runner.close()
    return samples


async def _seconds(runner: Observed, times: int) -> float:
    began = time.process_time()
    await _hits(runner, times)
    return time.process_time() - began


async def _hits(runner: Observed, times: int) -> None:
    run, sessions, options = GET.run, runner.sessions, runner.options
    for number in range(times):
        await run(sessions, options, number)


# -- instructions ----------------------------------------------------------------------------------------------------


def count_instructions(url: str) -> Samples:
    """Run every contender under valgrind's callgrind, which looks at its hits alone."""
    found: Samples = {}
    for runner in contenders():
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=/dev/null"]
        command += [sys.executable, "-m", "benchmarks.overhead", "--counted", runner.name, "--postgres", url]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        collected = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode or collected is None:
            raise RuntimeError(f"{runner.name}: {done.stderr[-2000:]}")
        found[runner.name] = [int(collected[1]) / COUNTED]
    return found


async def _counted(name: str, url: str) -> None:
    (runner,) = [one for one in contenders() if one.name == name]
    runner.open(url, "")
    async with runner.turn():
        await runner.warm(GET)
        with runner.request():
            await _hits(runner, 50)
            gc.collect()
            _look("on")
            await _hits(runner, COUNTED)
            _look("off")
    await runner.close()


def _look(how: str) -> None:
    """Let callgrind look at this process, or no longer."""
    subprocess.run(["callgrind_control", "-i", how, str(os.getpid())], check=True, capture_output=True)


# -- telling ---------------------------------------------------------------------------------------------------------


def added(samples: Samples, name: str) -> Spread:
    """Return what a contender takes beyond one without telemetry: the median over rounds of the part in a round."""
    return spread([one / other - 1 for one, other in zip(samples[name], samples[OFF])])


def judge(samples: Samples) -> dict[str, bool]:
    """Return whether each contender that has a bound keeps to it."""
    return {
        one.name: added(samples, one.name).median <= one.most for one in contenders() if one.most is not None
    }


def lines(samples: Samples, unit: str, scale: float) -> Iterator[str]:
    """Give the report line by line."""
    judged = judge(samples)
    yield f"  {'':<20}{unit:>30}   beyond telemetry=None (quartiles)"
    for one in contenders():
        took, more = spread(samples[one.name]), added(samples, one.name)
        cost = f"{took.median * scale:,.1f} ({took.low * scale:,.1f}-{took.high * scale:,.1f})"
        verdict = (
            ""
            if one.name not in judged
            else f"{'PASS' if judged[one.name] else 'FAIL'}: at most {one.most:.0%}"
        )
        yield f"  {one.name:<20}{cost:>30}   {more.median:+7.1%} ({more.low:+.1%} to {more.high:+.1%})  {verdict}"


def main(argv: Sequence[str] | None = None) -> int:
    options = _arguments(argv)
    if options.counted is not None:
        asyncio.run(_counted(options.counted, options.postgres))
        return 0
    with server(options.postgres) as url:
        found = asyncio.run(run(url, options))
    print("Contenders")
    for one in contenders():
        print(f"  {one.name:<20}{one.title}")
    print(
        f"\nA hit of session.get(): {options.rounds} rounds, the fastest of {PARTS} parts of {options.times}"
    )
    print("\n".join(lines(found["seconds"], "µs of CPU: median (quartiles)", 1e6)))
    if options.instructions:
        print("\nInstructions of a hit, by valgrind")
        print("\n".join(lines(found["instructions"], "thousands", 1e-3)))
    if options.json is not None:
        options.json.write_text(json.dumps(_report(found), indent=1) + "\n")
    return 0 if all(all(judge(samples).values()) for samples in found.values()) else 1


def _report(found: Mapping[str, Samples]) -> dict[str, Any]:
    return {
        what: {
            name: {
                "median": spread(values).median,
                "added": added(samples, name).as_dict(),
                "samples": values,
            }
            for name, values in samples.items()
        }
        for what, samples in found.items()
    }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--times",
        type=int,
        default=TIMES,
        metavar="N",
        help=f"hits in each of the {PARTS} parts of a turn (default: %(default)s)",
    )
    parser.add_argument(
        "--instructions", action="store_true", help="count instructions, too (needs valgrind)"
    )
    add_common(parser)
    parser.add_argument("--counted", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.rounds < 1 or options.times < 1:
        parser.error("--rounds and --times take numbers above 0")
    if options.instructions and shutil.which("valgrind") is None:
        parser.error("--instructions needs valgrind")
    return options


if __name__ == "__main__":
    sys.exit(main())
