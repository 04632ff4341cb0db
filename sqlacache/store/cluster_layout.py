"""Names of keys on a cluster: all keys of a table share a hash tag, so that one script may touch them.

The tag of a table is ``{database:table}``; what belongs to no table (the stamp of everything, the mode) has
``{prefix}``. Each tag has a generation and a fence of its own, as if it were a server of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from urllib.parse import quote

from ..tags import EVERYTHING, table_stamp
from .layout import Layout, _escaped
from .records import PROTOCOL

_SAFE = "/@+=,."
_TABLE = table_stamp("")
"""What a table's stamp ends with."""
_AFTER_NAME = "#:?("
"""What follows the table in the names of its stamps."""


class ClusterLayout(Layout):
    """Keys of one database under one prefix, on a cluster."""

    def __init__(self, prefix: str, database: str, protocol: int = PROTOCOL, scheme: int = 0) -> None:
        self._roots: dict[str, str] = {}
        super().__init__(prefix, database, protocol, scheme)

    def _tag(self, table: str) -> str:
        return self.prefix if table == EVERYTHING else f"{self.database}:{quote(table, safe=_SAFE)}"

    def _root(self, table: str) -> str:
        root = self._roots.get(table)
        if root is None:
            tag = self._tag(table or EVERYTHING)
            database = self.database + ":" if table in ("", EVERYTHING) else ""
            root = self._roots[table] = f"{self.prefix}:{self.protocol}:{{{tag}}}{database}"
        return root

    def generation(self, table: str) -> str:
        """``protocol|run id|nonce`` of the node that has the table's slot, as we know it."""
        return f"{self.prefix}:generation:{{{self._tag(table)}}}"

    def fence(self, table: str) -> str:
        return f"{self.prefix}:fence:{{{self._tag(table)}}}"

    @property
    def mode(self) -> str:
        return f"{self.prefix}:mode:{{{self.prefix}}}"

    def entry(self, key: str, table: str) -> str:
        return f"{self._root(table)}e:{key}"

    def stamp(self, name: str, table: str) -> str:
        return f"{self._root(table)}s:{name}"

    def stamps(self, names: Sequence[str]) -> list[str]:
        keys = [""] * len(names)
        for table, places in self.by_table(names).items():
            root = f"{self._root(table)}s:"
            for place in places:
                keys[place] = root + names[place]
        return keys

    @property
    def entries(self) -> str:
        return f"{_escaped(self.prefix)}:{self.protocol}:{{{_escaped(self.database)}:*}}e:*"

    @staticmethod
    def by_table(names: Sequence[str]) -> dict[str, list[int]]:
        """Return which of ``names`` (table stamps first) belong to which table, in the order of the first ones."""
        stamps = takewhile(lambda name: name == EVERYTHING or name.endswith(_TABLE), names)
        tables = [name[: -len(_TABLE)] for name in stamps if name != EVERYTHING]
        found: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            found.setdefault(_table_of(name, tables), []).append(place)
        return found


def _table_of(name: str, tables: Sequence[str]) -> str:
    """Return the one of ``tables`` that a stamp belongs to: values in its name are escaped, so that it begins it."""
    if name == EVERYTHING:
        return EVERYTHING
    if len(tables) == 1:
        return tables[0]
    fitting = [
        table
        for table in tables
        if name.startswith(table) and name[len(table) :].startswith(tuple(_AFTER_NAME))
    ]
    if not fitting:
        return re.split(f"[{_AFTER_NAME}]", name, maxsplit=1)[0]
    return max(fitting, key=len)
