"""Runs a few actors in every order of their steps, by running them again and again from the beginning.

An actor is a greenlet that runs the library's own code; where that is about to do something that others can see, it
calls :func:`pause`, and the scheduler decides who goes on. What has been seen of a world (:meth:`World.fingerprint`) is
not explored from again: an actor does the same again when it has been told the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from greenlet import GreenletExit, getcurrent, greenlet

from tests.explorer.pictures import is_last_look, picture

DIES = "dies"
LOOKS = "reads the database"
MOST_STEPS = 200
"""Of one run: more mean that it goes on for ever."""


class Violation(AssertionError):
    """What must never be."""


class Waits(Exception):
    """Somebody who was to be alone waits for somebody else."""


class Choice(NamedTuple):
    """What may happen next."""

    label: str
    take: Callable[[], None]


class Actor(greenlet):
    """Somebody who does one thing after the other.

    ``told`` is what its operation under way has been answered so far, of which what it does next is a function.
    """

    def __init__(self, name: str, run: Callable[[], Any], *, mortal: bool = False) -> None:
        super().__init__(lambda how: run())
        self.name = name
        self.mortal = mortal
        self.label = "begins"
        self.hows: Sequence[str] = ()
        self.ready: Callable[[], bool] | None = None
        self.is_alive = True
        self.told: list[Any] = []
        self.floor: Any = None
        """What was acknowledged when the operation under way began."""
        self.last: Any = None
        """What the actor has seen last."""
        self.token: str | None = None
        self.is_writing = False
        self.owes: Callable[[], bool] = lambda: False
        """Of who delivers: whether there is something to deliver."""
        self.is_forgotten = False
        """Its lease ended too early, or the store lost who is under way: if it dies, nothing is promised."""
        self.process = ""
        """Where it reads or writes."""
        self.reads: tuple[str, ...] | None = None
        """What a reader has yet to read, what it is at included; ``None``: it writes."""
        self.writes: tuple[str, ...] = ()
        self.read: Any = None
        """Of the read under way: what it looked up, if it may fill; what the database said; the load it leads or
        waits for."""
        self.value: Any = None
        self.flight: Any = None
        self.waits = False
        self.arrived = 0
        self.wrote: dict[str, int] = {}
        """Which versions its last commit made."""

    @property
    def goes_on(self) -> bool:
        return self.is_alive and not self.dead and (self.ready is None or self.ready())

    @property
    def is_at_it(self) -> bool:
        """Whether it would make a difference if it died."""
        return self.is_writing or self.owes()

    def go_on(self, how: str = "") -> None:
        """Do the next step in one of the ways (``hows``) that it may go, and all that nobody can see after it."""
        paused = self.switch(how)
        if not self.dead:
            self.label, self.hows, self.ready = paused


def pause(label: str, hows: Sequence[str] = (), ready: Callable[[], bool] | None = None) -> str:
    """Let others go on; return in which way the step ``label`` is to go: as it should (``""``) or one of ``hows``."""
    how: str = getcurrent().parent.switch((label, hows, ready))
    return how


def alone(name: str, run: Callable[[], Any]) -> None:
    """Run an actor to its end while nobody else does anything."""
    actor = Actor(name, run)
    actor.go_on()
    while actor.goes_on:
        actor.go_on()
    if not actor.dead:
        actor.throw(GreenletExit)
        raise Waits(f"{name} waits for somebody: {actor.label}")


class World(Protocol):
    """What actors share."""

    actors: list[Actor]
    budget: dict[str, int]
    """How often each kind of fault may still happen."""
    reduces: bool
    """Whether orders may be left out that make no difference."""

    def died(self, actor: Actor) -> None:
        """Let a writer be dead."""

    def events(self) -> Iterable[Choice]:
        """Return what may happen that is no actor's doing."""

    def fingerprint(self) -> Any:
        """Return all that what happens from now on may depend on, but for the actors."""

    def essence(self, told: Any) -> Any:
        """Return of what an actor was told what it decides by."""

    def settled(self) -> None:
        """Look at the world when nothing happens any more. Raises :class:`Violation`."""

    def look(self) -> None:
        """Read what the actors read, alone. Raises :class:`Violation`."""

    def close(self) -> None:
        """Forget everything."""


class Found(NamedTuple):
    """A violation and a shortest part of the steps that led to it."""

    what: str
    steps: tuple[str, ...]

    def __str__(self) -> str:
        told = "\n".join(f"{number:>4}. {step}" for number, step in enumerate(self.steps, 1))
        return f"{told}\n      => {self.what}"


