"""A shape in a table's registry that was damaged so that it could still be read kept lists stale.

1. The bytes of the shape ``users:*`` become those of a shape of another table. Nobody looks: who registered knows it.
2. The registry's revision changes. The next writer looks at the registry anew, and finds no shape ``users:*``.
3. It touches what it found. The list that depends on ``users:*`` was served until its timeout.

Found by ``make fuzz``. A shape lies under its own name, and one that does not is no shape: then the whole table goes.
"""

from __future__ import annotations

import pytest

from sqlacache.errors import SerializationError
from sqlacache.store.records import encode_shape
from sqlacache.store.redis_commit import _registry
from sqlacache.tags import Shape

LIST = Shape("users", (), None)
ROW = Shape("users", ("id",), None, keyed=True)
CONDITION = Shape("users", ("active", "plan"), frozenset({"id", "näme"}))


def flat(**shapes: Shape) -> list[bytes]:
    return [
        b"",
        b"1b2928bfaf180001",
        *(part for name, one in shapes.items() for part in (name.encode(), encode_shape(one))),
    ]


def test_shapes_under_their_own_names_are_known() -> None:
    given = (LIST, ROW, CONDITION)
    revision, shapes = _registry(flat(**{one.name: one for one in given}))
    assert (revision, shapes) == (b"1b2928bfaf180001", given)


@pytest.mark.parametrize(
    "other",
    [Shape("usErs", (), None), ROW, Shape("users", (), frozenset({"id"}))],
    ids=["another table", "another shape", "other columns"],
)
def test_a_shape_under_the_name_of_another_makes_the_registry_unreadable(other: Shape) -> None:
    with pytest.raises(SerializationError, match="name of another"):
        _registry(flat(**{ROW.name: ROW, LIST.name: other}))
