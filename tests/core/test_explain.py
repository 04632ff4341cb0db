"""Explanations: every way out of a read in words, and nothing happens by asking."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, event, func, insert, select, text, update
from sqlalchemy.orm import joinedload

from sqlacache import configure
from sqlacache.reasons import BYPASSES as WORDS
from tests.support import writes
from tests.support.gates import before_commit
from tests.support.models import AuditLog, Manager, Order, Stock, User
from tests.support.reading import UNCACHED, Reader
from tests.support.reads import get, rows

pytestmark = pytest.mark.skipif(UNCACHED, reason="needs the cache")

users = rows(lambda: select(User.id, User.plan).order_by(User.id))


def plans() -> Any:
    return select(User.id, User.plan).order_by(User.id)


async def explained(reader: Reader, statement: Any, **options: Any) -> Any:
    async with reader.database.sessions() as session:
        if options:
            statement = statement.execution_options(**options)
        return await reader.cache.explain(session, statement)


async def got(reader: Reader, model: Any, key: Any) -> Any:
    async with reader.database.sessions() as session:
        return await reader.cache.explain_get(session, model, key)


async def test_a_hit_tells_what_would_be_served_and_since_when(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    answer = await got(reader, User, 1)
    assert (answer.decision, answer.reason, answer.op, answer.rows) == ("hit", None, "get", 1)
    assert answer.tables == ("users",)
    assert answer.dependencies == ("users:1",)
    assert 0 <= answer.age < 60
    assert 3500 < answer.expires_in <= 3600
    said = str(answer)
    assert said.startswith("HIT: 1 row(s) would be served from the cache")
    for part in (
        f"entry       {answer.key}",
        "depends on  users:1",
        "s ago, expires in",
        "the database took",
    ):
        assert part in said
    await reader.hit(get(User, 1))


async def test_the_entry_named_is_the_one_that_decisions_name(reader: Reader) -> None:
    decided = (await reader.miss(users, {"absent"})).decisions[0]
    answer = await explained(reader, plans())
    assert (answer.key, answer.op, answer.dependencies) == (decided.key, decided.op, decided.tags)


async def test_a_miss_because_nothing_is_stored(reader: Reader) -> None:
    answer = await explained(reader, plans())
    assert (answer.decision, answer.reason) == ("miss", "absent")
    assert str(answer).startswith("MISS (absent): nothing is stored for it yet")


async def test_a_miss_because_of_a_write_names_the_write(reader: Reader) -> None:
    await reader.warm(get(User, 1), users)
    await writes.change(User, 1, plan="pro")(reader.database)
    answer = await got(reader, User, 1)
    assert (answer.decision, answer.reason) == ("miss", "row_invalidated")
    assert answer.cause.table == "users"
    assert answer.cause.columns == ("plan",)
    said = str(answer)
    assert "the entry is no longer valid since UPDATE users" in said
    assert "changed     users:1: v1 -> v" in said
    assert "cause       row_update: UPDATE users of users:1 (plan) at " in said
    listed = await explained(reader, plans())
    assert listed.reason == "condition_invalidated"
    assert "UPDATE users of users:1 (plan)" in str(listed)


async def test_a_miss_because_a_whole_table_was_written(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    async with reader.database.connection() as connection:
        await connection.exec_driver_sql("CREATE TABLE made (id INTEGER)")
    answer = await got(reader, User, 1)
    assert answer.reason == "table_invalidated"
    assert "raw_write" in str(answer)


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (lambda cache: cache.invalidate(User, pks=[1]), "explicit"),
        (lambda cache: cache.invalidate(User), "explicit"),
        (lambda cache: cache.touched("users", columns={"plan"}), "touched"),
    ],
    ids=["rows", "model", "touched"],
)
async def test_a_miss_because_of_a_call(
    call: Callable[[Any], Awaitable[Any]], cause: str, reader: Reader
) -> None:
    await reader.warm(get(User, 1))
    await call(reader.cache)
    answer = await got(reader, User, 1)
    assert (answer.reason, answer.cause.cause) == ("manual_invalidated", cause)
    assert f"no longer valid since {cause}" in str(answer)


async def test_a_miss_because_everything_was_invalidated(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    await reader.cache.invalidate_all()
    answer = await got(reader, User, 1)
    assert answer.decision == "miss"
    assert answer.reason in ("manual_invalidated", "absent")


def store_of(reader: Reader) -> Any:
    return reader.cache.bindings[0].store


async def test_a_miss_because_the_entry_expired(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    key = (await got(reader, User, 1)).key
    store_of(reader).with_expiry(key, 1.0)
    for _ in range(2):  # asking does not change it
        answer = await got(reader, User, 1)
        assert (answer.decision, answer.reason) == ("miss", "expired")
    assert "the entry's time is over" in str(answer)
    assert (await reader.ask(get(User, 1))).misses[0].reason == "expired"


async def test_a_miss_because_the_entry_had_to_make_room(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    store_of(reader).max_bytes = store_of(reader).bytes
    await reader.ask(get(User, 2))
    answer = await got(reader, User, 1)
    assert answer.reason == "capacity_evicted"
    assert "had to make room" in str(answer)


async def test_a_miss_because_a_stamp_is_gone(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    del store_of(reader)._stamps["users:1"]
    answer = await got(reader, User, 1)
    assert answer.reason == "backend_evicted"
    assert "users:1: v1 -> gone" in str(answer)
    assert (await reader.ask(get(User, 1))).misses[0].reason == "backend_evicted"


async def test_a_miss_because_a_writer_is_between_its_phases(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(User, 2))
    async with before_commit(reader.database) as gate:
        writer = await gate.reached_by(writes.change(User, 1, plan="pro")(reader.database))
        answer = await got(reader, User, 1)
        assert answer.decision == "miss"
        assert answer.reason in ("write_in_flight", "row_invalidated")
        assert (await got(reader, User, 2)).decision == "hit"
        gate.open()
        await writer


BYPASSES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "never_cached": (lambda: select(AuditLog), "opted_out", "never cached"),
    "locking": (lambda: select(User).with_for_update(), "locking_read", "FOR UPDATE"),
    "text": (lambda: text("SELECT 1"), "raw_sql", "text that the cache cannot read"),
    "random": (
        lambda: select(User.id, func.random()),
        "nondeterministic",
        "random() is not known to be pure",
    ),
    "populate": (
        lambda: select(User).execution_options(populate_existing=True),
        "refresh",
        "the database's state anew",
    ),
    "skip": (lambda: select(User).execution_options(sqlacache_skip=True), "opted_out", "skip"),
    "yield_per": (lambda: select(User).execution_options(yield_per=10), "streaming", "streamed"),
    "update": (lambda: update(User).values(plan="x"), "raw_sql", "no SELECT"),
    "delete": (lambda: delete(User), "raw_sql", "no SELECT"),
    "insert": (lambda: insert(User).values(name="x"), "raw_sql", "no SELECT"),
    "text_update": (lambda: text("UPDATE users SET plan = 'x'"), "raw_sql", "not a read"),
}


@pytest.mark.parametrize(("build", "reason", "words"), BYPASSES.values(), ids=BYPASSES.keys())
async def test_a_bypass_says_why(build: Callable[[], Any], reason: str, words: str, reader: Reader) -> None:
    with reader.database.probe() as traffic:
        answer = await explained(reader, build())
    assert traffic.statements == []
    assert (answer.decision, answer.reason) == ("bypass", reason)
    assert str(answer).startswith(f"BYPASS ({reason}): ")
    assert words in str(answer)
    assert answer.advice == WORDS[reason].hit_if  # type: ignore[index]  # one of them, as was just said


async def test_a_bypass_by_mode_by_task_and_by_configuration(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    with reader.cache.bypassed():
        assert (await got(reader, User, 1)).reason == "disabled"
    await reader.cache.set_mode("write_only")
    assert (await got(reader, User, 1)).reason == "disabled"
    await reader.cache.set_mode("on")
    assert (await got(reader, User, 1)).decision == "hit"


async def test_a_read_of_an_unconfigured_operation_is_not_configured(reader: Reader) -> None:
    await reader.cache.disconnect()
    cache = configure(models={User: {"ops": {"get"}}}, telemetry=None)
    await cache.bind(reader.database.engine)
    try:
        async with reader.database.sessions() as session:
            assert (await cache.explain(session, plans())).reason == "not_configured"
            assert (await cache.explain_get(session, Order, 1)).reason == "not_configured"
            assert (await cache.explain_get(session, User, 1)).decision == "miss"
    finally:
        await cache.disconnect()


async def test_a_session_of_an_engine_that_is_not_bound_is_told_so_and_nothing_is_executed(
    reader: Reader,
) -> None:
    statements: list[str] = []
    engine = reader.database.truth_engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda c, k, statement, *rest: statements.append(statement))
    async with reader.database.truth_sessions() as session:
        for statement in (plans(), delete(User), text("DELETE FROM users")):
            answer = await reader.cache.explain(session, statement)
            assert answer.decision == "bypass"
        answer = await reader.cache.explain_get(session, User, 1)
        assert answer.reason == "not_configured"
        assert "no cache is bound to" in str(answer)
        assert not session.in_transaction()
    assert statements == []


async def test_a_transaction_that_wrote_is_told_to_bypass(reader: Reader) -> None:
    await reader.warm(get(User, 1), get(Order, 1))
    async with reader.database.sessions() as session:
        (await session.get(User, 2)).plan = "gold"
        await session.flush()
        assert (await reader.cache.explain_get(session, User, 1)).reason == "dirty_transaction"
        assert (await reader.cache.explain_get(session, Order, 1)).decision == "hit"


async def test_pending_changes_are_not_flushed_but_taken_into_account(reader: Reader) -> None:
    await reader.warm(users, get(Order, 1))
    async with reader.database.sessions() as session:
        user = await session.get(User, 1)
        user.plan = "pro"
        session.add(Order(id=100, user_id=1, created=user.last_seen))
        with reader.database.probe() as traffic, reader.watch() as seen:
            answer = await reader.cache.explain(session, plans())
        assert traffic.statements == []
        assert seen.decisions == []
        assert user in session.dirty
        assert any(isinstance(new, Order) for new in session.new)
        assert (answer.decision, answer.reason) == ("bypass", "dirty_transaction")
        assert "flush" in str(answer)
        with reader.watch() as seen:
            await session.execute(plans())
        assert [decision.reason for decision in seen.decisions] == ["dirty_transaction"]


async def test_asking_changes_nothing(reader: Reader) -> None:
    await reader.warm(users)
    store = store_of(reader)

    def state() -> Any:
        return (
            list(store._entries),
            dict(store._stamps).keys(),
            {table: set(shapes) for table, shapes in store._shapes.items()},
            dict(store._revisions),
            dict(store._gone),
        )

    before = state()
    stamps = {name: (stamp.version, stamp.expires_at) for name, stamp in store._stamps.items()}
    with reader.watch() as seen, reader.database.probe() as traffic:
        async with reader.database.sessions() as session:
            await reader.cache.explain(session, plans())
            await reader.cache.explain(session, select(Order).options(joinedload(Order.lines)))
            await reader.cache.explain_get(session, User, 1)
            await reader.cache.explain_get(session, Stock, ("north", 1))
            await reader.cache.explain_get(session, Manager, 1)
            assert not session.in_transaction()
            assert list(session.identity_map) == []
    assert state() == before
    assert {name: (s.version, s.expires_at) for name, s in store._stamps.items()} == stamps
    assert (seen.decisions, seen.invalidations) == ([], [])
    assert (traffic.statements, traffic.checkouts) == ([], 0)


async def test_asking_leaves_no_listener_on_the_session(reader: Reader) -> None:
    async with reader.database.sessions() as session:
        await reader.cache.explain(session, plans())
        await reader.cache.explain(session, text("SELECT 1"))
        assert not list(session.sync_session.dispatch.do_orm_execute.listeners)
        assert len((await session.execute(plans())).all()) == 5


async def test_a_composite_key_is_explained_in_the_order_of_the_primary_key(reader: Reader) -> None:
    await reader.warm(get(Stock, ("north", 1)))
    assert (await got(reader, Stock, ("north", 1))).decision == "hit"
    assert (await got(reader, Stock, ("north", 2))).reason == "absent"


async def test_a_get_that_the_session_would_answer_itself_is_explained_as_if_it_would_not(
    reader: Reader,
) -> None:
    await reader.warm(get(User, 1))
    async with reader.database.sessions() as session:
        await session.get(User, 1)
        assert (await reader.cache.explain_get(session, User, 1)).decision == "hit"


async def test_parameters_are_taken_as_execute_takes_them(reader: Reader) -> None:
    statement = select(User.name).where(User.id == bindparam("key"))
    async with reader.database.sessions() as session:
        await session.execute(statement, {"key": 1})
        assert (await reader.cache.explain(session, statement, {"key": 1})).decision == "hit"
        assert (await reader.cache.explain(session, statement, {"key": 2})).reason == "absent"


async def test_an_explanation_is_plain_data_for_machines(reader: Reader) -> None:
    await reader.warm(get(User, 1))
    await writes.change(User, 1, plan="pro")(reader.database)
    told = (await got(reader, User, 1)).to_dict()
    assert told["decision"] == "miss"
    assert told["changed"][0]["stamp"]
    assert told["cause"]["table"] == "users"
    json.dumps(told)