@dataclass
class Report:
    """What came of an exploration."""

    states: int = 0
    runs: int = 0
    steps: int = 0
    ends: int = 0
    violations: set[str] = field(default_factory=set)
    """All that was found, if it was not to stop at the first."""
    found: Found | None = None
    complete: bool = True

    def __str__(self) -> str:
        whole = "all" if self.complete else "only"
        counts = f"{whole} {self.states} states, {self.ends} ends, {self.runs} runs, {self.steps} steps"
        return counts if self.found is None else f"{counts}\n{self.found}"


Path = tuple[Any, ...]
"""Labels of the choices taken, as nested pairs: ``((), first), second``..."""


def explore(make: Callable[[], World], *, most: int | None = None, stops: bool = True) -> Report:
    """Run what ``make`` makes in every order, or until ``most`` states were seen; stop at the first violation.

    Unless it ``stops``: then note which there are, and go on elsewhere.
    """
    report = Report()
    seen: set[bytes] = set()
    waiting: list[Path] = [()]
    while waiting:
        path = waiting.pop()
        if most is not None and report.states >= most:
            report.complete = False
            break
        report.runs += 1
        world = make()
        labels = flat(path)
        try:
            _go(world, labels)
            while True:
                report.steps += 1
                state = picture(world)
                if state in seen:
                    break
                seen.add(state)
                report.states += 1
                choices = choices_of(world)
                if not choices:
                    report.ends += 1
                    _end(world)
                    break
                waiting += [(path, choice.label) for choice in choices[1:]]
                path = (path, choices[0].label)
                labels.append(choices[0].label)
                assert len(labels) < MOST_STEPS, labels
                choices[0].take()
        except Violation as violation:
            if not stops:
                report.violations.add(str(violation))
                continue
            report.found = shortened(make, labels, str(violation))
            report.complete = False
            return report
        finally:
            _close(world)
    return report


def flat(path: Path) -> list[str]:
    labels = []
    while path:
        path, label = path
        labels.append(label)
    return labels[::-1]


def choices_of(world: World) -> list[Choice]:
    """Return what may happen next."""
    found: list[Choice] = []
    for actor in world.actors:
        if not actor.goes_on:
            continue
        go_on = Choice(f"{actor.name} {actor.label}", actor.go_on)
        if world.reduces and actor.label == LOOKS and is_last_look(actor):
            return [go_on]
        found.append(go_on)
        for how in actor.hows:
            if world.budget.get(how, 0) > 0:
                found.append(Choice(f"{actor.name} {actor.label}, {how}", _spending(world, actor, how)))
        if actor.mortal and actor.is_at_it and world.budget.get(DIES, 0) > 0:
            found.append(Choice(f"{actor.name} dies before it {actor.label}", _dying(world, actor)))
    found.extend(world.events())
    return found


def _spending(world: World, actor: Actor, how: str) -> Callable[[], None]:
    def take() -> None:
        world.budget[how] -= 1
        actor.go_on(how)

    return take


def _dying(world: World, actor: Actor) -> Callable[[], None]:
    def take() -> None:
        world.budget[DIES] -= 1
        actor.is_alive = False
        world.died(actor)

    return take


def _go(world: World, labels: Iterable[str]) -> None:
    """Take the choices with these labels again."""
    for label in labels:
        going = [Choice(f"{one.name} {one.label}", one.go_on) for one in world.actors if one.goes_on]
        known = [choice for choice in going if choice.label == label]
        for choice in known or choices_of(world):
            if choice.label == label:
                choice.take()
                break
        else:
            raise AssertionError(f"not the same again: nobody {label!r}")


def _end(world: World) -> None:
    waiting = [actor for actor in world.actors if actor.is_alive and not actor.dead]
    if waiting:
        raise Violation(f"nobody goes on: {', '.join(f'{one.name} {one.label}' for one in waiting)}")
    world.settled()


def _close(world: World) -> None:
    world.close()
    for actor in world.actors:
        while not actor.dead:
            actor.throw(GreenletExit)


def shortened(make: Callable[[], World], labels: list[str], what: str) -> Found:
    """Leave out steps for as long as what is left is still wrong."""
    at = len(labels) - 1
    while at >= 0:
        shorter = follow(make, labels[:at] + labels[at + 1 :])
        if shorter is not None and len(shorter[0]) < len(labels):
            labels, what = shorter
            at = min(at, len(labels))
        at -= 1
    return Found(what, tuple(labels))


def follow(make: Callable[[], World], labels: Sequence[str]) -> tuple[list[str], str] | None:
    """Take these steps, those of them that can be; return them and what was wrong then, or ``None`` if nothing was."""
    world = make()
    taken: list[str] = []
    try:
        for label in labels:
            choice = next((one for one in choices_of(world) if one.label == label), None)
            if choice is not None:
                taken.append(label)
                choice.take()
        if choices_of(world):
            with suppress(Waits):
                world.look()
        else:
            _end(world)
    except Violation as violation:
        return taken, str(violation)
    finally:
        _close(world)
    return None
