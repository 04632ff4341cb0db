"""unbind(): one engine is let go of, and nothing of ours keeps it, or anything of it, in memory."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, select, text, update
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.pool import QueuePool, StaticPool

from sqlacache import ConfigError, DirectSession, configure, configure_sync, testing
from sqlacache.events import listen_to, stop_listening_to
from sqlacache.write.ledger import INFO_KEY
from tests.support.databases import Database
from tests.support.listeners import listeners_of_ours
from tests.support.models import User
from tests.support.reading import UNCACHED
from tests.support.seed import create_and_seed
from tests.support.writes import change

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

ON_BOTH = pytest.mark.parametrize(
    "database",
    ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)],
    indirect=True,
    ids=["sqlite", "postgresql"],
)


def new_cache(**options: Any) -> Any:
    return configure(**{"models": {"*": {}}, "telemetry": None, **options})


async def use(database: Database) -> None:
    """Read twice and write, as a request would."""
    for _ in range(2):
        async with database.sessions() as session:
            await session.get(User, 1)
    await change(User, 2, name="used")(database)


def everything_on(engine: Engine) -> Any:
    """How many listeners there are on an engine, its pool, its dialect and SQLAlchemy's classes, and its calls."""
    counts = {}
    for target in (Session, Mapper, engine, engine.pool, engine.dialect):
        for name in target.dispatch._event_names:
            found = getattr(target.dispatch, name)
            counts[repr(target), name] = (
                sum(len(list(each)) for each in found._clslevel.values())
                if hasattr(found, "_clslevel") and not hasattr(found, "listeners")
                else len(list(found))
            )
    return counts, calls_of(engine), vars(engine).keys() - {"dispatch"}


def calls_of(engine: Engine) -> dict[str, Any]:
    """What was replaced on an engine's dialect."""
    return {
        name: value
        for name, value in vars(engine.dialect).items()
        if name.startswith("do_") or name == "_has_events"
    }


@ON_BOTH
async def test_nothing_of_ours_is_left_on_an_engine_that_is_unbound(database: Database) -> None:
    engine = database.engine.sync_engine
    async with database.engine.connect() as connection:  # SQLAlchemy's own first-connect work is done
        before_info = dict((await connection.get_raw_connection()).info)
    before = everything_on(engine)
    cache = new_cache()
    await cache.bind(database.engine)
    await use(database)
    assert everything_on(engine) != before
    await cache.unbind(database.engine)
    assert everything_on(engine) == before
    assert not listeners_of_ours()
    async with database.engine.connect() as connection:
        assert dict((await connection.get_raw_connection()).info) == before_info
    await cache.disconnect()


async def test_what_sessions_are_listened_to_for_stays_until_the_last_engine_is_unbound(
    database: Database, other_database: Database
) -> None:
    cache, other = new_cache(), new_cache(name="other")
    await cache.bind(database.engine)
    await other.bind(other_database.engine)
    await cache.unbind(database.engine)
    assert "do_orm_execute" in {key[1] for key in listeners_of_ours()}
    with testing.record(other) as seen:
        await use(other_database)
    assert [one.decision for one in seen.decisions][:2] == ["miss", "hit"]
    await other.unbind(other_database.engine)
    assert not listeners_of_ours()


async def test_unbinding_what_is_not_bound_changes_nothing(database: Database) -> None:
    cache = new_cache()
    await cache.unbind(database.engine)
    await cache.bind(database.engine)
    await cache.unbind(database.engine)
    await cache.unbind(database.engine)
    await cache.bind(database.engine)
    await cache.disconnect()
    await cache.unbind(database.engine)
    await cache.disconnect()
    assert not listeners_of_ours()


async def test_an_engine_of_another_cache_is_refused_by_name_and_stays_bound() -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    first, other = new_cache(name="first"), new_cache(name="other")
    await first.bind(engine, database="memory")
    with pytest.raises(
        ConfigError, match=r"unbind: sqlite\+aiosqlite:// is bound to the cache 'first', not to 'other'"
    ):
        await other.unbind(engine)
    assert len(first.bindings) == 1
    await first.disconnect()
    await engine.dispose()


@pytest.mark.parametrize("given", ["sqlite+aiosqlite://", None, "sessions"], ids=["url", "none", "sessions"])
async def test_what_is_no_engine_is_refused(given: Any, database: Database) -> None:
    wrong: Any = {"sessions": database.sessions}.get(given, given)
    with pytest.raises(ConfigError, match=f"unbind: takes an AsyncEngine, got {type(wrong).__name__}"):
        await new_cache().unbind(wrong)
    with pytest.raises(ConfigError, match=f"unbind: takes an Engine, got {type(wrong).__name__}"):
        configure_sync(models={"*": {}}, telemetry=None).unbind(wrong)


