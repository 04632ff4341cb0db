"""What a world is made of: its database, its processes, and commits that may still come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlacache.write.owed import Owed
from tests.explorer.bank import bank
from tests.explorer.standins import Path, Value

if TYPE_CHECKING:
    from tests.explorer.world import World

Versions = dict[str, int]


class Data:
    """The database: a version per table, which every commit that writes the table raises."""

    def __init__(self) -> None:
        self.versions: Versions = {"accounts": 0, "owners": 0}
        self.ever = [dict(self.versions)]

    def commit(self, tables: Iterable[str]) -> Versions:
        for table in tables:
            self.versions[table] += 1
        self.ever.append(dict(self.versions))
        return {table: self.versions[table] for table in tables}

    def read(self, tables: Sequence[str]) -> Value:
        return tuple(self.versions[table] for table in tables)

    def was(self, tables: Sequence[str], value: Value) -> bool:
        """Tell whether a value was ever committed."""
        return any(tuple(then[table] for table in tables) == value for then in self.ever)


@dataclass(eq=False)
class Left:
    """A commit of which its writer does not know whether it will come; its stamps stay in flight to the lease's end."""

    writer: str
    token: str | None
    tables: tuple[str, ...]
    may_land: bool = True
    wrote: Versions = field(default_factory=dict)


class Process:
    """What one process has."""

    def __init__(self, world: World, name: str, store: Any) -> None:
        self.name = name
        self.bank = bank(name)
        self.binding: Any = self.bank.binding
        self.binding.store = store
        self.binding.owed = Owed(self.binding.manager, self.binding.database)
        self.binding.dirty.clear()
        self.path = Path(self.binding)
        self.writes = self.binding.writes
        self.acknowledged: Versions = {"accounts": 0, "owners": 0}
        """Which versions its readers have to see at least."""
        self.owing: Versions = {}
        """Which of those are not delivered to the others."""
        self.is_mortal = False
        """Whether all of it dies with one of its actors."""
        self.tokens: list[str] = []
        """Of its writers."""

    def tables_of(self, what: str) -> Sequence[str]:
        plan = self.bank.reads[what].plan
        assert plan is not None
        return plan.tables
