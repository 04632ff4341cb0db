"""What entries take in the memory of this process: what ``max_bytes`` is compared with.

An entry is weighed once, when it is kept: its decoded rows (or the bytes kept instead), its stamps, its key, and its
place in the containers. Weights are what ``sys.getsizeof`` says of each object, so that they are those of the Python
that runs, and what the allocator rounds up is not in them (some 5%). What every program has once anyway, such as
``None`` and small integers, weighs nothing; what several entries hold is counted once (:class:`Shared`).

Of long results, rows spread over all of them are weighed, and the rest is told from the length of the encoded form, in
which a few long values among many short ones show: an estimate, within 10% in ``tests/store/test_weight.py``. Where the
rows weighed are not like the others by that length, all are.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from enum import Enum
from gc import get_referents
from itertools import chain
from sys import getsizeof
from types import FunctionType, ModuleType
from typing import Any

from ..decisions import Cause
from ..errors import SerializationError
from .stamps import Entry
from .values import DIRECT, MAX_DEPTH, Walker, pack

FEWEST = 5
"""Rows of a long result that are weighed, at least; results of up to twice as many as suffice are weighed in full."""
VALUES = 64
"""Values that are weighed, at least."""
PART = 100
"""One of so many rows is weighed, at least."""
LIKENESS = (0.75, 1.33)
"""Length of the encoded form to what the rows weighed let expect, where these are taken for rows like the others."""

_FLAT = {int, float, str, bytes, Decimal, dt.date, dt.timedelta}
"""Kinds of which ``sys.getsizeof`` tells all."""
_NOBODYS = (type, ModuleType, FunctionType, Enum, dt.tzinfo)
"""Kinds that values refer to and do not own."""
_ZONE = getsizeof(dt.timezone(dt.timedelta(hours=1))) + getsizeof(dt.timedelta(hours=1))


def _shared() -> Iterator[Any]:
    """Give what there is once in every process, in this version of Python."""
    yield from (None, True, False, (), "", b"", dt.timezone.utc)
    yield from (chr(code) for code in range(256) if chr(code) is chr(code))
    yield from (b"%c" % code for code in range(256) if b"%c" % code is b"%c" % code)
    yield from (number for number in range(-16, 2048) if int(str(number)) is int(str(number)))


_ONES = frozenset(map(id, _shared()))


def slot(kind: type[dict[Any, Any]]) -> int:
    """Return the bytes of one place in a dict of a kind, on average between two sizes that it grows to."""
    table, sizes = kind(), []
    for number in range(1, 1400):
        table[number] = None
        if number >= 700:
            sizes.append(getsizeof(table) / number)
    return round(sum(sizes) / len(sizes))


PLACE = slot(OrderedDict)
_STAMP = getsizeof(("", 0, 0))
_NUMBERS = getsizeof(1 << 62) + getsizeof(1 << 20)
"""A nonce and a version."""
_BARE = Entry((), (), (), None, 0.5, 0.5, 0.5, 0, 0)
_ENTRY = getsizeof(_BARE) + 3 * getsizeof(0.5) + getsizeof(1 << 20)
_WIDE = getsizeof("\U0001f600")
_CAUSE = getsizeof(Cause("row_update", "")) + getsizeof(0.5)


def text(name: str) -> int:
    """Return the bytes of a text that is a key or a name: the same whenever it is asked."""
    return getsizeof(name) if name.isascii() else _WIDE + 4 * len(name)


def key(name: str) -> int:
    """Return the bytes of a key and its place in an ``OrderedDict``."""
    return PLACE + text(name)


def entry(kept: Entry) -> int:
    """Return the bytes of an entry without its key, its stamps, and what :class:`Shared` counts."""
    weight = _ENTRY + getsizeof(kept.stamps)
    if kept.trace is not None:
        weight += text(kept.trace)
    if kept.data is not None:
        return weight + getsizeof(kept.data)
    return weight + rows(kept.rows, kept.description, kept.size)


def stamps(filled: Iterable[tuple[str, int, int]]) -> int:
    """Return the bytes of the stamps that an entry was filled under, where it has them to itself."""
    return sum([_STAMP + _NUMBERS + text(name) for name, _, _ in filled])


def stamp(name: str, kept: Any) -> int:
    """Return the bytes of a stamp in a store's memory, with what entries have of it, but for its cause."""
    return key(name) + getsizeof(kept) + _STAMP + _NUMBERS + getsizeof(0.5)


def cause(of: Cause) -> int:
    """Return the bytes of a cause, about."""
    weight = _CAUSE + getsizeof(of.keys) + sum(map(text, of.keys)) + text(of.statement)
    if of.traceparent is not None:
        weight += text(of.traceparent)
    return weight + (0 if of.parameters is None else _deep(of.parameters))


