"""Writers and the short way: an object is never older than a long get's would be, whoever comes when."""

from __future__ import annotations

import gc
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, update

from sqlacache import DirectSession
from sqlacache.direct import ways
from sqlacache.direct_way import Heard, Learned, learn, look, serve
from sqlacache.events import binding_of

from .conftest import World
from .models import Person, Word

AT_COMMIT: list[Any] = []


class Connection(sqlite3.Connection):
    """One that lets a test in at COMMIT: after phase one, before the database knows."""

    def commit(self) -> None:
        for what in AT_COMMIT[:]:
            AT_COMMIT.remove(what)
            what()
        super().commit()


@pytest.fixture
def stepped(world: World) -> Iterator[World]:
    """A world whose COMMITs can be stepped into."""
    world.engine.dispose()
    path = world.engine.url.database
    engine = create_engine(f"sqlite:///{path}", connect_args={"factory": Connection}, future=True)
    world.cache.bind(engine, database="stepped")
    world.engine = engine
    yield world
    engine.dispose()


def store_of(world: World) -> Any:
    binding: Any = binding_of(world.engine.dialect)
    return binding.store


def name_of(world: World) -> Any:
    with world.session() as session:
        return session.get(Person, 1).name


def why(world: World, entity: Any = Person, ident: Any = 1) -> Any:
    with world.session() as session:
        return session.why_not_direct(entity, ident)


def test_nobody_is_served_while_a_writer_is_at_its_commit(stepped: World) -> None:
    """
    1. A writer is between phase one and COMMIT: its stamps are in flight.
    2. A get goes through SQLAlchemy, and reads what still is.
    3. The writer commits. The next get reads what it wrote.
    """
    stepped.warm(Person, 1)
    assert why(stepped) is None
    seen: list[Any] = []
    AT_COMMIT.append(lambda: seen.extend([why(stepped), name_of(stepped)]))
    stepped.write(Person, 1, name="Bea")
    assert seen[0].startswith("miss: ")
    assert seen[1] == "Ann"
    assert why(stepped).startswith("miss: ")
    assert name_of(stepped) == "Bea"


def test_what_is_filled_while_a_writer_is_at_its_commit_is_never_learned(stepped: World) -> None:
    """
    1. A writer is between phase one and COMMIT.
    2. Readers load what still is, twice, as if to fill and to learn it.
    3. The writer commits.
    """
    seen: list[Any] = []
    AT_COMMIT.append(lambda: seen.extend([name_of(stepped), name_of(stepped), why(stepped)]))
    stepped.write(Person, 1, name="Bea")
    assert seen[:2] == ["Ann", "Ann"]
    assert seen[2] is not None
    assert [name_of(stepped) for _ in range(3)] == ["Bea"] * 3
    assert why(stepped) is None


def test_what_is_learned_from_an_entry_that_a_writer_has_voided_serves_nobody(world: World) -> None:
    """
    1. A long get has been a hit, and is about to be learned from.
    2. A writer commits.
    3. The long get is learned from. Its entry carries the stamps of before.
    """

    world.warm(Person, 1)
    binding: Any = binding_of(world.engine.dialect)
    with world.session() as session:
        ready: Any = look(session, DirectSession, Person, 1)
        entry, learned = ready.entry, ready.entry.learned
    world.write(Person, 1, name="Bea")
    entry.learn(learned)
    assert [name_of(world) for _ in range(3)] == ["Bea"] * 3
    assert all(one.learned is not learned for one in binding.store._entries.values() if one is not entry)


def test_a_get_that_began_before_a_commit_may_return_what_was_and_the_next_does_not(world: World) -> None:
    """
    1. A get has found an entry whose stamps are current.
    2. A writer commits: another thread, since the get does not wait.
    3. The get returns what was, as one that had asked the database would. One that begins now does not.
    """
    world.warm(Person, 1)
    with world.session() as session:
        ready: Any = look(session, DirectSession, Person, 1)
        world.write(Person, 1, name="Bea")
        assert serve(session, ready).name == "Ann"
    assert name_of(world) == "Bea"


def test_an_entry_that_is_filled_anew_is_learned_anew(world: World) -> None:
    """
    1. What an entry's row became is known.
    2. A writer commits; a get misses and fills; nothing is known of the new entry.
    3. The next get hits it the long way. Only then is the short way taken again.
    """
    world.warm(Person, 1)
    world.write(Person, 1, name="Bea")
    assert why(world).startswith("miss: ")
    assert name_of(world) == "Bea"
    assert why(world).startswith("new: ")
    assert name_of(world) == "Bea"
    assert why(world) is None
    assert name_of(world) == "Bea"


def test_what_another_thread_learns_meanwhile_is_not_mixed_up(world: World) -> None:
    """
    1. A get has found an entry, and what was learned of it for its model.
    2. Another thread learns the same entry for another model of the table, or finds that it may not be shared.
    3. The get makes its object.
    """
    world.warm(Person, 1)
    with world.session() as session:
        ready: Any = look(session, DirectSession, Person, 1)
        ready.entry.learn(Learned(ready.recipe.mark, (Word, ("one",), None), None))
        made = serve(session, ready)
        assert (type(made), made.id, made.name) == (Person, 1, "Ann")


