"""A circuit breaker: after a few failures in a row, nobody waits for the server until a probe finds it well again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from ssl import SSLError

from ..backend import masked
from ..errors import TransportError
from ..forks import renew

FAILURES = 2
"""Failures in a row that open the breaker."""


class Breaker:
    """Closed: calls go through. Open: they fail at once, until :meth:`reset` or :meth:`succeeded` is called.

    Args:
        on_open: Called when it opens, and with every call that it refuses: whoever owns it probes from then on, in a
            loop that may have ended since.
    """

    def __init__(self, on_open: Callable[[], None] | None = None) -> None:
        self.on_open = on_open
        self.on_failure: Callable[[str, BaseException], None] | None = None
        """Told of every failure: the command, and the error."""
        self.opened_at: float | None = None
        """When it opened (seconds since the epoch), while it is open."""
        self.why = ""
        self._failures = 0
        self.forked()
        renew(self)

    def forked(self) -> None:
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether calls fail at once."""
        return self.opened_at is not None

    def check(self) -> None:
        """Raise :class:`~sqlacache.errors.TransportError` while open."""
        if self.opened_at is not None:
            if self.on_open is not None:
                self.on_open()
            raise TransportError(f"not asked, it is being probed: {self.why}")

    def failed(self, error: BaseException, operation: str = "") -> None:
        """Count a failure of ``operation``, a command."""
        if self.on_failure is not None:
            self.on_failure(operation, error)
        with self._lock:
            self._failures += 1
            opens = self._failures >= FAILURES and self.opened_at is None
        if opens:
            self.open(error)

    def open(self, error: BaseException) -> None:
        """Open it, whatever the number of failures."""
        with self._lock:
            self.why = describe(error)
            self.opened_at = time.time()
        if self.on_open is not None:
            self.on_open()

    def succeeded(self) -> None:
        """Forget earlier failures."""
        if self._failures:
            self.reset()

    def reset(self) -> None:
        """Close it."""
        with self._lock:
            self._failures = 0
            self.opened_at = None
            self.why = ""


def describe(error: BaseException) -> str:
    """Return an error in words; some of redis-py's have none, and before 6 they leave out what is wrong with TLS."""
    text, behind = str(error), error.__cause__ or error.__context__
    if isinstance(behind, SSLError) and behind.reason and behind.reason not in text:
        text = f"{text} {behind}"
    if "://" in text:
        text = masked(text)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
