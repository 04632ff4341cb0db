"""``top``: the tables with the most misses, churn or saved time.

Redis does not know what was served. The processes that serve count it, and their ``/metrics`` is what is read here; of
several workers that count each for itself, all are to be named.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from ..backend import masked
from ..errors import CacheError
from .show import as_json, console, line, table

if TYPE_CHECKING:
    from sqlacache_telemetry.scraped import Totals

TIMEOUT = 5.0
MOST_BYTES = 64 << 20
"""Of one scrape."""
ORDERS = ("misses", "churn", "saved")

By = Mapping[tuple[str, str], "Totals"]


def top(
    urls: Sequence[str], *, by: str, limit: int, watch: float | None, count: int | None, json: bool
) -> None:
    """Print the tables once; with ``watch``, then every so many seconds what was counted since."""
    if not urls:
        raise CacheError(
            "top: takes --metrics http://host:port/metrics, once for each process that counts for itself"
        )
    if by not in ORDERS:
        raise CacheError(f"--by: takes one of {', '.join(ORDERS)}, got {by!r}")
    found = scrape(urls)
    _print(found, "since the processes began", by=by, limit=limit, json=json)
    printed = 1
    while watch is not None and (count is None or printed < count):
        began = time.monotonic()
        time.sleep(watch)
        before, found = found, scrape(urls)
        from sqlacache_telemetry.scraped import Totals

        since = {place: totals.since(before.get(place, Totals())) for place, totals in found.items()}
        _print(since, f"in the last {time.monotonic() - began:.1f} s", by=by, limit=limit, json=json)
        printed += 1


def scrape(urls: Sequence[str]) -> dict[tuple[str, str], Totals]:
    """Return what all of the processes have counted together. Raises :class:`CacheError`."""
    from sqlacache_telemetry.scraped import Totals, totals

    found: dict[tuple[str, str], Totals] = {}
    for url in urls:
        text = _fetch(url)
        try:
            scraped = totals(text)
        except ValueError as error:
            raise CacheError(
                f"--metrics: what {masked(url)!r} answers is not what is meant: {error}"
            ) from error
        for place, one in scraped.items():
            found[place] = found.get(place, Totals()) + one
    return found


def _fetch(url: str) -> str:
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise CacheError(f"--metrics: takes http://host:port/metrics, got {masked(url)!r}")
        with urlopen(Request(url, headers={"Accept": "text/plain"}), timeout=TIMEOUT) as answer:
            text: bytes = answer.read(MOST_BYTES)
    except (OSError, HTTPException, ValueError) as error:
        why = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
        if "@" in url and not isinstance(error, HTTPError):
            why = type(why).__name__  # its text may quote a password, taken for a port
        if isinstance(error, HTTPError):
            error.close()
        raise CacheError(f"--metrics: {masked(url)!r} cannot be read: {why}") from error
    return text.decode("utf-8", "replace")


def churn(one: Totals) -> float:
    """Return evictions per hit: above 1, more is thrown away than is ever served."""
    if one.hits:
        return one.evictions / one.hits
    return float("inf") if one.evictions else 0.0


def _print(found: By, when: str, *, by: str, limit: int, json: bool) -> None:
    order: dict[str, Any] = {
        "misses": lambda one: one.misses,
        "churn": churn,
        "saved": lambda one: one.saved_seconds,
    }
    ranked = sorted(found.items(), key=lambda item: (-order[by](item[1]), item[0]))
    used = [(place, one) for place, one in ranked if one.hits or one.misses or one.evictions][:limit]
    if json:
        as_json(
            [
                {
                    "cache": cache,
                    "table": name,
                    "hits": one.hits,
                    "misses": one.misses,
                    "evictions": one.evictions,
                    "churn": churn(one) if churn(one) != float("inf") else None,
                    "saved_s": one.saved_seconds,
                }
                for (cache, name), one in used
            ],
            indent=None,
        )
        return
    line(f"{len(used)} of {len(found)} tables by {by}, {when}")
    console().print(
        table(
            {
                "cache": False,
                "table": False,
                "hits": True,
                "misses": True,
                "hit ratio": True,
                "evictions": True,
                "churn": True,
                "saved": True,
            },
            (
                (
                    cache,
                    name,
                    f"{one.hits:.0f}",
                    f"{one.misses:.0f}",
                    f"{one.hits / (one.hits + one.misses):.1%}" if one.hits + one.misses else "-",
                    f"{one.evictions:.0f}",
                    f"{churn(one):.2f}",
                    f"{one.saved_seconds:.2f} s",
                )
                for (cache, name), one in used
            ),
        )
    )
