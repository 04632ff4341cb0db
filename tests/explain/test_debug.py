"""``debug=True``: which line of the application read or wrote, and with which parameters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import create_engine, event, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from sqlacache import ConfigError, configure, configure_sync
from sqlacache.debugging import Debug
from sqlacache.decisions import CallSite
from sqlacache.write.dml import Change
from sqlacache.write.ledger import INFO_KEY, Ledger
from tests.support.databases import SQLiteDatabases, make_engine
from tests.support.models import Team, User
from tests.support.reading import UNCACHED, Watcher

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

HERE = Path(__file__)
MODELS: Any = {"*": {"timeout": 3600}}


def at(mark: str, function: str) -> tuple[str, int, str]:
    """The site of the line that ends with ``# <mark>``."""
    lines = HERE.read_text(encoding="utf-8").splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.endswith(f"  # {mark}")]
    return str(HERE), number, function


def told(site: CallSite | None) -> tuple[str, int, str] | None:
    return None if site is None else (site.file, site.line, site.function.rpartition(".")[2])


class Seen(Watcher):
    """What is decided, and the caches that say so."""

    cache: Any
    engine: Any

    @property
    def read_at(self) -> Any:
        return told(self.decisions[-1].site)

    @property
    def written_at(self) -> Any:
        return {change.table: told(change.site) for change in self.invalidations[-1].changes}


@contextmanager
def watching(cache: Any) -> Any:
    seen = Seen()
    cache.add_observer(seen)
    yield seen
    cache.remove_observer(seen)


@pytest_asyncio.fixture
async def url(sqlite_databases: SQLiteDatabases) -> AsyncIterator[str]:
    async with sqlite_databases.fresh() as fresh:
        yield fresh


Debugging = Callable[..., Any]


@pytest_asyncio.fixture
async def debugging(url: str) -> AsyncIterator[Debugging]:
    """Bind a cache that debugs, and say what it decides."""
    bound: list[Any] = []

    async def start(**options: Any) -> Seen:
        engine = make_engine(url, front="async")
        cache = configure(**{"models": MODELS, "telemetry": None, "debug": True, **options})
        await cache.bind(engine)
        seen = Seen()
        seen.cache, seen.engine = cache, engine
        cache.add_observer(seen)
        bound.append(seen)
        return seen

    yield start
    for seen in bound:
        await seen.cache.disconnect()
        await seen.engine.dispose()


async def fetched(session: AsyncSession, key: int) -> Any:
    return await session.get(User, key)  # fetched


async def renamed(session: AsyncSession, key: int, name: str) -> None:
    user = await session.get(User, key)
    user.name = name
    await session.commit()  # renamed


async def test_an_asynchronous_read_is_that_of_the_coroutine_that_awaits_it(debugging: Debugging) -> None:
    seen = await debugging()
    for decision in ("miss", "hit"):
        async with AsyncSession(seen.engine) as session:
            await fetched(session, 1)
        assert seen.decisions[-1].decision == decision
        assert seen.read_at == at("fetched", "fetched")
    async with AsyncSession(seen.engine) as session:
        (await session.execute(select(User.name))).all()  # executed
    assert seen.read_at == at("executed", "test_an_asynchronous_read_is_that_of_the_coroutine_that_awaits_it")


async def test_a_bypass_has_a_site_too(debugging: Debugging) -> None:
    seen = await debugging()
    async with AsyncSession(seen.engine) as session:
        await session.execute(text("SELECT 1"))  # bypassed
    assert seen.decisions[-1].decision == "bypass"
    assert seen.read_at == at("bypassed", "test_a_bypass_has_a_site_too")


async def test_what_runs_in_run_sync_is_at_the_line_in_there(debugging: Debugging) -> None:
    def work(session: Session) -> None:
        session.get(User, 1)  # in run_sync

    seen = await debugging()
    async with AsyncSession(seen.engine) as session:
        await session.run_sync(work)
    assert seen.read_at == at("in run_sync", "work")


async def test_below_an_event_loop_nobody_is_blamed(debugging: Debugging) -> None:
    seen = await debugging()
    async with AsyncSession(seen.engine) as session:
        await asyncio.create_task(session.get(User, 1))
    assert seen.decisions[-1].decision == "miss"
    assert seen.read_at is None


