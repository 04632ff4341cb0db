"""One request at a time, on asyncpg: every contender does every work, in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from textwrap import wrap

from .contenders import INSTANT, NO_CACHE, contenders
from .figures import Samples, ratio, told
from .goals import HITS, goals
from .measure import LeftOut, measure
from .parts import Chart, Part, Place
from .text import detail, overview
from .work import READS, WRITES

NAME = "one"
TITLE = "one request at a time, asyncpg"
ROUNDS = 15


def run(
    place: Place,
    *,
    rounds: int | None,
    quick: bool,
    progress: Callable[[str], None],
    only: Collection[str] | None = None,
) -> Part:
    """Measure; ``only`` names the works."""
    works = [work for work in (*READS, *WRITES) if only is None or work.name in only]
    number = rounds or (1 if quick else ROUNDS)
    left_out: LeftOut = {}
    samples = asyncio.run(
        measure(
            place.postgres,
            number,
            quick=quick,
            progress=progress,
            redis_url=place.redis,
            works=works,
            left_out=left_out,
        )
    )
    data = {"rounds": number, "works": told(samples, NO_CACHE), "left_out": left_out}
    return Part(NAME, TITLE, list(lines(samples, left_out)), data, goals(samples), list(charts(samples)))


def lines(samples: Samples, left_out: LeftOut) -> Iterator[str]:
    """Give the report line by line."""
    there = [one for one in contenders() if any(one.name in runs for runs in samples.values())]
    names = [one.name for one in there]
    for one in there:
        yield from wrap(f"{one.name:<20} {one.title}", 150, initial_indent="  ", subsequent_indent=" " * 23)
    for title, works in (("reads", READS), ("writes", WRITES)):
        measured = [work.name for work in works if work.name in samples]
        if measured:
            yield from ("", f"  Times as fast as no cache, {title}: median of the ratios within a round")
            yield from overview(samples, measured, names, NO_CACHE)
    yield from (
        "",
        "  Milliseconds per operation, and times as fast as no cache: medians of the rounds (quartiles)",
        "  Own work: a hit's time beyond SQLAlchemy with a driver that answers at once, as a part of the latter",
    )
    for work in samples:
        yield from detail(samples, work, names, NO_CACHE, INSTANT, HITS)
    reasons: dict[tuple[str, str], list[str]] = {}
    for work, absent in left_out.items():
        for name, why in absent.items():
            reasons.setdefault((name, why), []).append(work)
    if reasons:
        yield from ("", "  Without figures")
    for (name, why), missing in reasons.items():
        line = f"{name}, {'everything' if len(missing) == len(samples) else ', '.join(missing)}: {why}"
        yield from wrap(line, 150, initial_indent="    ", subsequent_indent="      ")


def charts(samples: Samples) -> Iterator[Chart]:
    """Give a chart of reads and one of writes."""
    for name, works in (("one-reads", READS), ("one-writes", WRITES)):
        measured = [work.name for work in works if NO_CACHE in samples.get(work.name, {})]
        series = {
            one.name: [
                (work, ratio(samples, work, NO_CACHE, one.name))
                for work in measured
                if samples[work].get(one.name)
            ]
            for one in contenders()
            if one.name != NO_CACHE
        }
        series = {of: figures for of, figures in series.items() if figures}
        if series:
            title = f"{'Reads' if works is READS else 'Writes'}: how many times as fast as with no cache"
            yield Chart(
                name, title, "bars", "", "times as fast (higher is better)", series, log_y=True, base=1.0
            )
