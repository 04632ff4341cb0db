"""What a store's test tells the contract: how to open a store, and how to make happen what a clause is about."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from unittest import SkipTest

from ...store.port import Store

VALUES: Mapping[str, Any] = {
    "nothing": None,
    "booleans": (True, False),
    "integers": (0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(3**500)),
    "floats": (0.1, 1.0, -0.0, float("nan"), float("inf"), float("-inf")),
    "text": ("", "naïve £ 😀 \x00", "1", "a" * 1000),
    "bytes": (b"", bytes(range(256))),
    "decimals": (
        Decimal("-12.3400"),
        Decimal("1E+30"),
        Decimal("-0.00"),
        Decimal("NaN"),
        Decimal("Infinity"),
    ),
    "dates": (date.min, date.max),
    "datetimes": (
        datetime(2024, 2, 29, 12, 30, 1, 2),
        datetime(2024, 10, 27, 2, 30, fold=1),
        datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=timezone.utc),
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-5, seconds=7))),
    ),
    "times": (time(23, 59, 59, 999999), time(1, 2, tzinfo=timezone(timedelta(hours=2)))),
    "timedeltas": (timedelta(days=-3, seconds=5, microseconds=7), timedelta.max),
    "uuid": uuid.UUID("12345678-1234-5678-9234-567812345678"),
    "addresses": (
        ipaddress.ip_address("10.0.0.1"),
        ipaddress.ip_network("2001:db8::/32"),
        ipaddress.ip_interface("10.0.0.1/8"),
    ),
    "frozenset": frozenset({1, "a", None}),
    "list": [1, "a", None, [2.5, [b"x"]], Decimal("1.10")],
    "dict": {"b": 1, "a": [None, {"c": date(2024, 1, 1)}], 1: "int", (1, "x"): "tuple"},
    "set": {1, "a", (2, 3)},
    "bytearray": bytearray(b"abc"),
}
"""One column's value each; those after ``frozenset`` are mutable."""


class StoreHooks:
    """A backend's test overrides :meth:`open` and, where it must or can, the others.

    A hook that a backend cannot carry out returns ``NotImplemented``, as all but the first two do here: clauses that
    need it are then skipped and say so. Every hook but :meth:`run` is called inside :meth:`run`.
    """

    values: Mapping[str, Any] = VALUES
    """Values that entries must bring back exactly, by a name for people."""
    orders = 100
    """How many random orders of readers, writers and losses are tried."""

    def open(self, database: str = "main", prefix: str = "contract") -> Store:
        """Return the store of ``database`` under ``prefix``. What a test opens first is empty.

        Opened with other names, it must be another store, as another cache on the same server would have it.
        """
        raise NotImplementedError

    def run(self, test: Callable[[], None]) -> None:
        """Run one clause, which uses stores as the engine does: by plain calls.

        A store that awaits needs ``asyncio.run(greenlet_spawn(test))``, and the place to close what was opened is
        after it. What ``test`` raises must come out.
        """
        test()

    def another(self, store: Store) -> Any:
        """Return a second store object on the same data, as another process would have."""
        return NotImplemented

    def end_leases(self, store: Store) -> Any:
        """Make the lease of every writer under way end now."""
        return NotImplemented

    def lose(self, store: Store, name: str) -> Any:
        """Lose one stamp, as a server that is short of memory does."""
        return NotImplemented

    def lose_registry(self, store: Store, table: str) -> Any:
        """Lose the registered shapes of ``table``."""
        return NotImplemented

    def lose_writers(self, store: Store, table: str) -> Any:
        """Lose who is under way on ``table``; the marks on stamps stay."""
        return NotImplemented

    def expire(self, store: Store, key: str) -> Any:
        """Make the entry ``key`` expire now."""
        return NotImplemented

    def change_generation(self, store: Store) -> Any:
        """Make it another server, or the same one back in time, with all its entries and stamps in place."""
        return NotImplemented

    def stamp_ttl(self, store: Store, name: str) -> Any:
        """Return the seconds that a stamp has yet to live."""
        return NotImplemented

    # -- for the clauses -----------------------------------------------------------------------------------------------

    def _do(self, hook: str, *arguments: Any) -> Any:
        """Call a hook; skip the test when the backend cannot."""
        result = getattr(self, hook)(*arguments)
        if result is NotImplemented:
            raise SkipTest(f"{type(self).__name__} has no {hook}()")
        return result

    def _can(self, hook: str, *arguments: Any) -> bool:
        """Call a hook; tell whether the backend can."""
        return getattr(self, hook)(*arguments) is not NotImplemented


def clause(test: Callable[[Any, Store], None]) -> Callable[[Any], None]:
    """Make a test method of what is to be shown of a fresh store."""

    def shown(self: StoreHooks) -> None:
        self.run(lambda: test(self, self.open()))

    shown.__name__, shown.__qualname__, shown.__doc__ = test.__name__, test.__qualname__, test.__doc__
    return shown
