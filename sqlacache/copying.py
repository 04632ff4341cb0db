"""Copying what other threads, or finalisers, change meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def copied(found: Iterable[T]) -> tuple[T, ...]:
    """Return what is in a collection that others add to and remove from without a lock."""
    while True:
        try:
            return tuple(found)
        except RuntimeError:  # somebody did meanwhile, and the collection has changed
            continue
