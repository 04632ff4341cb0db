"""configure(): every shape that users write, and what each wrong one is told."""

from __future__ import annotations

import random
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exists, func, insert, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import declarative_base

import sqlacache
from sqlacache import ConfigError, configure
from sqlacache.decisions import OPS
from sqlacache.store.codec import SafeCodec
from tests.support.databases import Database
from tests.support.models import (
    AuditLog,
    Base,
    CardPayment,
    Employee,
    Manager,
    Order,
    Payment,
    Tag,
    Team,
    User,
)
from tests.support.reading import UNCACHED
from tests.support.reads import entities, get, scalar

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")
MODELS = "tests.support.models"


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQLACACHE_BACKEND", raising=False)
    monkeypatch.delenv("SQLACACHE_MODE", raising=False)


class Used:
    """A cache bound to a database, and what it decides about single reads."""

    def __init__(self, database: Database, **options: Any) -> None:
        self.database = database
        self.cache = configure(**{"telemetry": None, **options})

    async def __aenter__(self) -> Used:
        await self.cache.bind(self.database.engine)
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self.cache.disconnect()

    async def decisions(self, read: Any) -> list[Any]:
        with sqlacache.testing.record(self.cache) as seen:
            async with self.database.sessions() as session:
                await read(session)
        return seen.decisions

    async def twice(self, read: Any) -> list[str | None]:
        """Why each of two reads was no hit; ``hit`` for one that was."""
        found = [*(await self.decisions(read)), *(await self.decisions(read))]
        return [decision.reason or decision.decision for decision in found]

    async def seconds(self, read: Any) -> float:
        """How long what a read stored may live."""
        (decision,) = await self.decisions(read)
        entry = self.cache.bindings[0].store._entries[decision.key]
        return float(entry.expires_at - entry.stored_at)


READS: dict[str, Any] = {
    "get": get(User, 1),
    "fetch": entities(lambda: select(User).order_by(User.id)),
    "count": scalar(lambda: select(func.count()).select_from(User)),
    "exists": scalar(lambda: select(exists().where(User.plan == "pro"))),
}
CACHED = ["absent", "hit"]
UNCONFIGURED = ["not_configured"] * 2


async def test_the_first_example_of_the_issue_as_it_is_written(database: Database) -> None:
    cache = configure(
        backend="mem://",
        models={
            f"{MODELS}.User": {"ops": {"get", "fetch"}, "timeout": 900},
            f"{MODELS}.Order": {"ops": "all", "timeout": 3600},
            f"{MODELS}.AuditLog": None,
            "*": {"timeout": 3600},
        },
        prefix="sqlacache",
        default_timeout=3600,
        serializer="sqlalchemy",
        telemetry=None,
    )
    await cache.bind(database.engine)
    async with database.sessions() as session:
        statement = select(User).where(User.active == True)
        result = await cache.execute(session, statement, timeout=300)
        assert len(result.scalars().all()) == 4
    await cache.invalidate(User, pks=[42, 99])
    await cache.invalidate(User)
    await cache.invalidate_all()
    await cache.disconnect()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("container", [set, frozenset, list, tuple], ids=lambda kind: kind.__name__)
async def test_only_the_ops_named_are_cached(op: str, container: Any, database: Database) -> None:
    async with Used(database, models={User: {"ops": container([op])}}) as used:
        for other, read in READS.items():
            assert await used.twice(read) == (CACHED if other == op else UNCONFIGURED)


@pytest.mark.parametrize("given", [{"ops": "all"}, {}, {"timeout": 5}], ids=str)
async def test_all_ops_are_the_default(given: Any, database: Database) -> None:
    async with Used(database, models={f"{MODELS}.User": given}) as used:
        for read in READS.values():
            assert await used.twice(read) == CACHED


@pytest.mark.parametrize("ops", [(), [], set()], ids=["tuple", "list", "set"])
async def test_with_no_ops_only_execute_caches_and_writes_still_invalidate(
    ops: Any, database: Database
) -> None:
    async with Used(database, models={User: {"ops": ops}}) as used:
        for read in READS.values():
            assert await used.twice(read) == UNCONFIGURED

        async def execute(session: Any) -> Any:
            return (await used.cache.execute(session, select(User).order_by(User.id))).scalars().all()

        assert await used.twice(execute) == CACHED
        async with database.transaction() as session:
            (await session.get(User, 1)).name = "new"
        assert await used.twice(execute) == ["condition_invalidated", "hit"]