def learned(what: Any, kept: Entry) -> int:
    """Return the bytes of what was made of an entry's rows, beyond what it has in common with them."""
    theirs = set(map(id, chain.from_iterable(kept.rows)))
    return getsizeof(what) + sum([_made(part, theirs) for part in what])


def learn(kept: Entry, what: Any) -> int:
    """Keep what was made of an entry's rows with it, instead of what was before; return the bytes that this adds."""
    more = learned(what, kept) - (0 if kept.learned is None else learned(kept.learned, kept))
    kept.learn(what)
    kept.weigh(kept.weight + more)
    return more


def _made(part: Any, theirs: set[int]) -> int:
    if id(part) in _ONES or id(part) in theirs:
        return 0
    if type(part) is tuple:
        return getsizeof(part) + sum([_made(one, theirs) for one in part])
    return _deep(part) if type(part) in DIRECT else 0


def rows(found: Sequence[tuple[Any, ...]], description: Sequence[Any], size: int) -> int:
    """Return the bytes of decoded rows, whose encoded form has ``size`` bytes with their description."""
    height = len(found)
    width = len(found[0]) if height else 0
    if width == 0:
        return getsizeof(found) if height else 0
    frame = getsizeof(found) + height * getsizeof(found[0])
    some = max(FEWEST, VALUES // width, height // PART)
    if 2 * some < height:
        inside = _estimate(found, height // some | 1, size - _packed(list(chain.from_iterable(description))))
        if inside is not None:
            return frame + inside
    return frame + _inside(chain.from_iterable(found))


def _estimate(found: Sequence[tuple[Any, ...]], step: int, size: int) -> int | None:
    """Return the bytes of all values, as far as one in ``step`` rows lets tell; ``None`` if it does not.

    ``step`` is odd, so that of two kinds of rows by turns, both are looked at.
    """
    picked = found[step // 2 :: step]
    values = list(chain.from_iterable(picked))
    inside = _inside(values)  # first: texts that were packed keep their UTF-8
    packed, times = _packed(values), len(found) / len(picked)
    if not packed or not LIKENESS[0] < size / (packed * times) < LIKENESS[1]:
        return None
    return int((inside - packed) * times) + size


def _packed(values: Sequence[Any]) -> int:
    """Return the length of values in a stored form; 0 if they have none."""
    try:
        if not DIRECT.issuperset(map(type, values)):
            values = Walker().members(values, 0)
        return len(pack(values))
    except (SerializationError, ValueError):  # of a serializer of one's own
        return 0


def _inside(values: Iterable[Any], depth: int = 0) -> int:
    ones, flat, total = _ONES, _FLAT, 0
    for value in values:
        if id(value) not in ones:
            total += getsizeof(value) if type(value) in flat else _deep(value, depth)
    return total


def _deep(value: Any, depth: int = 0) -> int:
    weight = getsizeof(value)
    kind = type(value)
    if kind is dt.datetime or kind is dt.time:
        zone = value.tzinfo
        return weight + (_ZONE if type(zone) is dt.timezone and zone is not dt.timezone.utc else 0)
    if kind in _FLAT or depth > MAX_DEPTH:
        return weight
    return weight + _inside([one for one in get_referents(value) if not isinstance(one, _NOBODYS)], depth + 1)


_HELD = slot(dict) + getsizeof([1, 1]) + 2 * getsizeof(1 << 40)


class Shared:
    """What several entries hold, such as the description of their columns: counted while the first to the last do."""

    def __init__(self) -> None:
        self._held: dict[int, list[int]] = {}

    def weight(self, what: Any) -> int:
        """Return its bytes, held or not."""
        held = self._held.get(id(what))
        return weigh(what) + _HELD if held is None else held[1]

    def take(self, what: Any) -> int:
        """Note that an entry holds ``what``; return the bytes that this adds."""
        if id(what) in _ONES:
            return 0
        held = self._held.get(id(what))
        if held is not None:
            held[0] += 1
            return 0
        weight = weigh(what) + _HELD
        self._held[id(what)] = [1, weight]
        return weight

    def leave(self, what: Any) -> int:
        """Note that an entry no longer holds ``what``; return the bytes that this frees."""
        held = self._held.get(id(what))
        if held is None:
            return 0
        held[0] -= 1
        if held[0]:
            return 0
        del self._held[id(what)]
        return held[1]

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()


def weigh(what: Any) -> int:
    """Return the bytes of an object and what it is made of."""
    return _inside([what])
