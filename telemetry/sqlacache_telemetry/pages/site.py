"""What is where: paths and queries in, answers out. Neither ASGI nor who may look is known here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sqlacache.core import Core
from sqlacache.decisions import BYPASS_REASONS, DECISIONS, EVICTION_CAUSES, MISS_REASONS
from sqlacache.errors import CacheError, ConfigError, TransportError
from sqlacache.explain import Explanation

from .recent import Recent
from .told import (
    clock,
    decision_told,
    explained,
    explanation_told,
    invalidation_told,
    json_of,
    milliseconds,
    plain,
)
from .wanted import BadQuery, WantedDecisions, WantedInvalidations, WantedKey, parsed, whole

if TYPE_CHECKING:
    from jinja2 import Environment

HTML = "text/html; charset=utf-8"
JSON = "application/json"
STATIC = {
    "pages.css": "text/css; charset=utf-8",
    "pages.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
EVERY = 2
"""Seconds between two refreshes of a page."""

Explain = Callable[[str, "str | None"], Awaitable[Explanation]]
"""Explains what is stored under a key of a database."""
Data = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class NotHere(Exception):
    """There is nothing at this path; its message says what there may have been."""


class Site:
    """The pages of one cache.

    Raises:
        ConfigError: Jinja2 is not installed.
    """

    def __init__(self, cache: Core, recent: Recent, explain: Explain, problems: Callable[[], Data]) -> None:
        self._cache = cache
        self._recent = recent
        self._explain = explain
        self._problems = problems
        self._templates = _templates()

    async def answer(self, path: str, query: bytes) -> Answer:
        """Return what is at ``path``, which begins with a slash, below where the pages are mounted."""
        first, *rest = path[1:].split("/")
        is_json = first == "api"
        if is_json:
            first, *rest = rest or [""]
        try:
            if not is_json and first in STATIC and not rest:
                return Answer(200, STATIC[first], _static(first))
            template, data = await self._page(first, rest, query)
            status = 200
        except BadQuery as error:
            status, template, data = 400, "message.html", {"error": str(error)}
        except NotHere as error:
            status, template, data = 404, "message.html", {"error": str(error) or "nothing is here"}
        data = {"process": self._process(), **data}
        if is_json:
            return Answer(status, JSON, json_of(data))
        page = self._templates.get_template(template).render(
            data,
            up="../" * (path.count("/") - 1),
            here=path[1:] or "decisions",
            query=query.decode("latin-1"),
        )
        return Answer(status, HTML, page.encode("utf-8"))

    async def _page(self, first: str, rest: list[str], query: bytes) -> tuple[str, Data]:
        number = whole(rest[0]) if len(rest) == 1 else None
        if first in ("", "decisions") and not rest:
            return "decisions.html", self._decisions(parsed(WantedDecisions, query))
        if first == "decisions" and number is not None:
            return "decision.html", await self._decision(number)
        if first == "invalidations" and not rest:
            return "invalidations.html", self._invalidations(parsed(WantedInvalidations, query))
        if first == "invalidations" and number is not None:
            return "invalidation.html", self._invalidation(number)
        if first == "explain" and not rest:
            return "explain.html", await self._key(parsed(WantedKey, query))
        raise NotHere

    def _process(self) -> Data:
        recent = self._recent
        return {
            "cache": self._cache.name,
            "mode": self._cache.mode,
            "databases": [binding.database for binding in self._cache.bindings],
            "pid": recent.pid,
            "host": recent.host,
            "since": recent.since,
            "decisions": recent.decisions.counted()._asdict(),
            "invalidations": recent.invalidations.counted()._asdict(),
            "problems": self._problems(),
        }

    def _decisions(self, wanted: WantedDecisions) -> Data:
        kept = self._recent.decisions.newest_first()
        found = [
            (n, one) for n, one in kept if (wanted.before is None or n < wanted.before) and wanted.meets(one)
        ]
        return {
            "wanted": plain(wanted),
            "tables": sorted({table for _, one in kept for table in one.tables}),
            **_shown(
                "decisions", [decision_told(n, one) for n, one in found[: wanted.limit]], len(found), wanted
            ),
        }

    def _invalidations(self, wanted: WantedInvalidations) -> Data:
        kept = self._recent.invalidations.newest_first()
        found = [
            (n, one) for n, one in kept if (wanted.before is None or n < wanted.before) and wanted.meets(one)
        ]
        told = [invalidation_told(n, one) for n, one in found[: wanted.limit]]
        return {
            "wanted": plain(wanted),
            "tables": sorted({table for _, one in kept for table in one.tables}),
            **_shown("invalidations", told, len(found), wanted),
        }

    async def _decision(self, number: int) -> Data:
        decision = self._recent.decisions.get(number)
        if decision is None:
            raise NotHere(f"decision {number} {_missing(number, self._recent.decisions.counted().seen)}")
        now: Data = {"now": None, "now_unknown": "no key was made for it"}
        if decision.key is not None:
            now = await self._now(decision.key, decision.database)
        return {
            "decision": decision_told(number, decision),
            "explanation": explanation_told(explained(decision)),
            **now,
        }

    def _invalidation(self, number: int) -> Data:
        invalidation = self._recent.invalidations.get(number)
        if invalidation is None:
            raise NotHere(
                f"invalidation {number} {_missing(number, self._recent.invalidations.counted().seen)}"
            )
        return {"invalidation": invalidation_told(number, invalidation)}

    async def _key(self, wanted: WantedKey) -> Data:
        if not wanted.key:
            return {"wanted": plain(wanted), "now": None, "now_unknown": ""}
        return {"wanted": plain(wanted), **await self._now(wanted.key, wanted.database or None)}

    async def _now(self, key: str, database: str | None) -> Data:
        try:
            return {"now": explanation_told(await self._explain(key, database)), "now_unknown": ""}
        except TransportError as error:
            return {"now": None, "now_unknown": f"the backend does not answer: {error}"}
        except CacheError as error:
            return {"now": None, "now_unknown": str(error)}


def _shown(name: str, told: list[Data], found: int, wanted: WantedDecisions | WantedInvalidations) -> Data:
    older = wanted.older(told[-1]["number"]) if found > len(told) else None
    return {name: told, "found": found, "older": older}


def _missing(number: int, seen: int) -> str:
    return "is no longer kept" if number <= seen else "has not been made"


@lru_cache
def _static(name: str) -> bytes:
    return (files(__package__) / "static" / name).read_bytes()


def _templates() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise ConfigError(
            "pages: takes Jinja2, which is not installed: pip install 'sqlacache[pages]'"
        ) from error
    made = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(clock=clock, ms=milliseconds)
    made.globals.update(
        every=EVERY,
        kinds=DECISIONS,
        miss_reasons=MISS_REASONS,
        bypass_reasons=BYPASS_REASONS,
        eviction_causes=EVICTION_CAUSES,
    )
    return made
