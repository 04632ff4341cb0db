"""The report in text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .contenders import (
    HIT,
    HIT_TELEMETRY,
    INSTANT,
    MISS,
    NO_CACHE,
    PUSHED,
    REDIS,
    UNCONFIGURED,
    UNCONFIGURED_TELEMETRY,
    VALIDATED,
    contenders,
)
from .figures import Spread, own_work, ratio, required, seconds
from .measure import Samples

ORDER = (
    NO_CACHE,
    UNCONFIGURED,
    UNCONFIGURED_TELEMETRY,
    MISS,
    HIT,
    HIT_TELEMETRY,
    REDIS,
    VALIDATED,
    PUSHED,
    INSTANT,
)


def lines(samples: Samples, about: Mapping[str, Any]) -> Iterator[str]:
    """Give the report line by line."""
    yield "About"
    for name, value in about.items():
        yield f"  {name}: {value}"
    yield ""
    yield "Contenders"
    for contender in contenders():
        yield f"  {contender.name:<19} {contender.title}"
    yield ""
    yield "Milliseconds per operation: median of the rounds (quartiles)"
    yield from _table(samples, lambda work, name: _milliseconds(seconds(samples, work, name)))
    yield ""
    yield "Times as fast as no cache: median of the ratios within a round (quartiles)"
    yield from _table(
        samples, lambda work, name: _ratio(ratio(samples, work, NO_CACHE, name)), leave_out=(NO_CACHE,)
    )
    yield ""
    yield "A hit's own work: its time beyond SQLAlchemy with a driver that answers at once (negative: it takes less)"
    for work, runs in samples.items():
        if INSTANT in runs:
            shares = [(name, own_work(samples, work, name)) for name in (HIT, HIT_TELEMETRY)]
            yield f"  {work:<26}" + "   ".join(f"{name} {share.median:+.0%}" for name, share in shares)
    yield ""
    yield "Required"
    for requirement in required(samples):
        met, found = requirement.judge(samples)
        yield f"  {'PASS' if met else 'FAIL'}  {requirement.text}: {_ratio(found)}"


def _table(samples: Samples, cell: Any, leave_out: tuple[str, ...] = ()) -> Iterator[str]:
    names = [name for name in ORDER if name not in leave_out]
    yield f"  {'':<26}" + "".join(f"{name:>21}" for name in names)
    for work, runs in samples.items():
        yield f"  {work:<26}" + "".join(f"{cell(work, name) if name in runs else '':>21}" for name in names)


def _milliseconds(found: Spread) -> str:
    digits = 3 if found.median < 0.01 else 1
    low, high = f"{found.low * 1000:.{digits}f}", f"{found.high * 1000:.{digits}f}"
    return f"{found.median * 1000:.{digits}f} ({low}-{high})"


def _ratio(found: Spread) -> str:
    return f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})"
