"""What a commit tells the other processes over pub/sub: which stamps it touched, and why.

A message is ``sequence|JSON``. The server numbers the messages of a channel, so that a receiver notices one that it
missed; 0 means that it does not number them (a cluster). Freshness rests on the stamps, except in the pushed tier.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..decisions import Cause
from ..errors import SerializationError
from ..forks import renew
from ..tags import TableTouch
from .records import PROTOCOL, decode_cause, encode_cause

MAX_NAMES = 100
"""Stamps of one table that a message names; more mean all of the table."""
ORIGIN_BYTES = 8


class Touched(NamedTuple):
    """What one commit touched of one table."""

    table: str
    names: tuple[str, ...] | None
    """Stamps replaced; ``None``: too many to name, take all of the table's."""
    cause: Cause | None


class Announcement(NamedTuple):
    """One phase of a commit, as another process (or this one) announced it."""

    sequence: int
    origin: str
    """Which process: random, made when it opened the store."""
    phase: int
    """1: marked in flight, before COMMIT. 2: settled, after it."""
    at: float
    """Seconds since the epoch, by the sender's clock."""
    touched: tuple[Touched, ...]


class Announcer:
    """Makes a process's messages."""

    def __init__(self) -> None:
        self.forked()
        renew(self)

    def forked(self) -> None:
        self.origin = secrets.token_hex(ORIGIN_BYTES)  # parent and child hear of each other

    def message(self, phase: int, touched: Mapping[str, TableTouch], causes: Mapping[str, Cause]) -> bytes:
        """Return the body of a message; the server puts the sequence before it."""
        tables: list[Any] = []
        for table, what in touched.items():
            names = what.names()
            cause = causes.get(table) if phase == 2 else None
            tables.append(
                [
                    table,
                    names if len(names) <= MAX_NAMES else None,
                    None if cause is None else encode_cause(cause).decode("utf-8", "surrogatepass"),
                ]
            )
        body = [PROTOCOL, self.origin, phase, time.time(), tables]
        return json.dumps(body, separators=(",", ":")).encode()


def decode(data: bytes) -> Announcement:
    """Return what a message says; raise :class:`SerializationError` for bytes that are none."""
    try:
        sequence, _, body = data.partition(b"|")
        protocol, origin, phase, at, tables = json.loads(body)
        if protocol != PROTOCOL:
            raise SerializationError(f"a message of protocol {protocol!r:.20}")
        touched = tuple(
            Touched(
                str(table),
                None if names is None else tuple(map(str, names)),
                None if cause is None else decode_cause(str(cause).encode("utf-8", "surrogatepass")),
            )
            for table, names, cause in tables
        )
        return Announcement(int(sequence), str(origin), int(phase), float(at), touched)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise SerializationError(f"bytes that are not a message: {error!r:.200}") from error