async def test_engines_of_the_other_front_are_refused() -> None:
    ordinary = create_engine("sqlite://")
    with pytest.raises(ConfigError, match=r"unbind: takes an AsyncEngine, got Engine; .*configure_sync\(\)"):
        await new_cache().unbind(ordinary)
    sync = configure_sync(models={"*": {}}, telemetry=None)
    asynchronous = create_async_engine("sqlite+aiosqlite://")
    for given in (asynchronous, asynchronous.sync_engine):
        with pytest.raises(ConfigError, match=r"unbind: takes an Engine.*configure\(\)"):
            sync.unbind(given)


@pytest.mark.parametrize("name", ["sync_engine", "made-from-it", "both"])
async def test_an_engine_may_be_named_by_another_face_of_it(name: str, database: Database) -> None:
    made = database.engine.execution_options(logging_token="x")
    named = {"sync_engine": database.engine.sync_engine, "made-from-it": made, "both": made.sync_engine}[name]
    cache = new_cache()
    await cache.bind(database.engine)
    await cache.unbind(named)
    assert cache.bindings == [] and not listeners_of_ours()
    await cache.bind(made)
    await cache.unbind(database.engine)
    assert cache.bindings == [] and not listeners_of_ours()


async def test_a_cache_tells_of_an_engine_that_is_unbound_no_more(
    database: Database, other_database: Database
) -> None:
    cache = new_cache()
    await cache.bind(database.engine, database="main")
    await cache.bind(other_database.engine, database="tenant")
    async with other_database.sessions() as session:
        await session.get(User, 1)
    assert "tenant" in repr(cache)
    await cache.unbind(other_database.engine)
    assert repr(cache).endswith("bound to main>")
    assert (await cache.health()).status == "ok"
    assert cache.backend._stores.keys() == {"main"}
    await cache.unbind(database.engine)
    assert (await cache.health()).reasons == ("not bound to an engine",)
    assert await cache.invalidate(User) == 0


async def test_entries_of_an_engine_that_is_unbound_are_told_to_be_gone(database: Database) -> None:
    class Capacity(testing.Recorder):
        told: tuple[int, int] | None = None

        def capacity(self, cache: str, entries: int, size: int) -> None:
            self.told = entries, size

    cache = new_cache()
    watching = Capacity(cache)
    cache.add_observer(watching)
    await cache.bind(database.engine)
    await use(database)
    assert watching.told is not None and watching.told[0] > 0
    await cache.unbind(database.engine)
    assert watching.told == (0, 0)


async def test_a_name_of_a_database_is_free_again(database: Database, other_database: Database) -> None:
    cache = new_cache()
    await cache.bind(database.engine, database="tenant")
    async with database.sessions() as session:
        await session.get(User, 1)
    await cache.unbind(database.engine)
    await change(User, 1, name="other")(other_database)
    await cache.bind(other_database.engine, database="tenant")
    async with other_database.sessions() as session:
        assert (await session.get(User, 1)).name == "other"
    await cache.disconnect()


# -- others who replace a dialect's calls ------------------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = create_engine(
        f"sqlite:///{tmp_path}/shop.db",
        poolclass=QueuePool,
        future=True,
        connect_args={"check_same_thread": False},
    )
    with made.begin() as connection:
        create_and_seed(connection)
    yield made
    made.dispose()


@pytest.fixture
def cache() -> Iterator[Any]:
    made = configure_sync(models={"*": {}}, telemetry=None)
    yield made
    made.disconnect()
    assert not listeners_of_ours()


def rename(engine: Engine, name: str) -> None:
    with Session(engine) as session:
        session.execute(update(User).where(User.id == 1).values(name=name))
        session.commit()


def wrap(dialect: Any, calls: list[str]) -> None:
    inner = dialect.do_commit

    def theirs(connection: Any) -> None:
        calls.append("commit")
        inner(connection)

    dialect.do_commit = theirs


def test_a_call_that_others_wrapped_around_ours_leads_past_us(engine: Engine, cache: Any) -> None:
    calls: list[str] = []
    cache.bind(engine)
    wrap(engine.dialect, calls)
    binding = weakref.ref(cache.bindings[0])
    cache.unbind(engine)
    with testing.record(cache) as seen:
        rename(engine, "x")
    assert calls == ["commit"] and seen.invalidations == []
    gc.collect()
    assert binding() is None
    cache.bind(engine)
    with testing.record(cache) as seen:
        rename(engine, "y")
    assert len(seen.invalidations) == 1
    cache.unbind(engine)
    assert engine.dialect.do_commit.__name__ == "theirs"


