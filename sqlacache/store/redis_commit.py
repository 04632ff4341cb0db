"""Phases one and two of a commit on a Redis server: one script call per phase, however many rows."""

from __future__ import annotations

import secrets
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..decisions import Cause
from ..errors import SerializationError, TransportError
from ..tags import EVERYTHING, Shape, TableTouch, table_stamp
from .announcing import Announcer
from .layout import Layout
from .records import decode_shape, encode_cause
from .scripts import MARK, SETTLE, UNMARK, Script
from .transport import RUN, Answer, Transport

MAX_STAMPS_PER_CALL = 2000
"""Stamps that one script replaces at most: 2,000 hold the server for some 15 ms (docs/operations.md)."""


class Commits:
    """The writing half of :class:`.redis.RedisStore`."""

    def __init__(self, transport: Transport, layout: Layout, *, lease: float) -> None:
        self.transport = transport
        self.layout = layout
        self.lease = lease
        self._wait = transport.front.wait
        self.announcer = Announcer()
        self._shapes: dict[str, tuple[bytes, tuple[Shape, ...]]] = {}

    def shapes(self, tables: Iterable[str]) -> Mapping[str, tuple[bytes, tuple[Shape, ...]]]:
        """Return the registries as this process saw them last; :meth:`mark` finds out when they have changed.

        One that it never saw is asked for, so that also its first write knows which old values matter.
        """
        tables = list(tables)
        unknown = [table for table in tables if table not in self._shapes and table != EVERYTHING]
        if unknown:
            with suppress(TransportError):  # then the commit finds out
                self._wait(self._ask(unknown))
        return {table: self._shapes.get(table, (b"", ())) for table in tables}

    async def _ask(self, tables: Sequence[str]) -> None:
        for table in tables:
            flat = (await self.transport.call(b"HGETALL", self.layout.registry(table))).value
            with suppress(SerializationError):  # then the commit finds out
                self._shapes[table] = _registry(flat)

    def registered(self, shapes: Iterable[Shape]) -> None:
        """Take note of shapes that this process has registered: the registry is not what it saw last."""
        for shape in shapes:
            known = self._shapes.get(shape.table)
            if known is not None and shape not in known[1]:
                self._shapes.pop(shape.table, None)  # another thread may have been faster

    def mark(
        self,
        token: str,
        touched: Mapping[str, TableTouch],
        revisions: Mapping[str, Any],
        causes: Mapping[str, Cause],
    ) -> dict[str, int] | None:
        replaced: dict[str, int] = {}
        done: dict[str, TableTouch] = {}
        again = False
        for part, answer in self._calls(MARK, token, touched, revisions, causes):
            if answer[0] == b"again":
                self._learn(part, answer[1:])
                again = True
            else:
                replaced.update(zip(part, answer[2:]))
                done.update(part)
        if again and done:
            self.unmark(token, done)
        return None if again else replaced

    def settle(self, token: str, touched: Mapping[str, TableTouch], causes: Mapping[str, Cause]) -> int:
        """Carry out phase two; return how many tables had forgotten the writer, so that their stamps went, too."""
        return sum(lost for _, (_, lost) in self._calls(SETTLE, token, touched, {}, causes))

    def unmark(self, token: str, touched: Mapping[str, TableTouch]) -> None:
        for _ in self._calls(UNMARK, token, touched, {}, {}):
            pass

    def _calls(
        self, script: Script, token: str, touched: Mapping[str, TableTouch], *arguments: Any
    ) -> Iterable[tuple[Mapping[str, TableTouch], Any]]:
        """Call a script for each part of what is touched, one after the other; yield the parts and the answers."""
        for part in _parts(touched):
            yield part, self._wait(self._call(script, token, part, *arguments))

    async def _call(
        self,
        script: Script,
        token: str,
        touched: Mapping[str, TableTouch],
        revisions: Mapping[str, Any],
        causes: Mapping[str, Cause],
    ) -> Any:
        layout, first = self.layout, next(iter(touched))
        keys = [layout.generation(first), layout.fence(first)]
        phase = 1 if script is MARK else 2
        message = b"" if script is UNMARK else self.announcer.message(phase, touched, causes)
        arguments: list[Any] = [layout.channel, message, len(touched)]
        for table, what in touched.items():
            names = what.names()
            keys += [layout.writers(table), layout.registry(table), layout.stamp(table_stamp(table), table)]
            keys += [layout.stamp(name, table) for name in names]
            cause = causes.get(table)
            arguments += [
                len(names),
                revisions.get(table, b""),
                b"" if cause is None else encode_cause(cause),
            ]
        return (await run(self.transport, layout.spoken, script, keys, token, self.lease, arguments)).value

    def _learn(self, touched: Mapping[str, TableTouch], registries: Sequence[Sequence[bytes]]) -> None:
        """Take over the registries that a commit found changed."""
        for table, (_, *flat) in zip(touched, registries):
            try:
                self._shapes[table] = _registry(flat)
            except SerializationError:
                # Without knowing every shape nobody can say what to touch: without a registry the table goes.
                self._wait(self.transport.call(b"DEL", self.layout.registry(table)))
                self._shapes[table] = (b"", ())


def _registry(flat: Sequence[bytes]) -> tuple[bytes, tuple[Shape, ...]]:
    """Return a registry's revision and shapes, of the fields and values of its hash.

    Raises :class:`~sqlacache.errors.SerializationError` for a shape that cannot be read, or that has another's name.
    """
    fields = dict(zip(flat[::2], flat[1::2]))
    revision, shapes = fields.pop(b"", b""), tuple(map(decode_shape, fields.values()))
    if [shape.name.encode("utf-8", "surrogatepass") for shape in shapes] != list(fields):
        raise SerializationError("a shape under the name of another")
    return revision, shapes


def run(
    transport: Transport,
    protocol: int,
    script: Script,
    keys: Sequence[str],
    token: str,
    lease: float,
    arguments: Sequence[Any],
) -> Coroutine[Any, Any, Answer]:
    """Call a script with the arguments that all of them begin with (``lua/common.lua``)."""
    head = [protocol, RUN, secrets.token_hex(6), token, milliseconds(lease)]
    return transport.run(script, keys, [*head, *arguments])


def _parts(touched: Mapping[str, TableTouch]) -> Iterator[dict[str, TableTouch]]:
    """Divide what a commit touches into calls that each hold the server for a bounded time."""
    part: dict[str, TableTouch] = {}
    stamps = 0
    for table, what in touched.items():
        count = len(what.names())
        if part and stamps + count > MAX_STAMPS_PER_CALL:
            yield part
            part, stamps = {}, 0
        part[table] = what
        stamps += count
    if part:
        yield part


def milliseconds(seconds: float) -> int:
    """Return a duration as Redis takes it."""
    return max(1, int(seconds * 1000))