async def test_a_flush_is_written_where_it_was_asked_for_and_a_statement_where_it_was_executed(
    debugging: Debugging,
) -> None:
    seen = await debugging()
    async with AsyncSession(seen.engine) as session:
        await renamed(session, 1, "zed")
    assert seen.written_at == {"users": at("renamed", "renamed")}
    async with AsyncSession(seen.engine) as session:
        await session.execute(update(User).values(plan="x"))  # bulk
        await session.execute(insert(Team.__table__).values(id=77, name="t"))  # core
        await session.commit()
    here = "test_a_flush_is_written_where_it_was_asked_for_and_a_statement_where_it_was_executed"
    assert seen.written_at == {"users": at("bulk", here), "teams": at("core", here)}
    async with AsyncSession(seen.engine) as session:
        await session.execute(text("UPDATE users SET plan = 'y'"))  # raw
        await session.commit()
    assert at("raw", here) in seen.written_at.values()


async def test_what_was_rolled_back_to_a_savepoint_is_not_blamed(debugging: Debugging) -> None:
    seen = await debugging()
    async with AsyncSession(seen.engine) as session:
        await session.execute(update(User).where(User.id == 2).values(plan="first"))  # stays
        point = await session.begin_nested()
        await session.execute(update(Team).where(Team.id == 1).values(name="undone"))
        await session.execute(update(Team).where(Team.id == 2).values(name="undone"))
        await point.rollback()
        await session.execute(update(Team).where(Team.id == 1).values(name="kept"))  # instead
        await session.execute(update(Team).where(Team.id == 2).values(name="kept"))
        await session.commit()
    here = "test_what_was_rolled_back_to_a_savepoint_is_not_blamed"
    assert seen.written_at == {"users": at("stays", here), "teams": at("instead", here)}


class Context:
    """Of an execution, as far as it is looked at; unlike a SimpleNamespace, it can be held weakly."""

    compiled_parameters = ({"plan": "x"},)


def test_what_nobody_noted_is_not_blamed_on_what_was_rolled_back_before_it() -> None:
    ledger = Ledger()
    settings = SimpleNamespace(expose_values=False)
    binding: Any = SimpleNamespace(settings=settings, table=lambda name: None)
    debug = Debug(binding)
    for statement in ("UPDATE users", "COMMIT PREPARED"):
        ledger.clear()
        context: Any = Context()
        ledger.begin(context)
        ledger.fresh = 0
        ledger.add([Change("users", "update", None, None, "raw_write", statement)])
        if statement == "UPDATE users":
            debug.note(SimpleNamespace(info={INFO_KEY: ledger}), context)
            assert len(debug.origins(ledger)) == 1
    assert debug.origins(ledger) == {}


async def test_nor_is_what_was_rolled_back_with_its_transaction(debugging: Debugging) -> None:
    seen = await debugging()
    async with AsyncSession(seen.engine) as session:
        await session.execute(update(User).where(User.id == 2).values(plan="undone"))
        await session.rollback()
        await session.execute(update(User).where(User.id == 2).values(plan="kept"))  # after the rollback
        await session.commit()
    here = "test_nor_is_what_was_rolled_back_with_its_transaction"
    assert seen.written_at == {"users": at("after the rollback", here)}


async def test_a_call_is_where_it_was_made(debugging: Debugging) -> None:
    seen = await debugging()
    await seen.cache.touched("users", columns={"plan"})  # touched
    assert seen.written_at == {"users": at("touched", "test_a_call_is_where_it_was_made")}
    await seen.cache.invalidate_all()  # all
    assert seen.written_at == {"*": at("all", "test_a_call_is_where_it_was_made")}


async def test_a_miss_and_its_explanation_name_the_line_that_wrote(debugging: Debugging) -> None:
    seen = await debugging()
    async with AsyncSession(seen.engine) as session:
        await fetched(session, 1)
    async with AsyncSession(seen.engine) as session:
        await renamed(session, 1, "zed")
    async with AsyncSession(seen.engine) as session:
        said = await seen.cache.explain_get(session, User, 1)
        with seen.cache.record() as decisions:
            await fetched(session, 1)
    file, number, function = at("renamed", "renamed")
    assert told(said.cause.site) == told(list(decisions)[-1].cause.site) == (file, number, function)
    assert f"  written at  {file}:{number} in renamed, with name=<str>, users_id=<int>" in str(said)
    assert f"  read at     {file}:" in str(said) and "in renamed, the last time" in str(said)
    assert told(list(decisions)[-1].site) == at("fetched", "fetched")
    assert "not known" not in str(said)


async def test_hooks_are_told_the_line_that_wrote(debugging: Debugging) -> None:
    seen = await debugging()
    evicted: list[Any] = []
    seen.cache.on_evict(evicted.append)
    async with AsyncSession(seen.engine) as session:
        await renamed(session, 1, "zed")
    assert told(evicted[0].cause.site) == at("renamed", "renamed")