def test_it_leads_past_us_after_disconnecting_too(engine: Engine, cache: Any) -> None:
    cache.bind(engine)
    wrap(engine.dialect, [])
    kept = cache.bindings
    cache.disconnect()
    with testing.record(cache) as seen:
        rename(engine, "x")
    assert seen.invalidations == [] and len(kept) == 1


def test_others_who_take_their_call_back_leave_no_trace_of_ours(engine: Engine, cache: Any) -> None:
    before = calls_of(engine)
    for _ in range(3):
        cache.bind(engine)
        ours = engine.dialect.do_commit
        wrap(engine.dialect, [])
        cache.unbind(engine)
        engine.dialect.do_commit = ours  # type: ignore[method-assign]  # as they found it
    rename(engine, "x")
    cache.bind(engine)
    cache.unbind(engine)
    assert calls_of(engine) == before


@pytest.mark.parametrize("first", ["leaves-first", "leaves-last"])
def test_a_cache_that_is_bound_while_another_leaves_is_told_and_so_is_that(
    first: str, engine: Engine, cache: Any
) -> None:
    second = create_engine(engine.url)
    other = configure_sync(models={"*": {}}, telemetry=None, name="other")
    before = calls_of(engine)
    cache.bind(engine)
    cache.bind(second)
    with Session(second) as session:
        assert session.get(User, 1).name == "ann"  # type: ignore[union-attr]  # it is there
    with Session(engine) as session:
        session.execute(update(User).where(User.id == 1).values(name="new"))
        cache.unbind(engine)
        other.bind(engine)
        if first == "leaves-last":
            other.unbind(engine)
        with testing.record(cache) as told, testing.record(other) as told_too:
            session.commit()
    assert len(told.invalidations) == len(told_too.invalidations) == 1
    with Session(second) as session:
        assert session.get(User, 1).name == "new"  # type: ignore[union-attr]  # it is there
    other.unbind(engine)
    assert calls_of(engine) == before
    second.dispose()


# -- connections -------------------------------------------------------------------------------------------------------


def test_a_connection_remembers_that_a_setting_was_changed_on_it(engine: Engine, cache: Any) -> None:
    def infos() -> list[bool]:
        with engine.connect() as one, engine.connect() as two:
            return [INFO_KEY in one.info, INFO_KEY in two.info]

    cache.bind(engine)
    assert infos() == [True, True]
    with engine.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE users (id INTEGER)"))
        connection.commit()
    cache.unbind(engine)
    assert sorted(infos()) == [False, True]


def test_disconnecting_ends_what_unbinding_has_left(engine: Engine, cache: Any) -> None:
    before = calls_of(engine)
    cache.bind(engine)
    with Session(engine) as session:
        session.execute(update(User).where(User.id == 1).values(name="new"))
        cache.unbind(engine)
        assert calls_of(engine) != before
        cache.disconnect()
        assert calls_of(engine) == before
        session.commit()


def test_a_connection_that_breaks_lets_go_with_the_next_use_of_the_engine(engine: Engine, cache: Any) -> None:
    cache.bind(engine)
    with engine.connect() as connection:
        connection.execute(update(User).where(User.id == 1).values(name="never"))
        cache.unbind(engine)
        connection.invalidate()
    with engine.connect() as connection:
        connection.execute(select(1)).all()
    assert calls_of(engine) == {}


# -- threads -----------------------------------------------------------------------------------------------------------


def test_listeners_come_and_go_while_somebody_iterates_over_them(engine: Engine) -> None:
    """Also SQLAlchemy's private part of it: a collection's ``listeners``."""
    heard: list[str] = []

    def leaves(*arguments: Any) -> None:
        heard.append("leaves")
        stop_listening_to(engine, "do_execute", leaves)
        listen_to(engine, "do_execute", comes)

    def comes(*arguments: Any) -> None:
        heard.append("comes")

    def goes(*arguments: Any) -> None:
        heard.append("goes")
        stop_listening_to(engine, "checkin", goes)

    def stays(*arguments: Any) -> None:
        heard.append("stays")

    listen_to(engine, "do_execute", leaves)
    listen_to(engine, "do_execute", stays)
    listen_to(engine, "checkin", goes)
    event.listen(engine, "checkin", stays)
    for _ in range(2):
        with engine.connect() as connection:
            connection.execute(select(1))
    assert heard == ["leaves", "stays", "goes", "stays", "stays", "comes", "stays"]


def test_an_engine_is_bound_and_unbound_while_threads_use_it(engine: Engine, cache: Any) -> None:
    errors: list[BaseException] = []
    done = threading.Event()

    def work(number: int) -> None:
        try:
            while not done.is_set():
                with Session(engine) as session:
                    session.get(User, number)
                    session.execute(select(User.name).where(User.id == number)).all()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        cache.bind(engine)
        cache.unbind(engine)
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert calls_of(engine) == {}