async def test_a_model_that_is_none_is_never_cached_not_even_by_execute(database: Database) -> None:
    async with Used(database, models={"*": {}, AuditLog: None}) as used:
        assert await used.twice(get(AuditLog, 1)) == ["opted_out"] * 2

        async def execute(session: Any) -> Any:
            return await used.cache.execute(session, select(AuditLog))

        assert await used.twice(execute) == ["opted_out"] * 2
        assert await used.twice(get(User, 1)) == CACHED


async def test_without_the_star_only_named_models_are_cached(database: Database) -> None:
    async with Used(database, models={User: {}}) as used:
        assert await used.twice(get(User, 1)) == CACHED
        assert await used.twice(get(Order, 1)) == UNCONFIGURED


@pytest.mark.parametrize("models", [None, {}], ids=["none", "empty"])
async def test_with_no_models_nothing_is_cached_but_by_execute(models: Any, database: Database) -> None:
    async with Used(database, models=models) as used:
        assert await used.twice(get(User, 1)) == UNCONFIGURED


async def test_the_star_may_say_never(database: Database) -> None:
    async with Used(database, models={"*": None, User: {}}) as used:
        assert await used.twice(get(User, 1)) == CACHED
        assert await used.twice(get(Order, 1)) == ["opted_out"] * 2


async def test_a_subclass_has_what_its_base_has_unless_it_has_its_own(database: Database) -> None:
    async with Used(database, models={Employee: {"timeout": 10}, "*": {"timeout": 99}}) as used:
        assert await used.seconds(get(Manager, 1)) == pytest.approx(10)
    async with Used(
        database, models={Employee: {"timeout": 10}, Manager: {"timeout": 5}, Payment: {"ops": {"get"}}}
    ) as used:
        assert await used.seconds(get(Manager, 1)) == pytest.approx(5)
        assert await used.seconds(get(CardPayment, 2)) == pytest.approx(3600)
    async with Used(database, models={Employee: None, "*": {}}) as used:
        assert await used.twice(get(Manager, 1)) == ["opted_out"] * 2


async def test_a_base_that_is_not_mapped_itself_configures_its_subclasses(database: Database) -> None:
    async with Used(database, models={Base: {"timeout": 7}}) as used:
        assert await used.seconds(get(User, 1)) == pytest.approx(7)
        assert await used.seconds(get(Order, 1)) == pytest.approx(7)


async def test_of_several_models_the_strictest_counts(database: Database) -> None:
    join = entities(lambda: select(User).join(User.team).order_by(User.id))
    async with Used(database, models={User: {"timeout": 60}, Team: {"timeout": 20}}) as used:
        assert await used.seconds(join) == pytest.approx(20)
    async with Used(database, models={User: {}, Team: {"ops": {"get"}}}) as used:
        assert await used.twice(join) == UNCONFIGURED
    async with Used(database, models={User: {}, Team: None}) as used:
        assert await used.twice(join) == ["opted_out"] * 2
    async with Used(database, models={User: {}}) as used:
        assert await used.twice(join) == UNCONFIGURED


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(900, 900), (0.5, 0.5), (timedelta(minutes=2), 120), (timedelta(milliseconds=250), 0.25)],
    ids=["int", "float", "timedelta", "short"],
)
async def test_timeouts_are_seconds_of_any_kind(given: Any, seconds: float, database: Database) -> None:
    async with Used(database, models={User: {"timeout": given}}) as used:
        assert await used.seconds(get(User, 1)) == pytest.approx(seconds)
    async with Used(database, models={"*": {}}, default_timeout=given) as used:
        assert await used.seconds(get(User, 1)) == pytest.approx(seconds)
    async with Used(database, models={"*": {}}) as used:

        async def executed(session: Any) -> None:
            await used.cache.execute(session, select(User), timeout=given)

        async def with_option(session: Any) -> None:
            await session.execute(select(Order), execution_options={"sqlacache_timeout": given})

        assert await used.seconds(executed) == pytest.approx(seconds)
        assert await used.seconds(with_option) == pytest.approx(seconds)


