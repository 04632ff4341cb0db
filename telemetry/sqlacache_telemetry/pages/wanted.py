"""What a query string asks for. What is not understood is refused by name: a filter that is ignored would lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode

from sqlacache.decisions import (
    BYPASS_REASONS,
    DECISIONS,
    EVICTION_CAUSES,
    MISS_REASONS,
    Decision,
    Invalidation,
)

LIMIT = 100
"""Records on one page, unless another number is asked for."""
MOST = 1000
REASONS = (*MISS_REASONS, *BYPASS_REASONS)
"""Why something was no hit."""


class BadQuery(ValueError):
    """A query string that is not understood; its message says what was got and what is taken."""


@dataclass(frozen=True)
class _Page:
    before: int | None = None
    """Only records with a lower number."""
    limit: int = LIMIT

    def older(self, before: int) -> str:
        """Return the query string of the next, older page."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given["before"] = before
        default = {field.name: field.default for field in fields(self)}
        return urlencode({name: value for name, value in given.items() if value != default[name]})


@dataclass(frozen=True)
class WantedDecisions(_Page):
    """Decisions of which all of this is true."""

    table: str = ""
    """One that the statement reads."""
    decision: str = ""
    reason: str = ""
    key: str = ""
    """A part of the entry's key, or of a tag that it depends on."""

    def meets(self, decision: Decision) -> bool:
        return (
            (not self.table or self.table in decision.tables)
            and (not self.decision or self.decision == decision.decision)
            and (not self.reason or self.reason == decision.reason)
            and (
                not self.key
                or self.key in (decision.key or "")
                or any(self.key in tag for tag in decision.tags)
            )
        )


@dataclass(frozen=True)
class WantedInvalidations(_Page):
    """Invalidations of which one table's change has all of this."""

    table: str = ""
    cause: str = ""
    key: str = ""
    """A part of a tag that was touched."""

    def meets(self, invalidation: Invalidation) -> bool:
        return any(
            (not self.table or self.table == change.table)
            and (not self.cause or self.cause == change.cause)
            and (not self.key or any(self.key in tag for tag in change.tags))
            for change in invalidation.changes
        )


@dataclass(frozen=True)
class WantedKey:
    """One entry."""

    key: str = ""
    database: str = ""


_CLOSED: dict[str, tuple[str, ...]] = {"decision": DECISIONS, "reason": REASONS, "cause": EVICTION_CAUSES}

Wanted = TypeVar("Wanted", WantedDecisions, WantedInvalidations, WantedKey)


def parsed(kind: type[Wanted], query: bytes) -> Wanted:
    """Return what ``query`` asks for; a parameter without a value, as forms send it, asks for nothing.

    Raises:
        BadQuery: A parameter that is not known, given twice, or whose value is not taken.
    """
    known = [field.name for field in fields(kind)]
    given: dict[str, str | int] = {}
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise BadQuery("takes at most 20 parameters") from error
    for name, value in pairs:
        if name not in known:
            raise BadQuery(f"got the unknown parameter {name!r}, takes {', '.join(known)}")
        if name in given:
            raise BadQuery(f"{name}: takes one value, got two")
        if value:
            given[name] = _checked(name, value)
    return kind(**given)  # type: ignore[arg-type]  # by name: numbers are those that _checked() made


def _checked(name: str, value: str) -> str | int:
    if name in _CLOSED and value not in _CLOSED[name]:
        raise BadQuery(f"{name}: takes {_one_of(_CLOSED[name])}, got {value!r}")
    if name not in ("before", "limit"):
        return value
    number = whole(value)
    if number is None or (name == "limit" and number > MOST):
        raise BadQuery(
            f"{name}: takes a whole number from 1{f' to {MOST}' if name == 'limit' else ''}, got {value!r}"
        )
    return number


def whole(text: str) -> int | None:
    """Return the number that ``text`` writes in plain digits; ``None`` if it is none, 0, or longer than any of ours."""
    return int(text) or None if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _one_of(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}"
