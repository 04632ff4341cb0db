"""Traces as the workers tell of them, put together and drawn as trees."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

LOOKUP = "sqlacache.lookup"
INVALIDATE = "sqlacache.invalidate"
RECEIVE = "sqlacache.receive"
DATABASE = "(database)"
PHASES = {
    "sqlacache.phase_one_s": "phase one",
    "sqlacache.commit_s": "COMMIT",
    "sqlacache.phase_two_s": "phase two",
}


class Span(NamedTuple):
    """A finished span of a worker. Times are nanoseconds since the epoch."""

    worker: str
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start: int
    end: int
    attributes: dict[str, Any]
    links: tuple[str, ...]
    """Ids of the spans that it is linked to."""

    def is_linked_to(self, other: Span) -> bool:
        return other.span_id in self.links


class Seen(NamedTuple):
    """The traces of one write, of the read that missed because of it, and of the same read again."""

    written: list[Span]
    read: list[Span]
    again: list[Span]
    heard: list[Span]
    """The arrival of the write's announcement in another worker, if there is one."""

    def wrong(self) -> str:
        """Say what is not as it should be; nothing if all is well."""
        written, missed = named(self.written, INVALIDATE), named(self.read, LOOKUP)
        loaded, held = named(self.read, DATABASE), named(self.again, LOOKUP)
        for spans, what in (
            (written, "invalidation in the write"),
            (missed, "lookup in the read"),
            (loaded, "load in the read"),
            (held, "lookup in the second read"),
        ):
            if len(spans) != 1:
                return f"{len(spans)} spans of the {what}, not one"
        if written[0].attributes.get("sqlacache.outcome") != "applied":
            return f"the invalidation is not applied: {written[0]}"
        if missed[0].attributes.get("sqlacache.reason") != "row_invalidated":
            return f"the read did not miss because of the write: {missed[0]}"
        for linked in (missed[0], *self.heard):
            if not linked.is_linked_to(written[0]):
                return f"{linked.name} of {linked.worker} is not linked to the span that committed"
        if loaded[0].parent_id != missed[0].span_id:
            return "the load is no child of the miss"
        if held[0].attributes.get("sqlacache.decision") != "hit" or named(self.again, DATABASE):
            return "the second read is no hit that does without the database"
        astray = [
            one.name
            for spans in (self.written, self.read, self.again)
            for one in outside_their_parents(spans)
        ]
        return f"not within their parents: {', '.join(astray)}" if astray else ""

    def told(self) -> Iterator[str]:
        """Draw them all."""
        (committed,) = named(self.written, INVALIDATE)
        marks = {committed.span_id: f"{INVALIDATE} of {committed.worker}"}
        for title, spans in (
            ("The write, as a trace", self.written),
            ("and in the other worker, linked to it", self.heard),
            ("The read that missed because of it", self.read),
            ("and the same read again", self.again),
        ):
            if spans:
                yield f"{title} ({spans[0].worker}, trace {spans[0].trace_id}):"
                yield from (f"  | {line}" for line in tree(spans, marks))


def span(worker: str, told: dict[str, Any]) -> Span:
    """Read a span as ``/traces`` tells of it."""
    links = tuple(link["span_id"] for link in told.pop("links"))
    return Span(worker, links=links, **told)


def traceparent() -> tuple[str, str]:
    """Return the header of a new trace that is sampled, and its id."""
    trace_id = secrets.token_hex(16)
    return f"00-{trace_id}-{secrets.token_hex(8)}-01", trace_id


def named(spans: Iterable[Span], name: str) -> list[Span]:
    """Return the spans whose name has ``name`` in it."""
    return [one for one in spans if name in one.name]


def outside_their_parents(spans: list[Span]) -> list[Span]:
    """Return the spans that began before their parent, or ended after it."""
    by_id = {one.span_id: one for one in spans}
    slack = 1_000_000  # a span's start is wall-clock time, its end is the start and what passed since
    return [
        one
        for one in spans
        if (parent := by_id.get(one.parent_id or "")) is not None
        and not (parent.start - slack <= one.start and one.end <= parent.end + slack)
    ]


def tree(spans: list[Span], marks: dict[str, str]) -> list[str]:
    """Draw a trace: a line for each span, with its duration, what it says, and where its links go.

    Args:
        spans: Of one trace.
        marks: Ids of spans that links lead to, with what to call them.
    """
    known = {one.span_id for one in spans}
    roots = [one for one in spans if one.parent_id not in known]
    lines = list(_branches(roots, spans, "", top=True))
    widest = max((len(name) for name, _ in lines), default=0)
    return [
        f"{name:<{widest}} {(one.end - one.start) / 1e6:>8.2f} ms  {said(one, marks)}".rstrip()
        for name, one in lines
    ]


def _branches(
    siblings: list[Span], spans: list[Span], indent: str, *, top: bool = False
) -> Iterator[tuple[str, Span]]:
    ordered = sorted(siblings, key=lambda one: one.start)
    for one in ordered:
        last = one is ordered[-1]
        yield (one.name if top else f"{indent}{'└─' if last else '├─'} {one.name}"), one
        below = [child for child in spans if child.parent_id == one.span_id]
        yield from _branches(below, spans, "" if top else indent + ("   " if last else "│  "))


def said(one: Span, marks: dict[str, str]) -> str:
    """Say of a span what its attributes and links do."""
    has = one.attributes
    words = []
    if one.name.startswith(LOOKUP):
        words.append(has["sqlacache.decision"])
        words += [f"({has[key]})" for key in ("sqlacache.reason", "sqlacache.tier") if key in has]
        words += [f"fill {has['sqlacache.fill']}"] if "sqlacache.fill" in has else []
    elif one.name.startswith(INVALIDATE):
        phases = [f"{name} {has[key] * 1000:.2f} ms" for key, name in PHASES.items() if key in has]
        words.append(", ".join(phases))
    elif one.name.startswith(RECEIVE):
        words.append(f"{has['sqlacache.lag_s'] * 1000:.2f} ms after it was announced")
    words += [f"-> {marks.get(link, link)}" for link in one.links]
    return " ".join(words)