async def test_jitter_shortens_timeouts_and_never_lengthens_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Used(database, models={"*": {"timeout": 100}}, jitter=0.2) as used:
        monkeypatch.setattr(random, "random", lambda: 0.5)
        assert await used.seconds(get(User, 1)) == pytest.approx(90)
        monkeypatch.setattr(random, "random", lambda: 0.0)
        assert await used.seconds(get(User, 2)) == pytest.approx(100)


async def test_a_backend_may_be_a_mapping(database: Database) -> None:
    async with Used(database, backend={"url": "mem://", "max_bytes": 500}, models={"*": {}}) as used:
        assert used.cache.bindings[0].store.max_bytes == 500
    async with Used(
        database, backend={"url": "mem://", "max_bytes": 5}, max_bytes=700, models={"*": {}}
    ) as used:
        assert used.cache.bindings[0].store.max_bytes == 700


async def test_pickle_is_an_explicit_choice_and_works(database: Database) -> None:
    async with Used(database, serializer="pickle", models={"*": {}}) as used:
        assert used.cache.settings.codec is not None
        assert not isinstance(used.cache.settings.codec, SafeCodec)
        assert await used.twice(READS["fetch"]) == CACHED
    async with Used(database, models={"*": {}}) as used:
        assert isinstance(used.cache.settings.codec, SafeCodec)


async def test_vary_separates_what_different_sessions_read(database: Database) -> None:
    async with Used(database, models={"*": {}}, vary=lambda session: session.info.get("tenant")) as used:

        def of(tenant: Any) -> Any:
            async def read(session: Any) -> Any:
                session.sync_session.info["tenant"] = tenant
                return await session.get(User, 1)

            return read

        assert await used.twice(of("a")) == CACHED
        assert await used.twice(of("b")) == CACHED
        assert await used.twice(of("a")) == ["hit", "hit"]
        async with database.transaction() as session:
            (await session.get(User, 1)).name = "new"
        assert await used.twice(of("a")) == ["row_invalidated", "hit"]
        assert await used.twice(of("b")) == ["row_invalidated", "hit"]


async def test_a_vary_that_raises_bypasses_and_does_not_break_the_query(database: Database) -> None:
    def vary(session: Any) -> Any:
        raise LookupError("no tenant")

    async with Used(database, models={"*": {}}, vary=vary) as used:
        assert await used.twice(get(User, 1)) == ["unkeyable_params"] * 2
        async with database.sessions() as session:
            assert "LookupError" in str(await used.cache.explain_get(session, User, 1))


async def test_the_environment_overrides_the_code(
    monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    monkeypatch.setenv("SQLACACHE_BACKEND", "mem://")
    monkeypatch.setenv("SQLACACHE_MODE", "off")
    async with Used(database, backend="redis://nowhere", mode="on", models={"*": {}}) as used:
        assert used.cache.mode == "off"
        assert await used.twice(get(User, 1)) == ["disabled"] * 2
    monkeypatch.setenv("SQLACACHE_MODE", "")
    monkeypatch.setenv("SQLACACHE_BACKEND", "")
    assert configure(mode="write_only", telemetry=None).mode == "write_only"


def test_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLACACHE_MODE", "onn")
    with pytest.raises(
        ConfigError,
        match=r"mode \(from SQLACACHE_MODE\): takes one of on, shadow, write_only, off, got 'onn'",
    ):
        configure(telemetry=None)
    monkeypatch.delenv("SQLACACHE_MODE")
    monkeypatch.setenv("SQLACACHE_BACKEND", "rediz://user:hunter2@host/0")
    with pytest.raises(ConfigError, match=r"backend \(from SQLACACHE_BACKEND\): .*'mem://'") as caught:
        configure(telemetry=None)
    assert "hunter2" not in str(caught.value)


def test_positional_arguments_are_those_of_the_example() -> None:
    cache = configure("mem://", {"*": {}}, "shop", 60, "sqlalchemy", telemetry=None)
    assert cache.name == "shop"
    assert cache.settings.default_timeout == 60
    with pytest.raises(TypeError):
        configure(backends="mem://")  # type: ignore[call-arg]  # the point of the test


def test_a_module_that_fails_while_it_is_imported_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_models.py").write_text("import os\nos.environ['NO_SUCH_SETTING']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"broken_models\.User.*cannot be imported: KeyError"):
        configure(models={"broken_models.User": {}}, telemetry=None)


