"""What was found wrong with writes by the database, each with its cause."""

from __future__ import annotations

from sqlalchemy import insert, select

from tests.support.databases import Database
from tests.support.models import Tag, Team
from tests.support.reads import entities, rows
from tests.support.situations import Situation, check, situations
from tests.support.writes import add, execute_on_connection, in_session

from .schema import create_places
from .setups import ON_POSTGRESQL, Bind, prepare
from .test_writes_by_the_database import _delete_n, cities_of, delete_city, delete_region, streets_of

PRECISE = [
    Situation(
        "a_deleted_parent_leaves_the_children_of_others",
        cities_of("n"),
        in_session(delete_region),
        cities_of("s"),
    ),
    Situation(
        "a_deleted_child_leaves_the_grandchildren_of_others",
        streets_of(1),
        in_session(delete_city),
        streets_of(2),
    ),
    Situation("a_delete_by_statement_leaves_others", cities_of("n"), _delete_n, cities_of("s")),
]


@situations(PRECISE)
async def test_the_database_cascades_to_the_rows_that_refer(
    situation: Situation, database: Database, bind: Bind
) -> None:
    await create_places(database)
    await check(situation, await bind())


TEAMS = entities(lambda: select(Team).order_by(Team.id))
ZED = rows(lambda: select(Tag.id, Tag.name).where(Tag.name == "zed").order_by(Tag.id))
insert_a_tag = execute_on_connection(lambda _: insert(Tag.__table__).values(name="new"))
RENAMED = [
    Situation("is_seen_after_a_flush", ZED, add(lambda: Tag(name="new")), TEAMS),
    Situation("is_seen_after_a_statement", ZED, insert_a_tag, TEAMS),
]


@ON_POSTGRESQL
@situations(RENAMED)
async def test_a_value_that_a_trigger_gave_to_a_row_with_a_key_of_the_database(
    situation: Situation, database: Database, bind: Bind
) -> None:
    """
    1. A BEFORE INSERT trigger sets the name of each tag to ``zed``; the tags of that name are read.
    2. A tag is inserted as ``new``, without a key. No value of the row is noted, since the trigger may set any.
    3. The key became known, and the row was noted again with what had been sent, in place of what 2 noted.
    4. The commit touched the tags called ``new``; those called ``zed`` were served without the new one.
    """
    await prepare(
        database,
        "CREATE FUNCTION renames() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.name := 'zed'; RETURN NEW; END $$",
        "CREATE TRIGGER renames BEFORE INSERT ON tags FOR EACH ROW EXECUTE FUNCTION renames()",
    )
    await check(situation, await bind())
