"""One generator of programs, two sources of choices: hypothesis, which shrinks, and a seeded ``random``."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Choices(Protocol):
    """Where a generated program's choices come from."""

    def of(self, options: Sequence[T]) -> T:
        """One of ``options``; earlier ones are simpler."""


class Seeded:
    """Choices of a seeded generator: the same seed, the same program, on every Python."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def of(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]


class Drawn:
    """Choices of hypothesis."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self._draw = draw

    def of(self, options: Sequence[T]) -> T:
        return self._draw(st.sampled_from(options))  # type: ignore[no-any-return]


def strategy(make: Callable[[Choices], T]) -> st.SearchStrategy[T]:
    """A hypothesis strategy of what ``make`` makes."""

    @st.composite
    def drawn(draw: Any) -> T:
        return make(Drawn(draw))

    return drawn()


def weighted(**weights: int) -> tuple[str, ...]:
    """Names, each as often as its weight says, in the order given."""
    return tuple(name for name, weight in weights.items() for _ in range(weight))