async def test_a_module_that_configures_the_cache_before_its_models_are_defined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    (tmp_path / "early_models.py").write_text(
        "from sqlacache import configure\n"
        "cache = configure(models={'early_models.User': {}}, telemetry=None)\n"
        "from tests.support.models import User\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "early_models", raising=False)
    import early_models

    await early_models.cache.bind(database.engine)
    await early_models.cache.disconnect()
    monkeypatch.delitem(sys.modules, "early_models")


async def test_a_path_that_still_is_not_there_at_bind_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    (tmp_path / "late_models.py").write_text(
        "from sqlacache import configure\n"
        "cache = configure(models={'late_models.User': {}}, telemetry=None)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import late_models

    with pytest.raises(ConfigError, match=r"late_models\.User.*cannot be imported"):
        await late_models.cache.bind(database.engine)
    monkeypatch.delitem(sys.modules, "late_models")


@pytest.mark.parametrize("key", [SafeCodec, f"{MODELS}.Role"], ids=["class", "path"])
async def test_a_class_that_is_not_mapped_is_an_error_at_bind(key: Any, database: Database) -> None:
    cache = configure(models={key: {}, "*": {}}, telemetry=None)
    with pytest.raises(ConfigError, match=r"takes a mapped class, got .* which is not mapped"):
        await cache.bind(database.engine)
    async with database.sessions() as session:
        answer = await cache.explain_get(session, User, 1)
    assert answer.reason == "not_configured"  # and nothing is bound halfway


async def test_a_class_named_twice_is_an_error_at_bind(database: Database) -> None:
    cache = configure(models={User: {"timeout": 5}, f"{MODELS}.User": None}, telemetry=None)
    with pytest.raises(ConfigError, match=r"models\['tests\.support\.models\.User'\]: takes each class once"):
        await cache.bind(database.engine)


async def test_a_class_mapped_after_bind_has_what_the_star_says(database: Database) -> None:
    base = declarative_base(metadata=Base.metadata)
    async with Used(database, models={"*": {"timeout": 9}}) as used:
        late = type("LateTag", (base,), {"__table__": Tag.__table__})
        try:
            assert await used.seconds(get(late, 1)) == pytest.approx(9)
        finally:
            base.registry.dispose()


@pytest.mark.parametrize("timeout", [0, -5, "60", None, True], ids=repr)
async def test_a_wrong_timeout_of_one_execution_is_told_to_who_gave_it(
    timeout: Any, database: Database
) -> None:
    async with Used(database, models={"*": {}}) as used:
        async with database.sessions() as session:
            if timeout is None:
                await used.cache.execute(session, select(User), timeout=None)
                return
            with pytest.raises(ConfigError, match=r"sqlacache_timeout: takes seconds above 0"):
                await used.cache.execute(session, select(User), timeout=timeout)
            with pytest.raises(ConfigError, match=r"sqlacache_timeout: takes seconds above 0"):
                await session.execute(select(User), execution_options={"sqlacache_timeout": timeout})


async def test_configure_alone_touches_nothing() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    before = set(engine.sync_engine.dialect.__dict__)
    cache = configure(models={"*": {}}, telemetry=None)
    assert set(engine.sync_engine.dialect.__dict__) == before
    assert "bound to nothing" in repr(cache)
    await cache.disconnect()


async def test_writes_to_a_model_that_is_not_configured_evict_what_reads_it(database: Database) -> None:
    """Configuration says what is cached, not what is watched."""
    async with Used(database, models={User: {"ops": ()}}) as used:

        async def execute(session: Any) -> Any:
            statement = select(User.name, Team.name).join(User.team).order_by(User.id)
            return (await used.cache.execute(session, statement)).all()

        assert await used.twice(execute) == CACHED
        async with database.transaction() as session:
            await session.execute(insert(Team).values(id=9, name="x"))
            (await session.get(Team, 1)).name = "crimson"
        assert await used.twice(execute) == ["condition_invalidated", "hit"]
