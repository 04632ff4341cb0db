"""Stamps, entries, and the pure decision: what a lookup means.

A stamp is replaced by every write that touches it. An entry carries the stamps it was filled under and can be served
only while each of them is still current and no writer has one in flight. Versions are for people (``v7 -> v8``); safety
rests on the random nonce, since a counter that was evicted could start again at the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..decisions import BypassReason, Cause, MissReason, StampChange, Tier
from ..tags import EVERYTHING


class StampView(NamedTuple):
    """A stamp as a lookup sees it."""

    version: int
    nonce: int
    in_flight: bool
    cause: Cause | None
    """What last replaced it; ``None`` for one just seeded."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached result. Times are seconds since the epoch; ``load_seconds`` is what the database took to answer.

    ``size`` is the length of its rows' encoded form in bytes: what is stored, not what it takes of this process.
    """

    stamps: tuple[tuple[str, int, int], ...]
    """Name, version and nonce of each stamp as sampled before the database was read."""
    description: tuple[tuple[Any, ...], ...]
    rows: tuple[tuple[Any, ...], ...]
    """Decoded rows, shared by all hits; empty when ``data`` is kept instead."""
    data: bytes | None
    """Encoded rows, decoded anew for every hit, because some value in them is mutable."""
    stored_at: float
    expires_at: float
    load_seconds: float
    size: int
    count: int
    """Number of rows."""
    under: Any = None
    """The server's generation that the stamps were sampled under (:attr:`Sample.under`)."""
    encoded: bytes | None = None
    """The rows' byte form, for a store that keeps bytes; only while the entry is being stored."""
    trace: str | None = None
    """W3C ``traceparent`` of the read that stored it, if that was traced."""
    learned: Any = field(default=None, compare=False, repr=False)
    """What a :class:`sqlacache.DirectSession` has learned of the rows, so that it goes when they go."""

    weight: int = field(default=0, compare=False, repr=False)
    """Bytes that it takes of this process, as whoever keeps it counts them (:mod:`.weight`)."""

    def learn(self, what: Any) -> None:
        """Keep :attr:`learned`: only for a store's own ``learn``, which counts it."""
        object.__setattr__(self, "learned", what)

    def weigh(self, weight: int, **common: Any) -> None:
        """Keep :attr:`weight`, and equal objects that are held in ``common`` with others; nothing else ever changes."""
        object.__setattr__(self, "weight", weight)
        for name, value in common.items():
            object.__setattr__(self, name, value)


class Sample(NamedTuple):
    """What one lookup brought back, in one consistent look."""

    entry: Entry | None
    stamps: Sequence[StampView | None]
    """In the order asked; ``None`` for one that is not there."""
    gone: MissReason | None = None
    """Why there is no entry, when the store knows: ``expired``, ``capacity_evicted``, ``corrupt``,
    ``generation_changed``."""
    under: Any = None
    """The generation of the server that answered, for :attr:`Entry.under`; opaque to everyone but the store."""
    bypass: BypassReason | None = None
    """Nothing may be served or filled: the cache was switched off for all (``disabled``), writers speak another
    protocol (``protocol_mismatch``), an invalidation is owed (``backend_unavailable``)."""
    why: str = ""
    """More about ``bypass``, for people."""
    tier: Tier | None = None
    """Where the entry came from, if not from the store's own tier."""


class Verdict(NamedTuple):
    """What a sample means: a hit (``entry``), or a miss and why."""

    entry: Entry | None
    reason: MissReason | None
    changed: tuple[StampChange, ...]
    cause: Cause | None
    fillable: bool
    """A fill sampled now may be stored: every stamp is there and none is in flight."""


def decide(names: Sequence[str], keys: frozenset[str], sample: Sample) -> Verdict:
    """Say what a sample means.

    Args:
        names: The stamps' names, in the order of ``sample.stamps``.
        keys: Those of them that are tags of single primary keys.
        sample: What the store had.
    """
    stamps, entry = sample.stamps, sample.entry
    if entry is not None and len(entry.stamps) == len(names):  # the way of a hit
        for name, stamp, (filled_name, _, nonce) in zip(names, stamps, entry.stamps):
            if stamp is None or stamp.in_flight or stamp.nonce != nonce or name != filled_name:
                break
        else:
            return Verdict(entry, None, (), None, False)
    in_flight = missing = False
    for stamp in stamps:
        if stamp is None:
            missing = True
        elif stamp.in_flight:
            in_flight = True
    fillable = not (missing or in_flight)
    if entry is None:
        reason: MissReason = "write_in_flight" if in_flight else (sample.gone or "absent")
        return Verdict(None, reason, (), None, fillable)
    filled = {name: (version, nonce) for name, version, nonce in entry.stamps}
    changed: list[StampChange] = []
    cause: Cause | None = None
    first: str | None = None
    for name, stamp in zip(names, stamps):
        was = filled.get(name)
        if was is None:
            return Verdict(None, "unknown", (), None, fillable)
        if stamp is None:
            changed.append(StampChange(name, was[0], None))
        elif stamp.nonce != was[1]:
            changed.append(StampChange(name, was[0], stamp.version))
            if stamp.cause is not None and (cause is None or stamp.cause.at > cause.at):
                cause, first = stamp.cause, name
    if not changed:  # in another order, or with others beside them: no entry that was filled for this read
        return Verdict(None, "write_in_flight" if in_flight else "unknown", (), None, fillable)
    if cause is None or first is None:
        reason = "write_in_flight" if in_flight else "backend_evicted"
    elif cause.cause in ("touched", "explicit", "flush"):
        reason = "manual_invalidated"
    elif first == EVERYTHING or first.endswith("#table"):
        reason = "table_invalidated"
    elif first in keys:
        reason = "row_invalidated"
    else:
        reason = "condition_invalidated"
    return Verdict(None, reason, tuple(changed), cause, fillable)