async def test_values_stay_hidden_unless_they_are_to_be_shown(debugging: Debugging) -> None:
    seen = await debugging()
    async with AsyncSession(seen.engine) as session:
        await session.execute(select(User.id).where(User.name == "a secret"))
        await session.execute(update(User).where(User.id == 1).values(name="another secret"))
        await session.commit()
    assert list(seen.decisions[-1].parameters.values()) == ["<str>"]
    assert set(seen.invalidations[-1].changes[0].parameters.values()) == {"<str>", "<int>"}
    assert "secret" not in repr((seen.decisions, seen.invalidations))


async def test_values_that_may_be_shown_are_cut(debugging: Debugging) -> None:
    seen = await debugging(expose_values=True)
    async with AsyncSession(seen.engine) as session:
        await session.execute(select(User.id).where(User.name == "known", User.plan == "x" * 1000))
    known, cut = seen.decisions[-1].parameters.values()
    assert known == "'known'"
    assert cut.startswith("'xxx") and cut.endswith("…") and len(cut) == 200


async def test_values_of_a_table_with_excluded_columns_stay_hidden(debugging: Debugging) -> None:
    models = {User: {"exclude": {"email"}}, "*": {"timeout": 3600}}
    seen = await debugging(expose_values=True, models=models)
    async with AsyncSession(seen.engine) as session:
        await session.execute(update(User).where(User.id == 1).values(email="secret@example.com"))
        await session.execute(update(Team).where(Team.id == 1).values(name="known"))
        await session.execute(text("UPDATE users SET email = :mail WHERE id = 2"), {"mail": "secret too"})
        await session.commit()
    found = {change.table: change.parameters for change in seen.invalidations[-1].changes}
    assert set(found["users"].values()) == {"<str>", "<int>"}
    assert "'known'" in found["teams"].values()
    assert "secret" not in repr(seen.invalidations)


async def test_a_value_that_cannot_be_shown_harms_nobody(debugging: Debugging) -> None:
    class Name(str):
        def __repr__(self) -> str:
            raise LookupError

    seen = await debugging(expose_values=True)
    async with AsyncSession(seen.engine) as session:
        await session.execute(update(Team).where(Team.id == 1).values(name=Name("odd")))
        await session.commit()
    shown = seen.invalidations[-1].changes[0].parameters
    assert "<Name, of which repr() raised LookupError>" in shown.values()


async def test_many_parameters_are_counted(debugging: Debugging) -> None:
    seen = await debugging()
    async with AsyncSession(seen.engine) as session:
        await session.execute(select(User.id).where(*(User.id != number for number in range(30))))
    parameters = seen.decisions[-1].parameters
    assert len(parameters) == 21
    assert parameters["..."] == "10 more"


def test_an_ordinary_session_is_told_of_by_its_own_stack(url: str) -> None:
    engine = create_engine(url.replace("+aiosqlite", ""))
    cache = configure_sync(models=MODELS, telemetry=None, debug=True)
    with cache.bound(engine), watching(cache) as seen:
        with Session(engine) as session:
            session.get(User, 1).name = "zed"  # ordinary
            assert seen.read_at == at("ordinary", "test_an_ordinary_session_is_told_of_by_its_own_stack")
            session.flush()  # flushed
            session.commit()
        assert seen.written_at == {
            "users": at("flushed", "test_an_ordinary_session_is_told_of_by_its_own_stack")
        }
    engine.dispose()


def test_a_write_in_a_listener_of_the_application_is_at_the_listener(url: str) -> None:
    engine = create_engine(url.replace("+aiosqlite", ""))
    cache = configure_sync(models=MODELS, telemetry=None, debug=True)
    with cache.bound(engine), watching(cache) as seen, Session(engine) as session:

        def listener(session: Session) -> None:
            session.execute(update(Team).where(Team.id == 1).values(name="x"))  # in a listener

        event.listen(session, "before_commit", listener)
        session.get(User, 1).name = "zed"
        session.commit()
        assert seen.written_at["teams"] == at("in a listener", "listener")
    engine.dispose()


async def test_without_it_nothing_is_looked_up(debugging: Debugging) -> None:
    seen = await debugging(debug=False)
    async with AsyncSession(seen.engine) as session:
        await fetched(session, 1)
        await renamed(session, 1, "zed")
    assert (seen.decisions[-1].site, seen.decisions[-1].parameters) == (None, None)
    assert seen.written_at == {"users": None}
    assert seen.invalidations[-1].changes[0].parameters is None


@pytest.mark.parametrize("debug", [None, 1, "yes"], ids=repr)
def test_it_takes_true_or_false(debug: Any) -> None:
    with pytest.raises(ConfigError, match="debug: takes True or False, got"):
        configure(debug=debug, telemetry=None)


def test_with_it_decisions_are_remembered() -> None:
    assert configure(debug=True, telemetry=None).history is not None
    assert configure(debug=True, telemetry=None, history=0).history is None
