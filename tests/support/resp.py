"""The requests of Redis' protocol, taken out of a stream of bytes."""

from __future__ import annotations

from collections.abc import Iterator

Command = tuple[bytes, ...]


class Requests:
    """Takes a client's bytes in as they come, and gives out whole commands, each with the bytes that it came in."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[tuple[Command, bytes]]:
        """Add ``data`` and give the commands that are complete now."""
        self._buffer += data
        start = 0
        while True:
            found = self._command(start)
            if found is None:
                break
            command, end = found
            yield command, self._buffer[start:end]
            start = end
        self._buffer = self._buffer[start:]

    def _command(self, at: int) -> tuple[Command, int] | None:
        line = self._line(at)
        if line is None:
            return None
        text, at = line
        if not text.startswith(b"*"):
            return tuple(text.split()), at  # an inline command, as one types it
        parts = []
        for _ in range(int(text[1:])):
            line = self._line(at)
            if line is None:
                return None
            text, at = line
            if not text.startswith(b"$"):
                raise ValueError(f"not a request of Redis' protocol: {text!r}")
            size = int(text[1:])
            if len(self._buffer) < at + size + 2:
                return None
            parts.append(self._buffer[at : at + size])
            at += size + 2
        return tuple(parts), at

    def _line(self, at: int) -> tuple[bytes, int] | None:
        end = self._buffer.find(b"\r\n", at)
        return None if end < 0 else (self._buffer[at:end], end + 2)


# Commands of which the second word says what is done.
CONTAINERS = frozenset(
    ("SCRIPT", "CLUSTER", "CONFIG", "CLIENT", "FUNCTION", "MEMORY", "OBJECT", "PUBSUB", "COMMAND")
)


def name_of(command: Command) -> str:
    """Return a command's name in capitals, such as ``MGET`` or ``SCRIPT LOAD``."""
    words = [part.decode("ascii", "replace").upper() for part in command[:2]]
    if not words:
        return ""
    return " ".join(words) if words[0] in CONTAINERS else words[0]
