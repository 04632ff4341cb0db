"""What was found wrong with values, each with its cause."""

from __future__ import annotations

from sqlalchemy import select

from tests.support.reading import Reader

from .support_exact import SQLITE_ONLY, exactly, furnished, raw_rows
from .support_kinds import Thing, furnish

sqlite_databases, postgresql_databases = furnished(furnish)


# read/replay.py, _same_list: takes a list of values that are lists for one of tuples; "rewritten".
async def test_a_list_of_values_that_are_lists_is_cached(reader: Reader) -> None:
    read = exactly(
        raw_rows(lambda: select(Thing.id).where(Thing.pair.in_([[1, 2], [2, 1]])).order_by(Thing.id))
    )
    await reader.warm(read)


# store/values.py: sqlite3.Binary, which LargeBinary's bind processor makes, is a memoryview; "unkeyable_params".
# The patch is small (canonical walkers turn one into an extension of their own), but tests/store/test_values.py says
# that encode_values() refuses memoryviews.
@SQLITE_ONLY
async def test_a_read_by_bytes_is_cached_on_sqlite(reader: Reader) -> None:
    await reader.warm(exactly(raw_rows(lambda: select(Thing.id).where(Thing.blob == b"x"))))
    await reader.warm(exactly(raw_rows(lambda: select(Thing.id).where(Thing.sealed.in_(["x", "y"])))))