def test_what_was_loaded_for_another_key_is_not_learned(world: World) -> None:
    world.warm(Person, 1)
    with world.session() as session:
        ready: Any = look(session, DirectSession, Person, 1)
        ready.entry.learn(None)
        found = session.get(Person, 1)
        assert ready.entry.learned is not None
        ready.entry.learn(None)
        heard = [Heard(ready.binding, ready.read, ready.entry)]
        learn(Person, 2, heard, found)
        assert ready.entry.learned is None
        learn(Person, 1, heard, found)
        assert ready.entry.learned is not None


def test_a_rolled_back_write_is_never_seen(world: World) -> None:
    world.warm(Person, 1)
    with world.session() as session:
        session.get(Person, 1).name = "Bea"
        session.flush()
        assert name_of(world) == "Ann"
        session.rollback()
    assert name_of(world) == "Ann"


def test_a_transaction_reads_its_own_writes_of_other_rows(world: World) -> None:
    world.warm(Person, 1)
    with world.session() as session:
        session.execute(update(Person).values(name="all"), execution_options={"synchronize_session": False})
        ways.clear()
        assert session.get(Person, 1).name == "all"
        assert dict(ways) == {"bypass": 1}


@pytest.mark.parametrize(
    "how", ["invalidate", "invalidate_all", "purge", "touched", "expiry", "room", "bulk", "raw"]
)
def test_what_ends_an_entry_ends_what_was_learned_of_it(world: World, how: str) -> None:
    world.warm(Person, 1)
    store = store_of(world)
    if how == "invalidate":
        world.cache.invalidate(Person, [1])
    elif how == "invalidate_all":
        world.cache.invalidate_all()
    elif how == "purge":
        world.cache.purge(Person)
    elif how == "touched":
        world.cache.touched("direct_people", pks=[1])
    elif how == "expiry":
        [key] = [key for key in store._entries if key.startswith("direct_people:get")]
        store.with_expiry(key, 0.0)
    elif how == "room":
        store.max_bytes = store.bytes + 1
        for number in range(50):
            with world.session() as session:
                session.get(Word, f"{number}")
    elif how == "bulk":
        with world.session() as session:
            session.execute(update(Person).values(name="x"), execution_options={"synchronize_session": False})
            session.commit()
    else:
        with world.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE direct_people SET name = 'x'")
    assert why(world).startswith("miss: ")
    assert name_of(world) == ("x" if how in ("bulk", "raw") else "Ann")


def test_what_is_remembered_goes_with_the_entries(world: World) -> None:
    store = store_of(world)
    with world.session() as session:
        session.add_all([Word(text=f"w{number}", count=number) for number in range(60)])
        session.commit()
    world.warm(Word, "one")
    store.max_bytes = store.bytes * 10
    for number in range(60):
        world.warm(Word, f"w{number}")
    gc.collect()
    known = [one for one in gc.get_objects() if type(one) is Learned and one.identity[0] is Word]
    assert 0 < len(known) <= len(store) < 60
    world.cache.purge(Word)
    del known
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is Learned and one.identity[0] is Word]


def test_a_process_that_unbinds_and_binds_again_learns_anew(world: World) -> None:
    world.warm(Person, 1)
    world.cache.disconnect()
    with world.session() as session:  # unseen
        session.get(Person, 1).name = "Bea"
        session.commit()
    world.cache.bind(world.engine)
    assert [name_of(world) for _ in range(3)] == ["Bea"] * 3


def test_threads_see_every_commit_that_is_done(tmp_path: Path, world: World) -> None:
    """Each reader that begins after commit() returned sees that value, or a later one, however it was answered."""
    world.warm(Word, "one")
    done, stale, errors = threading.Event(), [], []
    committed = [1]

    def read() -> None:
        try:
            while not done.is_set():
                least = committed[0]
                with world.session() as session:
                    seen = session.get(Word, "one").count
                if seen < least:
                    stale.append((seen, least))
        except Exception as error:  # told by the test itself
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(2, 25):
        world.write(Word, "one", count=number)
        committed[0] = number
        for _ in range(3):
            with world.session() as session:
                assert session.get(Word, "one").count == number
    done.set()
    for reader in readers:
        reader.join()
    assert not errors
    assert not stale
    assert ways["direct"]


def test_threads_that_learn_at_once_do_not_disturb_each_other(world: World) -> None:
    start, wrong = threading.Barrier(4), []

    def work() -> None:
        start.wait()
        for _ in range(30):
            for entity, ident, name in ((Person, 1, "Ann"), (Person, 2, None)):
                with world.session() as session:
                    if session.get(entity, ident).name != name:
                        wrong.append(ident)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert ways["direct"]
