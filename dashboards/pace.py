"""Durations of rules, as they are or shortened together, so that a test sees in a minute what takes hours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """How long a minute is."""

    minute: float = 60.0
    """In seconds."""

    def minutes(self, number: float) -> str:
        """Return this many minutes as Prometheus writes a duration."""
        seconds = number * self.minute
        if seconds % 3600 == 0:
            return f"{seconds / 3600:.0f}h"
        if seconds % 60 == 0:
            return f"{seconds / 60:.0f}m"
        return f"{seconds * 1000:.0f}ms"


ORDINARY = Pace()
