"""What a world is like, told so that two that go on alike are told alike: one of them is explored, and not the other.

Left out is what nothing that happens from now on depends on:

- Times, versions for people, causes. Nonces and tokens are numbered in the order in which they are met.
- **Entries that are dead**: filled under a stamp that has another nonce by now, or none. Nonces are random and never
  given twice, so that none of them is ever served again; a lookup that finds one goes on as one that finds nothing
  (only the reason that it tells differs).
- **What a reader was answered**, but for what the library itself keeps of it: whether it may fill, and under which
  nonces; what the database said; for whose load it waits and whether that is done (:func:`remembered`).
- **What a reader saw** (``last``) **and what was acknowledged when it began** (``floor``), of tables that it does not
  read any more.
- **Which reader it is.** Readers who do the same from now on may be exchanged for each other: they are told in the
  order of what is told of them.

``ever`` of :class:`.Data` is left out, too: what the database answers was committed when it is answered.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqlacache.store.stamps import Entry, StampView

if TYPE_CHECKING:
    from tests.explorer.scheduler import Actor
    from tests.explorer.world import World

_RANDOM = re.compile(r"[0-9a-f]{12,}(?:-[0-9a-f]+)?|\d{10,}")


def picture(world: World) -> bytes:
    """Return what is told of a world, in few bytes."""
    names = {actor.token: f"({actor.name})" for actor in world.actors if actor.token is not None}
    store = _RANDOM.sub(_numbered(names), repr((world.budget, world.fingerprint())))
    told = [repr(actor_of(world, actor)) for actor in world.actors if actor.reads is None]
    readers = [repr(actor_of(world, actor)) for actor in world.actors if actor.reads is not None]
    if world.reduces:
        readers.sort(key=lambda one: _RANDOM.sub(lambda found: names.get(found.group(), "?"), one))
    text = "\n".join([store, *(_RANDOM.sub(_numbered(names), one) for one in told + readers)])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _numbered(numbers: dict[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda found: numbers.setdefault(found.group(), f"#{len(numbers)}")


def actor_of(world: World, actor: Actor) -> Any:
    """Return what an actor does from now on depends on."""
    if not world.reduces:
        return (
            *(actor.name, actor.label, actor.is_alive, actor.dead, world.essence(actor.told), actor.floor),
            *(actor.last, actor.token, remembered(world, actor)),
        )
    if actor.reads is None:
        return (
            *(actor.name, actor.label, actor.is_alive, actor.dead, actor.writes),
            *(world.essence(actor.told), actor.token is not None),
        )
    if actor.dead:
        return None
    soon = {table for what in actor.reads[:1] for table in world.tables_of(actor.process, what)}
    later = {table for what in actor.reads for table in world.tables_of(actor.process, what)}
    floor = None if actor.floor is None else actor.floor[actor.process]
    return (
        *(actor.process, actor.reads, actor.label),
        None if floor is None else [floor[table] for table in sorted(soon)],
        [(actor.last or {}).get(table, 0) for table in sorted(later)],
        remembered(world, actor),
    )


def remembered(world: World, actor: Actor) -> Any:
    """Return what a reader's operation under way has kept."""
    if actor.reads is None:
        return None
    read, flight = actor.read, actor.flight
    kept = None
    if read is not None:
        arrived = getattr(read.under, "arrived", None)
        kept = [stamp.nonce for stamp in read.stamps if stamp is not None], world.essence(read.under), arrived
    waits = None
    if flight is not None and actor.waits:
        waits = flight.done.happened, essence(flight.entry), flight.nonces
    return kept, actor.value, waits, flight is not None and not actor.waits, world.on_its_way(actor)


def is_fillable(read: Any) -> bool:
    """Tell whether a read that has looked up may store what it loads, or hand it to others."""
    return read is not None and read.reason is None and read.verdict is not None and read.verdict.fillable


def is_last_look(actor: Actor) -> bool:
    """Tell whether what a reader is about to find in the database is all the same to everybody."""
    return actor.reads is not None and len(actor.reads) == 1 and actor.read is None


def essence(answer: Any) -> Any:
    """Return of an answer what decisions depend on: no times, causes or versions."""
    kind = type(answer)
    if kind in (str, int, bool, type(None)):
        return answer
    if kind is Entry:
        return [stamp[2] for stamp in answer.stamps], answer.rows
    if kind is StampView:
        return answer.nonce, answer.in_flight
    if kind is dict and all(type(value) is int for value in answer.values()):
        return "counts"  # of stamps replaced: for people
    if kind is dict:
        return [(essence(key), essence(value)) for key, value in answer.items()]
    if isinstance(answer, (list, tuple)):
        return [essence(one) for one in answer]
    return answer


def flights_of(flights: Any) -> Any:
    """Return the loads under way in a process and those that have landed."""
    kept = [
        [(where, one.nonces, essence(one.entry)) for where, one in sorted(each.items(), key=_by_key)]
        for each in (flights._flights, flights._landed)
    ]
    return kept, sorted(flights._approaching.items())


def _by_key(item: tuple[tuple[Any, str], Any]) -> str:
    return item[0][1]


def owed_of(owed: Any) -> Any:
    return sorted(owed.tables), [(debt.changes, debt.not_before > 0) for debt in owed._debts]


def memory_of(store: Any, tokens: dict[str, str], *, reduces: bool) -> Any:
    """Return what a :class:`.MemoryStore` has."""
    stamps = [(name, one.nonce, marks_of(one.marks, tokens)) for name, one in sorted(store._stamps.items())]
    entries = [
        (key, essence(entry))
        for key, entry in sorted(store._entries.items())
        if not reduces or is_alive(entry.stamps, {name: nonce for name, nonce, _ in stamps})
    ]
    writers = [(table, marks_of(marks, tokens)) for table, marks in sorted(store._writers.items()) if marks]
    shapes = [(table, sorted(found)) for table, found in sorted(store._shapes.items())]
    return stamps, entries, writers, shapes


def is_alive(stamps: Sequence[tuple[str, int, int]], nonces: dict[str, int]) -> bool:
    return all(nonces.get(name) == nonce for name, _, nonce in stamps)


def marks_of(marks: dict[str, float], tokens: dict[str, str]) -> list[tuple[str, bool]]:
    """Return who marks, and whether their leases go on."""
    told = [(tokens.get(token, token), until > 0) for token, until in marks.items()]
    return sorted(told, key=lambda one: one[0] if one[0].startswith("(") else "~")
