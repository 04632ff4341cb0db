"""What is mapped: the tables and mappers of the process.

SQLAlchemy's private surface of this concern, tested on 1.4, 2.0 and 2.1 (``tests/core/test_models.py``):
``orm.mapper._all_registries`` (every declarative or imperative registry), and ``_managers`` of a registry, because its
``mappers`` raises when a class is not mapped yet (``DeferredReflection`` before ``prepare()``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.mapper import _all_registries
from sqlalchemy.schema import Table

__all__ = ["Models", "is_mapped"]


def is_mapped(model: type) -> bool:
    """Tell whether a class is mapped."""
    try:
        return isinstance(inspect(model), Mapper)
    except NoInspectionAvailable:
        return False


class Models:
    """Mappers by table, and tables by name, looked up anew when something unknown is asked for."""

    def __init__(self) -> None:
        self._mappers: dict[Table, list[Mapper[Any]]] = {}
        self._tables: dict[str, list[Table]] = {}
        self._seen: frozenset[Mapper[Any]] | None = None

    def refresh(self) -> None:
        """Look at every registry again.

        Mappers know their tables before they are configured. To have them configured is for those who use them: one
        that cannot be would otherwise break a read, or a COMMIT, which has nothing to do with it.
        """
        mappers: list[Mapper[Any]] = [
            manager.mapper
            for registry in _all_registries()
            for manager in list(registry._managers)
            if manager.is_mapped
        ]
        seen = frozenset(mappers)
        if seen == self._seen:
            return
        by_table: dict[Table, list[Mapper[Any]]] = {}
        tables: dict[str, list[Table]] = {}
        for mapper in mappers:
            for table in mapper.tables:
                if isinstance(table, Table):
                    by_table.setdefault(table, []).append(mapper)
                    for other in table.metadata.tables.values():
                        named = tables.setdefault(other.fullname, [])
                        if not any(table is other for table in named):
                            named.append(other)
        for named in tables.values():
            named.sort(key=lambda table: sorted(column.name for column in table.columns))
        self._mappers, self._tables = by_table, tables
        self._seen = seen  # last: another thread that finds nothing new takes what is there

    def all(self) -> frozenset[Mapper[Any]]:
        """Return every mapper."""
        self.refresh()
        return self._seen or frozenset()

    def mappers(self, table: Table) -> Sequence[Mapper[Any]]:
        """Return the mappers of ``table``, inheriting ones included."""
        if table not in self._mappers:
            self.refresh()
        return self._mappers.get(table, ())

    def named(self, name: str) -> Sequence[Table]:
        """Return the tables of a full name: several, when several metadata have one of that name."""
        if name not in self._tables:
            self.refresh()
        return self._tables.get(name, ())

    def table(self, name: str) -> Table | None:
        """Return the table of a full name; of several, always the same one."""
        named = self.named(name)
        return named[0] if named else None

    def tables(self) -> dict[str, Table]:
        """Return every table of a metadata that something is mapped to, by full name."""
        self.refresh()
        return {name: named[0] for name, named in self._tables.items()}
