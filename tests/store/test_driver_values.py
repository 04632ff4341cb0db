"""What real drivers return comes back from its byte form exactly: description, types and values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from sqlacache.errors import SerializationError
from sqlacache.store.codec import SafeCodec
from tests.store.samples import same

POSTGRESQL = """
select null, true, 7::smallint, 7, 9223372036854775807::bigint, 1.5::real, 'NaN'::float8, '-0'::float8,
  1.50::numeric(6, 2), 'NaN'::numeric, 1e40::numeric, 'text', 'padded '::char(9), '\\x00ff'::bytea,
  date '2024-02-29', 'infinity'::date, time '12:30:01.5', timetz '12:30+02', timestamp '2024-02-29 12:30:01.000001',
  'infinity'::timestamp, timestamptz '2024-02-29 12:30+05', '-infinity'::timestamptz, interval '1 day 2 hours -3 us',
  '12345678-1234-5678-9234-567812345678'::uuid, '{"a": [1, null]}'::json, '{"a": [1, null]}'::jsonb,
  '10.0.0.1'::inet, '10.0.0.0/8'::cidr, '2001:db8::1/64'::inet, '08:00:2b:01:02:03'::macaddr, 12.5::money::text,
  array[1, 2, null], array[['a'], ['b']], array[1.50, 2], array['12345678-1234-5678-9234-567812345678'::uuid],
  '{}'::text[], int4range(1, 5), numrange(1.5, null, '(]'), 'empty'::daterange,
  tstzrange('2024-01-01 00:00+00', '2024-01-02 00:00+00'), b'101', varbit '', point '(1, 2)', box '((1, 2), (3, 4))',
  line '{1, 2, 3}', lseg '[(1, 2), (3, 4)]', path '[(1, 2), (3, 4)]', path '((1, 2), (3, 4))',
  polygon '((0, 0), (1, 0), (1, 1))', circle '<(1, 2), 3>', to_tsvector('a b'), 'pg_class'::regclass,
  1::oid, 'a'::name, '"'::"char"
"""
SQLITE = """
select null, 1, -9223372036854775808, 1.5, 9e999, 'text', x'00ff', 1 = 1, ''
union all select 1, 2, 3, 4, 5, 6, 7, 8, 9
"""


async def returned(url: str, sql: str) -> tuple[Any, Any]:
    """Description and rows as SQLAlchemy's cursor has them, before any result processor."""
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            cursor: Any = await connection.run_sync(lambda sync: sync.exec_driver_sql(sql).cursor)
            return cursor.description, cursor.fetchall()
    finally:
        await engine.dispose()


def check(description: Any, rows: Any) -> None:
    codec, rows = SafeCodec(), [tuple(row) for row in rows]
    stored = codec.decode_rows(codec.encode_rows(description, rows))
    assert same(stored.description, tuple(map(tuple, description)))
    assert [pair for row in zip(rows, stored.rows) for pair in zip(*row) if not same(*pair)] == []


async def test_every_type_that_aiosqlite_returns_comes_back_exactly(tmp_path: Path) -> None:
    check(*await returned(f"sqlite+aiosqlite:///{tmp_path / 'values.db'}", SQLITE))


@pytest.mark.integration
async def test_every_type_that_asyncpg_returns_comes_back_exactly(postgres_url: str) -> None:
    description, rows = await returned(postgres_url, POSTGRESQL)
    assert len(rows[0]) > 50
    check(description, rows)


@pytest.mark.integration
async def test_a_composite_type_of_postgresql_is_refused(postgres_url: str) -> None:
    description, rows = await returned(postgres_url, "select d from pg_depend d limit 1")
    with pytest.raises(SerializationError, match="Record"):
        SafeCodec().encode_rows(description, [tuple(row) for row in rows])
