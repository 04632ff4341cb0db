"""What an explanation says: a record for machines, and the text that a person reads at 3 a.m."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any, NamedTuple

from .decisions import (
    BypassReason,
    CallSite,
    Cause,
    DecisionKind,
    MissReason,
    Op,
    Parameters,
    StampChange,
)
from .reasons import BYPASSES, MISSES, Words

MAX_SQL = 400
"""Characters of a statement in the text form."""


class KeyParts(NamedTuple):
    """What an entry's key is made of. Of a key alone, the last parts are not known: a digest cannot be read back."""

    table: str
    op: Op
    digest: str
    database: str | None = None
    dialect: str | None = None
    """Dialect and driver whose rows are stored."""
    sql: str | None = None
    """The statement as it is sent, with names in place of values."""
    values: tuple[str, ...] | None = None
    """Names of the parameters whose values are in the digest."""
    varies: bool | None = None
    """Whether what ``vary`` returns is in it, too."""


class StampState(NamedTuple):
    """One stamp that the read depends on, then and now."""

    stamp: str
    was: int | None
    """When the entry was stored; ``None``: no entry, or one that was not stored under it."""
    now: int | None
    """``None``: it is not there."""
    in_flight: bool
    """A writer of it is between its two phases."""


@dataclass(frozen=True)
class Explanation:
    """What would happen to a read, and why. ``str()`` is written for people, :meth:`to_dict` for machines.

    ``None`` is what is not known, or what there is nothing of. Times are seconds since the epoch.
    """

    decision: DecisionKind
    reason: MissReason | BypassReason | None
    detail: str = ""
    op: Op | None = None
    key: str | None = None
    tables: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    changed: tuple[StampChange, ...] = ()
    cause: Cause | None = None
    age: float | None = None
    """Seconds since the entry was stored; also of one that no longer holds."""
    expires_in: float | None = None
    """Seconds until the entry expires."""
    rows: int | None = None
    load_seconds: float | None = None
    """What the database took when the entry was filled."""
    size: int | None = None
    """Bytes of the entry, encoded."""
    advice: str = ""
    """What would make it a hit; empty for a hit."""
    past: str = ""
    """What this process remembers of earlier reads of it, and whether that is all there was."""
    complete: bool | None = None
    """Whether :attr:`past` is all that this process decided since it was bound; ``None``: it keeps no history."""
    parts: KeyParts | None = None
    stamps: tuple[StampState, ...] = ()
    """Every stamp that the read depends on."""
    stored_at: float | None = None
    stored_by: str | None = None
    """W3C ``traceparent`` of the read that stored the entry; ``None`` where that was not traced."""
    hits: int | None = None
    """Hits on the entry that this process remembers, of which other processes are no part."""
    hit_seconds: float | None = None
    """What a lookup that hit took, on average of those."""
    saved_seconds: float | None = None
    """What those hits saved: the load's time less theirs."""
    site: CallSite | None = None
    """With ``debug=True``: where this process last read it."""
    parameters: Parameters | None = None
    """With ``debug=True``: those of the statement, or of the last read of it."""
    unknown: tuple[str, ...] = ()
    """What could not be found out, in words."""

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain data, which JSON can carry."""
        told = asdict(replace(self, cause=None, parameters=None))
        told["changed"] = [change._asdict() for change in self.changed]
        told["stamps"] = [stamp._asdict() for stamp in self.stamps]
        told["parts"] = None if self.parts is None else self.parts._asdict()
        told["site"] = None if self.site is None else self.site._asdict()
        told["parameters"] = None if self.parameters is None else dict(self.parameters)
        if self.cause is not None:
            told["cause"] = asdict(replace(self.cause, parameters=None))
            told["cause"]["site"] = None if self.cause.site is None else self.cause.site._asdict()
            if self.cause.parameters is not None:
                told["cause"]["parameters"] = dict(self.cause.parameters)
        return told

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        lines = [f"  {label:<12}{_printable(text)}" for label, text in self._lines()]
        return "\n".join([f"{self.decision.upper()}{reason}: {_printable(self._sentence())}", *lines])

    def _sentence(self) -> str:
        if self.decision == "hit":
            return f"{self.rows} row(s) would be served from the cache"
        if self.decision == "miss" and self.cause is not None:
            return f"the entry is no longer valid since {self.cause.statement or self.cause.cause}"
        means = meaning(self.reason)
        return f"{means}: {self.detail}" if self.detail else means

    def _lines(self) -> Iterator[tuple[str, str]]:
        if self.key is not None:
            yield "entry", self.key
        if self.parts is not None:
            yield from _of_key(self.parts)
        if self.parameters:
            yield "parameters", shown(self.parameters)
        if self.dependencies:
            yield "depends on", ", ".join(self.dependencies)
        for change in self.changed:
            yield "changed", f"{change.stamp}: v{change.was} -> {_version(change.now)}"
        for stamp in self.stamps:
            if stamp.in_flight:
                yield "in flight", f"{stamp.stamp}: {_version(stamp.now)} is being written"
        if self.cause is not None:
            yield "cause", told_of(self.cause)
            if self.cause.site is not None:
                yield "written at", _at(self.cause.site, self.cause.parameters)
        yield from self._of_entry()
        if self.advice:
            yield "hit if", self.advice
        if self.past:
            yield "before", self.past
        if self.site is not None:
            yield "read at", f"{self.site}, the last time"
        for what in self.unknown:
            yield "not known", what

    def _of_entry(self) -> Iterator[tuple[str, str]]:
        if self.age is None or self.expires_in is None or self.stored_at is None:
            return
        size = "" if self.size is None else f" in {self.size} bytes"
        until = f"expires in {self.expires_in:.0f} s" if self.expires_in > 0 else "expired"
        yield "stored", f"{self.rows} row(s){size} {self.age:.1f} s ago, {until}; at {moment(self.stored_at)}"
        yield "stored by", _trace(self.stored_by) if self.stored_by else "a read that was not traced"
        if self.past or self.hits is not None:
            yield "hits", self._of_hits()
        if self.load_seconds is not None:
            yield "costs", self._of_costs(self.load_seconds)

    def _of_hits(self) -> str:
        if self.hits is None:
            return "not counted: this process keeps no history"
        since = "since it was stored" if self.complete else "that it remembers"
        return f"{self.hits} by this process {since}; other processes count their own"

    def _of_costs(self, load_seconds: float) -> str:
        load = f"the database took {load_seconds * 1000:.1f} ms"
        if self.hit_seconds is None or self.saved_seconds is None:
            return f"{load}; what a hit takes is not known here"
        saved = f"{abs(self.saved_seconds) * 1000:.1f} ms {'saved' if self.saved_seconds >= 0 else 'lost'}"
        return f"{load}, a hit {self.hit_seconds * 1000:.1f} ms; {saved} by these hits"


def meaning(reason: MissReason | BypassReason | None) -> str:
    """Say in words what a reason means."""
    words: Mapping[Any, Words] = {**MISSES, **BYPASSES}
    return words[reason].means if reason in words else "why is not known"


def _printable(text: str) -> str:
    """Return text that stays on its line: whoever can write to the backend chooses names that are shown here."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _of_key(parts: KeyParts) -> Iterator[tuple[str, str]]:
    said = f"{parts.op} of {parts.table}"
    if parts.database is not None:
        said += f" in {parts.database}" + (f" ({parts.dialect})" if parts.dialect else "")
    if parts.sql is None:
        yield (
            "key",
            f"{said}; from its digest, the statement and its values cannot be read back",
        )
        return
    values = f" and the values of {', '.join(parts.values)}" if parts.values else ", which takes no values"
    varies = ", and what vary= returns" if parts.varies else ""
    yield "key", f"{said}; its digest is of the SQL{values}{varies}"
    sql = " ".join(parts.sql.split())
    yield "SQL", sql if len(sql) <= MAX_SQL else f"{sql[: MAX_SQL - 1]}…"


def told_of(cause: Cause) -> str:
    """Say in words which write it was."""
    what = cause.statement or cause.cause
    keys = f" of {', '.join(cause.keys)}" if cause.keys else f" on {cause.table}"
    columns = f" ({', '.join(cause.columns)})" if cause.columns else ""
    trace = f", {_trace(cause.traceparent)}" if cause.traceparent else ", not traced"
    return f"{cause.cause}: {what}{keys}{columns} at {moment(cause.at)} by {cause.pid}@{cause.host}{trace}"


def moment(at: float) -> str:
    """Say a time since the epoch for people."""
    return f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def shown(parameters: Parameters) -> str:
    """Say parameters for people."""
    return ", ".join(f"{name}={value}" for name, value in parameters.items())


def _at(site: CallSite, parameters: Parameters | None) -> str:
    return f"{site}, with {shown(parameters)}" if parameters else str(site)


def _trace(traceparent: str) -> str:
    parts = traceparent.split("-")
    return f"trace {parts[1]}" if len(parts) == 4 else f"trace {traceparent}"


def _version(version: int | None) -> str:
    return "gone" if version is None else f"v{version}"
