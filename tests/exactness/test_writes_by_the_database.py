"""What the database writes by itself: cascades through two levels, triggers, rules, generated columns, partitions."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from tests.support.databases import Database
from tests.support.models import Tag, Team, User
from tests.support.reading import Reader
from tests.support.reads import entities, follow, get, rows, scalar
from tests.support.situations import BY_KEY, BY_WRITE, Situation, check, situations
from tests.support.writes import add, change, execute, execute_on_connection, in_session

from .schema import Badge, Box, City, Note, Region, Street, Tally, Visitor, create_notes, create_places
from .setups import ON_POSTGRESQL, ON_SQLITE, Bind, prepare

TEAMS = entities(lambda: select(Team).order_by(Team.id))


def all_of(entity: Any) -> Any:
    return entities(lambda: select(entity).order_by(*entity.__table__.primary_key.columns))


def cities_of(code: str) -> Any:
    return rows(lambda: select(City.id, City.name).where(City.region_code == code).order_by(City.id))


def streets_of(city: int) -> Any:
    return rows(lambda: select(Street.id, Street.name).where(Street.city_id == city).order_by(Street.id))


def delete_region(session: Session) -> None:
    session.delete(session.get(Region, "n"))


def delete_city(session: Session) -> None:
    session.delete(session.get(City, 1))


def move_region(session: Session) -> None:
    session.get(Region, "n").code = "nn"


regions = Region.__table__
_delete_n = execute(lambda _: delete(Region).where(Region.code == "n"))
_move_n = execute(lambda _: update(Region).where(Region.code == "n").values(code="nn"))
_core_delete_n = execute_on_connection(lambda _: regions.delete().where(regions.c.code == "n"))
_replaced = execute(lambda _: text("DELETE FROM regions WHERE code = 'n'"))
region_names = rows(lambda: select(Region.name).order_by(Region.name))
visitor_names = rows(lambda: select(Visitor.id, Visitor.name).order_by(Visitor.id))

CASCADES = [
    Situation("a_deleted_parent_takes_its_children_along", all_of(City), in_session(delete_region), TEAMS),
    Situation(
        "a_deleted_parent_is_seen_by_a_get_of_its_child", get(City, 1), in_session(delete_region), TEAMS
    ),
    Situation(
        "a_deleted_parent_takes_the_children_of_its_children_along",
        all_of(Street),
        in_session(delete_region),
        TEAMS,
    ),
    Situation(
        "a_deleted_parent_is_seen_by_a_get_two_levels_down", get(Street, 1), in_session(delete_region), TEAMS
    ),
    Situation(
        "a_deleted_parent_unsets_a_reference_two_levels_down",
        get(Visitor, 1),
        in_session(delete_region),
        TEAMS,
    ),
    Situation(
        "a_deleted_parent_unsets_no_other_column",
        rows(lambda: select(Visitor.id, Visitor.city_id).order_by(Visitor.id)),
        in_session(delete_region),
        visitor_names,
    ),
    Situation(
        "a_deleted_child_leaves_its_parents",
        follow(Region, "n", "cities"),
        in_session(delete_city),
        all_of(Region),
    ),
    Situation("a_delete_by_statement", get(Street, 1), _delete_n, TEAMS),
    Situation("a_delete_by_core", get(Street, 1), _core_delete_n, TEAMS),
    Situation("a_delete_in_text", get(Street, 1), _replaced, TEAMS, raw=True),
    Situation(
        "a_delete_by_a_condition",
        get(Street, 1),
        execute(lambda _: delete(Region).where(Region.name == "north")),
        TEAMS,
    ),
    Situation("a_key_that_changes_is_passed_on", get(City, 1), in_session(move_region), TEAMS),
    Situation("a_key_that_changes_leaves_the_children_of_others", cities_of("n"), _move_n, cities_of("s")),
    Situation("a_key_that_changes_is_seen_under_the_new_key", cities_of("nn"), _move_n, TEAMS),
    Situation(
        "a_key_that_changes_is_passed_on_to_every_reference",
        get(Badge, 1),
        in_session(move_region),
        all_of(Street),
    ),
    Situation(
        "a_key_that_changes_is_passed_on_and_no_other_column",
        rows(lambda: select(City.id, City.region_code).order_by(City.id)),
        in_session(move_region),
        rows(lambda: select(City.id, City.name).order_by(City.id)),
    ),
    Situation(
        "a_column_that_nobody_refers_to",
        region_names,
        change(Region, "n", name="arctic"),
        cities_of("n"),
    ),
]


@situations(CASCADES)
async def test_the_database_cascades(situation: Situation, database: Database, bind: Bind) -> None:
    await create_places(database)
    await check(situation, await bind())


@ON_SQLITE
async def test_replace_of_a_parent_deletes_its_children(database: Database, bind: Bind) -> None:
    """SQLite carries REPLACE out as a DELETE of what is there: the foreign keys act."""
    await create_places(database)
    write = execute(lambda _: regions.insert().prefix_with("OR REPLACE").values(code="n", name="north"))
    await check(Situation("replace", get(Street, 1), write, TEAMS), await bind())


async def test_a_foreign_key_that_only_the_database_knows(database: Database, bind: Bind) -> None:
    """The metadata says nothing of the action."""
    if database.dialect == "sqlite":
        statements = [
            "CREATE TABLE lines2 AS SELECT * FROM order_lines",
            "DROP TABLE order_lines",
            "CREATE TABLE order_lines (id INTEGER NOT NULL PRIMARY KEY, order_id INTEGER NOT NULL"
            " REFERENCES orders (id) ON DELETE CASCADE, product VARCHAR(40) NOT NULL, quantity INTEGER NOT NULL)",
            "INSERT INTO order_lines SELECT id, order_id, product, quantity FROM lines2",
        ]
    else:
        statements = [
            "ALTER TABLE order_lines DROP CONSTRAINT order_lines_order_id_fkey",
            "ALTER TABLE order_lines ADD FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE",
        ]
    from tests.support.models import Order, OrderLine

    await prepare(database, *statements)
    await create_places(database)  # turns SQLite's foreign keys on
    reader = await bind()
    write = execute(lambda _: delete(Order).where(Order.id == 4))
    await check(Situation("cascade", get(OrderLine, 3), write, TEAMS), reader)


# -- triggers ----------------------------------------------------------------------------------------------------------

notes = Note.__table__
note_titles = rows(lambda: select(Note.id, Note.title).order_by(Note.id))
note_updates = rows(lambda: select(Note.id, Note.updated).order_by(Note.id))
tally = get(Tally, 1)
retitle = change(Note, 1, title="uno")


def on_shelf(shelf: str) -> Any:
    return entities(lambda: select(Note).where(Note.shelf == shelf).order_by(Note.id))


TOUCH = {
    "sqlite": [
        """CREATE TRIGGER touch_note AFTER UPDATE OF title ON notes BEGIN
            UPDATE notes SET updated = updated + 1 WHERE id = NEW.id; END"""
    ],
    "postgresql": [
        """CREATE FUNCTION touch_note() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN NEW.updated := OLD.updated + 1; RETURN NEW; END $$""",
        "CREATE TRIGGER touch_note BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touch_note()",
    ],
}
COUNT = {
    "sqlite": [
        """CREATE TRIGGER count_notes AFTER INSERT ON notes BEGIN
            UPDATE tallies SET notes = notes + 1; END"""
    ],
    "postgresql": [
        """CREATE FUNCTION count_notes() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN UPDATE tallies SET notes = notes + 1; RETURN NULL; END $$""",
        "CREATE TRIGGER count_notes AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION count_notes()",
    ],
}
DYNAMIC = [
    """CREATE FUNCTION count_notes() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN EXECUTE 'UPDATE ' || 'tall' || 'ies SET notes = notes + 1'; RETURN NULL; END $$""",
    "CREATE TRIGGER count_notes AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION count_notes()",
]


def new_note() -> Note:
    return Note(id=100, title="new", shelf="a")


STAMPED = [
    Situation("a_column_set_by_a_trigger_is_seen_by_a_get", get(Note, 1), retitle, TEAMS),
    Situation("a_column_set_by_a_trigger_is_seen_by_a_list_of_it", note_updates, retitle, TEAMS),
    Situation(
        "a_column_set_by_a_trigger_after_an_update_by_statement",
        note_updates,
        execute(lambda _: update(Note).where(Note.title == "one").values(title="uno")),
        all_of(Box),
    ),
]


@situations(STAMPED)
async def test_a_trigger_that_sets_a_column(situation: Situation, database: Database, bind: Bind) -> None:
    await create_notes(database)
    await prepare(database, *TOUCH[database.dialect])
    await check(situation, await bind())


async def test_a_trigger_on_a_row_leaves_the_gets_of_other_rows(database: Database, bind: Bind) -> None:
    await create_notes(database)
    await prepare(database, *TOUCH[database.dialect])
    await check(Situation("retitle", get(Note, 1), retitle, get(Note, 2)), await bind())


async def test_a_trigger_that_is_not_fired_takes_no_precision(database: Database, bind: Bind) -> None:
    await create_notes(database)
    await prepare(database, *COUNT[database.dialect])  # fires on INSERT only
    reader = await bind()
    await check(Situation("retitle", note_titles, retitle, note_updates), reader)
    await check(Situation("shelve", on_shelf("a"), change(Note, 1, title="due"), on_shelf("b")), reader)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
async def test_a_trigger_that_writes_another_table(
    declared: bool, database: Database, bind: Bind, caplog: pytest.LogCaptureFixture
) -> None:
    """What it writes can be read from its source where nothing in it is dynamic."""
    await create_notes(database)
    await prepare(database, *COUNT[database.dialect])
    with caplog.at_level(logging.WARNING, "sqlacache"):
        reader = await bind(**({"writes_also": {"notes": ["tallies"]}} if declared else {}))
    assert "count_notes" not in caplog.text
    await check(Situation("insert", tally, add(new_note), TEAMS), reader)


@ON_POSTGRESQL
async def test_a_trigger_that_writes_nobody_knows_what_evicts_everything_and_is_named(
    database: Database, bind: Bind, caplog: pytest.LogCaptureFixture, cached: None
) -> None:
    await create_notes(database)
    await prepare(database, *DYNAMIC)
    with caplog.at_level(logging.WARNING, "sqlacache"):
        reader = await bind()
    (warning,) = [record.getMessage() for record in caplog.records if "count_notes" in record.getMessage()]
    assert "writes_also" in warning
    assert "notes" in warning
    await reader.warm(tally, TEAMS)
    await add(new_note)(database)
    assert "table_invalidated" in {d.reason for d in (await reader.miss(tally, BY_WRITE)).misses}
    await reader.miss(TEAMS, BY_WRITE)
    await change(Note, 1, title="uno")(database)  # does not fire it
    await reader.hit(TEAMS)


@ON_POSTGRESQL
async def test_a_dynamic_trigger_that_is_declared_evicts_what_is_declared(
    database: Database, bind: Bind, caplog: pytest.LogCaptureFixture
) -> None:
    await create_notes(database)
    await prepare(database, *DYNAMIC)
    with caplog.at_level(logging.WARNING, "sqlacache"):
        reader = await bind(writes_also={"notes": ["tallies"]})
    assert "count_notes" not in caplog.text
    await check(Situation("insert", tally, add(new_note), TEAMS), reader)


CHAIN = {
    "sqlite": [
        """CREATE TRIGGER chain AFTER UPDATE ON tallies BEGIN
            UPDATE boxes SET width = width + 1; END"""
    ],
    "postgresql": [
        """CREATE FUNCTION chain() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN UPDATE boxes SET width = width + 1; RETURN NULL; END $$""",
        "CREATE TRIGGER chain AFTER UPDATE ON tallies FOR EACH ROW EXECUTE FUNCTION chain()",
    ],
}
THROUGH_AN_UNMAPPED_TABLE = {
    "sqlite": [
        "CREATE TABLE journal (n INTEGER)",
        "CREATE TRIGGER note_journal AFTER INSERT ON notes BEGIN INSERT INTO journal VALUES (1); END",
        "CREATE TRIGGER journal_box AFTER INSERT ON journal BEGIN UPDATE boxes SET width = width + 1; END",
    ],
    "postgresql": [
        "CREATE TABLE journal (n INTEGER)",
        """CREATE FUNCTION note_journal() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO journal VALUES (1); RETURN NULL; END $$""",
        "CREATE TRIGGER note_journal AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION note_journal()",
        """CREATE FUNCTION journal_box() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN UPDATE boxes SET width = width + 1; RETURN NULL; END $$""",
        "CREATE TRIGGER journal_box AFTER INSERT ON journal FOR EACH ROW EXECUTE FUNCTION journal_box()",
    ],
}


async def test_a_trigger_that_fires_another(database: Database, bind: Bind) -> None:
    await create_notes(database)
    await prepare(database, *COUNT[database.dialect], *CHAIN[database.dialect])
    await check(Situation("chain", get(Box, 1), add(new_note), TEAMS), await bind())


async def test_a_trigger_that_fires_another_by_way_of_a_table_without_a_class(
    database: Database, bind: Bind
) -> None:
    await create_notes(database)
    await prepare(database, *THROUGH_AN_UNMAPPED_TABLE[database.dialect])
    await check(Situation("chain", get(Box, 1), add(new_note), TEAMS), await bind())


async def test_a_trigger_fired_by_a_cascade(database: Database, bind: Bind) -> None:
    await create_places(database)
    statements = {
        "sqlite": ["CREATE TRIGGER gone AFTER DELETE ON streets BEGIN UPDATE teams SET name = 'gone'; END"],
        "postgresql": [
            """CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN UPDATE teams SET name = 'gone'; RETURN NULL; END $$""",
            "CREATE TRIGGER gone AFTER DELETE ON streets FOR EACH ROW EXECUTE FUNCTION gone()",
        ],
    }
    await prepare(database, *statements[database.dialect])
    await check(Situation("gone", TEAMS, in_session(delete_region), get(Tag, 1)), await bind())


INSTEAD = {
    "sqlite": [
        "CREATE VIEW shelves AS SELECT id, shelf FROM notes",
        """CREATE TRIGGER move_note INSTEAD OF UPDATE ON shelves BEGIN
            UPDATE notes SET shelf = NEW.shelf WHERE id = OLD.id; END""",
    ],
    "postgresql": ["CREATE VIEW shelves AS SELECT id, shelf FROM notes"],
}


async def test_a_view_that_is_written_through(database: Database, bind: Bind) -> None:
    """PostgreSQL writes simple views by itself; SQLite by an INSTEAD OF trigger."""
    from sqlalchemy import column, table

    await create_notes(database)
    await prepare(database, *INSTEAD[database.dialect])
    shelves = table("shelves", column("id"), column("shelf"))
    write = execute_on_connection(lambda _: shelves.update().where(shelves.c.id == 1).values(shelf="z"))
    reader = await bind()
    await reader.warm(on_shelf("a"), get(Note, 1))
    await write(database)
    await reader.miss(on_shelf("a"), BY_WRITE)
    await reader.miss(get(Note, 1), BY_WRITE)


RULES = {
    "also": "CREATE RULE also AS ON INSERT TO notes DO ALSO UPDATE tallies SET notes = notes + 1",
    "instead": "CREATE RULE moved AS ON INSERT TO notes DO INSTEAD UPDATE tallies SET notes = notes + 1",
}


@ON_POSTGRESQL
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
async def test_a_rule(rule: str, database: Database, bind: Bind, caplog: pytest.LogCaptureFixture) -> None:
    await create_notes(database)
    await prepare(database, rule)
    with caplog.at_level(logging.WARNING, "sqlacache"):
        reader = await bind()
    assert "writes_also" not in caplog.text
    write = execute_on_connection(
        lambda _: notes.insert().values(id=100, title="new", shelf="a", updated=0).inline()
    )
    await check(Situation("insert", tally, write, TEAMS), reader)


# -- generated columns -------------------------------------------------------------------------------------------------

areas = rows(lambda: select(Box.id, Box.area).order_by(Box.id))
heights = rows(lambda: select(Box.id, Box.height).order_by(Box.id))

GENERATED = [
    Situation("generated_column_is_seen_by_a_list_of_it", areas, change(Box, 1, width=7), heights),
    Situation("generated_column_is_seen_by_a_get", get(Box, 1), change(Box, 1, width=7), get(Box, 2), BY_KEY),
    Situation(
        "generated_column_after_an_update_by_statement",
        areas,
        execute(lambda _: update(Box).values(width=Box.width + 1)),
        heights,
    ),
    Situation(
        "generated_column_as_a_condition",
        rows(lambda: select(Box.id).where(Box.area == 21)),
        change(Box, 1, width=7),
        heights,
    ),
]


@situations(GENERATED)
async def test_a_column_that_the_database_computes(
    situation: Situation, database: Database, bind: Bind
) -> None:
    await create_notes(database)
    await check(situation, await bind())


async def test_a_generated_column_that_only_the_database_knows(database: Database, bind: Bind) -> None:
    await create_notes(database)
    if database.dialect == "postgresql":
        statements = [
            "ALTER TABLE notes DROP COLUMN updated",
            "ALTER TABLE notes ADD COLUMN updated integer GENERATED ALWAYS AS (length(title)) STORED",
        ]
    else:
        statements = [
            "DROP TABLE notes",
            "CREATE TABLE notes (id INTEGER NOT NULL PRIMARY KEY, title VARCHAR(20), shelf VARCHAR(20),"
            " updated INTEGER GENERATED ALWAYS AS (length(title)) STORED)",
            "INSERT INTO notes (id, title, shelf) VALUES (1, 'one', 'a'), (2, 'two', 'b')",
        ]
    await prepare(database, *statements)
    shelves = rows(lambda: select(Note.id, Note.shelf).order_by(Note.id))
    write = execute_on_connection(lambda _: notes.update().where(notes.c.id == 1).values(title="longer"))
    await check(Situation("generated", note_updates, write, shelves), await bind())


# -- partitions and inheriting tables ----------------------------------------------------------------------------------

PARTITIONED = [
    "DROP TABLE notes",
    """CREATE TABLE notes (id integer, title varchar(20), shelf varchar(20), updated integer DEFAULT 0,
        PRIMARY KEY (id, shelf)) PARTITION BY LIST (shelf)""",
    "CREATE TABLE notes_a PARTITION OF notes FOR VALUES IN ('a')",
    "CREATE TABLE notes_b PARTITION OF notes FOR VALUES IN ('b')",
    "INSERT INTO notes VALUES (1, 'one', 'a', 0), (2, 'two', 'b', 0)",
]
INHERITED = [
    "DROP TABLE boxes",
    "CREATE TABLE boxes (id integer PRIMARY KEY, width integer, height integer, area integer)",
    "CREATE TABLE crates (weight integer) INHERITS (boxes)",
    "INSERT INTO boxes VALUES (1, 2, 3, 6)",
    "INSERT INTO crates VALUES (2, 4, 5, 20, 1)",
]


def core_table(name: str, *columns: str) -> Any:
    from sqlalchemy import column, table

    return table(name, *(column(each) for each in columns))


notes_a = core_table("notes_a", "id", "title")
crates = core_table("crates", "id", "width")


@ON_POSTGRESQL
@situations(
    [
        Situation("by_its_parent", note_titles, execute(lambda _: update(Note).values(title="x")), TEAMS),
        Situation(
            "by_its_parent_by_key",
            get(Note, 1),
            execute(lambda _: update(Note).where(Note.id == 1).values(title="x")),
            TEAMS,
        ),
        Situation(
            "moved_to_another_partition",
            on_shelf("b"),
            execute(lambda _: update(Note).where(Note.id == 1).values(shelf="b")),
            TEAMS,
        ),
        Situation(
            "written_directly",
            note_titles,
            execute_on_connection(lambda _: notes_a.update().values(title="x")),
            TEAMS,
        ),
        Situation(
            "written_directly_is_seen_by_a_get_through_its_parent",
            get(Note, 1),
            execute_on_connection(lambda _: notes_a.update().where(notes_a.c.id == 1).values(title="x")),
            TEAMS,
        ),
    ]
)
async def test_a_partition(situation: Situation, database: Database, bind: Bind) -> None:
    await create_notes(database)
    await prepare(database, *PARTITIONED)
    await check(situation, await bind())


@ON_POSTGRESQL
@situations(
    [
        Situation(
            "written_itself",
            all_of(Box),
            execute_on_connection(lambda _: crates.update().values(width=9)),
            TEAMS,
        ),
        Situation(
            "written_by_its_parent",
            rows(lambda: select(Box.id, Box.width).order_by(Box.id)),
            execute_on_connection(lambda _: Box.__table__.update().values(width=9)),
            TEAMS,
        ),
        Situation(
            "that_gains_a_row",
            scalar(lambda: select(func.count()).select_from(Box)),
            execute_on_connection(lambda _: crates.insert().values(id=3, width=9)),
            TEAMS,
        ),
    ]
)
async def test_an_inheriting_table(situation: Situation, database: Database, bind: Bind) -> None:
    await create_notes(database)
    await prepare(database, *INHERITED)
    await check(situation, await bind())


async def test_a_truncate_and_other_ddl_evict_everything(reader: Reader) -> None:
    users = rows(lambda: select(User.id, User.name).order_by(User.id))
    lines = "DELETE FROM order_lines" if reader.database.dialect == "sqlite" else "TRUNCATE order_lines"
    for sql in (lines, "ALTER TABLE teams ADD COLUMN extra INTEGER"):
        await reader.current(users)
        await reader.hit(users)
        async with reader.database.connection() as connection:
            await connection.execute(text(sql))
        await reader.miss(users, BY_WRITE)