# -- memory ------------------------------------------------------------------------------------------------------------


def tenant(folder: Path, cache: Any, number: int, *, unbinds: bool) -> tuple[weakref.ref[Any], ...]:
    """Make an engine, bind it, use it and drop it."""
    engine = create_engine(f"sqlite:///{folder}/{number % 2}.db")
    cache.bind(engine, database=f"tenant{number}")
    with engine.begin() as connection:
        if number < 2:
            create_and_seed(connection)
    for _ in range(3):
        with DirectSession(engine) as session:
            session.get(User, 1)
    with Session(engine) as session:
        session.get(User, 2).name = f"n{number}"  # type: ignore[union-attr]  # it is there
        session.commit()  # mappers keep the statement, which keeps the dialect
        names = session.execute(select(User.name)).all()
    assert (f"n{number}",) in names
    compiled = weakref.ref(next(iter(engine._compiled_cache.values())))  # type: ignore[union-attr]  # the default
    found = weakref.ref(engine), weakref.ref(engine.pool), weakref.ref(cache.bindings[-1]), compiled
    if unbinds:
        cache.unbind(engine)
    engine.dispose()
    return found


def of_ours() -> Counter[str]:
    gc.collect()
    kinds = (type(one) for one in gc.get_objects())
    return Counter(kind.__name__ for kind in kinds if str(kind.__module__).startswith("sqlacache"))


@pytest.mark.parametrize("unbinds", [True, False], ids=["unbound", "dropped"])
def test_engines_that_an_application_drops_are_freed(unbinds: bool, tmp_path: Path, cache: Any) -> None:
    """Also those that it never unbinds; what was stored for them goes when the next one is bound."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    cache.bind(engine, database="stays")
    for number in range(4):
        tenant(tmp_path, cache, number, unbinds=unbinds)
    cache.bind(engine, database="stays")
    before = of_ours()
    left = [tenant(tmp_path, cache, number, unbinds=unbinds) for number in range(4, 24)]
    gc.collect()
    assert [one for found in left for one in found if one() is not None] == []
    cache.unbind(engine)
    cache.bind(engine, database="stays")
    after = of_ours()
    grown = {name: (before[name], count) for name, count in after.items() if count > before[name] + 10}
    assert grown == {}
    assert [binding.database for binding in cache.bindings] == ["stays"]
    assert cache.backend._stores.keys() == {"stays"}
    engine.dispose()


def test_what_is_stored_for_another_engine_keeps_nothing_of_one_that_is_gone(
    engine: Engine, cache: Any
) -> None:
    """Nor does what is known of its statements, where a listener of the application has the engine."""
    cache.bind(engine)
    gone = create_engine(engine.url)
    event.listen(gone, "do_connect", lambda *arguments, of=gone: None)
    cache.bind(gone)
    for _ in range(3):
        with DirectSession(gone) as session:
            session.get(User, 1)
    rename(gone, "new")
    with DirectSession(gone) as session:
        session.get(User, 2)
    compiled = [weakref.ref(one) for one in gone._compiled_cache.values()]  # type: ignore[union-attr]  # the default
    left = [weakref.ref(gone), weakref.ref(gone.dialect), *compiled]
    gone.dispose()
    del gone, session
    gc.collect()
    assert [one for one in left if one() is not None] == []
    assert len(cache.bindings) == 1


@ON_BOTH
async def test_an_asynchronous_engine_that_was_used_is_freed(database: Database) -> None:
    cache = new_cache()
    for unbinds in (True, False):
        another = Database(database.url)
        await cache.bind(another.engine)
        await use(another)
        engine = weakref.ref(another.engine.sync_engine)
        if unbinds:
            await cache.unbind(another.engine)
        await another.dispose()
        del another
        gc.collect()
        assert engine() is None
    assert cache.bindings == []
    await cache.disconnect()
    assert not listeners_of_ours()


async def test_a_transaction_of_an_engine_that_was_dropped_still_invalidates(database: Database) -> None:
    cache = new_cache()
    await cache.bind(database.engine)
    another = Database(database.url)
    await cache.bind(another.engine)
    async with database.sessions() as session:
        await session.get(User, 1)
    async with another.sessions() as session:
        (await session.get(User, 1)).name = "new"
        await session.flush()
        truth, engine = another.truth_engine, another.engine
        del another
        gc.collect()
        await session.commit()
    async with database.sessions() as session:
        assert (await session.get(User, 1)).name == "new"
    await engine.dispose()
    await truth.dispose()
    await cache.disconnect()
