"""``explain KEY``: what lies under an entry's key, and what a read of it would be told."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import Any

from ..decisions import BypassReason, Cause, StampChange
from ..errors import CacheError, SerializationError
from ..explain import Explanation, explain_key
from ..store.records import decode_header
from ..store.stamps import Sample
from .connect import Server
from .show import as_json, duration, lines, moment, safe
from .tail import by

_SWITCHED: dict[BypassReason, str] = {
    "disabled": "the mode of all processes were on again (sqlacache mode on)",
    "protocol_mismatch": "the processes of the other version and the lease of their last writer had ended",
}
"""What would end a bypass that concerns every entry."""


@dataclass(frozen=True)
class Stamp:
    """A stamp that an entry was filled under, and what has become of it."""

    stamp: str
    was: int
    now: int | None
    """``None``: it is gone, or was not looked at because nothing is served."""
    changed: bool
    in_flight: bool
    cause: Cause | None
    """What last replaced it."""

    def __str__(self) -> str:
        flight = " (being written)" if self.in_flight else ""
        now = "gone" if self.now is None else f"v{self.now}"
        return f"{self.stamp} v{self.was}{f' -> {now}' if self.changed else ''}{flight}"


@dataclass(frozen=True)
class Told:
    """What is known of an entry on a server."""

    explanation: Explanation
    stored_at: float
    ttl: float | None
    """Seconds that the server still keeps it; ``None``: for good, which none of ours is."""
    size: int
    """Bytes on the server, the header included."""
    stamps: tuple[Stamp, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain data."""
        return {
            **self.explanation.to_dict(),
            "stored_at": self.stored_at,
            "ttl": self.ttl,
            "size": self.size,
            "stamps": [asdict(one) for one in self.stamps],
        }

    def __str__(self) -> str:
        kept = "for good: none of ours is like that" if self.ttl is None else f"for {duration(self.ttl)} more"
        return "\n".join(
            [
                str(self.explanation),
                f"  on server   {self.size} bytes since {moment(self.stored_at)}, kept {kept}",
                f"  stamps      {', '.join(map(str, self.stamps))}",
                *self._further_causes(),
            ]
        )

    def _further_causes(self) -> Iterator[str]:
        """Yield the writes that replaced other stamps than the explanation's own."""
        told = {self.explanation.cause, None}
        for one in self.stamps:
            if (one.changed or one.in_flight) and one.cause is not None and one.cause not in told:
                told.add(one.cause)
                yield f"  also        {one.cause.cause}: {by(one.cause)} at {moment(one.cause.at)}"


def explain(server: Server, store: Any, key: str, *, json: bool) -> None:
    """Print it. Raises :class:`CacheError` where nothing is stored."""
    told = explain_stored(server, store, key)
    if json:
        as_json(told.to_dict())
    else:
        # Somebody else may have written the cause: no line of it may look like one of ours.
        lines(str(replace(told, explanation=_safe(told.explanation), stamps=tuple(map(_safe, told.stamps)))))


def _safe(told: Any) -> Any:
    """Return an explanation or a stamp with a cause that is safe for a terminal."""
    cause: Cause | None = told.cause
    if cause is None:
        return told
    shown = replace(
        cause,
        table=safe(cause.table),
        keys=tuple(map(safe, cause.keys)),
        columns=None if cause.columns is None else tuple(map(safe, cause.columns)),
        statement=safe(cause.statement),
        host=safe(cause.host),
        traceparent=None if cause.traceparent is None else safe(cause.traceparent),
    )
    return replace(told, cause=shown)


def explain_stored(server: Server, store: Any, key: str) -> Told:
    """Say what lies under an entry's key. Raises :class:`CacheError` where nothing does."""
    where = store.layout.entry(key, key.rsplit(":", 2)[0])
    data = server.call(b"GET", where)
    if data is None:
        raise CacheError(
            f"nothing is stored under {key!r} in {store.layout.database!r}: it was never filled, it has expired or "
            "was evicted, or it belongs to another prefix or database"
        )
    life = server.call(b"PTTL", where)
    try:
        header = decode_header(data)
    except (SerializationError, EOFError) as error:
        raise CacheError(
            f"what is stored under {key!r} is no entry that a read would take: {error}"
        ) from error
    names = [name for name, _, _ in header.stamps]
    sample: Sample = store.peek(key, names)
    if sample.bypass is not None:
        found: Explanation | None = Explanation(
            "bypass",
            sample.bypass,
            sample.why,
            key=key,
            tables=(key.rsplit(":", 2)[0],),
            dependencies=tuple(names),
            age=time.time() - header.stored_at,
            expires_in=header.expires_at - time.time(),
            rows=header.rows,
            load_seconds=header.load_seconds,
            advice=_SWITCHED.get(sample.bypass, ""),
            stored_at=header.stored_at,
            stored_by=header.trace,
        )
    else:
        binding: Any = SimpleNamespace(store=store)  # of a binding, it asks for the store alone
        found = explain_key(binding, key, None)
    if found is None:
        raise CacheError(f"what was stored under {key!r} is gone since a moment ago")
    return Told(
        replace(found, past=""),  # this process was not there
        header.stored_at,
        life / 1000 if life >= 0 else None,
        len(data),
        tuple(_stamps(header.stamps, sample.stamps, found.changed)),
    )


def _stamps(filled: Any, stamps: Iterable[Any], changed: Iterable[StampChange]) -> Iterator[Stamp]:
    names = {change.stamp for change in changed}
    for (name, version, _), stamp in zip(filled, stamps):
        yield Stamp(
            name,
            version,
            None if stamp is None else stamp.version,
            name in names,
            stamp is not None and stamp.in_flight,
            None if stamp is None else stamp.cause,
        )
