"""In memory, a COMMIT that took longer than the lease left reads stale that were new to the cache meanwhile.

1. A writer marks what it touches: the shapes that are registered.
2. Its lease ends before its COMMIT lands. Nobody knows any more that it is under way.
3. A reader with another shape comes: the shape is registered, the old rows are read and filled.
4. The database commits. The writer settles what it touched in step 1, which the reader's entry does not depend on.
5. The entry was served until its timeout, long after ``commit()`` had returned.

On Redis, a writer that finds itself forgotten replaces the table's stamp. Here, it did not. The explorer found it
(``tests/explorer``, "a writer outlives its lease").
"""

from __future__ import annotations

import pytest
from sqlalchemy import select

from tests.support.gates import before_commit
from tests.support.models import User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import get, rows
from tests.support.writes import change

pytestmark = pytest.mark.skipif(UNCACHED, reason="is about the cache's stamps")


async def test_a_shape_that_came_after_the_lease_is_touched_all_the_same(reader: Reader) -> None:
    store = reader.cache.bindings[0].store
    if not hasattr(store, "end_leases"):
        pytest.skip("is about the store in memory; for all of them, it is in the contract")
    known = get(User, 1)
    new = rows(lambda: select(User.id, User.name).order_by(User.id))
    await reader.warm(known)
    async with before_commit(reader.database) as gate:
        slow = await gate.reached_by(change(User, 1, name="zed")(reader.database))
        store.end_leases()
        await reader.ask(new)
        gate.open()
        await slow
    await reader.current(new)
    await reader.current(known)
    await reader.hit(new)
    await reader.hit(known)
