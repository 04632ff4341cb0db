"""What was found wrong with writes by the database, each with its cause."""

from __future__ import annotations

from tests.support.databases import Database
from tests.support.situations import Situation, check, situations
from tests.support.writes import in_session

from .schema import create_places
from .setups import Bind
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
