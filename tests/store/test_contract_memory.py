"""The memory store keeps the contract of all stores, and so does a model of a server that loses what it can."""

from __future__ import annotations

from tests.store.stores import LosingContract, MemoryContract


class TestMemory(MemoryContract):
    pass


class TestLosing(LosingContract):
    pass
