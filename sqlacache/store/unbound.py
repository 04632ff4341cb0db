"""What becomes of the stores of databases of which no engine is bound any more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any


def unneeded(
    stores: Mapping[str, Any],
    bound: Collection[str],
    awaited: Collection[str],
    is_being_written: Callable[[Any], bool] = lambda store: False,
) -> list[str]:
    """Forget the entries of every database that is not ``bound``; return those of which nothing is needed any more.

    A store is needed as long as writers are ``awaited``, and one that has their marks as long as they may be at their
    COMMIT: whoever binds the database meanwhile must find them.
    """
    idle = [database for database in stores if database not in bound]
    for database in idle:
        stores[database].delete_everything()
    return [one for one in idle if one not in awaited and not is_being_written(stores[one])]
