"""What was found wrong with who sees what, each with its cause."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, sessionmaker

from tests.support.databases import Database, make_sessions
from tests.support.models import Tag
from tests.support.situations import BY_WRITE
from tests.support.writes import change

from .setups import ON_POSTGRESQL, Bind, prepare
from .test_who_sees_what import LEVELS, OTHER_SCHEMA, ask, database_change, names, table, tag_names, teams


@ON_POSTGRESQL
@pytest.mark.parametrize("level", LEVELS)
async def test_an_old_snapshot_does_not_fill_where_isolation_is_relaxed(
    level: str, database: Database, bind: Bind
) -> None:
    """
    1. A transaction takes its snapshot.
    2. A writer commits. There is no entry yet.
    3. The transaction reads what was before: a miss, which may not be stored.
    """
    reader = await bind(isolation="relaxed")
    engine = database.engine.execution_options(isolation_level=level)
    async with make_sessions(engine)() as session:
        await reader.ask(teams, session)
        await database_change(database)
        old = await reader.ask(names, session)
        assert (1, "ann") in table(old)
    await reader.current(names)
    async with make_sessions(engine)() as session:
        assert (await reader.ask(names, session)).hits, "relaxed: served"


@ON_POSTGRESQL
async def test_a_role_survives_reset_all(database: Database, bind: Bind) -> None:
    """RESET ALL leaves ROLE as it is: only RESET ROLE and DISCARD ALL take it back."""
    reader = await bind()
    await prepare(database, "GRANT SELECT ON teams TO pg_monitor")
    await reader.warm(teams)
    async with database.sessions() as session:
        await session.execute(text("SET ROLE pg_monitor"))
        await session.execute(text("RESET ALL"))
        answer = await reader.ask(teams, session)
        assert (await session.execute(text("SELECT current_user"))).scalar() == "pg_monitor"
        assert [d.reason for d in answer.decisions] == ["connection_state"]


@ON_POSTGRESQL
@pytest.mark.parametrize("local", ["", "LOCAL "], ids=["set", "set_local"])
async def test_an_after_begin_listener_that_sets_the_tenants_search_path(
    local: str, database: Database, bind: Bind
) -> None:
    """A hit would begin no transaction: nothing would have set the path."""
    await prepare(database, *OTHER_SCHEMA)
    reader = await bind()

    class Tenant(Session):
        pass

    def begun(session: Any, transaction: Any, connection: Any) -> None:
        connection.execute(text(f"SET {local}search_path TO other, public"))

    event.listen(Tenant, "after_begin", begun)
    tenant = sessionmaker(bind=database.engine, class_=AsyncSession, sync_session_class=Tenant)
    for _ in range(2):
        assert table(await ask(reader, tenant, tag_names)) == [(1, "other")]
        if local:
            await reader.current(tag_names)


@ON_POSTGRESQL
async def test_translated_schemas_are_apart_and_each_is_evicted_by_its_own_writes(
    database: Database, bind: Bind
) -> None:
    await prepare(database, *OTHER_SCHEMA)
    reader = await bind()
    other = make_sessions(database.engine.execution_options(schema_translate_map={None: "other"}))
    for _ in range(2):
        assert table(await ask(reader, other, tag_names)) == [(1, "other")]
        assert len(table(await reader.current(tag_names))) == 3
    async with other() as session:
        (await session.get(Tag, 1)).name = "gold"
        await session.commit()
    answer = await ask(reader, other, tag_names)
    assert table(answer) == [(1, "gold")]
    await reader.hit(tag_names)
    await change(Tag, 1, name="silver")(database)
    await reader.miss(tag_names, BY_WRITE)
    assert (await ask(reader, other, tag_names)).hits
