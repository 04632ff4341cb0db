"""A stamp as the store inside one process has it: with the marks of writers, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..decisions import Cause

UNMARKED: dict[str, float] = {}
"""Marks of a stamp that has none; nothing is ever put in."""


@dataclass(slots=True)
class Stamp:
    """A stamp of a store inside one process."""

    version: int
    nonce: int
    expires_at: float
    cause: Cause | None = None
    marks: dict[str, float] = field(default_factory=lambda: UNMARKED)
    """Writer tokens with the end of their lease, on the monotonic clock."""
    uses: int = 0
    """Entries here that were filled under it, or under what it was before."""
    filled: tuple[str, int, int] | None = None
    """What the last entry was filled under, for all that are filled under the same."""
    weight: int = 0
    caused: int = 0
    """Bytes of its part of the cause, within ``weight``."""
